"""The gossip client: any Flower ClientApp, with neighbours.

`gossip(app)` wraps an ordinary ClientApp (one that works with `FedAvg`) and adds what
FED-0002 asks of a client: a list of neighbours, a function to discover them and a
function to average its model with theirs. The client's own model and its neighbours
live in its `context.state`; the wrapped app sees its own model as `arrays` and does
not know that it gossips. The server that calls these functions is `server.Gossip`.

A client changes its state only as the last step of a call. So a call that raises
leaves model and neighbours as they were, whether or not the engine rolls back.
"""

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from gossiplib.core.averaging import (
    Average,
    Model,
    as_dtypes,
    as_model,
    name_of,
    weighted_mean,
)
from gossiplib.core.context import RoundContext, keep, owned
from gossiplib.core.models import check_arrays, check_model, check_variances, in_order
from gossiplib.system.numbers import Seed, check_whole, rng, seed_of
from gossiplib.system.records import (
    first_metrics,
    only_arrays,
    pack,
    record_of,
    unpack,
    wholes,
)

__all__ = ["accept_all", "choose", "gossip"]

MODEL = "gossip.model"
RUN = "gossip.run"
NEIGHBOURS = "gossip.neighbours"
RULE = "gossip.rule"

#: (candidates, server_round, context) -> neighbours
Discover: TypeAlias = Callable[[list[int], int, Context], list[int]]


def accept_all(candidates: list[int], server_round: int, context: Context) -> list[int]:
    """Return all clients that the server's graph offers: a discover function.

    Parameters
    ----------
    candidates : list of int
        Whom the graph offers.
    server_round : int
        The round.
    context : flwr.app.Context
        The client's own.
    """
    return candidates


def choose(k: int, seed: Seed = 0) -> Discover:
    """Return a discover function that chooses k candidates at random at each call.

    Parameters
    ----------
    k : int
        How many; with fewer candidates it takes all.
    seed : int or numpy.random.Generator
        With the client and the round, it decides the choice.

    Raises
    ------
    ValueError
        If k is not at least 1.
    """
    # A partial and no closure: so a checkpoint sees k and the seed.
    return partial(_some, check_whole("k", k, 1), seed_of(seed))


def _some(
    k: int, seed: int, candidates: list[int], server_round: int, context: Context
) -> list[int]:
    """Return k of the candidates, drawn for this client and round."""
    client = int(context.node_config["partition-id"])
    order = rng(seed, client, server_round).permutation(candidates)
    return [int(j) for j in order[:k]]


