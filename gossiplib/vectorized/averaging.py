"""Averaging of stacked models: W as a sparse matrix, and average functions.

W has an entry for each link, also for one of weight 0, since a message goes over it,
and each client's own. `weighted_mean` is the product W X; an `Exchange` calls others.
"""

import functools
import inspect
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, Context
from scipy.sparse import csr_array

from gossiplib.core import adjacency, mixing, topology
from gossiplib.core.averaging import Average, Model, as_model
from gossiplib.core.context import RoundContext
from gossiplib.system.records import Shapes, array_bytes, ravel, unravel
from gossiplib.vectorized.rows import StackedStates, chunks, place, take

__all__ = ["Exchange", "RoundGraph", "among", "mixing_matrix", "to_torch"]


def mixing_matrix(graph: topology.Graph, weights: mixing.Weights) -> csr_array:
    """Return W of a graph, (n, n), a sparse one from the start if `weights` can.

    A dense one of a million clients fits nowhere.
    """
    sparse = "sparse" in inspect.signature(weights).parameters
    W: Any = weights(graph, **({"sparse": True} if sparse else {}))
    if isinstance(W, np.ndarray) or hasattr(W, "tocsr"):
        W = csr_array(W)
    mixing.check_weights(W, graph)
    n, (i, j) = topology.num_clients(graph), mixing.links(graph)
    i, j = np.divmod(np.sort(i * n + j), n)  # each adds up its weights in this order
    each = W[i, j] if len(i) else []  # scipy would give a sparse array of length 0
    weight = np.asarray(each, dtype=np.float64)
    return mixing.matrix(n, i, j, weight, sparse=True)


def among(W: csr_array, here: np.ndarray) -> csr_array:
    """Return W where others than those `here` neither send nor average.

    What a client would give to them it gives to its own model.
    """
    if here.all():
        return W
    links = W.tocoo()
    i, j = links.row, links.col
    kept = (i != j) & here[i] & here[j]
    return mixing.matrix(len(here), i[kept], j[kept], links.data[kept], sparse=True)


def to_torch(W: csr_array, like: torch.Tensor) -> torch.Tensor:
    """Return W as a sparse tensor, of the device and the data type of `like`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that sparse tensors are in beta
        # MKL takes 32 bits, and torch would make them of 64 at each product.
        places = np.int32 if max(W.nnz, *W.shape) < 2**31 else np.int64
        starts = torch.from_numpy(W.indptr.astype(places, copy=False))
        j = torch.from_numpy(W.indices.astype(places, copy=False))
        weights = torch.from_numpy(W.data).to(like.dtype)
        return torch.sparse_csr_tensor(starts, j, weights, W.shape, device=like.device)


def by_degree(
    W: csr_array, *also: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Group the clients that have senders by how many, and by more of their properties.

    Yields clients, their senders, (senders, clients), in ascending order, and the
    weights, (1 + senders, clients), with each client's own first.
    """
    degree = np.diff(W.indptr) - 1
    kinds, kind = np.unique(np.stack([degree, *also]), axis=1, return_inverse=True)
    for k, d in enumerate(kinds[0]):
        if not d:
            continue
        clients = np.flatnonzero(kind.ravel() == k)
        at = W.indptr[clients, None] + np.arange(1 + d)
        columns, weights = W.indices[at], W.data[at]
        own = columns == clients[:, None]
        senders, others = (a[~own].reshape(-1, d).T for a in (columns, weights))
        yield clients, senders, np.concatenate([weights[own][None], others])


class RoundGraph:
    """The graph of a round of n clients, who is `online` in it, shape (n,), and W.

    One graph of all rounds is `watched` where somebody else's function is called in a
    run: only such a one can change it.
    """

    watched = True

    def __init__(
        self, schedule: topology.Schedule, weights: mixing.Weights, n: int
    ) -> None:
        if not callable(weights):
            kind = type(weights).__name__
            raise TypeError(f"weights must be a function, graph -> W; got {kind}")
        self._schedule, self._weights, self._n = schedule, weights, n
        self._static = not callable(schedule)
        self.server_round = 0
        self._seen: object = None  # what the one graph was when it was taken

    def go_to(self, server_round: int) -> None:
        """Take and check the graph of a round, 1, 2, ..., unless it is the last one."""
        was, self.server_round = self.server_round, server_round
        if was and (server_round == was or self._static and not self.watched):
            return
        graph = topology.at(self._schedule, server_round)
        before, self._seen = self._seen, adjacency.seen(graph) if self._static else None
        if was and self._static and self._seen == before:
            return
        self.graph = graph
        topology.check_graph(self.graph, self._n, connected=self._static)
        self.online = adjacency.online(self.graph)
        vars(self).pop("W", None)  # that of the round before

    @functools.cached_property
    def W(self) -> csr_array:
        """The mixing matrix of the round."""
        return mixing_matrix(self.graph, self._weights)


COMPARED = 3  # how often a client of a kind is also called alone, to compare


