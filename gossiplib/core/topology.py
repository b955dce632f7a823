"""Who talks to whom: graphs of clients, and schedules of graphs.

A *topology* is any networkx graph whose nodes are the clients 0..n-1. In a directed
graph the edge (j, i) means that j sends its model to i. A *schedule* is a graph, or a
function from the round number (1, 2, ...) to a graph. Static and time-varying
topologies, lost links and churn are all schedules, so every engine gets them at once.

This module holds only what networkx lacks. It does not weigh the edges: see `mixing`.
"""

import warnings
from collections.abc import Callable
from math import isqrt, log, pi, sqrt
from typing import TypeAlias

import networkx as nx
import numpy as np

from gossiplib.system.numbers import Seed, check_share, check_whole, rng, seed_of

__all__ = [
    "NAMES",
    "Schedule",
    "at",
    "check_graph",
    "churn",
    "drop_links",
    "is_online",
    "named",
    "one_peer_exponential",
    "pull",
    "push",
    "push_pull",
    "random_matching",
    "receivers",
    "senders",
]

Schedule: TypeAlias = nx.Graph | Callable[[int], nx.Graph]


def _torus(n: int) -> nx.Graph:
    rows = next(r for r in range(isqrt(n), 0, -1) if n % r == 0)
    if rows < 3:
        raise ValueError(f"a torus needs n = rows x columns, both at least 3; n is {n}")
    return nx.grid_2d_graph(rows, n // rows, periodic=True)


def _hypercube(n: int) -> nx.Graph:
    if n & (n - 1):
        raise ValueError(f"a hypercube needs n to be a power of 2; n is {n}")
    return nx.hypercube_graph(n.bit_length() - 1)


def _barbell(n: int) -> nx.Graph:
    if n < 6:
        raise ValueError(f"a barbell needs at least 6 clients; n is {n}")
    return nx.barbell_graph(n // 2, n % 2)


def _regular(n: int, seed: int, degree: int) -> nx.Graph:
    if n <= degree:
        least = f"{degree}-regular graph needs at least {degree + 1} clients"
        raise ValueError(f"a {least}; n is {n}")
    if n % 2 and degree % 2:
        raise ValueError(f"links have two ends: n or degree must be even; n is {n}")
    return _connected(lambda s: nx.random_regular_graph(degree, n, seed=s), seed)


def _exponential(n: int) -> nx.DiGraph:
    hops = [2**k for k in range(_log2_up(n))]
    graph = nx.empty_graph(n, create_using=nx.DiGraph)
    graph.add_edges_from((i, (i + hop) % n) for i in range(n) for hop in hops)
    return graph


def _connected(build: Callable[[int], nx.Graph], seed: int) -> nx.Graph:
    """Return the first connected graph that `build` draws, of at most 100."""
    stream = rng(seed)
    for _ in range(100):
        graph = build(int(stream.integers(2**31)))
        if nx.is_connected(graph):
            return graph
    raise ValueError("100 random graphs in a row were disconnected; try a larger n")


def _log2_up(n: int) -> int:
    """Return ⌈log₂ n⌉, at least 1."""
    return max(1, (n - 1).bit_length())


#: name -> function (n, seed, degree, p) -> graph.
_BUILDERS: dict[str, Callable[[int, int, int, float | None], nx.Graph]] = {
    "ring": lambda n, *_: nx.cycle_graph(n) if n > 2 else nx.path_graph(n),
    "path": lambda n, *_: nx.path_graph(n),
    "star": lambda n, *_: nx.star_graph(n - 1),
    "complete": lambda n, *_: nx.complete_graph(n),
    "torus": lambda n, *_: _torus(n),
    "hypercube": lambda n, *_: _hypercube(n),
    "barbell": lambda n, *_: _barbell(n),
    "regular": lambda n, seed, degree, p: _regular(n, seed, degree),
    "small-world": lambda n, seed, degree, p: nx.connected_watts_strogatz_graph(
        n, max(2, min(degree, n - 1)), 0.2 if p is None else p, seed=seed
    ),
    "random": lambda n, seed, degree, p: _connected(
        lambda s: nx.gnp_random_graph(
            n, min(1, 2 * log(n) / n) if p is None else p, seed=s
        ),
        seed,
    ),
    "geometric": lambda n, seed, *_: _connected(
        lambda s: nx.random_geometric_graph(n, sqrt(2 * log(n) / (pi * n)), seed=s),
        seed,
    ),
    "exponential": lambda n, *_: _exponential(n),
}
#: The topologies that papers compare, for `named`.
NAMES = tuple(_BUILDERS)


def named(
    name: str, n: int, seed: Seed = 0, *, degree: int = 4, p: float | None = None
) -> nx.Graph:
    """Return a topology by its name.

    Parameters
    ----------
    name : str
        One of `NAMES`. "regular" is a random regular graph, "random" an Erdős-Rényi
        graph, "small-world" a Watts-Strogatz graph, "geometric" links clients that are
        near each other in a square, and "exponential" is directed: i sends to i + 1,
        i + 2, i + 4, ... (mod n).
    n : int
        Number of clients, at least 2.
    seed : int or numpy.random.Generator
        Seed of the random topologies.
    degree : int
        Neighbours of each client, at least 2, of "regular" and, before edges are
        rewired, of "small-world", where it is even.
    p : float, optional
        Of "random" the probability of an edge, by default 2 ln(n) / n, twice the
        density at which a random graph starts to be connected; of "small-world" the
        probability that an edge is rewired, by default 0.2.

    Returns
    -------
    networkx.Graph
        Connected, nodes 0..n-1, of that `name`; a `networkx.DiGraph` for "exponential".

    Raises
    ------
    ValueError
        If the name is unknown, or has no graph of n clients.
    """
    if name not in NAMES:
        raise ValueError(f"no topology {name!r}; there are {', '.join(NAMES)}")
    if check_whole("n", n, 0) < 2:
        raise ValueError(f"a topology needs at least 2 clients; n is {n}")
    if check_whole("degree", degree, 2) % 2 and name == "small-world":
        raise ValueError(f"the degree of a small world is even; got {degree}")
    if p is not None:
        check_share("p", p)
    graph = _BUILDERS[name](n, seed_of(seed), degree, p)
    graph = nx.convert_node_labels_to_integers(graph, ordering="sorted")
    graph.name = name
    return graph


def at(schedule: Schedule, server_round: int) -> nx.Graph:
    """Return the graph of `schedule` in `server_round`, 1, 2, ...

    Raises
    ------
    TypeError
        If it is not a simple networkx graph.
    """
    graph = schedule(server_round) if callable(schedule) else schedule
    _check_kind(graph)
    return graph


def _check_kind(graph: object) -> None:
    if not isinstance(graph, nx.Graph) or graph.is_multigraph():
        raise TypeError(
            f"a topology is a networkx Graph or DiGraph, not a {type(graph).__name__}"
        )


def senders(graph: nx.Graph, client: int) -> list[int]:
    """Return the clients whose models reach `client` in `graph`, in ascending order."""
    heard = graph.predecessors(client) if graph.is_directed() else graph[client]
    return sorted(map(int, heard))


def receivers(graph: nx.Graph, client: int) -> list[int]:
    """Return the clients that `client` reaches in `graph`, in ascending order."""
    return sorted(map(int, graph[client]))


def is_online(graph: nx.Graph, client: int) -> bool:
    """Tell whether `client` takes part in the round of `graph`, see `churn`."""
    return bool(graph.nodes[client].get("online", True))


def check_graph(graph: nx.Graph, n: int, *, connected: bool = True) -> None:
    """Raise an error unless `graph` is a topology of the clients 0..n-1.

    Parameters
    ----------
    graph : networkx.Graph
        What to check.
    n : int
        Number of clients.
    connected : bool
        Whether a path must lead from every client to every other. One round of a
        time-varying schedule need not be connected; a static graph must.

    Raises
    ------
    TypeError
        If it is not a simple networkx graph.
    ValueError
        If nodes are missing or foreign, a client is its own neighbour, or the graph
        is disconnected. The message names the clients.

    Warns
    -----
    UserWarning
        If edges have weights: they are not used.
    """
    _check_kind(graph)
    wanted, found = set(range(n)), set(graph)
    if wanted != found:
        missing, foreign = wanted - found, found - wanted
        raise ValueError(
            f"the nodes of the graph must be the clients 0..{n - 1}: "
            f"missing {_some(missing)}; not a client {_some(foreign)}; "
            "networkx.convert_node_labels_to_integers(graph) numbers them"
        )
    if loops := {i for i in graph if graph.has_edge(i, i)}:
        raise ValueError(
            f"self-loops at {_some(loops)}: a client always keeps a share of its own "
            "model, so leave them out (graph.remove_edges_from(nx.selfloop_edges(g)))"
        )
    if any(weight != 1 for *_, weight in graph.edges(data="weight", default=1)):
        warnings.warn(
            "the graph's edges have weights, which gossip does not use: how much "
            "clients listen to each other is told by a mixing matrix, see mixing",
            stacklevel=3,
        )
    if connected and n > 1:
        parts = list(
            nx.strongly_connected_components(graph)
            if graph.is_directed()
            else nx.connected_components(graph)
        )
        if len(parts) > 1:
            raise ValueError(
                f"the graph is disconnected, so no average can form: it falls into "
                f"{len(parts)} parts, the smallest {_some(min(parts, key=len))}"
            )


def _some(clients: set[int]) -> str:
    numbers = all(isinstance(one, int) for one in clients)
    listed = sorted(clients, key=None if numbers else repr)
    more = f" and {len(listed) - 5} more" if len(listed) > 5 else ""
    return (", ".join(map(repr, listed[:5])) or "none") + more


def one_peer_exponential(n: int) -> Schedule:
    """Return the one-peer exponential schedule: in round t, i sends to i + 2^k (mod n).

    k = (t - 1) mod ⌈log₂ n⌉. Each client sends one model a round. With weights 1/2
    the average is exact after log₂ n rounds if, and only if, n is a power of 2.

    References
    ----------
    Ying et al. 2021, "Exponential Graph is Provably Efficient for Decentralized Deep
    Training", arXiv:2110.13363.
    """

    def schedule(server_round: int) -> nx.DiGraph:
        hop = 2 ** ((server_round - 1) % _log2_up(n))
        graph = nx.empty_graph(n, create_using=nx.DiGraph)
        graph.add_edges_from((i, (i + hop) % n) for i in range(n if n > 1 else 0))
        return graph

    return schedule


def random_matching(graph: nx.Graph, seed: Seed = 0) -> Schedule:
    """Return a schedule that pairs neighbours at random, each client at most once.

    The edges of `graph` are taken in a random order, and kept where both ends are
    still free (a maximal matching, as in the pairwise gossip of Boyd et al. 2006,
    doi:10.1109/TIT.2006.874516, but many pairs a round).

    Parameters
    ----------
    graph : networkx.Graph
        Who can be paired with whom.
    seed : int or numpy.random.Generator
        Decides the pairs of all rounds.
    """
    check_graph(graph, len(graph), connected=False)
    edges, number = list(graph.edges), seed_of(seed)

    def schedule(server_round: int) -> nx.Graph:
        matching = nx.empty_graph(len(graph))
        free = np.ones(len(graph), dtype=bool)
        for e in rng(number, server_round, use="matching").permutation(len(edges)):
            i, j = edges[e]
            if free[i] and free[j]:
                matching.add_edge(i, j)
                free[[i, j]] = False
        return matching

    return schedule


def push(graph: nx.Graph, seed: Seed = 0) -> Schedule:
    """Return a schedule in which each client sends to one random neighbour a round.

    Who may is told by the links of `graph`; `seed` decides all rounds.
    """
    return _calls(graph, seed, "push", receivers, nx.DiGraph)


def pull(graph: nx.Graph, seed: Seed = 0) -> Schedule:
    """Return a schedule in which each client hears one random neighbour a round.

    Who may is told by the links of `graph`; `seed` decides all rounds.
    """
    return _calls(graph, seed, "pull", senders, nx.DiGraph)


def push_pull(graph: nx.Graph, seed: Seed = 0) -> Schedule:
    """Return a schedule in which each client swaps models with a random neighbour.

    A client that others choose as well swaps with all of them, in the same round.

    Parameters
    ----------
    graph : networkx.Graph
        Who may swap with whom; undirected.
    seed : int or numpy.random.Generator
        Decides the choices of all rounds.

    Raises
    ------
    ValueError
        If the graph is directed.
    """
    if graph.is_directed():
        raise ValueError("push_pull goes both ways: it needs an undirected graph")
    return _calls(graph, seed, "push-pull", receivers, nx.Graph)


def _calls(
    graph: nx.Graph,
    seed: Seed,
    use: str,
    candidates: Callable[[nx.Graph, int], list[int]],
    kind: type[nx.Graph],
) -> Schedule:
    """Return a schedule in which each client calls one random candidate a round."""
    check_graph(graph, len(graph), connected=False)
    choices = [candidates(graph, i) for i in range(len(graph))]
    number = seed_of(seed)

    def schedule(server_round: int) -> nx.Graph:
        stream = rng(number, server_round, use=use)
        calls = [(i, c[stream.integers(len(c))]) for i, c in enumerate(choices) if c]
        called = nx.empty_graph(len(graph), create_using=kind)
        # Who pulls is the receiver of the link.
        called.add_edges_from((j, i) if use == "pull" else (i, j) for i, j in calls)
        return called

    return schedule


def drop_links(schedule: Schedule, p: float, seed: Seed = 0) -> Schedule:
    """Return a schedule that loses each link with probability p, afresh each round.

    An undirected link is lost both ways. Give `graph.to_directed()` to lose each
    direction on its own. Two `drop_links` around each other need different seeds.

    Parameters
    ----------
    schedule : networkx.Graph or callable
        The links without loss.
    p : float
        Probability that a link is lost in a round, 0 to 1.
    seed : int or numpy.random.Generator
        Decides the losses of all rounds.

    Raises
    ------
    ValueError
        If p is no probability.
    """
    check_share("p", p)
    number = seed_of(seed)

    def dropped(server_round: int) -> nx.Graph:
        graph = at(schedule, server_round).copy()
        edges = list(graph.edges)
        lost = rng(number, server_round, use="links").random(len(edges)) < p
        graph.remove_edges_from(e for e, gone in zip(edges, lost, strict=True) if gone)
        return graph

    return dropped


def churn(schedule: Schedule, online: float, seed: Seed = 0) -> Schedule:
    """Return a schedule in which each client is online with probability `online`.

    Afresh each round. A client that is offline has no links in that round, and its
    node attribute `online` is False: it neither trains nor averages.

    Parameters
    ----------
    schedule : networkx.Graph or callable
        The links while all are online.
    online : float
        Probability that a client is online in a round, 0 to 1.
    seed : int or numpy.random.Generator
        Decides who is online in all rounds.

    Raises
    ------
    ValueError
        If `online` is no probability.
    """
    check_share("online", online)
    number = seed_of(seed)

    def churned(server_round: int) -> nx.Graph:
        graph = at(schedule, server_round).copy()
        away = rng(number, server_round, use="churn").random(len(graph)) >= online
        graph.remove_edges_from([(i, j) for i, j in graph.edges if away[i] or away[j]])
        here = {i: is_online(graph, i) and not away[i] for i in graph}
        nx.set_node_attributes(graph, here, "online")
        return graph

    return churned
