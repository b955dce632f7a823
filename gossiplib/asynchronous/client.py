"""Gossip without rounds through Flower, the client: it acts when a model arrives.

`gossip_on_arrival(app, create)` makes such a client of any Flower ClientApp, with the
create functions of `merging`. `asynchronous.server` is the server that passes its
messages on. For many clients with linear models, use `asynchronous.engine`.
"""

import numpy as np
from flwr.app import (
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp

from gossiplib.asynchronous.merging import Create, Linear, check_made, merge_update
from gossiplib.core.averaging import as_dtype, check_model
from gossiplib.core.client import MODEL, gossip
from gossiplib.core.models import check_arrays, only_arrays, pack, unpack, unravel
from gossiplib.core.result import first_metrics

__all__ = ["gossip_on_arrival"]

BEFORE = "gossip.before"
AGES = "gossip.ages"


def gossip_on_arrival(app: ClientApp, create: Create = merge_update) -> ClientApp:
    """Make a client of a Flower ClientApp that learns from each model that arrives.

    Parameters
    ----------
    app : flwr.clientapp.ClientApp
        As in `client.gossip`. Its training is the `update` of `create`. The `config`
        that it gets has the model's "age", how many examples it has seen; the metric
        "num-examples" of its reply makes the model so much older (1 if it is missing).
    create : callable
        (received, before, update) -> new model, see `merging`. All arrays of a model
        are one row of `w`, end to end.

    Returns
    -------
    flwr.clientapp.ClientApp
        Answers `query.join`, `query.send`, `train`, `evaluate` and `query.model`. Train
        and evaluate messages that do not come from `asynchronous.Relay` go to `app` as
        they are.
    """
    inner = gossip(app)
    arriving = ClientApp()
    for name in ("join", "model"):
        arriving.query(name)(inner)
    arriving.evaluate()(inner)

    @arriving.query("send")
    def send(message: Message, context: Context) -> Message:
        """Tell the newest model and, last, its age."""
        _begin(message, context)
        newest = unpack(context.state[MODEL])
        said = [*newest, np.asarray([context.state[AGES]["newest"]])]
        return Message(RecordDict({"arrays": ArrayRecord(said)}), reply_to=message)

    @arriving.train()
    def receive(message: Message, context: Context) -> Message:
        """Make a new model of one that arrived and of the one that arrived before."""
        if "gossip" not in message.content:
            return app(message, context)
        _begin(message, context)
        config, cycle = message.content["config"], message.content["gossip"]["cycle"]
        like, ages = context.state[MODEL], context.state[AGES]
        *came, age = unpack(message.content["arrays"])
        check_model(came, unpack(like), whose="the received")
        received = _row(came, age[0])
        useful = bool(age[0] >= ages["newest"])
        metrics = MetricRecord()

        def update(models: Linear) -> Linear:
            told = ConfigRecord({**config, "age": float(models.age[0])})
            arrays = _record(models, like)
            message.content = RecordDict({"arrays": arrays, "config": told})
            reply = app(message, context)
            if not isinstance(reply, Message):
                raise TypeError(
                    f"the ClientApp returned {reply!r} instead of a Message"
                )
            if reply.has_error():
                raise RuntimeError(reply.error.reason)
            trained = only_arrays(reply.content)
            check_arrays(trained, like)
            metrics.update(first_metrics(reply.content))
            older = models.age[0] + metrics.get("num-examples", 1)
            return _row(unpack(trained), older)

        before = _row(unpack(context.state[BEFORE]), ages["before"])
        made = create(received, before, update)
        client = int(context.node_config["partition-id"])
        check_made(made, received, cycle, np.array([client]))
        newest = float(made.age[0])
        context.state[MODEL] = _record(made, like)
        context.state[BEFORE] = pack(came, like)
        context.state[AGES] = MetricRecord({"newest": newest, "before": float(age[0])})
        metrics.update({"age": newest, "useful": int(useful)})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return arriving


def _begin(message: Message, context: Context) -> None:
    """Take the initial model, if the client has none."""
    if MODEL not in context.state:
        if "initial" not in message.content:
            raise ValueError("this client has no model: it missed the start of the run")
        context.state[MODEL] = context.state[BEFORE] = message.content["initial"]
        context.state[AGES] = MetricRecord({"newest": 0.0, "before": 0.0})


def _row(arrays: list[np.ndarray], age: float) -> Linear:
    """Return the arrays of a model, end to end, as one row."""
    w = np.concatenate([array.ravel() for array in arrays])[None]
    return Linear(w, np.asarray([age], dtype=w.dtype))


def _record(model: Linear, like: ArrayRecord) -> ArrayRecord:
    """Return a model of one row with names, shapes and data types of another."""
    olds = unpack(like)
    shapes = dict(zip(like, (old.shape for old in olds), strict=True))
    news = unravel(model.w[0], shapes).values()
    typed = [as_dtype(a, old.dtype) for a, old in zip(news, olds, strict=True)]
    return pack(typed, like)
