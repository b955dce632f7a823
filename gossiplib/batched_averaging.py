"""Average functions, called for many clients at once.

For weighted means there is one sparse product instead, see `vectorized`.
"""

import functools
from collections.abc import Callable, Iterator

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, RecordDict

from gossiplib.arrays import array_bytes
from gossiplib.averaging import Average, Model, as_dtype
from gossiplib.links import Links
from gossiplib.rows import place, take
from gossiplib.stacked import Shapes, StackedStates, chunks, split
from gossiplib.turn import Turn

__all__ = ["Exchange"]

#: How often the clients of a kind are also called alone, to compare.
COMPARED = 3


class Exchange:
    """What clients say to each other, and make of what they hear.

    Clients that are alike in what an average function can see (how many others they
    hear, how many examples they validate on, what they remember) are called together.
    In the first rounds, one of each group is also called alone, since a function that
    takes the first axis for one of a model's would go wrong in silence.

    Parameters
    ----------
    average : callable
        Average function, see `averaging`.
    shapes : dict[str, tuple of int]
        Names and shapes of a model's arrays.
    n : int
        Number of clients.
    chunk : int
        Models that are best worked on at once.
    kinds : numpy.ndarray, optional
        Clients of different kinds are not called together.

    Attributes
    ----------
    message_bytes : int
        Size of the last message, as Flower encodes it.
    """

    def __init__(
        self,
        average: Average,
        shapes: Shapes,
        n: int,
        chunk: int,
        kinds: np.ndarray | None = None,
    ) -> None:
        self.average, self.shapes, self.n, self.chunk = average, shapes, n, chunk
        self.kinds = np.zeros(n, dtype=np.int64) if kinds is None else kinds
        self.states = StackedStates(n)
        self._compared: dict[tuple[int, ...], int] = {}
        self.message_bytes = 0  # of what `send` made

    def __call__(
        self,
        trained: torch.Tensor,
        links: Links,
        here: np.ndarray,
        server_round: int,
    ) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        """Let the clients that are here send, and average what they hear.

        Parameters
        ----------
        trained : torch.Tensor
            All clients' models, one a row.
        links : Links
            Who is to hear whom in this round.
        here : numpy.ndarray
            Which clients send and average.
        server_round : int
            The round.

        Yields
        ------
        tuple
            Clients that heard someone, and their averages as rows.

        Raises
        ------
        ValueError
            If the averages are of other shapes than the models, or depend on who else
            is averaged at the same time.
        """
        payload = self._send(trained, links, here, server_round)
        links = links.among(here)
        for group, senders, weights in links.by_degree(self.kinds, self.states.kinds()):
            size = max(1, self.chunk // len(weights))
            for some in chunks(np.arange(len(group)), size):
                near = [
                    self._models(trained, j) if payload is None else _read(payload, j)
                    for j in senders[:, some]
                ]
                mixed = self._average(
                    group[some],
                    self._models(trained, group[some]),
                    near,
                    weights[:, some],
                    functools.partial(self._turn, server_round),
                    senders[:, some],
                )
                yield group[some], torch.from_numpy(mixed)

    def _average(
        self,
        ids: np.ndarray,
        own: Model,
        near: list[Model],
        weights: np.ndarray,
        turn: Callable[..., Turn],
        senders: np.ndarray,
    ) -> np.ndarray:
        """Return the averages of some clients, as rows."""

        def call(at: slice | int) -> tuple[Model, RecordDict]:
            now = turn(ids[at], senders=senders[:, at])
            said = [_pick(model, at) for model in near]
            return self.average(_pick(own, at), said, weights[:, at], now), now.state

        like = (len(near), int(self.kinds[ids[0]]))
        mixed = self._together(
            call, ids, functools.partial(_check_averages, own=own), like
        )
        flat = [np.reshape(a, (len(a), -1)) for a in mixed]
        return as_dtype(np.concatenate(flat, axis=1), own[0].dtype)

    def _send(
        self,
        trained: torch.Tensor,
        links: Links,
        here: np.ndarray,
        server_round: int,
    ) -> Model | None:
        """Let clients say what they do; None is their models."""
        if not hasattr(self.average, "send"):
            return None
        receivers = np.bincount(links.senders, minlength=self.n)
        payload: Model = []
        kinds = self.states.kinds()
        for kind in np.unique(kinds[here]):
            group = np.flatnonzero(here & (kinds == kind))
            for ids in chunks(group, self.chunk):
                turn = functools.partial(self._turn, server_round)
                message = self._say(
                    ids, self._models(trained, ids), turn, receivers[ids]
                )
                if not payload:
                    payload = [
                        np.zeros((self.n, *a.shape[1:]), a.dtype) for a in message
                    ]
                for array, part in zip(payload, message, strict=True):
                    array[ids] = part
        if payload:
            self.message_bytes = array_bytes(
                ArrayRecord([np.asarray(a[0]) for a in payload])
            )
        return payload

    def _say(
        self,
        ids: np.ndarray,
        own: Model,
        turn: Callable[..., Turn],
        receivers: np.ndarray,
    ) -> Model:
        """Return the messages of some clients, stacked."""

        def call(at: slice | int) -> tuple[Model, RecordDict]:
            now = turn(ids[at], receivers=receivers[at])
            return self.average.send(_pick(own, at), now), now.state

        return self._together(
            call, ids, functools.partial(_check_messages, clients=len(ids)), ()
        )

    def _together(
        self,
        call: Callable[[slice | int], tuple[Model, RecordDict]],
        ids: np.ndarray,
        check: Callable[[Model], None],
        like: tuple[int, ...],
    ) -> Model:
        """Call a function for many clients, and for the first of them alone.

        What is alike has been compared often enough after some times.
        """
        made, state = call(slice(None))
        check(made)
        compared = self._compared.get(like, 0)
        if len(ids) > 1 and compared < COMPARED:
            self._compared[like] = compared + 1
            alone, _ = call(0)
            _check_alone(made, alone, int(ids[0]))
        self.states.put(ids, state)
        return [np.asarray(a) for a in made]

    def _turn(self, server_round: int, ids: np.ndarray | int, **more) -> Turn:
        config = {"partition-id": ids, "num-partitions": self.n}
        context = Context(0, 0, config, self.states.take(ids), {})
        return Turn(context, server_round, **more)

    def _models(self, trained: torch.Tensor, clients: np.ndarray) -> Model:
        rows = take(trained, place(clients, trained.device)).cpu().numpy()
        rows.flags.writeable = False  # as in a client: others' models may be beside it
        return list(split(rows, self.shapes).values())


def _read(payload: Model, clients: np.ndarray) -> Model:
    said = [array[clients] for array in payload]
    for array in said:
        array.flags.writeable = False
    return said


def _pick(model: Model, at: slice | int) -> Model:
    return [array[at] for array in model]


def _check_averages(mixed: Model, own: Model) -> None:
    """Raise ValueError unless averages are as the models they come from."""
    found, wanted = [np.shape(a) for a in mixed], [a.shape for a in own]
    if found != wanted:
        raise ValueError(
            f"the average function returned arrays of shapes {found} for {wanted}: the "
            "first axis is the clients"
        )


def _check_messages(message: Model, clients: int) -> None:
    """Raise ValueError unless there is a message for each client."""
    found = [np.shape(a) for a in message]
    if not found or any(shape[:1] != (clients,) for shape in found):
        raise ValueError(
            f"send returned arrays of shapes {found} for {clients} clients: the first "
            "axis is the clients"
        )


def _check_alone(together: Model, alone: Model, client: int) -> None:
    """Raise ValueError unless a client has the same alone as the first among others."""
    same = len(together) == len(alone) and all(
        np.shape(a)[1:] == np.shape(b)
        and np.allclose(a[0], b, rtol=1e-3, atol=1e-4, equal_nan=True)
        for a, b in zip(together, alone, strict=True)
    )
    if not same:
        raise ValueError(
            f"the average function gives client {client} another average alone than "
            "together with others: the first axis of all arrays is the clients, and "
            "each of the weights is an array of them"
        )
