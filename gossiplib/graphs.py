"""Graphs by name: the topologies that papers compare. `topology` offers them."""

from collections.abc import Callable
from math import isqrt, log, pi, sqrt

import networkx as nx
import numpy as np

__all__ = ["NAMES", "log2_up", "named"]


def log2_up(n: int) -> int:
    """Return ⌈log₂ n⌉, at least 1."""
    return max(1, (n - 1).bit_length())


def _torus(n: int, seed: int) -> nx.Graph:
    rows = next(r for r in range(isqrt(n), 0, -1) if n % r == 0)
    if rows < 3:
        raise ValueError(f"a torus needs n = rows x columns, both at least 3; n is {n}")
    return nx.grid_2d_graph(rows, n // rows, periodic=True)


def _hypercube(n: int, seed: int) -> nx.Graph:
    if n & (n - 1):
        raise ValueError(f"a hypercube needs n to be a power of 2; n is {n}")
    return nx.hypercube_graph(n.bit_length() - 1)


def _regular(n: int, seed: int) -> nx.Graph:
    if n < 5:
        raise ValueError(f"a 4-regular graph needs at least 5 clients; n is {n}")
    return _connected(lambda s: nx.random_regular_graph(4, n, seed=s), seed)


def _barbell(n: int, seed: int) -> nx.Graph:
    if n < 6:
        raise ValueError(f"a barbell needs at least 6 clients; n is {n}")
    return nx.barbell_graph(n // 2, n % 2)


def _exponential(n: int, seed: int) -> nx.DiGraph:
    hops = [2**k for k in range(log2_up(n))]
    graph = nx.empty_graph(n, create_using=nx.DiGraph)
    graph.add_edges_from((i, (i + hop) % n) for i in range(n) for hop in hops)
    return graph


def _connected(build: Callable[[int], nx.Graph], seed: int) -> nx.Graph:
    """Return the first connected graph that `build` draws, of at most 100."""
    rng = np.random.default_rng(seed)
    for _ in range(100):
        graph = build(int(rng.integers(2**31)))
        if nx.is_connected(graph):
            return graph
    raise ValueError("100 random graphs in a row were disconnected; try a larger n")


#: name -> function (n, seed) -> graph. `seed` matters to the random ones only.
NAMES: dict[str, Callable[[int, int], nx.Graph]] = {
    "ring": lambda n, seed: nx.cycle_graph(n) if n > 2 else nx.path_graph(n),
    "path": lambda n, seed: nx.path_graph(n),
    "star": lambda n, seed: nx.star_graph(n - 1),
    "complete": lambda n, seed: nx.complete_graph(n),
    "torus": _torus,
    "hypercube": _hypercube,
    "barbell": _barbell,
    "regular": _regular,
    "small-world": lambda n, seed: nx.connected_watts_strogatz_graph(
        n, max(2, min(4, n - 1)), 0.2, seed=seed
    ),
    # Twice the density at which a random graph starts to be connected.
    "random": lambda n, seed: _connected(
        lambda s: nx.gnp_random_graph(n, min(1, 2 * log(n) / n), seed=s), seed
    ),
    "geometric": lambda n, seed: _connected(
        lambda s: nx.random_geometric_graph(n, sqrt(2 * log(n) / (pi * n)), seed=s),
        seed,
    ),
    "exponential": _exponential,
}


def named(name: str, n: int, seed: int = 0) -> nx.Graph:
    """Return a topology by its name.

    Parameters
    ----------
    name : str
        One of `NAMES`. "regular" is a random 4-regular graph, "random" an
        Erdős-Rényi graph with edge probability 2 ln(n) / n, "small-world" a
        Watts-Strogatz graph with 4 neighbours and 20 % of the edges rewired,
        "geometric" links clients that are near each other in a square, and
        "exponential" is directed: i sends to i + 1, i + 2, i + 4, ... (mod n).
    n : int
        Number of clients, at least 2.
    seed : int
        Seed of the random topologies.

    Returns
    -------
    networkx.Graph
        Connected, nodes 0..n-1; a `networkx.DiGraph` for "exponential".

    Raises
    ------
    ValueError
        If the name is unknown, or has no graph of n clients.
    """
    if name not in NAMES:
        raise ValueError(f"no topology {name!r}; there are {', '.join(NAMES)}")
    if n < 2:
        raise ValueError(f"a topology needs at least 2 clients; n is {n}")
    return nx.convert_node_labels_to_integers(NAMES[name](n, seed), ordering="sorted")
