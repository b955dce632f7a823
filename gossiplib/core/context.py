"""Whose is what in a client's Context; and what an average function is told.

Four share what a client keeps in its `context.state`: gossip, the wrapped app, the
discover and the average function. Each has a state of its own, and sees no other's.

A `RoundContext` is Flower's `Context` of the client, and a little more: who, when, and
from whom. An average function may keep records in its `state` for later rounds.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from flwr.app import Context, RecordDict

from gossiplib.core.averaging import Model, Models
from gossiplib.core.models import check_model

__all__ = ["RoundContext", "keep", "owned", "uniforms"]


def owned(context: Context, owner: str) -> Context:
    """Return a Context whose state has what an `owner` keeps, and nothing else."""
    prefix = f"{owner}."
    state = {
        name.removeprefix(prefix): record
        for name, record in context.state.items()
        if name.startswith(prefix)
    }
    node_config = {**context.node_config}  # who the client is, gossip reads too
    own = {"state": RecordDict(state), "node_config": node_config}
    return Context(**vars(context) | own)


def keep(context: Context, owner: str, state: RecordDict) -> None:
    """Put what an `owner` keeps now in the place of what it kept."""
    for name in [name for name in context.state if name.startswith(f"{owner}.")]:
        del context.state[name]
    context.state.update({f"{owner}.{name}": one for name, one in state.items()})


T = TypeVar("T")


class RoundContext(Context):
    """A client's Context, in one round.

    Where an engine calls a function for many clients at once, see `averaging`, all
    arrays in `state` have one axis more, the first, for the clients, and so has
    ``node_config["partition-id"]``.

    Parameters
    ----------
    context : flwr.app.Context
        The client's own. Records that the function puts in `state` are kept, unless
        it fails.
    server_round : int
        The round, 1, 2, ...
    senders : sequence of int
        Partition ids of the neighbours whose models came, in their order; shape
        (neighbours,) or (neighbours, clients).
    receivers : int or numpy.ndarray
        For `send`: to how many clients the message goes.

    Attributes
    ----------
    metrics : dict
        `send` may put numbers here, of each client; they come with those of training.
    unread : dict
        Senders whose message could not be read -> why, see `read`.
    """

    def __init__(
        self,
        context: Context,
        server_round: int,
        *,
        senders: Sequence[int] | np.ndarray = (),
        receivers: int | np.ndarray = 0,
    ) -> None:
        super().__init__(**vars(context))
        # A copy: the engine takes it over, if all goes well.
        self.state = RecordDict({**context.state})
        self.server_round = server_round
        self.senders = np.asarray(senders, dtype=np.int64)
        self.receivers = receivers
        self.metrics: dict[str, float | np.ndarray] = {}
        self.unread: dict[int, str] = {}

    @property
    def clients(self) -> np.ndarray:
        """The partition id of the client, shape `batch`."""
        return np.asarray(self.node_config["partition-id"])

    @property
    def batch(self) -> tuple[int, ...]:
        """The axis of many clients: () for one client, (clients,) for many at once.

        All arrays that a function gets have this axis first, see `averaging`.
        """
        return self.clients.shape

    def read(
        self,
        messages: Sequence[list[np.ndarray]],
        weights: np.ndarray,
        parse: Callable[[list[np.ndarray]], T],
    ) -> tuple[list[T], np.ndarray]:
        """Return what `parse` makes of each message that came, and the weights.

        One that it fails to read counts as lost: its weight goes to the own model, and
        its sender from `senders` to `unread`.

        Parameters
        ----------
        messages, weights
            The `neighbours` and weights of an average function.
        parse : callable
            message -> what it says.
        """
        read, bad, weights = [], [], np.array(weights, dtype=np.float64)
        for k, message in enumerate(messages):
            try:
                read.append(parse(message))
            except Exception as error:  # whatever comes of arrays that are made up
                if self.batch:  # these are the engine's own
                    raise
                bad.append(k)
                self.unread[int(self.senders[k])] = str(error)
        if bad:
            weights[0] += weights[np.add(bad, 1)].sum()
            weights = np.delete(weights, np.add(bad, 1))
            self.senders = np.delete(self.senders, bad)
        return read, weights

    def read_models(
        self,
        messages: Models,
        weights: np.ndarray,
        like: Model,
        decode: Callable[[Model], Model] = list,
    ) -> tuple[list[Model], np.ndarray]:
        """Return messages, decoded, in the shapes of `like`; see `read`.

        Parameters
        ----------
        messages, weights
            The `neighbours` and weights of an average function.
        like : list of numpy.ndarray
            What a message, decoded, must look like.
        decode : callable
            message -> arrays; by default those of the message.
        """

        def parse(message: Model) -> Model:
            decoded = decode(message)
            check_model(decoded, like, whose="the message's")
            return decoded

        return self.read(messages, weights, parse)


def uniforms(seed: int, context: RoundContext, size: int) -> np.ndarray:
    """Return random numbers in [0, 1) for this client and round.

    The same for a client alone as among many: each has a place of its own in one
    random stream a round.

    Parameters
    ----------
    seed : int
        Two protocols at once need two seeds.
    context : RoundContext
        Which client and round.
    size : int
        How many numbers a client needs. It must be the same for all clients.

    Returns
    -------
    numpy.ndarray
        Shape (size,), or (clients, size).
    """
    clients = context.clients
    first, last = int(clients.min()), int(clients.max())
    bits = np.random.PCG64([seed, context.server_round, *b"turn"]).advance(first * size)
    numbers = np.random.Generator(bits).random((last + 1 - first, size))
    return np.asarray(numbers[clients - first])
