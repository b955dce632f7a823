"""Mixing matrices, and the theory of notebooks 02 and 03 (references there)."""

import functools
import math

import networkx as nx
import numpy as np
import pytest

from gossiplib.core import mixing, topology

WEIGHTS = {
    name: getattr(mixing, name)
    for name in ("uniform", "metropolis", "max_degree", "best_constant")
}
#: All named topologies that are undirected; 16 is where each of them exists.
UNDIRECTED = [name for name in topology.NAMES if name != "exponential"]
DIRECTED = [
    topology.named("exponential", 12),
    topology.one_peer_exponential(7)(2),
    topology.push(nx.star_graph(6))(1),
    nx.DiGraph([(0, 1), (0, 2), (0, 3), (3, 0)]),
]


def adjacency(graph):
    """Return A with A[i, j] = 1 where j sends to i."""
    return nx.to_numpy_array(graph, nodelist=range(len(graph))).T


# What W is ----------------------------------------------------------------------------


def test_weights_by_hand():
    # 0 - 1 - 2 with 3 at 1: degrees 1, 3, 1, 1.
    star = nx.Graph([(0, 1), (1, 2), (1, 3)])
    a, q = 1 / 3, 1 / 4
    assert np.allclose(
        mixing.uniform(star),
        [
            [1 / 2, 1 / 2, 0, 0],
            [q, q, q, q],
            [0, 1 / 2, 1 / 2, 0],
            [0, 1 / 2, 0, 1 / 2],
        ],
    )
    assert np.allclose(
        mixing.metropolis(star),
        [[1 - q, q, 0, 0], [q, q, q, q], [0, q, 1 - q, 0], [0, q, 0, 1 - q]],
    )
    assert np.allclose(
        mixing.max_degree(star),
        [[1 - a, a, 0, 0], [a, 0, a, a], [0, a, 1 - a, 0], [0, a, 0, 1 - a]],
    )
    b = 2 / (1 + 4)  # the eigenvalues of the star's Laplacian are 0, 1, 1 and 4
    assert np.allclose(
        mixing.best_constant(star),
        [[1 - b, b, 0, 0], [b, 1 - 3 * b, b, b], [0, b, 1 - b, 0], [0, b, 0, 1 - b]],
    )


@pytest.mark.parametrize("name", UNDIRECTED)
@pytest.mark.parametrize("rule", ["metropolis", "max_degree", "best_constant"])
def test_w_is_symmetric_and_doubly_stochastic_on_undirected_graphs(name, rule):
    graph = topology.named(name, 16)
    W = WEIGHTS[rule](graph)
    assert np.allclose(W, W.T)
    assert np.allclose(W.sum(axis=0), 1) and np.allclose(W.sum(axis=1), 1)
    assert ((W != 0) <= (adjacency(graph) + np.eye(16) != 0)).all()


@pytest.mark.parametrize("graph", DIRECTED)
@pytest.mark.parametrize("rule", ["uniform", "metropolis"])
def test_w_is_row_stochastic_on_directed_graphs(graph, rule):
    W = WEIGHTS[rule](graph)
    assert np.allclose(W.sum(axis=1), 1)
    assert (W >= 0).all() and (W.diagonal() > 0).all()
    assert ((W != 0) == (adjacency(graph) + np.eye(len(graph)) != 0)).all()


def test_directed_metropolis_weighs_by_the_busier_end():
    # 0 sends to 1, 2, 3; 3 sends to 0. d_out(0) = 3, and all hear of one client.
    W = mixing.metropolis(nx.DiGraph([(0, 1), (0, 2), (0, 3), (3, 0)]))
    assert np.allclose(W[1], [1 / 4, 3 / 4, 0, 0])
    assert np.allclose(W[0], [1 / 2, 0, 0, 1 / 2])


@pytest.mark.parametrize(
    "graph",
    [
        *(topology.named(name, 16) for name in topology.NAMES),
        *(nx.path_graph(n) for n in (2, 3, 4)),
    ],
    ids=[*topology.NAMES, "path of 2", "path of 3", "path of 4"],
)
@pytest.mark.parametrize("rule", WEIGHTS)
def test_sparse_equals_dense(graph, rule):
    if graph.is_directed() and rule in ("max_degree", "best_constant"):
        graph = graph.to_undirected()
    dense, sparse = WEIGHTS[rule](graph), WEIGHTS[rule](graph, sparse=True)
    assert sparse.format == "csr"
    assert np.allclose(sparse.toarray(), dense, atol=1e-9)  # eigsh's tolerance
    assert mixing.slem(sparse) == pytest.approx(mixing.slem(dense), abs=1e-7)


def test_sparse_matrices_stay_sparse():
    assert mixing.metropolis(nx.cycle_graph(1000), sparse=True).nnz == 3000


