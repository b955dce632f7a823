"""How much each client listens to each: the mixing matrix W, and what theory says.

`W[i, j]` is the weight that client i gives to the model of client j, so one round of
averaging is the product `W @ X`, with one model a row in X. Rows sum to 1; what a
client does not give to its neighbours it keeps for itself, `W[i, i]`. If columns sum
to 1 as well (W is doubly stochastic), the average of all models never changes.

Weights come from the graph alone. Weights that depend on the models, as those of
FED-0002's Algorithm 2, are average functions: see `averaging`.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from gossiplib.core import adjacency, topology
from gossiplib.core.adjacency import Graph, links, num_clients

if TYPE_CHECKING:
    import scipy.sparse

__all__ = [
    "Matrix",
    "Weights",
    "best_constant",
    "check_weights",
    "consensus_distance",
    "effective_neighbours",
    "links",
    "max_degree",
    "metropolis",
    "rounds_to_consensus",
    "slem",
    "spectral_gap",
    "uniform",
]


#: A mixing matrix; sparse ones need scipy.
Matrix: TypeAlias = "np.ndarray | scipy.sparse.csr_array"
#: What makes one of a graph: the functions below, or your own.
Weights: TypeAlias = Callable[[Graph], "Matrix"]


def uniform(graph: Graph, *, sparse: bool = False) -> Matrix:
    """Weigh all models that a client has alike: W_ij = 1 / (1 + d_i).

    d_i is the number of clients that send to i. W is doubly stochastic only if all
    clients have the same number of neighbours; otherwise the limit is an average that
    favours well-connected clients.

    Parameters
    ----------
    graph : networkx.Graph or scipy.sparse.csr_array
        Nodes 0..n-1. In a directed graph the edge (j, i) means that j sends to i.
    sparse : bool
        Whether W is to be a `scipy.sparse.csr_array`; that of an adjacency always is.

    Returns
    -------
    numpy.ndarray or scipy.sparse.csr_array
        W, shape (n, n), float64.
    """
    i, j, incoming, _ = _links(graph)
    return _matrix(graph, i, j, 1 / (1 + incoming[i]), sparse)


def metropolis(graph: Graph, *, sparse: bool = False) -> Matrix:
    """Weigh a link by its busier end: W_ij = 1 / (1 + max(d_i, d_j)).

    Doubly stochastic on every undirected graph, and each client needs to know no more
    than its neighbours' degrees. On a directed graph d_i counts the clients that send
    to i and d_j those that j sends to.

    Parameters
    ----------
    graph : networkx.Graph or scipy.sparse.csr_array
        Nodes 0..n-1; the edge (j, i) of a directed graph means that j sends to i.
    sparse : bool
        Whether W is to be a `scipy.sparse.csr_array`; that of an adjacency always is.

    Returns
    -------
    numpy.ndarray or scipy.sparse.csr_array
        W, shape (n, n), float64.

    References
    ----------
    Xiao, Boyd and Lall 2005, "A scheme for robust distributed sensor fusion based on
    average consensus", doi:10.1109/IPSN.2005.1440896. Without the 1 it is the local
    degree weight of Xiao and Boyd 2004, "Fast linear iterations for distributed
    averaging", doi:10.1016/j.sysconle.2004.02.022: on an even ring that never agrees.
    """
    i, j, incoming, outgoing = _links(graph)
    weights = 1 / (1 + np.maximum(incoming[i], outgoing[j]))
    return _matrix(graph, i, j, weights, sparse)


def max_degree(graph: Graph, *, sparse: bool = False) -> Matrix:
    """Weigh all links alike, by the busiest client: W_ij = 1 / d_max.

    The busiest client keeps nothing of its own model. Where that holds for all, on a
    bipartite graph such as an even ring, models swap for ever and never agree (Xiao and
    Boyd 2004, see `metropolis`).

    Parameters
    ----------
    graph : networkx.Graph or scipy.sparse.csr_array
        Nodes 0..n-1; undirected.
    sparse : bool
        Whether W is to be a `scipy.sparse.csr_array`; that of an adjacency always is.

    Returns
    -------
    numpy.ndarray or scipy.sparse.csr_array
        W, shape (n, n), float64.

    Raises
    ------
    ValueError
        If the graph is directed.
    """
    i, j, incoming, _ = _links(_undirected(graph, "max_degree"))
    weights = np.full(len(i), 1 / max(1, incoming.max(initial=0)))
    return _matrix(graph, i, j, weights, sparse)


def best_constant(graph: Graph, *, sparse: bool = False) -> Matrix:
    """Weigh all links alike, by the weight that converges fastest.

    W = I - a L with a = 2 / (λ₁(L) + λₙ₋₁(L)), the largest and the smallest non-zero
    eigenvalue of the graph's Laplacian L. Then the rate (`slem`) is (κ - 1) / (κ + 1)
    with κ = λ₁ / λₙ₋₁. The weights need the whole graph, and W_ii may be negative (Xiao
    and Boyd 2004, see `metropolis`).

    Parameters
    ----------
    graph : networkx.Graph or scipy.sparse.csr_array
        Nodes 0..n-1; undirected and connected.
    sparse : bool
        Whether W is to be a `scipy.sparse.csr_array`; that of an adjacency always is.

    Returns
    -------
    numpy.ndarray or scipy.sparse.csr_array
        W, shape (n, n), float64.

    Raises
    ------
    ValueError
        If the graph is directed or disconnected.
    """
    i, j, incoming, _ = _links(_undirected(graph, "best_constant"))
    n, sparse = num_clients(graph), sparse or adjacency.is_sparse(graph)
    if n < 2:
        return matrix(n, i, j, np.empty(0), sparse)
    if adjacency.parts(graph)[0] > 1:
        raise ValueError("best_constant needs a connected graph")
    large = sparse and n > 3  # ARPACK finds fewer than all eigenvalues
    ones = matrix(n, i, j, np.ones(len(i)), large)  # diagonal 1 - d_i
    if large:
        from scipy.sparse import eye_array
        from scipy.sparse.linalg import eigsh

        laplacian = eye_array(n) - ones
        smallest = eigsh(laplacian, k=2, sigma=-1e-3, return_eigenvectors=False).max()
        largest = eigsh(laplacian, k=1, return_eigenvectors=False)[0]
    else:
        eigenvalues = np.linalg.eigvalsh(np.eye(n) - ones)
        smallest, largest = eigenvalues[1], eigenvalues[-1]
    weights = np.full(len(i), 2 / (largest + smallest))
    return matrix(n, i, j, weights, sparse)


def _links(graph: Graph) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return receivers and senders of all links, and all clients' degrees."""
    n = num_clients(graph)
    topology.check_graph(graph, n, connected=False)
    i, j = links(graph)
    return i, j, np.bincount(i, minlength=n), np.bincount(j, minlength=n)