def gossip(
    app: ClientApp,
    *,
    average: Average = weighted_mean,
    discover: Discover = accept_all,
) -> ClientApp:
    """Make a gossip client of a Flower ClientApp.

    Parameters
    ----------
    app : flwr.clientapp.ClientApp
        Its `train` takes `arrays` and `config` (FedAvg's default names of records)
        from the message and replies with one ArrayRecord and a MetricRecord, as
        `FedAvg` asks. Its `evaluate` likewise.
    average : callable
        Average function, see `averaging`. If it has an attribute `send`, that says what
        leaves the client for its neighbours, in place of its model.
    discover : callable
        (candidates, server_round, context) -> neighbours: chooses among the clients
        that the server's graph offers. What it keeps in ``context.state`` is its own.
        It may have a method ``hear(own, neighbours, context)``, which is called when
        neighbours' models came, before they are averaged: what it keeps there in the
        state, such as distances, it finds again when it has to choose. The context is a
        `RoundContext`, and tells `senders`; the models can be read only.

    Returns
    -------
    flwr.clientapp.ClientApp
        Answers `query.join`, `query.discover`, `train`, `train.average`, `evaluate`,
        `query.model`, and for checkpoints `query.state` and `query.restore`.
        Train and evaluate messages that do not come from `server.Gossip` go to `app`
        as they are, so it works with `FedAvg` too.

    Raises
    ------
    TypeError
        If one of the three cannot be called.
    ValueError
        If discover would hear models, and average sends something else.
    """
    for name, function in (("app", app), ("average", average), ("discover", discover)):
        if not callable(function):
            raise TypeError(f"{name} must be callable, not {function!r}")
    gossiping = ClientApp()
    send, hear = getattr(average, "send", None), getattr(discover, "hear", None)
    if send is not None and hear is not None:
        raise ValueError(
            f"discover would hear models, but {name_of(average)} sends something else"
        )
    rule = ConfigRecord({"average": name_of(average), "discover": name_of(discover)})

    @gossiping.query("join")
    def join(message: Message, context: Context) -> Message:
        """Begin a run: forget an earlier one, and tell the partition id."""
        context.state.clear()
        if "gossip" in message.content:
            context.state[RUN] = message.content["gossip"]
        keys = ("partition-id", "num-partitions")
        if missing := [key for key in keys if key not in context.node_config]:
            raise ValueError(f"the node_config of this client lacks {missing}")
        who = ConfigRecord({key: int(context.node_config[key]) for key in keys})
        return Message(RecordDict({"gossip": who}), reply_to=message)

    @gossiping.query("discover")
    def discover_neighbours(message: Message, context: Context) -> Message:
        """Choose neighbours among the candidates."""
        offer = record_of(message.content, "gossip", ConfigRecord)
        candidates = wholes(offer, "candidates")
        server_round = check_whole("server-round", offer.get("server-round"), 0)
        own = owned(context, "discover")
        found = discover([*candidates], server_round, own)
        chosen = sorted({check_whole("what discover chose", j, 0) for j in found})
        if not set(chosen) <= set(candidates):
            raise ValueError(f"discover chose {chosen}, but was offered {candidates}")
        neighbours = ConfigRecord({"neighbours": chosen})
        keep(context, "discover", own.state)
        context.state[NEIGHBOURS] = neighbours
        return Message(RecordDict({"gossip": neighbours}), reply_to=message)

    @gossiping.train()
    def train(message: Message, context: Context) -> Message:
        """Train the own model: M_i^(t) becomes M_i^(t+1/2)."""
        if "gossip" not in message.content:
            return call_app(app, message, context)
        call = record_of(message.content, "gossip", ConfigRecord)
        if call.get("run", _run(context)) != _run(context):
            forgot = ConfigRecord({"joined": False})
            return Message(RecordDict({"gossip": forgot}), reply_to=message)
        model = _own_model(message, context)
        reply = _call(app, message, context, model)
        if reply.has_error():
            return reply
        trained = check_arrays(only_arrays(reply.content), model)
        metrics = first_metrics(reply.content)
        # What else the app replies, under whatever names, is not for the server.
        reply.content = RecordDict({"arrays": trained, "metrics": metrics})
        if send is not None:
            now = RoundContext(
                owned(context, "average"),
                check_whole("server-round", call.get("server-round"), 0),
                receivers=check_whole("receivers", call.get("receivers"), 0),
            )
            encoded = as_model(send(unpack(trained), now), "send")
            check_model(encoded, whose="the message of send:")
            reply.content["arrays"] = ArrayRecord(encoded)
            reply.content["gossip"] = ConfigRecord({"encoded": True})
            metrics.update({key: float(value) for key, value in now.metrics.items()})
            keep(context, "average", now.state)
        context.state[MODEL] = trained
        return reply

    @gossiping.train("average")
    def average_models(message: Message, context: Context) -> Message:
        """Average with the neighbours: M_i^(t+1/2) becomes M_i^(t+1)."""
        call = record_of(message.content, "gossip", ConfigRecord)
        senders = wholes(call, "senders")
        if NEIGHBOURS not in context.state or MODEL not in context.state:
            raise ValueError("this client has no neighbours or no model to average")
        known = wholes(record_of(context.state, NEIGHBOURS, ConfigRecord), "neighbours")
        if not set(senders) <= set(known):
            raise ValueError(f"models came from {senders}, but neighbours are {known}")
        model = record_of(context.state, MODEL, ArrayRecord)
        own, neighbours = unpack(model), []
        for j in senders:
            came = record_of(message.content, str(j), ArrayRecord)
            whose = f"client {j}'s"
            if send is None:
                neighbours.append(unpack(in_order(came, model, whose)))
                check_model(neighbours[-1], own, whose, model)
            else:
                neighbours.append(unpack(came))
                check_model(neighbours[-1], whose=whose)
        # A server of your own need not count its rounds.
        server_round = check_whole("server-round", call.get("server-round", 0), 0)
        if hear is not None:
            told = RoundContext(
                owned(context, "discover"), server_round, senders=senders
            )
            hear(_views(own), [_views(model) for model in neighbours], told)
        now = RoundContext(owned(context, "average"), server_round, senders=senders)
        made = average([*own], [*neighbours], np.array(call["weights"]), now)
        mixed = as_model(made, "the average function")
        check_model(mixed, own, "the average: its", model)
        known_models = neighbours if send is None else []
        check_variances(mixed, [own, *known_models], model)
        kinds = [array.dtype for array in mixed]
        mixed = as_dtypes(mixed, own, known_models)
        if kinds != [array.dtype for array in mixed]:  # what was finite may not be now
            check_model(mixed, own, "the average: its", model)
        if hear is not None:
            keep(context, "discover", told.state)
        keep(context, "average", now.state)
        context.state[MODEL] = pack(mixed, like=model)
        content = RecordDict()
        if now.unread:
            reasons = now.unread.items()
            content["unread"] = ConfigRecord({f"client {j}": w for j, w in reasons})
        return Message(content, reply_to=message)

    @gossiping.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        """Evaluate the own model."""
        if "gossip" not in message.content:
            return call_app(app, message, context)
        return _call(app, message, context, _own_model(message, context))

    @gossiping.query("model")
    def show_model(message: Message, context: Context) -> Message:
        """Show the own model to whoever measures the run."""
        model = _own_model(message, context)
        return Message(RecordDict({"arrays": model}), reply_to=message)

    @gossiping.query("state")
    def tell_state(message: Message, context: Context) -> Message:
        """Tell all that this client keeps, and its functions, for a checkpoint."""
        return Message(RecordDict({**context.state, RULE: rule}), reply_to=message)

    @gossiping.query("restore")
    def restore_state(message: Message, context: Context) -> Message:
        """Go back to what a checkpoint has kept, the number of the run included."""
        content = RecordDict({**message.content})
        kept = record_of(content, RULE, ConfigRecord)
        for what, name in rule.items():
            if kept[what] != name:
                raise ValueError(
                    f"the checkpoint is of clients that {what} by {kept[what]!r}, and "
                    f"this one does so by {name!r}"
                )
        del content[RULE]
        context.state.clear()
        context.state.update(content)
        return Message(RecordDict(), reply_to=message)

    return gossiping