def test_slem_of_a_sparse_one_peer_graph():
    W = functools.partial(mixing.metropolis, topology.one_peer_exponential(50)(1))
    assert mixing.slem(W(sparse=True)) == pytest.approx(mixing.slem(W()))


@pytest.mark.parametrize("rule", ["max_degree", "best_constant"])
def test_undirected_rules_refuse_directed_graphs(rule):
    with pytest.raises(ValueError, match=f"{rule}.*undirected.*try metropolis"):
        WEIGHTS[rule](nx.DiGraph([(0, 1), (1, 0)]))


@pytest.mark.parametrize("sparse", [False, True])
def test_best_constant_refuses_a_disconnected_graph(sparse):
    with pytest.raises(ValueError, match="connected"):
        mixing.best_constant(nx.Graph([(0, 1), (2, 3)]), sparse=sparse)
    with pytest.raises(ValueError, match="connected"):
        mixing.best_constant(nx.empty_graph(5), sparse=sparse)


@pytest.mark.parametrize("rule", WEIGHTS)
def test_one_client_alone_keeps_its_model(rule):
    assert WEIGHTS[rule](nx.empty_graph(1)).tolist() == [[1]]
    assert WEIGHTS[rule](nx.empty_graph(1), sparse=True).toarray().tolist() == [[1]]


@pytest.mark.parametrize("rule", WEIGHTS)
@pytest.mark.parametrize(
    ("graph", "error", "says"),
    [
        (nx.grid_2d_graph(3, 3), ValueError, r"not a client \(0, 0\)"),
        (nx.Graph([(1, 2), (2, 3)]), ValueError, "not a client 3"),
        (nx.Graph([(0, 1), (1, 1)]), ValueError, "self-loop"),
        (nx.MultiGraph([(0, 1), (1, 2)]), TypeError, "MultiGraph"),
    ],
    ids=["tuples", "1 to 3", "self-loop", "multigraph"],
)
def test_weights_refuse_what_is_no_topology(rule, graph, error, says):
    with pytest.raises(error, match=says):
        WEIGHTS[rule](graph)


@pytest.mark.parametrize(
    ("W", "says"),
    [
        ([[0.5, 0.5, 0], [0.5, 0.5, 0]], r"3 x 3.*\(2, 3\)"),
        ([[1, 0, 0], [0.5, 0.4, 0.1], [0, 0.5, 0.4]], "client 2 sum to 0.9"),
        ([[np.nan, 0, 0], [0, 1, 0], [0, 0, 1]], "client 0 sum to nan"),
        ([[0.5, 0.25, 0.25], [0, 1, 0], [0, 0, 1]], "client 0 weighs client 2"),
    ],
)
@pytest.mark.parametrize("sparse", [False, True])
def test_check_weights_names_the_row(W, says, sparse):
    from scipy.sparse import csr_array

    W = np.array(W, dtype=float)
    with pytest.raises(ValueError, match=says):
        mixing.check_weights(csr_array(W) if sparse else W, nx.path_graph(3))


def test_check_weights_knows_the_direction():
    W = np.array([[1, 0], [0.5, 0.5]])
    mixing.check_weights(W, nx.DiGraph([(0, 1)]))
    with pytest.raises(ValueError, match="client 1 weighs client 0"):
        mixing.check_weights(W, nx.DiGraph([(1, 0)]))


# What theory says ---------------------------------------------------------------------


@pytest.mark.parametrize("n", [3, 4, 5, 10, 20, 50, 100])
def test_gap_of_the_ring(n):
    W = mixing.metropolis(nx.cycle_graph(n))
    assert np.allclose(W[W != 0], 1 / 3)
    assert np.allclose(W, mixing.uniform(nx.cycle_graph(n)))
    gap = 2 / 3 * (1 - math.cos(2 * math.pi / n))
    if n == 3:  # the complete graph: λ₂ is 0
        gap = 1
    assert mixing.spectral_gap(W) == pytest.approx(gap, rel=1e-9)
    if n >= 10:  # 3.4 % high at 10, 0.03 % at 100: the next term is (π/n)²/3
        approximation = 4 * math.pi**2 / (3 * n**2)
        assert approximation / gap - 1 == pytest.approx(
            (math.pi / n) ** 2 / 3, rel=0.05
        )


@pytest.mark.parametrize("n", [16, 64])
@pytest.mark.parametrize("name", UNDIRECTED)
def test_linear_iteration_stays_under_its_bound(name, n):
    W = mixing.metropolis(topology.named(name, n))
    X = np.random.default_rng(0).normal(size=(n, 3))
    mean, rate, start = (
        X.mean(axis=0),
        mixing.slem(W),
        np.linalg.norm(X - X.mean(axis=0)),
    )
    assert rate < 1
    for t in range(1, 51):
        X = W @ X
        # 1e-12 is for rounding, once nothing is left to mix.
        assert np.linalg.norm(X - mean) <= rate**t * start * (1 + 1e-9) + 1e-12


