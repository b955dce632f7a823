"""Graphs as sparse adjacencies: those of networkx, in another form."""

import networkx as nx
import numpy as np
import pytest
import scipy.sparse
from scipy.spatial.distance import pdist, squareform

from gossiplib.asynchronous.network import Traffic
from gossiplib.core import adjacency, mixing, topology
from gossiplib.core.averaging import weighted_mean
from gossiplib.core.client import gossip
from gossiplib.core.grid import LocalGrid
from gossiplib.core.server import Gossip
from gossiplib.protocols import PushSum
from gossiplib.system.numbers import rng
from gossiplib.vectorized.consensus import averaging_rounds
from toy_apps import SIZE, still_app, vector, zeros

LONELY = nx.Graph([(0, 1), (1, 4), (2, 4)])
LONELY.add_nodes_from(range(6))
GRAPHS = {
    "torus": topology.named("torus", 12),
    "star": nx.star_graph(6),
    "exponential": topology.named("exponential", 11),
    "one way": nx.DiGraph([(0, 1), (0, 2), (0, 3), (3, 0)]),
    "lonely": LONELY,
}
SCHEDULES = {
    "random_matching": lambda g: topology.random_matching(g, 3),
    "push": lambda g: topology.push(g, 3),
    "pull": lambda g: topology.pull(g, 3),
    "push_pull": lambda g: topology.push_pull(g, 3),
    "drop_links": lambda g: topology.drop_links(g, 0.4, 3),
    "churn": lambda g: topology.churn(g, 0.6, 3),
    "churn of drop of push": lambda g: topology.churn(
        topology.drop_links(topology.push(g, 2), 0.2), 0.7
    ),
    "drop of churn of churn": lambda g: topology.drop_links(
        topology.churn(topology.churn(g, 0.8), 0.8, 1), 0.2
    ),
}


def dense(graph):
    """Return A as networkx has it: A[i, j] = 1 where j sends to i."""
    return nx.to_numpy_array(graph, nodelist=range(len(graph)), dtype=int).T


def sparse(graph, form=scipy.sparse.csr_array):
    """Return a networkx graph in another form."""
    nodes = sorted(graph)
    return form(nx.to_scipy_sparse_array(graph, nodelist=nodes, dtype=int).T)


def in_order(graph):
    """Return a networkx graph with its clients and edges in ascending order."""
    made = nx.empty_graph(len(graph), create_using=type(graph))
    made.add_edges_from(sorted(graph.edges))
    return made


def same(A, graph):
    """Tell whether both have the same links, and the same clients online."""
    here = [graph.nodes[i].get("online", True) for i in sorted(graph)]
    told = [topology.is_online(A, i) for i in range(topology.num_clients(A))]
    return (A.toarray() == dense(graph)).all() and here == told


@pytest.fixture
def small(monkeypatch):
    """Let ten clients be many."""
    monkeypatch.setattr(adjacency, "LARGE", 10)


# What numpy makes ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        *((name, (12, 16, 35, 64)) for name in ("ring", "path", "star", "exponential")),
        ("complete", (12,)),
        ("torus", (12, 35, 64)),
        ("hypercube", (16, 64)),
    ],
)
def test_a_topology_that_needs_no_chance_is_that_of_networkx(name, sizes, small):
    for n in sizes:
        A = topology.named(name, n)
        wanted = adjacency.LARGE
        adjacency.LARGE = n
        assert (A.toarray() == dense(topology.named(name, n))).all()
        adjacency.LARGE = wanted


@pytest.mark.parametrize("name", topology.NAMES)
def test_a_named_adjacency_is_connected_and_decided_by_its_seed(name, small):
    graphs = [topology.named(name, 16, seed) for seed in (1, 1, 2)]
    for A in graphs:
        assert isinstance(A, scipy.sparse.csr_array) and A.has_canonical_format
        topology.check_graph(A, 16)
        as_nx = nx.from_numpy_array(A.toarray().T, create_using=nx.DiGraph)
        assert nx.is_strongly_connected(as_nx)
    assert (graphs[0] != graphs[1]).nnz == 0
    drawn = name in ("regular", "small-world", "random", "geometric")
    assert ((graphs[1] != graphs[2]).nnz > 0) == drawn