def _views(model: Model) -> Model:
    """Return a model that shows the same numbers, and refuses to be written to."""
    views = [array.view() for array in model]
    for view in views:
        view.flags.writeable = False
    return views


def _run(context: Context) -> object:
    """Return the number of the run that the client joined, if it was told one."""
    none = ConfigRecord()
    return record_of(context.state, RUN, ConfigRecord, none).get("run")


def _own_model(message: Message, context: Context) -> ArrayRecord:
    """Return the client's model; in its first round, the one that the server sends."""
    for source, name in ((context.state, MODEL), (message.content, "arrays")):
        if name in source:
            return record_of(source, name, ArrayRecord)
    raise ValueError("this client has no model yet: it missed the start of the run")


def _call(
    app: ClientApp, message: Message, context: Context, model: ArrayRecord
) -> Message:
    """Call the wrapped app as `FedAvg` would, with the own model as `arrays`."""
    # A copy: the app may take the record apart.
    content = {"arrays": model.copy(), "config": message.content["config"]}
    message.content = RecordDict(content)
    return call_app(app, message, context)


def call_app(app: ClientApp, message: Message, context: Context) -> Message:
    """Call a wrapped app, which has a state of its own in the context."""
    own = owned(context, "app")
    reply = app(message, own)
    keep(context, "app", own.state)
    if not isinstance(reply, Message):
        raise TypeError(f"the ClientApp returned {reply!r} instead of a Message")
    return reply
