"""Who talks to whom: graphs of clients, and schedules of graphs.

A *topology* is any networkx graph whose nodes are the clients 0..n-1. In a directed
graph the edge (j, i) means that j sends its model to i. For very many clients it is a
sparse adjacency A instead, with A[i, j] != 0 where i hears j: see `adjacency`. A
*schedule* is a topology, or a function from the round number (1, 2, ...) to one.
Static and time-varying topologies, lost links and churn are all schedules, so every
engine gets them at once. Those made here give what they are given: graph or adjacency.

This module holds only what networkx lacks. It does not weigh the edges: see `mixing`.
"""

import warnings
from collections.abc import Callable
from math import log, pi, sqrt
from typing import TypeAlias

import networkx as nx
import numpy as np

from gossiplib.core import adjacency
from gossiplib.core.adjacency import Graph, check_kind, num_clients
from gossiplib.system.numbers import Seed, check_share, check_whole, rng, seed_of

__all__ = [
    "NAMES",
    "Graph",
    "Schedule",
    "at",
    "check_graph",
    "churn",
    "drop_links",
    "is_online",
    "named",
    "num_clients",
    "one_peer_exponential",
    "pull",
    "push",
    "push_pull",
    "random_matching",
    "receivers",
    "senders",
]

Schedule: TypeAlias = Graph | Callable[[int], Graph]


def _exponential(n: int) -> nx.DiGraph:
    hops = [2**k for k in range(_log2_up(n))]
    graph = nx.empty_graph(n, create_using=nx.DiGraph)
    graph.add_edges_from((i, (i + hop) % n) for i in range(n) for hop in hops)
    return graph


def _connected(build: Callable[[int], Graph], seed: int) -> Graph:
    """Return the first connected graph that `build` draws, of at most 100."""
    stream = rng(seed)
    for _ in range(100):
        graph = build(int(stream.integers(2**31)))
        if adjacency.parts(graph)[0] == 1:
            return graph
    raise ValueError("100 random graphs in a row were disconnected; try a larger n")


def _log2_up(n: int) -> int:
    """Return ⌈log₂ n⌉, at least 1."""
    return max(1, (n - 1).bit_length())


