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

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from gossiplib.core.averaging import Average, as_dtype, check_model, weighted_mean
from gossiplib.core.context import RoundContext
from gossiplib.core.models import check_arrays, only_arrays, pack, unpack
from gossiplib.system.numbers import rng

__all__ = ["accept_all", "choose", "gossip"]

MODEL = "gossip.model"
RUN = "gossip.run"
NEIGHBOURS = "gossip.neighbours"

#: (candidates, server_round, context) -> neighbours
Discover = Callable[[list[int], int, Context], list[int]]


def accept_all(candidates: list[int], server_round: int, context: Context) -> list[int]:
    """Take all clients that the server's graph offers as neighbours."""
    return candidates


def choose(k: int, seed: int = 0) -> Discover:
    """Return a discover function that chooses k candidates at random at each call.

    With fewer than k candidates it takes all. The choice depends on `seed`, the client
    and the round.
    """
    if k < 1:
        raise ValueError(f"a client must choose at least 1 neighbour; k is {k}")

    def discover(
        candidates: list[int], server_round: int, context: Context
    ) -> list[int]:
        client = int(context.node_config["partition-id"])
        return rng(seed, client, server_round).permutation(candidates)[:k].tolist()

    return discover


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
        that the server's graph offers.

    Returns
    -------
    flwr.clientapp.ClientApp
        Answers `query.join`, `query.discover`, `train`, `train.average`, `evaluate`,
        `query.model`, and for checkpoints `query.state` and `query.restore`.
        Train and evaluate messages that do not come from `server.Gossip` go to `app`
        as they are, so it works with `FedAvg` too.
    """
    gossiping = ClientApp()
    send = getattr(average, "send", None)

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
        offer = message.content["gossip"]
        candidates = list(offer["candidates"])
        found = discover(candidates, offer["server-round"], context)
        chosen = sorted({int(j) for j in found})
        if not set(chosen) <= set(candidates):
            raise ValueError(f"discover chose {chosen}, but was offered {candidates}")
        neighbours = ConfigRecord({"neighbours": chosen})
        context.state[NEIGHBOURS] = neighbours
        return Message(RecordDict({"gossip": neighbours}), reply_to=message)

    @gossiping.train()
    def train(message: Message, context: Context) -> Message:
        """Train the own model: M_i^(t) becomes M_i^(t+1/2)."""
        if "gossip" not in message.content:
            return app(message, context)
        told = message.content["gossip"]
        if told.get("run", _run(context)) != _run(context):
            forgot = ConfigRecord({"joined": False})
            return Message(RecordDict({"gossip": forgot}), reply_to=message)
        model = _own_model(message, context)
        reply = _call(app, message, context, model)
        if reply.has_error():
            return reply
        trained = only_arrays(reply.content)
        check_arrays(trained, model)
        if send is not None:
            turn = RoundContext(
                context, told["server-round"], receivers=told["receivers"]
            )
            said = send(unpack(trained), turn)
            check_model(said, said, whose="the message of send:")
            name = next(iter(reply.content.array_records))
            reply.content[name] = ArrayRecord(list(map(np.asarray, said)))
            reply.content["gossip"] = ConfigRecord({"encoded": True})
            context.state.update(turn.state)
        context.state[MODEL] = trained
        return reply

    @gossiping.train("average")
    def average_models(message: Message, context: Context) -> Message:
        """Average with the neighbours: M_i^(t+1/2) becomes M_i^(t+1)."""
        sent = message.content["gossip"]
        senders = list(sent["senders"])
        if NEIGHBOURS not in context.state or MODEL not in context.state:
            raise ValueError("this client has no neighbours or no model to average")
        known = context.state[NEIGHBOURS]["neighbours"]
        if not set(senders) <= set(known):
            raise ValueError(f"models came from {senders}, but neighbours are {known}")
        model = context.state[MODEL]
        own = unpack(model)
        neighbours = [unpack(message.content[str(j)]) for j in senders]
        for j, neighbour in zip(senders, neighbours, strict=True):
            like = own if send is None else neighbour
            check_model(neighbour, like, whose=f"client {j}'s")
        turn = RoundContext(context, sent.get("server-round", 0), senders=senders)
        mixed = average(own, neighbours, np.array(sent["weights"]), turn)
        check_model(mixed, own)
        mixed = [as_dtype(m, o.dtype) for m, o in zip(mixed, own, strict=True)]
        context.state.update(turn.state)
        context.state[MODEL] = pack(mixed, like=model)
        return Message(RecordDict(), reply_to=message)

    @gossiping.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        """Evaluate the own model."""
        if "gossip" not in message.content:
            return app(message, context)
        return _call(app, message, context, _own_model(message, context))

    @gossiping.query("model")
    def show_model(message: Message, context: Context) -> Message:
        """Show the own model to whoever measures the run."""
        model = _own_model(message, context)
        return Message(RecordDict({"arrays": model}), reply_to=message)

    @gossiping.query("state")
    def tell_state(message: Message, context: Context) -> Message:
        """Tell all that this client keeps, for a checkpoint."""
        return Message(RecordDict(context.state), reply_to=message)

    @gossiping.query("restore")
    def restore_state(message: Message, context: Context) -> Message:
        """Go back to what was told for a checkpoint, the number of the run included."""
        context.state.clear()
        context.state.update(message.content)
        return Message(RecordDict(), reply_to=message)

    return gossiping


def _run(context: Context) -> int | None:
    """Return the number of the run that the client joined."""
    return context.state[RUN].get("run") if RUN in context.state else None


def _own_model(message: Message, context: Context) -> ArrayRecord:
    """Return the client's model; in its first round, the one that the server sends."""
    if MODEL in context.state:
        return context.state[MODEL]
    if "arrays" in message.content:
        return message.content["arrays"]
    raise ValueError("this client has no model yet: it missed the start of the run")


def _call(
    app: ClientApp, message: Message, context: Context, model: ArrayRecord
) -> Message:
    """Call the wrapped app as `FedAvg` would, with the own model as `arrays`."""
    # A copy: the app may take the record apart.
    content = {"arrays": model.copy(), "config": message.content["config"]}
    message.content = RecordDict(content)
    reply = app(message, context)
    if not isinstance(reply, Message):
        raise TypeError(f"the ClientApp returned {reply!r} instead of a Message")
    return reply