def test_the_bound_is_met_by_the_second_eigenvector():
    W = mixing.metropolis(nx.path_graph(8))
    values, vectors = np.linalg.eigh(W)
    x = vectors[:, np.argsort(np.abs(values))[-2]]
    assert np.linalg.norm(W @ x) == pytest.approx(mixing.slem(W))


def one_peer_error(n):
    schedule, X = topology.one_peer_exponential(n), np.eye(n)
    for t in range(1, math.ceil(math.log2(n)) + 1):
        X = mixing.metropolis(schedule(t)) @ X
    return np.abs(X - 1 / n).max()


@pytest.mark.parametrize("n", [2, 4, 8, 16, 64, 256])
def test_one_peer_exponential_is_exact_for_powers_of_2(n):
    assert one_peer_error(n) < 1e-15


@pytest.mark.parametrize("n", [3, 5, 6, 10, 12, 48, 100])
def test_one_peer_exponential_is_not_exact_for_other_n(n):
    assert one_peer_error(n) > 1e-3


@pytest.mark.parametrize("n", [4, 8, 16, 20, 32, 64, 100])
@pytest.mark.parametrize("rule", ["uniform", "metropolis"])
def test_gap_of_the_static_exponential_graph(n, rule):
    W = WEIGHTS[rule](topology.named("exponential", n))
    assert mixing.spectral_gap(W) == pytest.approx(2 / (1 + math.ceil(math.log2(n))))


@pytest.mark.parametrize("n", [16, 64])
@pytest.mark.parametrize("name", UNDIRECTED)
def test_best_constant_is_the_best_constant(name, n):
    graph = topology.named(name, n)
    L = nx.laplacian_matrix(graph, nodelist=range(n)).toarray().astype(float)
    eigenvalues = np.linalg.eigvalsh(L)
    kappa, best = (
        eigenvalues[-1] / eigenvalues[1],
        2 / (eigenvalues[-1] + eigenvalues[1]),
    )
    W = mixing.best_constant(graph)
    assert np.allclose(W, np.eye(n) - best * L)
    assert mixing.slem(W) == pytest.approx((kappa - 1) / (kappa + 1), abs=1e-9)
    for other in (0.95 * best, 1.05 * best):
        assert mixing.slem(np.eye(n) - other * L) > mixing.slem(W)


def test_rates_on_a_ring_of_20():
    ring = nx.cycle_graph(20)
    assert mixing.slem(mixing.best_constant(ring)) == pytest.approx(0.9522, abs=5e-5)
    assert mixing.slem(mixing.metropolis(ring)) == pytest.approx(0.9674, abs=5e-5)


@pytest.mark.parametrize("n", [4, 6, 20, 100])
def test_max_degree_does_not_converge_on_an_even_ring(n):
    W = mixing.max_degree(nx.cycle_graph(n))
    assert mixing.slem(W) == pytest.approx(1, abs=1e-12)
    assert mixing.rounds_to_consensus(W) == math.inf
    assert mixing.slem(mixing.max_degree(nx.cycle_graph(n + 1))) < 1 - 1e-4


@pytest.mark.parametrize("n", [3, 10, 50])
def test_factor_of_pairwise_gossip(n):
    pairs = [nx.empty_graph(n) for _ in range(n * (n - 1) // 2)]
    for graph, pair in zip(pairs, nx.complete_graph(n).edges, strict=True):
        graph.add_edge(*pair)
    # E‖Wx‖² = xᵀ E[WᵀW] x, and the pair of a tick is uniform among all.
    expected = np.mean([W.T @ W for W in map(mixing.metropolis, pairs)], axis=0)
    assert mixing.slem(expected) == pytest.approx(1 - 1 / (n - 1))


def cycle_factor(pairs, n, cycles):
    """Return what a cycle leaves of the variance, where pairs(rng) meet in order."""
    rng = np.random.default_rng(0)
    factors = []
    for _ in range(cycles):
        x = rng.normal(size=(n, 20))
        before = x.var(axis=0).mean()
        for i, j in pairs(rng):
            x[i] = x[j] = (x[i] + x[j]) / 2
        factors.append(x.var(axis=0).mean() / before)
    return np.mean(factors)


@pytest.mark.parametrize("n", [50, 100, 400])
def test_a_cycle_of_two_perfect_matchings_leaves_a_quarter_of_the_variance(n):
    schedule = topology.random_matching(nx.complete_graph(n))
    rounds = iter(range(1, 1000))

    def pairs(rng):
        return [e for _ in range(2) for e in schedule(next(rounds)).edges]

    # Exactly (1 - n / (2 (n - 1)))², 4 % below 1/4 at n = 50.
    assert cycle_factor(pairs, n, 30) == pytest.approx(1 / 4, rel=0.05)


@pytest.mark.parametrize("n", [50, 100, 400])
def test_a_cycle_of_random_pairs_leaves_1_over_e_of_the_variance(n):
    def pairs(rng):
        i = rng.integers(n, size=n)
        return zip(i, (i + rng.integers(1, n, size=n)) % n, strict=True)

    assert cycle_factor(pairs, n, 30) == pytest.approx(1 / math.e, rel=0.05)


@pytest.mark.parametrize("n", [50, 100, 400])
def test_a_cycle_in_which_each_calls_one_leaves_1_over_2_root_e(n):
    def pairs(rng):
        i = np.arange(n)
        return zip(i, (i + rng.integers(1, n, size=n)) % n, strict=True)

    expected = 1 / (2 * math.sqrt(math.e))
    assert cycle_factor(pairs, n, 30) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("n", [2, 10, 100])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.9, 0.99, 1 - 1e-9])