#: name -> function (n, seed, degree, p) -> graph.
_BUILDERS: dict[str, Callable[[int, int, int, float | None], Graph]] = {
    "ring": lambda n, *_: nx.cycle_graph(n) if n > 2 else nx.path_graph(n),
    "path": lambda n, *_: nx.path_graph(n),
    "star": lambda n, *_: nx.star_graph(n - 1),
    "complete": lambda n, *_: nx.complete_graph(n),
    "torus": lambda n, *_: nx.grid_2d_graph(
        adjacency.rows_of(n), n // adjacency.rows_of(n), periodic=True
    ),
    "hypercube": lambda n, *_: nx.hypercube_graph(n.bit_length() - 1),
    "barbell": lambda n, *_: nx.barbell_graph(n // 2, n % 2),
    "regular": lambda n, seed, degree, p: nx.random_regular_graph(degree, n, seed=seed),
    "small-world": lambda n, seed, degree, p: nx.connected_watts_strogatz_graph(
        n, max(2, min(degree, n - 1)), 0.2 if p is None else p, seed=seed
    ),
    "random": lambda n, seed, degree, p: nx.gnp_random_graph(
        n, min(1, 2 * log(n) / n) if p is None else p, seed=seed
    ),
    "geometric": lambda n, seed, *_: nx.random_geometric_graph(
        n, sqrt(2 * log(n) / (pi * n)), seed=seed
    ),
    "exponential": lambda n, *_: _exponential(n),
}
#: The topologies that papers compare, for `named`.
NAMES = tuple(_BUILDERS)
#: Those that may be disconnected: then they are drawn again.
_DRAWN = ("regular", "random", "geometric")


def named(
    name: str, n: int, seed: Seed = 0, *, degree: int = 4, p: float | None = None
) -> Graph:
    """Return a topology by its name.

    More than 10,000 clients get an adjacency, which numpy makes in seconds.

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
    networkx.Graph or scipy.sparse.csr_array
        Connected, nodes 0..n-1, of that `name`; a `networkx.DiGraph` for "exponential".
        From 10,001 clients on the adjacency, shape (n, n), A[i, j] = 1 where i hears j.

    Raises
    ------
    ValueError
        If the name is unknown, or has no graph of n clients, or no p that is given.
    """
    if name not in NAMES:
        raise ValueError(f"no topology {name!r}; there are {', '.join(NAMES)}")
    if (n := check_whole("n", n, 0)) < 2:
        raise ValueError(f"a topology needs at least 2 clients; n is {n}")
    if (degree := check_whole("degree", degree, 2)) % 2 and name == "small-world":
        raise ValueError(f"the degree of a small world is even; got {degree}")
    if p is not None:
        check_share("p", p)
        if name not in ("random", "small-world"):
            raise ValueError(f"p belongs to random and small-world; {name} takes none")
    _check_size(name, n, degree)
    large, number = n > adjacency.LARGE, seed_of(seed)
    builders = _BUILDERS | adjacency.BUILDERS if large else _BUILDERS

    def build(seed: int) -> Graph:
        return builders[name](n, seed, degree, p)

    graph = _connected(build, number) if name in _DRAWN else build(number)
    if large:
        if not adjacency.is_sparse(graph):
            graph = adjacency.sparse(n, *adjacency.edges(graph))
        return graph
    graph = nx.convert_node_labels_to_integers(graph, ordering="sorted")
    graph.name = name
    return graph


def _check_size(name: str, n: int, degree: int) -> None:
    if name == "torus" and adjacency.rows_of(n) < 3:
        raise ValueError(f"a torus needs n = rows x columns, both at least 3; n is {n}")
    if name == "hypercube" and n & (n - 1):
        raise ValueError(f"a hypercube needs n to be a power of 2; n is {n}")
    if name == "barbell" and n < 6:
        raise ValueError(f"a barbell needs at least 6 clients; n is {n}")
    if name == "regular" and n <= degree:
        least = f"{degree}-regular graph needs at least {degree + 1} clients"
        raise ValueError(f"a {least}; n is {n}")
    if name == "regular" and n % 2 and degree % 2:
        raise ValueError(f"links have two ends: n or degree must be even; n is {n}")


def at(schedule: Schedule, server_round: int) -> Graph:
    """Return the graph of `schedule` in `server_round`, 1, 2, ...

    Raises
    ------
    TypeError
        If it is neither a simple networkx graph nor a sparse adjacency.
    """
    graph = schedule(server_round) if callable(schedule) else schedule
    check_kind(graph)
    return graph


def _checked(schedule: Schedule, server_round: int) -> Graph:
    """Return the graph of a round whose nodes are clients; it may be disconnected."""
    graph = at(schedule, server_round)
    check_graph(graph, num_clients(graph), connected=False)
    return graph


def senders(graph: Graph, client: int) -> list[int]:
    """Return the clients whose models reach `client` in `graph`, in ascending order."""
    if adjacency.is_sparse(graph):
        A = adjacency.as_csr(graph)
        heard = A.indices[A.indptr[client] : A.indptr[client + 1]]
    else:
        heard = graph.predecessors(client) if graph.is_directed() else graph[client]
    return sorted(map(int, heard))


def receivers(graph: Graph, client: int) -> list[int]:
    """Return the clients that `client` reaches in `graph`, in ascending order."""
    if adjacency.is_sparse(graph):
        return senders(graph.T, client)
    return sorted(map(int, graph[client]))


def is_online(graph: Graph, client: int) -> bool:
    """Tell whether `client` takes part in the round of `graph`, see `churn`."""
    if adjacency.is_sparse(graph):
        return bool(adjacency.online(graph)[client])
    return bool(graph.nodes[client].get("online", True))


def check_graph(graph: Graph, n: int, *, connected: bool = True) -> None:
    """Raise an error unless `graph` is a topology of the clients 0..n-1.

    Parameters
    ----------
    graph : networkx.Graph or scipy.sparse.csr_array
        What to check.
    n : int
        Number of clients.
    connected : bool
        Whether a path must lead from every client to every other. One round of a
        time-varying schedule need not be connected; a static graph must.

    Raises
    ------
    TypeError
        If it is neither a simple networkx graph nor a sparse adjacency.
    ValueError
        If nodes are missing or foreign, a client is its own neighbour, `online` is no
        truth value, or the graph is disconnected. The message names the clients.

    Warns
    -----
    UserWarning
        If edges have weights: they are not used.
    """
    check_kind(graph)
    if adjacency.is_sparse(graph):
        weighted = _check_array(graph, n)
    else:
        weighted = _check_nodes(graph, n)
    if weighted:
        warnings.warn(
            "the graph's edges have weights, which gossip does not use: how much "
            "clients listen to each other is told by a mixing matrix, see mixing",
            stacklevel=3,
        )
    if connected and n > 1:
        count, smallest = adjacency.parts(graph)
        if count > 1:
            raise ValueError(
                f"the graph is disconnected, so no average can form: it falls into "
                f"{count} parts, the smallest {_some(smallest)}"
            )


def _check_nodes(graph: nx.Graph, n: int) -> bool:
    """Check nodes and loops; tell whether edges have weights."""
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
    for i, here in graph.nodes(data="online", default=True):
        if not isinstance(here, bool | np.bool_):
            raise ValueError(f"online is True or False; of client {i} it is {here!r}")
    return any(weight != 1 for *_, weight in graph.edges(data="weight", default=1))


def _check_array(A: Graph, n: int) -> bool:
    """Check shapes and the diagonal; tell whether links have weights."""
    if A.shape != (n, n):
        raise ValueError(
            f"the adjacency of {n} clients must be {n} x {n}, one row and one column a "
            f"client; it is {' x '.join(map(str, A.shape))}"
        )
    here = np.asarray(getattr(A, "online", np.ones(n, dtype=bool)))
    if here.shape != (n,) or here.dtype != bool:
        raise ValueError(
            f"online must be an array of {n} truth values, one a client; it is "
            f"{here.dtype} of shape {here.shape}"
        )
    if loops := set(np.flatnonzero(A.diagonal()).tolist()):
        raise ValueError(
            f"self-loops at {_some(loops)}: a client always keeps a share of its own "
            "model, so leave the diagonal of the adjacency 0"
        )
    return bool((adjacency.as_csr(A).data != 1).any())


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
    n = check_whole("n", n, 1)
    i = np.arange(n if n > 1 else 0)

    def schedule(server_round: int) -> Graph:
        j = (i + 2 ** ((server_round - 1) % _log2_up(n))) % n
        if n > adjacency.LARGE:
            return adjacency.sparse(n, i, j, directed=True)
        return adjacency.alike(nx.empty_graph(n), i, j, directed=True)

    return schedule


def random_matching(graph: Graph, seed: Seed = 0) -> Schedule:
    """Return a schedule that pairs neighbours at random, each client at most once.

    The edges of `graph` are taken in a random order, and kept where both ends are
    still free (a maximal matching, as in the pairwise gossip of Boyd et al. 2006,
    doi:10.1109/TIT.2006.874516, but many pairs a round).

    Parameters
    ----------
    graph : networkx.Graph or scipy.sparse.csr_array
        Who can be paired with whom; undirected.
    seed : int or numpy.random.Generator
        Decides the pairs of all rounds.

    Raises
    ------
    ValueError
        If the graph is directed, or has clients that are offline.
    """
    n = _drawn_from(graph, undirected="random_matching")
    ends, number = np.stack(adjacency.edges(graph)), seed_of(seed)

    def schedule(server_round: int) -> Graph:
        stream = rng(number, server_round, use="matching")
        i, j = ends[:, stream.permutation(ends.shape[1])]
        taken, free = np.zeros(len(i), dtype=bool), np.ones(n, dtype=bool)
        left = np.arange(len(i))
        while len(left):  # at once all edges that are the first left at both ends
            first = np.full(n, len(i))
            np.minimum.at(first, i[left], left)
            np.minimum.at(first, j[left], left)
            now = left[(first[i[left]] == left) & (first[j[left]] == left)]
            taken[now] = True
            free[i[now]] = free[j[now]] = False
            left = left[free[i[left]] & free[j[left]]]
        return adjacency.alike(graph, i[taken], j[taken], directed=False)

    return schedule


def push(graph: Graph, seed: Seed = 0) -> Schedule:
    """Return a schedule in which each client sends to one random neighbour a round.

    Who may is told by the links of `graph`; `seed` decides all rounds.
    """
    return _calls(graph, seed, "push")


def pull(graph: Graph, seed: Seed = 0) -> Schedule:
    """Return a schedule in which each client hears one random neighbour a round.

    Who may is told by the links of `graph`; `seed` decides all rounds.
    """
    return _calls(graph, seed, "pull")


def push_pull(graph: Graph, seed: Seed = 0) -> Schedule:
    """Return a schedule in which each client swaps models with a random neighbour.

    A client that others choose as well swaps with all of them, in the same round.

    Parameters
    ----------
    graph : networkx.Graph or scipy.sparse.csr_array
        Who may swap with whom; undirected.
    seed : int or numpy.random.Generator
        Decides the choices of all rounds.

    Raises
    ------
    ValueError
        If the graph is directed, or has clients that are offline.
    """
    return _calls(graph, seed, "push-pull")


def _drawn_from(graph: Graph, undirected: str = "") -> int:
    """Check a graph of whose links some are drawn in each round; return its clients."""
    check_graph(graph, n := num_clients(graph), connected=False)
    if undirected and adjacency.is_directed(graph):
        raise ValueError(f"{undirected} goes both ways: it needs an undirected graph")
    if (away := np.flatnonzero(~adjacency.online(graph))).size:
        raise ValueError(
            f"client {away[0]} is offline in the graph, and links are drawn from all: "
            "remove its links, or wrap the schedule in topology.churn"
        )
    return n


def _calls(graph: Graph, seed: Seed, use: str) -> Schedule:
    """Return a schedule in which each client calls one random neighbour a round."""
    n = _drawn_from(graph, undirected="push_pull" if use == "push-pull" else "")
    i, j = adjacency.links(graph)
    pulls = use == "pull"  # then the caller is the receiver
    callers, called = np.divmod(np.sort(i * n + j if pulls else j * n + i), n)
    degree, number = np.bincount(callers, minlength=n), seed_of(seed)
    who = np.flatnonzero(degree)
    degree, starts = degree[who], (np.cumsum(degree) - degree)[who]

    def schedule(server_round: int) -> Graph:
        stream = rng(number, server_round, use=use)
        whom = called[starts + stream.integers(degree)]
        ends = (whom, who) if pulls else (who, whom)
        return adjacency.alike(graph, *ends, directed=use != "push-pull")

    return schedule


def drop_links(schedule: Schedule, p: float, seed: Seed = 0) -> Schedule:
    """Return a schedule that loses each link with probability p, afresh each round.

    An undirected link is lost both ways. Give `graph.to_directed()`, or an adjacency
    with `A.directed = True`, to lose each direction on its own. Two `drop_links` around
    each other need different seeds.

    Parameters
    ----------
    schedule : networkx.Graph, scipy.sparse.csr_array or callable
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

    def dropped(server_round: int) -> Graph:
        graph = _checked(schedule, server_round)
        number_of_edges = len(adjacency.edges(graph)[0])
        chance = rng(number, server_round, use="links").random(number_of_edges)
        return adjacency.without(graph, chance < p)

    return dropped


def churn(schedule: Schedule, online: float, seed: Seed = 0) -> Schedule:
    """Return a schedule in which each client is online with probability `online`.

    Afresh each round. A client that is offline has no links in that round, and its
    node attribute `online` (or `A.online[i]`) is False: it neither trains nor averages.

    Parameters
    ----------
    schedule : networkx.Graph, scipy.sparse.csr_array or callable
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

    def churned(server_round: int) -> Graph:
        graph = _checked(schedule, server_round)
        stream = rng(number, server_round, use="churn")
        away = stream.random(num_clients(graph)) >= online
        i, j = adjacency.edges(graph)
        return adjacency.without(graph, away[i] | away[j], away)

    return churned