def test_ten_thousand_clients_are_a_networkx_graph_and_one_more_are_not():
    assert isinstance(topology.named("ring", 10_000), nx.Graph)
    A = topology.named("ring", 10_001)
    assert A.shape == (10_001, 10_001) and A.nnz == 20_002


@pytest.mark.parametrize(
    ("name", "n", "says"),
    [
        ("torus", 10_007, "rows x columns.*n is 10007"),
        ("hypercube", 10_001, "power of 2.*n is 10001"),
        ("regular", 10_001, "n or degree must be even; n is 10001"),
    ],
)
def test_what_has_no_graph_has_no_adjacency(name, n, says):
    with pytest.raises(ValueError, match=says):
        topology.named(name, n, degree=3)


@pytest.mark.parametrize(("n", "degree"), [(11, 4), (12, 5), (40, 16), (10_002, 5)])
def test_a_random_regular_graph_is_simple_and_regular(n, degree, small):
    A = topology.named("regular", n, degree=degree)
    assert (A.sum(axis=0) == degree).all() and (A.sum(axis=1) == degree).all()
    assert (A != A.T).nnz == 0 and not A.diagonal().any() and A.max() == 1


def test_random_regular_graphs_have_as_many_triangles_as_theory_says():
    """In large ones their number is of a Poisson distribution, mean (d - 1)^3 / 6."""
    draws, found = 200, 0
    for seed in range(draws):
        A = adjacency.BUILDERS["regular"](600, seed, 4, None).astype(int)
        found += (A @ A * A).sum() / 6
    assert abs(found / draws - 27 / 6) < 5 * (27 / 6 / draws) ** 0.5


@pytest.mark.parametrize("p", [0, 0.05, 0.5, 1])
def test_each_pair_is_a_link_of_a_random_graph_with_probability_p(p):
    n, draws = 7, 1000
    build = adjacency.BUILDERS["random"]
    often = np.mean([build(n, s, 0, p).toarray() for s in range(draws)], axis=0)
    often = often[np.triu_indices(n, 1)]
    assert (np.abs(often - p) <= 5 * (p * (1 - p) / draws) ** 0.5).all()


def test_a_random_graph_is_as_dense_as_that_of_networkx():
    n = 20_000
    links = topology.named("random", n, 1).nnz
    p = 2 * np.log(n) / n
    wanted = n * (n - 1) * p
    assert abs(links - wanted) < 5 * (2 * wanted) ** 0.5


def test_a_geometric_graph_links_who_is_near():
    n = 60
    A = adjacency.BUILDERS["geometric"](n, 5, 0, None).toarray()
    near = squareform(pdist(rng(5).random((n, 2)))) < np.sqrt(2 * np.log(n) / np.pi / n)
    assert (A == near - np.eye(n)).all()


@pytest.mark.parametrize("n", [11, 16])
def test_one_peer_exponential_is_the_same_in_both_forms(n, small):
    large = topology.one_peer_exponential(n)
    for t in range(1, 6):
        hop = 2 ** ((t - 1) % int(np.ceil(np.log2(n))))
        wanted = nx.DiGraph([(i, (i + hop) % n) for i in range(n)])
        assert same(large(t), wanted)


# What takes it ------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", GRAPHS)
def test_a_seed_means_the_same_to_both_forms(name, schedule):
    graph, make = GRAPHS[name], SCHEDULES[schedule]
    if schedule in ("push_pull", "random_matching") and graph.is_directed():
        with pytest.raises(ValueError, match="undirected"):
            make(sparse(graph))
        return
    for t in range(1, 9):
        assert same(make(sparse(graph))(t), make(in_order(graph))(t))