def test_effective_neighbours_from_1_to_n(n, gamma):
    ring, complete = (
        nx.cycle_graph(n) if n > 2 else nx.path_graph(2),
        nx.complete_graph(n),
    )
    effective = mixing.effective_neighbours(mixing.uniform(complete), gamma)
    assert effective == pytest.approx(n / (1 + (n - 1) * (1 - gamma)))
    on_ring = mixing.effective_neighbours(mixing.metropolis(ring), gamma)
    # An eigenvalue of 1 is known to some 1e-15, and 1 / (1 - gamma) times that counts.
    rounding = 1e-9 + n * 1e-14 / (1 - gamma)
    assert 1 - 1e-9 <= on_ring <= effective + rounding
    assert mixing.effective_neighbours(np.eye(n), gamma) == pytest.approx(1)
    if gamma == 0:
        assert on_ring == pytest.approx(1)
    if gamma > 0.999:
        assert effective == pytest.approx(n) and on_ring == pytest.approx(n, rel=1e-3)


@pytest.mark.parametrize(("gamma", "seen"), [(0.9, 4.24), (0.99, 15.26)])
def test_effective_neighbours_on_a_ring_of_100(gamma, seen):
    W = mixing.metropolis(nx.cycle_graph(100))
    assert mixing.effective_neighbours(W, gamma) == pytest.approx(seen, abs=0.005)


def test_effective_neighbours_by_its_random_walk():
    n, gamma, steps = 16, 0.9, 4000
    rng = np.random.default_rng(0)
    W = mixing.metropolis(topology.named("barbell", n))
    x, squares = np.zeros((n, 50)), 0
    for t in range(steps):
        x = math.sqrt(gamma) * W @ x + rng.normal(size=x.shape)
        squares += (x**2).mean() if t >= 100 else 0
    variance = squares / (steps - 100)
    # Alone the variance is 1 / (1 - γ). 2 %: 200 000 walks, each with 10 steps' memory.
    alone = 1 / (1 - gamma)
    assert alone / variance == pytest.approx(
        mixing.effective_neighbours(W, gamma), rel=0.02
    )


@pytest.mark.parametrize("gamma", [-0.1, 1.0, float("nan")])
def test_effective_neighbours_checks_gamma(gamma):
    with pytest.raises(ValueError, match="below 1"):
        mixing.effective_neighbours(np.eye(2), gamma)


def test_effective_neighbours_needs_a_symmetric_w():
    with pytest.raises(ValueError, match="symmetric"):
        mixing.effective_neighbours(mixing.uniform(nx.star_graph(3)), 0.9)


@pytest.mark.parametrize("name", ["ring", "star", "complete", "barbell"])
def test_rounds_to_consensus_is_the_first_round_under_the_tolerance(name):
    W = mixing.metropolis(topology.named(name, 16))
    rounds, rate = mixing.rounds_to_consensus(W, 0.01), mixing.slem(W)
    assert rate**rounds <= 0.01
    assert rounds == 1 or rate ** (rounds - 1) > 0.01


def test_consensus_distance():
    models = np.random.default_rng(0).normal(size=(5, 7))
    squares = [np.sum((x - models.mean(axis=0)) ** 2) for x in models]
    assert mixing.consensus_distance(models) == pytest.approx(
        math.sqrt(np.mean(squares))
    )
    assert mixing.consensus_distance(np.ones((4, 3))) == 0
    assert mixing.consensus_distance(np.ones((1, 3))) == 0