def _undirected(graph: Graph, name: str) -> Graph:
    if adjacency.is_directed(graph):
        raise ValueError(f"{name} weights need an undirected graph; try metropolis")
    return graph


def _matrix(
    graph: Graph, i: np.ndarray, j: np.ndarray, weights: np.ndarray, sparse: bool
) -> Matrix:
    """Return W of a graph; that of an adjacency is sparse."""
    sparse = sparse or adjacency.is_sparse(graph)
    return matrix(num_clients(graph), i, j, weights, sparse)


def matrix(
    n: int, i: np.ndarray, j: np.ndarray, weights: np.ndarray, sparse: bool
) -> Matrix:
    """Return W, (n, n): weights at (i, j), and what is left of 1 on the diagonal.

    i and j are receiver and sender of each link; they and weights have shape (links,).
    """
    own = 1 - np.bincount(i, weights, minlength=n)
    if sparse:
        from scipy.sparse import coo_array

        # Places of half the size; a million clients feel it.
        short = np.int32 if n + len(i) < 2**31 else np.int64
        at = tuple(np.concatenate([k, np.arange(n)]).astype(short) for k in (i, j))
        entries = np.concatenate([weights, own])
        return coo_array((entries, at), shape=(n, n)).tocsr()
    W = np.diag(own)
    W[i, j] = weights
    return W


def as_dense(W: Matrix) -> np.ndarray:
    """Return a mixing matrix W as a dense array, shape (n, n)."""
    return W if isinstance(W, np.ndarray) else np.asarray(W.toarray())


def check_weights(W: Matrix, graph: Graph) -> None:
    """Raise an error unless W is a mixing matrix of this graph.

    Parameters
    ----------
    W, graph
        What to check, and the graph with the nodes 0..n-1.

    Raises
    ------
    TypeError
        If it is no array.
    ValueError
        If it is not n x n, a row does not sum to 1 (within 1e-6), or it is not zero
        where j does not send to i. The message names the row.
    """
    n = num_clients(graph)
    array = isinstance(W, np.ndarray) or hasattr(W, "tocsr")
    if not array or W.dtype.kind not in "biuf":
        what = W.dtype if array else type(W).__name__
        raise TypeError(f"W must be an array of real numbers, not {what}")
    if W.shape != (n, n):
        raise ValueError(f"W must be {n} x {n}, one row a client; it is {W.shape}")
    sums = np.asarray(W.sum(axis=1)).ravel()
    bad = np.flatnonzero(~(np.abs(sums - 1) <= 1e-6))
    if bad.size:
        raise ValueError(
            f"the weights of each client must sum to 1: those of client {bad[0]} sum "
            f"to {sums[bad[0]]:.6g}"
        )
    i, j = links(graph)
    rows, columns = (indices.astype(np.int64) for indices in W.nonzero())
    heard = np.sort(np.concatenate([i * n + j, np.arange(n) * (n + 1)]))
    weighed = rows * n + columns
    near = heard[np.searchsorted(heard, weighed).clip(max=len(heard) - 1)]
    if (unheard := weighed[near != weighed]).size:
        who, whom = divmod(int(unheard.min()), n)
        raise ValueError(f"client {who} weighs client {whom}, which sends it nothing")