@pytest.mark.parametrize("name", GRAPHS)
def test_what_is_asked_of_a_graph_is_the_same_of_both_forms(name):
    graph = GRAPHS[name]
    A, n = sparse(graph), len(graph)
    assert topology.num_clients(A) == n
    assert adjacency.is_directed(A) == graph.is_directed()
    for i in range(n):
        assert topology.senders(A, i) == topology.senders(graph, i)
        assert topology.receivers(A, i) == topology.receivers(graph, i)
    for find in (adjacency.links, adjacency.edges):
        one, other = (set(zip(*map(list, find(g)), strict=True)) for g in (A, graph))
        undirected = find is adjacency.edges and not graph.is_directed()
        turn = (lambda e: tuple(sorted(e))) if undirected else tuple
        assert set(map(turn, one)) == set(map(turn, other))


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("rule", ["uniform", "metropolis", "max_degree"])
def test_weights_of_an_adjacency_are_sparse_and_the_same(name, rule):
    graph, weights = GRAPHS[name], getattr(mixing, rule)
    if rule == "max_degree" and graph.is_directed():
        with pytest.raises(ValueError, match="undirected"):
            weights(sparse(graph))
        return
    W = weights(sparse(graph))
    assert scipy.sparse.issparse(W)
    assert np.allclose(W.toarray(), weights(graph), rtol=0, atol=1e-15)
    mixing.check_weights(W, sparse(graph))
    far = max(set(graph) - {0, *topology.senders(graph, 0)}, default=None)
    if far is not None:
        W = W.tolil()
        W[0, far], W[0, 0] = 0.1, W[0, 0] - 0.1
        with pytest.raises(ValueError, match=f"client 0 weighs client {far}, which"):
            mixing.check_weights(W.tocsr(), sparse(graph))


def test_best_constant_takes_an_adjacency():
    graph = topology.named("torus", 12)
    W = mixing.best_constant(sparse(graph)).toarray()
    assert np.allclose(W, mixing.best_constant(graph))
    with pytest.raises(ValueError, match="connected"):
        mixing.best_constant(sparse(LONELY))


def entries(*at):
    i, j = np.transpose(at)
    return scipy.sparse.csr_array((np.ones(len(at)), (i, j)), shape=(3, 3))


def online(A, here):
    A.online = here
    return A


RING = topology.named("ring", 3)


@pytest.mark.parametrize(
    ("A", "says"),
    [
        (scipy.sparse.csr_array((3, 4)), "3 clients must be 3 x 3.*it is 3 x 4"),
        (sparse(nx.path_graph(4)), "3 clients must be 3 x 3.*it is 4 x 4"),
        (entries((0, 1), (1, 1)), "self-loops at 1.*diagonal"),
        (entries((0, 1), (1, 0)), "disconnected.*2 parts, the smallest 2"),
        (entries((0, 1), (1, 2)), "disconnected.*3 parts"),
        (online(sparse(RING), np.ones(2, bool)), "3 truth values.*shape \\(2,\\)"),
        (online(sparse(RING), np.ones(3)), "3 truth values.*float64"),
    ],
)
def test_check_graph_says_what_is_wrong_with_an_adjacency(A, says):
    with pytest.raises(ValueError, match=says):
        topology.check_graph(A, 3)


@pytest.mark.parametrize("make", [SCHEDULES["drop_links"], SCHEDULES["churn"]])
def test_a_schedule_of_what_is_no_graph_of_clients_says_so(make):
    with pytest.raises(ValueError, match="not a client 'a', 'b'"):
        make(nx.Graph([("a", "b")]))(1)
    with pytest.raises(ValueError, match="3 clients must be 3 x 3"):
        make(scipy.sparse.csr_array(np.eye(3, 4)))(1)


def test_an_adjacency_that_says_so_loses_each_direction_on_its_own():
    """As `graph.to_directed()` does."""
    A = sparse(nx.complete_graph(12))
    left = topology.drop_links(A, 0.5)(1)
    assert (left != left.T).nnz == 0
    A.directed = True
    left = topology.drop_links(A, 0.5)(1)
    assert same(left, topology.drop_links(nx.complete_graph(12).to_directed(), 0.5)(1))
    assert (left != left.T).nnz


def test_weights_of_an_adjacency_warn():
    with pytest.warns(UserWarning, match="have weights"):
        topology.check_graph(0.5 * sparse(RING), 3)


@pytest.mark.parametrize("form", ["csr_matrix", "csc_array", "coo_array", "lil_array"])
def test_any_form_of_scipy_is_an_adjacency(form):
    A = sparse(nx.path_graph(5), getattr(scipy.sparse, form))
    topology.check_graph(A, 5)
    W = mixing.metropolis(A)
    assert np.allclose(W.toarray(), mixing.metropolis(nx.path_graph(5)))
    assert topology.senders(A, 1) == [0, 2]


