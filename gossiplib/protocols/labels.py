"""What clients tell of their labels, and D-Cliques, a graph that is made of it.

h_i are the examples of each class that client i has, told in the clear or with noise.
p_i = h_i / Σ h_i are its shares, p their mean over all clients; some clients are skewed
by ‖mean of their p_i - p‖₁.
"""

from itertools import combinations, product
from math import expm1, inf

import networkx as nx
import numpy as np

from gossiplib.system.numbers import check_number, check_whole, rng

__all__ = ["d_cliques", "tell_labels"]


def tell_labels(
    counts: np.ndarray, *, epsilon: float = inf, seed: int | None = None
) -> np.ndarray:
    """Return what clients tell of their labels: the counts, with noise if so wished.

    A whole number z is added to each count with a probability in proportion to
    exp(-ε|z|): the discrete Laplace distribution, of variance 2q/(1-q)² with
    q = exp(-ε). One example more or less changes one count by 1, so all that a client
    tells is ε-differentially private, for the presence of an example.

    Parameters
    ----------
    counts : numpy.ndarray
        Examples of each class, of one client or of many, whole numbers, any shape.
    epsilon : float
        ε, above 0: the smaller, the more noise. Infinity is none.
    seed : int, optional
        It decides the noise. With noise each client needs one of its own, that nobody
        else knows: who knows the seed takes the noise off.

    Returns
    -------
    numpy.ndarray
        Of the same shape, int64. Some may be below 0; whoever reads them takes these
        for 0.

    Raises
    ------
    ValueError
        If counts are no whole numbers, or `epsilon` is not above 0, or finite and there
        is no seed.

    References
    ----------
    Ghosh, Roughgarden and Sundararajan 2009, "Universally utility-maximizing privacy
    mechanisms", doi:10.1145/1536414.1536464.
    """
    if not check_number("epsilon", epsilon) > 0:
        raise ValueError(f"epsilon must be above 0; got {epsilon}")
    told = np.array(counts)
    with np.errstate(invalid="ignore"):
        if told.dtype.kind not in "biuf" or (told % 1 != 0).any():  # or NaN, infinite
            raise ValueError(
                f"counts are whole numbers, of examples; got {counts!r:.80}"
            )
    told = told.astype(np.int64)
    if epsilon == inf:
        return told
    if seed is None:
        raise ValueError("noise needs a seed, which each client keeps to itself")
    ones = rng(seed).geometric(-expm1(-epsilon), size=(2, *told.shape))
    return told + ones[0] - ones[1]  # the difference of two is discrete Laplace


def shares_of(told: np.ndarray) -> np.ndarray:
    """Return each client's shares of the classes, shape (clients, classes)."""
    counts = np.maximum(np.asarray(told), 0.0)
    sums = counts.sum(axis=1, keepdims=True)
    return np.divide(
        counts, sums, out=np.full_like(counts, 1 / counts.shape[1]), where=sums > 0
    )


def skew(shares: np.ndarray, clients: list[int]) -> float:
    """Return how far the mean shares of some clients are from those of all, in L1."""
    return float(np.abs(shares[clients].mean(axis=0) - shares.mean(axis=0)).sum())


def d_cliques(told: np.ndarray, size: int, *, seed: int = 0) -> nx.Graph:
    """Return a graph of cliques, each with about the labels of all clients.

    Cliques are drawn at random. Then pairs of them swap two members, drawn from those
    swaps that lower the sum of their skews, ‖mean shares - p‖₁, until none does. In the
    end one edge joins each pair of cliques, at the members with the fewest edges.

    Parameters
    ----------
    told : numpy.ndarray
        What each client told, see `tell_labels`, shape (clients, classes).
    size : int
        Members of a clique; some may have one fewer.
    seed : int
        It decides the draws.

    Returns
    -------
    networkx.Graph
        Nodes 0..n-1; ``graph.graph["cliques"]`` lists the members of each clique.

    Raises
    ------
    ValueError
        If `size` is not from 2 to the number of clients.

    References
    ----------
    Bellet, Kermarrec and Lavoie 2022, "D-Cliques: compensating for data heterogeneity
    with topology in decentralized federated learning", arXiv:2104.07365. They try a
    fixed number of pairs; what they change in learning itself is no part of this.
    """
    shares, draw = shares_of(told), rng(seed)
    n = len(shares)
    check_whole("size", size, 2, n)
    parts = np.array_split(draw.permutation(n), -(-n // size))
    cliques = [part.tolist() for part in parts]
    pairs, swapped = [*combinations(cliques, 2)], True  # they change in place
    while swapped:
        swapped = False
        for k in draw.permutation(len(pairs)):
            one, other = pairs[k]
            places = product(range(len(one)), range(len(other)))
            now = skew(shares, one) + skew(shares, other) - 1e-12
            better = [at for at in places if _after(shares, one, other, *at) < now]
            if better:
                a, b = better[draw.integers(len(better))]
                one[a], other[b], swapped = other[b], one[a], True
    graph = nx.empty_graph(n)
    graph.graph["cliques"] = [sorted(clique) for clique in cliques]
    for clique in cliques:
        graph.add_edges_from(combinations(clique, 2))
    for one, other in pairs:
        graph.add_edge(min(one, key=graph.degree), min(other, key=graph.degree))
    return graph


def _after(
    shares: np.ndarray, one: list[int], other: list[int], a: int, b: int
) -> float:
    """Return the sum of two cliques' skews if one[a] and other[b] change places."""
    first, second = [*one], [*other]
    first[a], second[b] = other[b], one[a]
    return skew(shares, first) + skew(shares, second)
