"""The links of a round as arrays: who hears whom, and how much.

What `topology` and `mixing` tell of a graph, in the form that the vectorised engine
computes with.
"""

import inspect
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import networkx as nx
import numpy as np
import torch
from scipy.sparse import csr_array

from gossiplib import mixing

__all__ = ["Links", "weigh"]


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