def test_a_stored_zero_is_no_link_and_an_entry_may_be_there_twice():
    # 0 - 1 - 2, with 0 -> 2 stored as 0, and 1 -> 0 stored as a half, twice.
    i, j = [0, 0, 1, 1, 2, 2], [1, 1, 0, 2, 1, 0]
    A = scipy.sparse.coo_array(([0.5, 0.5, 1, 1, 1, 0], (i, j)), shape=(3, 3))
    for B in (A, scipy.sparse.csr_array((A.data, j, [0, 2, 4, 6]), shape=(3, 3))):
        before = B.nnz
        topology.check_graph(B, 3)
        assert same(topology.drop_links(B, 0)(1), nx.path_graph(3))
        assert B.nnz == before  # it is the caller's


# Both engines -------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", [lambda g: g, *SCHEDULES.values()])
@pytest.mark.parametrize("average", [weighted_mean, PushSum()], ids=["mean", "sum"])
def test_averages_over_an_adjacency_are_those_over_its_graph(schedule, average):
    graph = topology.named("torus", 12)
    X = np.random.default_rng(0).normal(size=(12, 3))
    weights = mixing.metropolis if average is weighted_mean else mixing.uniform
    runs = [
        averaging_rounds(X, schedule(g), average=average, weights=weights)
        for g in (in_order(graph), sparse(graph))
    ]
    for _ in range(5):
        (x, sent), (y, also) = (next(run) for run in runs)
        assert (x == y).all() and sent == also


def test_ten_thousand_clients_may_be_a_networkx_graph():
    n = 10_001
    X = np.random.default_rng(0).normal(size=(n, 1))
    x, y = (
        next(averaging_rounds(X, g))
        for g in (nx.cycle_graph(n), topology.named("ring", n))
    )
    assert (x[0] == y[0]).all() and x[1] == y[1]
    assert np.allclose(x[0], (X + np.roll(X, 1, axis=0) + np.roll(X, -1, axis=0)) / 3)


def test_local_grid_takes_an_adjacency_and_sees_that_it_changed():
    """The models are those of numpy; a link goes after the first round."""
    A = sparse(nx.complete_graph(5))
    B = sparse(nx.cycle_graph(5))

    class Grid(LocalGrid):
        def send_and_receive(self, messages, **options):
            replies = super().send_and_receive(messages, **options)
            if any(m.metadata.message_type == "train.average" for m in replies):
                A.data[:], A.indices[: B.nnz], A.indptr[:] = 1, B.indices, B.indptr
                A.indices, A.data = A.indices[: B.nnz], A.data[: B.nnz]
            return replies

    X = np.stack([vector(i) for i in range(5)])
    want = mixing.metropolis(nx.cycle_graph(5)) @ mixing.metropolis(
        nx.complete_graph(5)
    )
    result = Gossip(A).start(Grid(gossip(still_app()), 5), zeros(), 2)
    assert np.allclose(result.models().reshape(5, SIZE), want @ X)


def test_clients_choose_among_the_senders_of_an_adjacency():
    """Who hears but its lowest neighbour makes links that hold one way."""

    def lowest(candidates, context):
        return candidates[:1]

    graph = nx.path_graph(5)
    app = gossip(still_app(), discover=lowest)
    churned = topology.churn(sparse(graph), 0.7, 1)
    for schedule in (sparse(graph), churned):
        result = Gossip(schedule).start(LocalGrid(app, 5), zeros(), 3)
        by_nx = graph if schedule is not churned else topology.churn(graph, 0.7, 1)
        wanted = Gossip(by_nx).start(LocalGrid(app, 5), zeros(), 3)
        assert list(result.node_arrays) == list(wanted.node_arrays)
        assert (result.models() == wanted.models()).all()
        assert result.messages == wanted.messages


def test_messages_without_rounds_go_along_an_adjacency():
    A = topology.named("ring", 10_001)
    traffic = Traffic(10_001, 0, graph=A)
    (slot,) = traffic.slots(1)
    traffic.leave()
    _, senders, receivers = (
        np.concatenate(a) for a in zip(*traffic.arrive(), strict=True)
    )
    assert len(senders) == 10_001
    assert set((receivers - senders) % 10_001) == {1, 10_000}
    with pytest.raises(ValueError, match="client 7 is offline"):
        Traffic(10_001, 0, graph=online(A, np.arange(10_001) != 7))
