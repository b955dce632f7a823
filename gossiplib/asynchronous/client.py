"""Gossip without rounds through Flower, the client: it acts when a model arrives.

`server` passes its messages on. For many clients with linear models, use `engine`.
"""

from typing import Any

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

from gossiplib.asynchronous.merging import CreateModel, Linear, check_made, merge_update
from gossiplib.core.averaging import as_dtypes
from gossiplib.core.client import MODEL, call_app, gossip
from gossiplib.core.models import check_arrays, check_model
from gossiplib.system.numbers import check_number, check_whole
from gossiplib.system.records import (
    first_metrics,
    only_arrays,
    pack,
    ravel,
    unpack,
    unravel,
)

__all__ = ["gossip_on_arrival"]

BEFORE = "gossip.before"
AGES = "gossip.ages"


def gossip_on_arrival(app: ClientApp, create: CreateModel = merge_update) -> ClientApp:
    """Make a client of a Flower ClientApp that learns from each model that arrives.

    Parameters
    ----------
    app : flwr.clientapp.ClientApp
        One that works with `FedAvg`. Its `train` is the `update` of `create`: its
        `config` has the model's "age", as of `merging.Linear`, and its metric
        "num-examples" makes the model so much older (1 if it is missing).
    create : callable
        (received, before, update) -> new model, see `merging`. All arrays of a model
        are one row of `w`, end to end.

    Returns
    -------
    flwr.clientapp.ClientApp
        Answers `query.join`, `query.send`, `train`, `evaluate` and `query.model`. Train
        and evaluate messages that do not come from `AsyncServer` go to `app` as they
        are.

    Raises
    ------
    TypeError
        If one of the two cannot be called.
    """
    if not callable(create):
        raise TypeError(f"create must be callable, not {create!r}")
    inner = gossip(app)
    arriving = ClientApp()
    for name in ("join", "model"):
        arriving.query(name)(inner)
    arriving.evaluate()(inner)

    @arriving.query("send")
    def send(message: Message, context: Context) -> Message:
        """Reply with the newest model and, last, its age."""
        newest, _, ages = _state(message, context)
        arrays = ArrayRecord([*unpack(newest), np.asarray([ages["newest"]])])
        return Message(RecordDict({"arrays": arrays}), reply_to=message)

    @arriving.train()
    def receive(message: Message, context: Context) -> Message:
        """Make a new model of the one that arrived, and of the one before it."""
        if "gossip" not in message.content:
            return call_app(app, message, context)
        like, before, ages = _state(message, context)
        arrived, configs = message.content.array_records, message.content.config_records
        cycle = check_whole("cycle", configs["gossip"]["cycle"], 0)
        *came, (age,) = unpack(arrived["arrays"])
        check_model(came, unpack(like), whose="the received")
        received = _row(came, age)
        metrics = MetricRecord()

        def update(models: Linear) -> Linear:
            aged = ConfigRecord({**configs["config"], "age": float(models.age[0])})
            arrays = _record(models, like)
            message.content = RecordDict({"arrays": arrays, "config": aged})
            reply = call_app(app, message, context)
            if reply.has_error():
                raise RuntimeError(reply.error.reason)
            trained = check_arrays(only_arrays(reply.content), like)
            metrics.update(first_metrics(reply.content))
            seen = check_number("num-examples", metrics.get("num-examples", 1))
            if not 0 <= seen < np.inf:
                raise ValueError(f"num-examples is how many were seen; got {seen}")
            return _row(unpack(trained), models.age[0] + seen)

        made = create(received, _row(unpack(before), ages["before"]), update)
        client = int(context.node_config["partition-id"])
        made = check_made(made, received, cycle, np.array([client]))
        newest = float(made.age[0])
        metrics.update({"age": newest, "useful": int(age >= ages["newest"])})
        context.state[MODEL] = _record(made, like)
        context.state[BEFORE] = pack(came, like)
        context.state[AGES] = MetricRecord({"newest": newest, "before": float(age)})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return arriving


def _state(
    message: Message, context: Context
) -> tuple[ArrayRecord, ArrayRecord, dict[str, Any]]:
    """Return the newest model, the one received before, and their ages."""
    state = context.state
    if MODEL not in state:
        if "initial" not in message.content:
            raise ValueError("this client has no model: it missed the start of the run")
        state[MODEL] = state[BEFORE] = message.content["initial"]
        state[AGES] = MetricRecord({"newest": 0.0, "before": 0.0})
    arrays = state.array_records
    return arrays[MODEL], arrays[BEFORE], dict(state.metric_records[AGES])


def _row(arrays: list[np.ndarray], age: Any) -> Linear:
    """Return a model as a row, all its arrays end to end, with 0 for what is masked.

    The numbers are floats, and wide enough for a sum; so is the age, of any model.
    """
    w = ravel(arrays)[None]
    w = np.where(np.isinf(w), 0, w).astype(np.result_type(w, np.float32))
    return Linear(w, np.asarray([age], dtype=np.float64))


def _record(model: Linear, like: ArrayRecord) -> ArrayRecord:
    """Return a model of one row with names, shapes and data types of another."""
    own = unpack(like)
    shapes = {name: old.shape for name, old in zip(like, own, strict=True)}
    return pack(as_dtypes(unravel(model.w[0], shapes).values(), own), like)