class Exchange:
    """What clients send to each other, and make of it by an average function.

    Clients that are alike in what the function can see (how many senders they have, how
    many examples they validate on, what they remember) are called together. In the
    first rounds, one of each group is also called alone, since a function that takes
    the first axis for one of a model's would go wrong in silence.

    Clients of different `kinds`, shape (n,), are not called together. `messages` is how
    many were received in the last round; `bytes` is the size of those that `send` made,
    as Flower encodes them, or 0. `metrics` are what `send` told, each of shape (n,).
    """

    def __init__(
        self,
        average: Average,
        shapes: Shapes,
        n: int,
        chunk: int,
        kinds: np.ndarray | None = None,
    ) -> None:
        if not callable(average):
            kind = type(average).__name__
            raise TypeError(
                "average must be a function (own, neighbours, weights, context) -> "
                f"model; got {kind}"
            )
        self._average, self._send = average, getattr(average, "send", None)
        self._shapes, self._n, self._chunk = shapes, n, chunk
        self._kinds = np.zeros(n, dtype=np.int64) if kinds is None else kinds
        self._compared: Counter[tuple[int, ...]] = Counter()
        self.states = StackedStates(n)
        self.messages = self.bytes = 0
        self.metrics: dict[str, np.ndarray] = {}

    def __call__(
        self, trained: torch.Tensor, W: csr_array, here: np.ndarray, server_round: int
    ) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        """Let the clients that are here send, and average what reaches them.

        `trained` are all clients' models, shape (n, parameters), and `here` is of shape
        (n,). Yields clients that have senders, and their averages.
        """
        payload, sizes = self._messages(trained, W, here, server_round)
        received = among(W, here)
        self.messages = received.nnz - self._n
        # Less what each would send to itself.
        self.bytes = int(sizes[received.indices].sum() - sizes.sum())
        groups = by_degree(received, self._kinds, self.states.kinds())
        for clients, senders, weights in groups:
            alike = len(weights), int(self._kinds[clients[0]])
            size = max(1, self._chunk // len(weights))
            for some in chunks(np.arange(len(clients)), size):
                ids, near = clients[some], senders[:, some]
                own = self._models(trained, ids)
                others = [
                    self._models(trained, j) if payload is None else _read(payload, j)
                    for j in near
                ]
                given, about = [own, others, weights[:, some]], {"senders": near}
                shapes = [a.shape for a in own]
                mixed = self._call(
                    self._average, given, about, ids, server_round, alike, shapes
                )
                rows = ravel(mixed, ids.shape)
                rows = rows.astype(own[0].dtype, casting="same_kind", copy=False)
                yield ids, torch.from_numpy(rows)

    def _messages(
        self, trained: torch.Tensor, W: csr_array, here: np.ndarray, server_round: int
    ) -> tuple[Model | None, np.ndarray]:
        """Return what all clients send, stacked, or None if that is their models.

        And how many bytes that is, of each client. One that sends fewer arrays than
        others has zeros in place of the last ones.
        """
        sizes = np.zeros(self._n, dtype=np.int64)
        if self._send is None:
            return None, sizes
        receivers = np.bincount(W.indices, minlength=self._n) - 1
        payload: Model = []
        kinds = self.states.kinds()
        for kind in np.unique(kinds[here]):
            for ids in chunks(np.flatnonzero(here & (kinds == kind)), self._chunk):
                own, about = self._models(trained, ids), {"receivers": receivers[ids]}
                message = self._call(self._send, [own], about, ids, server_round, ())
                one = ArrayRecord([np.asarray(a[0]) for a in message])
                sizes[ids] = array_bytes(one)
                for a in message[len(payload) :]:
                    payload.append(np.zeros((self._n, *a.shape[1:]), a.dtype))
                for array, part in zip(payload, message, strict=False):
                    array[ids] = part
        return payload, sizes

    def _call(
        self,
        function: Callable[..., Model],
        arguments: list[Any],
        about: dict[str, np.ndarray],
        ids: np.ndarray,
        server_round: int,
        alike: tuple[int, ...],
        shapes: list[tuple[int, ...]] | None = None,
    ) -> Model:
        """Call a function for many clients, and at first for one of them alone.

        Clients are `alike` if they are compared together. Without `shapes` the arrays
        may have any, but for the first axis, the clients.
        """

        def call(at: slice | int) -> tuple[Model, RoundContext]:
            node: dict[str, Any] = {"partition-id": ids[at], "num-partitions": self._n}
            context = Context(0, 0, node, self.states.take(ids[at]), {})
            more = {name: _pick(value, at) for name, value in about.items()}
            turn = RoundContext(context, server_round, **more)
            made = function(*(_pick(a, at) for a in arguments), turn)
            return as_model(made, "the average function, or its send,"), turn

        made, turn = call(slice(None))
        found = [np.shape(a) for a in made]
        n = len(ids)
        wanted = shapes or [(n, *shape[1:]) for shape in found] or [(n,)]
        if found != wanted:
            raise ValueError(
                f"the average function, or its send, returned arrays of shapes {found} "
                f"instead of {wanted} for {n} clients: the first axis is the clients"
            )
        if n > 1 and self._compared[alike] < COMPARED:
            self._compared[alike] += 1
            _check_alone(made, call(0)[0], int(ids[0]))
        self.states.put(ids, turn.state)
        for name, values in turn.metrics.items():
            self.metrics.setdefault(name, np.zeros(self._n))[ids] = values
        return made

    def _models(self, trained: torch.Tensor, clients: np.ndarray) -> Model:
        rows = take(trained, place(clients, trained.device)).cpu().numpy()
        rows.flags.writeable = False  # as in a client: others' models may be beside it
        return list(unravel(rows, self._shapes).values())


def _read(payload: Model, clients: np.ndarray) -> Model:
    message = [array[clients] for array in payload]
    for array in message:
        array.flags.writeable = False
    return message


def _pick(value: Any, at: slice | int) -> Any:
    """Return models (first axis: clients) or numbers (last axis) of some clients."""
    if isinstance(value, np.ndarray):
        return value[..., at]
    return [a[at] if isinstance(a, np.ndarray) else _pick(a, at) for a in value]


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
