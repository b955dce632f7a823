"""A graph of clients in one of two forms: a networkx graph, or a sparse adjacency.

networkx is for reading, and makes objects of each client and link. For very many
clients there is the adjacency A, an array of scipy.sparse: A[i, j] != 0 where client i
hears client j, so rows are receivers, as in W. Two attributes of A may say more:
that it is `directed` though it is symmetric; and who is `online`, bool, shape (n,), by
default all.

What must know which of the two a graph is goes through here.
"""

from collections.abc import Callable
from math import isqrt, log, pi, sqrt
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import networkx as nx
import numpy as np

from gossiplib.system.numbers import rng

if TYPE_CHECKING:
    import scipy.sparse

__all__ = [
    "BUILDERS",
    "LARGE",
    "Graph",
    "alike",
    "as_csr",
    "check_kind",
    "edges",
    "is_directed",
    "is_sparse",
    "links",
    "num_clients",
    "online",
    "parts",
    "rows_of",
    "seen",
    "sparse",
    "without",
]

#: A topology; sparse ones need scipy.
Graph: TypeAlias = Union[nx.Graph, "scipy.sparse.csr_array"]
#: Up to so many clients a graph made here is one of networkx.
LARGE = 10_000


def is_sparse(graph: Graph) -> bool:
    """Tell whether a graph is a sparse adjacency."""
    return hasattr(graph, "tocsr")


def check_kind(graph: object) -> None:
    """Raise TypeError unless a graph has one of the two forms."""
    simple = isinstance(graph, nx.Graph) and not graph.is_multigraph()
    if not simple and not is_sparse(graph):
        raise TypeError(
            "a topology is a networkx Graph or DiGraph, or an adjacency of "
            f"scipy.sparse, not a {type(graph).__name__}"
        )


def sparse(
    n: int,
    senders: np.ndarray,
    receivers: np.ndarray,
    *,
    directed: bool = False,
    away: np.ndarray | None = None,
) -> Graph:
    """Return the adjacency of n clients with these edges, (edges,) each.

    The clients where `away`, bool, shape (n,), is true are not online.
    """
    from scipy.sparse import csr_array

    i, j = receivers, senders
    if not directed:
        i, j = np.concatenate([i, j]), np.concatenate([j, i])
    places = np.sort(i * n + j)
    i, j = np.divmod(places[np.diff(places, prepend=-1) > 0], n)
    starts = np.concatenate([[0], np.cumsum(np.bincount(i, minlength=n))])
    short = np.int32 if max(n, len(j)) < 2**31 else np.int64  # half the memory
    ones = np.ones(len(j), dtype=np.int8)
    A = csr_array((ones, j.astype(short), starts.astype(short)), shape=(n, n))
    A.directed = directed
    if away is not None:
        A.online = ~away
    return A


def as_csr(A: Graph) -> Graph:
    """Return an adjacency as rows in ascending order, with no entry twice or 0."""
    A = A.tocsr()
    if not (A.has_canonical_format and A.data.all()):
        A = A.copy()
        A.sum_duplicates()
        A.eliminate_zeros()
    return A


def num_clients(graph: Graph) -> int:
    """Return the number of clients, n."""
    return int(graph.shape[0]) if is_sparse(graph) else len(graph)


def is_directed(graph: Graph) -> bool:
    """Tell whether some links hold in one direction only; networkx graphs say it."""
    if not is_sparse(graph):
        return bool(graph.is_directed())
    A = as_csr(graph)
    back = A.T.tocsr()
    same = (A.indptr, back.indptr), (A.indices, back.indices)
    mutual = all(np.array_equal(*arrays) for arrays in same)
    return bool(getattr(graph, "directed", False)) or not mutual


def links(graph: Graph) -> tuple[np.ndarray, np.ndarray]:
    """Return the receivers i and the senders j of all links of a graph.

    An edge is two links; in a directed graph it is one.
    """
    if is_sparse(graph):
        A = as_csr(graph)
        i = np.repeat(np.arange(A.shape[0]), np.diff(A.indptr))
        return i, A.indices.astype(np.int64)
    j, i = edges(graph)
    if graph.is_directed():
        return i, j
    return np.concatenate([i, j]), np.concatenate([j, i])


def edges(graph: Graph) -> tuple[np.ndarray, np.ndarray]:
    """Return senders and receivers of all edges: an undirected one is there once.

    Those of an adjacency are in ascending order, as networkx has them where they came
    so; then a seed means the same to both.
    """
    if is_sparse(graph):
        j, i = links(graph.T)
        once = slice(None) if is_directed(graph) else j < i
        return j[once], i[once]
    j, i = np.array(graph.edges, dtype=np.int64).reshape(-1, 2).T
    return j, i


def online(graph: Graph) -> np.ndarray:
    """Return who takes part in the round of `graph`, bool, shape (n,)."""
    n = num_clients(graph)
    here = np.ones(n, dtype=bool)
    if is_sparse(graph):
        here &= getattr(graph, "online", True)
    else:
        nodes = graph.nodes(data="online", default=True)
        here[[int(i) for i, online in nodes if not online]] = False
    return here


def alike(
    graph: Graph,
    senders: np.ndarray,
    receivers: np.ndarray,
    *,
    directed: bool,
    away: np.ndarray | None = None,
) -> Graph:
    """Return a graph of the same form and number of clients, with these edges.

    The clients where `away`, bool, shape (n,), is true are not online.
    """
    n = num_clients(graph)
    if is_sparse(graph):
        return sparse(n, senders, receivers, directed=directed, away=away)
    made = nx.empty_graph(n, create_using=nx.DiGraph if directed else nx.Graph)
    made.add_edges_from(zip(senders.tolist(), receivers.tolist(), strict=True))
    if away is not None:
        nx.set_node_attributes(made, dict(enumerate((~away).tolist())), "online")
    return made


