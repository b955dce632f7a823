"""Average functions, called for many clients at once.

For weighted means there is one sparse product instead, see `vectorized`.

The links of a round as arrays: who hears whom, and how much.

What `topology` and `mixing` tell of a graph, in the form that the vectorised engine
computes with.
"""

import functools
import inspect
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import networkx as nx
import numpy as np
import torch
from flwr.app import ArrayRecord, Context, RecordDict
from scipy.sparse import csr_array

from gossiplib.core import mixing
from gossiplib.core.averaging import Average, Model, as_dtype
from gossiplib.core.context import RoundContext
from gossiplib.core.models import Shapes, array_bytes, unravel
from gossiplib.vectorized.rows import StackedStates, chunks, place, take

__all__ = ["Exchange", "Links", "weigh"]


class Links(NamedTuple):
    """The mixing matrix W without its diagonal, link by link.

    Attributes
    ----------
    n : int
        Number of clients.
    receivers, senders : numpy.ndarray
        The clients i and j of each link, by ascending i, then j.
    weights : numpy.ndarray
        W_ij of each link. What is left of 1 a client gives to its own model.
    """

    n: int
    receivers: np.ndarray
    senders: np.ndarray
    weights: np.ndarray

    def among(self, here: np.ndarray) -> "Links":
        """Return the links between clients of which `here` is True."""
        if here.all():
            return self
        kept = here[self.receivers] & here[self.senders]
        return Links(
            self.n, self.receivers[kept], self.senders[kept], self.weights[kept]
        )

    def matrix(self, like: torch.Tensor) -> torch.Tensor:
        """Return W as a sparse tensor, of the device and the data type of `like`."""
        links = (self.receivers, self.senders, self.weights)
        W = mixing.matrix(self.n, *links, sparse=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that sparse tensors are in beta
            return torch.sparse_csr_tensor(
                torch.from_numpy(W.indptr.astype(np.int64)),
                torch.from_numpy(W.indices.astype(np.int64)),
                torch.from_numpy(W.data).to(like.dtype),
                W.shape,
                device=like.device,
            )

    def by_degree(
        self, *also: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Group the clients that hear someone by how many they hear.

        Parameters
        ----------
        *also : numpy.ndarray
            More properties of each client, in which those of a group agree.

        Yields
        ------
        tuple of numpy.ndarray
            Clients, shape (clients,); their senders, (senders, clients); and the
            weights, (1 + senders, clients), with each client's own first.
        """
        degree = np.bincount(self.receivers, minlength=self.n)
        starts = np.cumsum(degree) - degree
        own = 1 - np.bincount(self.receivers, self.weights, minlength=self.n)
        kinds, kind = np.unique(np.stack([degree, *also]), axis=1, return_inverse=True)
        for k in range(kinds.shape[1]):
            if not (d := kinds[0, k]):
                continue
            clients = np.flatnonzero(kind.ravel() == k)
            at = starts[clients] + np.arange(d)[:, None]
            weights = np.concatenate([own[None, clients], self.weights[at]])
            yield clients, self.senders[at], weights


def weigh(graph: nx.Graph, weights: Callable[[nx.Graph], np.ndarray]) -> Links:
    """Return the links of a graph with their weights.

    Parameters
    ----------
    graph : networkx.Graph
        Nodes 0..n-1, see `topology`.
    weights : callable
        graph -> mixing matrix W; one of `mixing`, or any that takes a graph. Where it
        takes `sparse=True`, it is asked for a sparse one.
    """
    sparse = "sparse" in inspect.signature(weights).parameters
    W = weights(graph, sparse=True) if sparse else weights(graph)
    if hasattr(W, "tocsr"):
        W = csr_array(W)
    elif isinstance(W, np.ndarray):
        W = np.asarray(W)  # np.matrix behaves otherwise
    mixing.check_weights(W, graph)
    receivers, senders = mixing.links(graph)
    order = np.lexsort((senders, receivers))
    i, j = receivers[order], senders[order]
    each = W[i, j] if len(i) else []  # scipy would give a sparse array of length 0
    return Links(len(graph), i, j, np.asarray(each, dtype=np.float64))


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
        turn: Callable[..., RoundContext],
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
        turn: Callable[..., RoundContext],
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

    def _turn(self, server_round: int, ids: np.ndarray | int, **more) -> RoundContext:
        config = {"partition-id": ids, "num-partitions": self.n}
        context = Context(0, 0, config, self.states.take(ids), {})
        return RoundContext(context, server_round, **more)

    def _models(self, trained: torch.Tensor, clients: np.ndarray) -> Model:
        rows = take(trained, place(clients, trained.device)).cpu().numpy()
        rows.flags.writeable = False  # as in a client: others' models may be beside it
        return list(unravel(rows, self.shapes).values())


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