def slem(W: Matrix) -> float:
    """Return ``|λ₂|``, the second largest eigenvalue modulus of W: a round's factor.

    For a symmetric, doubly stochastic W the distance to consensus shrinks at least by
    this factor in each round. Dense matrices use numpy, sparse ones scipy.
    """
    if W.shape[0] < 2:
        return 0.0
    moduli = np.sort(np.abs(_eigenvalues(W, k=2)))
    return float(moduli[-2])


def spectral_gap(W: Matrix) -> float:
    """Return 1 - ``|λ₂|`` of W: near 0 if news travels slowly, 1 if one round does."""
    return 1 - slem(W)


def rounds_to_consensus(W: Matrix, tolerance: float = 0.01) -> float:
    """Return the rounds until ``|λ₂|ᵗ`` ≤ tolerance; infinite if ``|λ₂|`` is 1.

    Parameters
    ----------
    W : numpy.ndarray or scipy.sparse.csr_array
        Mixing matrix, shape (n, n).
    tolerance : float
        Share of the distance to consensus that may be left, between 0 and 1.

    Raises
    ------
    ValueError
        If the tolerance is not between 0 and 1.
    """
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance must be between 0 and 1; got {tolerance}")
    rate = slem(W)
    if rate < 1e-12:
        return 1
    if rate > 1 - 1e-12:
        return math.inf
    return math.ceil(math.log(tolerance) / math.log(rate))


def effective_neighbours(W: Matrix, gamma: float) -> float:
    """Return n_W(γ), the number of clients that effectively average their noise.

    A random walk x ← √γ W x + noise has, on average, the variance of one in which
    n_W(γ) clients average perfectly: from 1 (no gossip) to n (complete graph):
    n_W(γ) = [1 / (1 - γ)] / mean_i [1 / (1 - γ λ_i²)].

    Parameters
    ----------
    W : numpy.ndarray or scipy.sparse.csr_array
        Symmetric mixing matrix, shape (n, n).
    gamma : float
        Decay, 0 ≤ γ < 1; near 1 for a small learning rate, which reaches further.

    Raises
    ------
    ValueError
        If γ is outside of its range, or W is not symmetric.

    References
    ----------
    Vogels et al. 2022, "Beyond spectral gap: The role of the topology in decentralized
    learning", arXiv:2206.03093.
    """
    if not 0 <= gamma < 1:
        raise ValueError(f"gamma must be at least 0 and below 1; got {gamma}")
    if not _symmetric(W):
        raise ValueError("effective_neighbours needs a symmetric W")
    eigenvalues = np.linalg.eigvalsh(as_dense(W))
    return float(1 / (1 - gamma) / np.mean(1 / (1 - gamma * eigenvalues**2)))


def consensus_distance(models: np.ndarray) -> float:
    """Return √(mean over clients of ‖x_i - x̄‖²), 0 when all models are equal.

    Parameters
    ----------
    models : numpy.ndarray
        One model a row, shape (n, parameters).
    """
    models = np.asarray(models)
    models = models.astype(np.result_type(models, np.float64), copy=False)
    return float(np.linalg.norm(models - models.mean(axis=0)) / math.sqrt(len(models)))


def _symmetric(W: Matrix) -> bool:
    return bool(abs(W - W.T).max() < 1e-12)


def _eigenvalues(W: Matrix, k: int) -> np.ndarray:
    """Return all eigenvalues of a dense W, or the k largest in modulus of a sparse."""
    if isinstance(W, np.ndarray):
        return np.linalg.eigvalsh(W) if _symmetric(W) else np.linalg.eigvals(W)
    if W.shape[0] <= k + 1:
        return _eigenvalues(W.toarray(), k)
    from scipy.sparse.linalg import ArpackNoConvergence, eigs, eigsh

    solver = eigsh if _symmetric(W) else eigs
    try:
        return np.asarray(solver(W, k=k, which="LM", return_eigenvectors=False))
    except ArpackNoConvergence:  # many eigenvalues of nearly the same modulus
        return _eigenvalues(W.toarray(), k)