def without(graph: Graph, gone: np.ndarray, away: np.ndarray | None = None) -> Graph:
    """Return a graph without the edges where `gone`, bool, in the order of `edges`.

    The clients where `away`, bool, shape (n,), is true are not online, either.
    """
    here = online(graph) if away is None else online(graph) & ~away
    j, i = edges(graph)
    if is_sparse(graph):
        left, directed = ~gone, is_directed(graph)
        return alike(graph, j[left], i[left], directed=directed, away=~here)
    made = graph.copy()
    made.remove_edges_from(zip(j[gone].tolist(), i[gone].tolist(), strict=True))
    if away is not None:
        nx.set_node_attributes(made, dict(enumerate(here.tolist())), "online")
    return made


def parts(graph: Graph) -> tuple[int, set[int]]:
    """Return into how many parts a graph falls, and the clients of the smallest.

    In a part a path leads from every client to every other.
    """
    if is_sparse(graph):
        from scipy.sparse.csgraph import connected_components

        count, part = connected_components(as_csr(graph), connection="strong")
        smallest = np.bincount(part, minlength=1).argmin()
        return count, set(np.flatnonzero(part == smallest).tolist())
    found = list(
        nx.strongly_connected_components(graph)
        if graph.is_directed()
        else nx.connected_components(graph)
    )
    return len(found), min(found, key=len, default=set())


def seen(graph: Graph) -> object:
    """Return what tells a graph from itself at another time: links, who is online."""
    if is_sparse(graph):
        A = as_csr(graph)
        return A.indptr.tobytes(), A.indices.tobytes(), online(A).tobytes()
    return [*graph.edges], [*graph.nodes(data="online", default=True)]


def rows_of(n: int) -> int:
    """Return the rows of the torus of n clients that is most nearly a square."""
    return next(r for r in range(isqrt(n), 0, -1) if n % r == 0)


def _torus(n: int) -> Graph:
    at = np.arange(n).reshape(rows_of(n), -1)
    j = np.concatenate([np.roll(at, -1, axis).ravel() for axis in (0, 1)])
    return sparse(n, np.tile(at.ravel(), 2), j)


def _hypercube(n: int) -> Graph:
    at, bits = np.arange(n), 2 ** np.arange(n.bit_length() - 1)
    i = np.concatenate([at[at & bit == 0] for bit in bits])
    return sparse(n, i, i | np.repeat(bits, n // 2))


def _exponential(n: int) -> Graph:
    at, hops = np.arange(n), 2 ** np.arange((n - 1).bit_length())
    j = np.concatenate([(at + hop) % n for hop in hops])
    return sparse(n, np.tile(at, len(hops)), j, directed=True)


def _regular(n: int, seed: int, degree: int) -> Graph:
    """Pair n x degree ends of links at random, and mend what is no simple graph.

    Where a link is a loop, or there already, it and as many others swap ends at random
    (the configuration model; nearly uniform among the graphs of this degree).
    """
    stream = rng(seed)
    u, v = stream.permutation(np.repeat(np.arange(n), degree)).reshape(2, -1)
    while True:
        places = np.minimum(u, v) * n + np.maximum(u, v)
        order = np.argsort(places, kind="stable")
        again = order[np.flatnonzero(np.diff(places[order], prepend=-1) == 0)]
        wrong = np.union1d(again, np.flatnonzero(u == v))
        if not wrong.size:
            return sparse(n, u, v)
        some = np.union1d(wrong, stream.integers(len(u), size=len(wrong)))
        v[some] = stream.permutation(v[some])


def _random(n: int, seed: int, p: float) -> Graph:
    """Go through all pairs i > j in steps as long as chance leaves between two links.

    References
    ----------
    Batagelj and Brandes 2005, "Efficient generation of large random networks",
    doi:10.1103/PhysRevE.71.036113.
    """
    stream, pairs, found = rng(seed), n * (n - 1) // 2, [np.array([-1])]
    while p and found[-1][-1] < pairs:
        steps = stream.geometric(p, size=int(p * pairs / 8) + 1000)
        found.append(found[-1][-1] + np.cumsum(np.minimum(steps, pairs + 1)))
    at = np.concatenate(found)[1:]
    at = at[at < pairs]
    i = ((1 + np.sqrt(8 * at + 1)) / 2).astype(np.int64)  # exact below n = 4e7
    return sparse(n, i, at - i * (i - 1) // 2)


def _geometric(n: int, seed: int) -> Graph:
    from scipy.spatial import KDTree

    places = KDTree(rng(seed).random((n, 2)))
    near = places.query_pairs(sqrt(2 * log(n) / (pi * n)), output_type="ndarray")
    return sparse(n, *near.T.astype(np.int64))


#: Topologies that numpy makes: name -> function (n, seed, degree, p) -> adjacency.
BUILDERS: dict[str, Callable[[int, int, int, Any], Graph]] = {
    "ring": lambda n, *_: sparse(n, np.arange(n), np.roll(np.arange(n), 1)),
    "path": lambda n, *_: sparse(n, np.arange(1, n), np.arange(n - 1)),
    "star": lambda n, *_: sparse(n, np.arange(1, n), np.zeros(n - 1, dtype=int)),
    "torus": lambda n, *_: _torus(n),
    "hypercube": lambda n, *_: _hypercube(n),
    "regular": lambda n, seed, degree, p: _regular(n, seed, degree),
    "random": lambda n, seed, degree, p: _random(
        n, seed, min(1, 2 * log(n) / n) if p is None else p
    ),
    "geometric": lambda n, seed, *_: _geometric(n, seed),
    "exponential": lambda n, *_: _exponential(n),
}
