"""Graphs and schedules: who talks to whom."""

from collections import Counter

import networkx as nx
import numpy as np
import pytest

from gossiplib.core import topology

RANDOM = ("regular", "small-world", "random", "geometric")
SCHEDULES = {
    "one_peer_exponential": lambda seed: topology.one_peer_exponential(12),
    "random_matching": lambda seed: topology.random_matching(
        nx.complete_graph(12), seed
    ),
    "push": lambda seed: topology.push(nx.complete_graph(12), seed),
    "drop_links": lambda seed: topology.drop_links(nx.complete_graph(12), 0.3, seed),
    "churn": lambda seed: topology.churn(nx.complete_graph(12), 0.7, seed),
}


def edges(graph):
    """Return the edges in a form that compares."""
    return sorted(
        tuple(sorted(e)) if not graph.is_directed() else e for e in graph.edges
    )


@pytest.mark.parametrize("name", topology.NAMES)
@pytest.mark.parametrize("n", [2, 3, 4, 5, 6, 7, 8, 9, 12, 16, 25, 100])
def test_a_named_topology_is_connected_or_says_why_there_is_none(name, n):
    try:
        graph = topology.named(name, n)
    except ValueError as error:
        assert str(error).endswith(f"n is {n}")
        assert n != 16  # where all have one
    else:
        topology.check_graph(graph, n)


@pytest.mark.parametrize(
    ("name", "n", "degrees"),
    [
        ("ring", 7, {2}),
        ("path", 7, {1, 2}),
        ("star", 7, {1, 6}),
        ("complete", 7, {6}),
        ("torus", 12, {4}),
        ("hypercube", 16, {4}),
        ("regular", 16, {4}),
        ("exponential", 12, {8}),  # in and out, ceil(log2 12) each
    ],
)
def test_a_named_topology_has_the_degrees_of_its_name(name, n, degrees):
    assert set(dict(topology.named(name, n).degree).values()) == degrees


@pytest.mark.parametrize("name", topology.NAMES)
def test_the_seed_decides_random_topologies_and_no_others(name):
    graphs = [edges(topology.named(name, 16, seed)) for seed in (1, 1, 2)]
    assert graphs[0] == graphs[1]
    assert (graphs[1] != graphs[2]) == (name in RANDOM)


@pytest.mark.parametrize(
    ("name", "n", "says"), [("rign", 8, "rign.*ring"), ("ring", 1, "at least 2.*1")]
)
def test_named_says_what_is_wrong(name, n, says):
    with pytest.raises(ValueError, match=says):
        topology.named(name, n)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_depends_on_seed_and_round_alone(name):
    schedule = SCHEDULES[name](1)
    first = [edges(schedule(t)) for t in range(1, 9)]
    assert [edges(schedule(t)) for t in range(8, 0, -1)] == first[::-1]
    assert [edges(SCHEDULES[name](1)(t)) for t in range(1, 9)] == first
    assert first[0] != first[1]
    other = [edges(SCHEDULES[name](2)(t)) for t in range(1, 9)]
    assert (other != first) == (name != "one_peer_exponential")


@pytest.mark.parametrize("n", [2, 3, 8, 12])
def test_one_peer_exponential_sends_one_model_over_each_hop_in_turn(n):
    hops = int(np.ceil(np.log2(n)))
    for t in range(1, 2 * hops + 1):
        hop = 2 ** ((t - 1) % hops)
        graph = topology.one_peer_exponential(n)(t)
        assert sorted(graph.edges) == [(i, (i + hop) % n) for i in range(n)]


@pytest.mark.parametrize("graph", [nx.cycle_graph(9), nx.star_graph(5)])
def test_a_random_matching_is_a_maximal_one_of_the_graph(graph):
    for t in range(1, 20):
        matching = topology.random_matching(graph)(t)
        assert sorted(matching) == sorted(graph)
        assert nx.is_maximal_matching(graph, set(matching.edges))


def test_random_matching_gives_each_link_its_turn():
    rounds = 2000
    schedule = topology.random_matching(nx.complete_graph(4))
    seen = Counter(e for t in range(rounds) for e in edges(schedule(t)))
    # Each of the 6 links is in a third of the matchings; 5 standard deviations.
    assert np.allclose(
        list(seen.values()), rounds / 3, atol=5 * (rounds * 2 / 9) ** 0.5
    )
    assert len(seen) == 6


def test_push_sends_to_one_neighbour_at_random():
    rounds, graph = 2000, nx.path_graph(3)
    schedule = topology.push(graph)
    seen = Counter()
    for t in range(rounds):
        pushed = schedule(t)
        assert dict(pushed.out_degree) == {0: 1, 1: 1, 2: 1}
        seen.update(list(pushed.edges))
    assert seen[0, 1] == seen[2, 1] == rounds
    assert set(seen) == {(0, 1), (2, 1), (1, 0), (1, 2)}
    assert abs(seen[1, 0] - rounds / 2) < 5 * (rounds / 4) ** 0.5


@pytest.mark.parametrize("p", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("directed", [False, True])
def test_drop_links_loses_each_link_with_probability_p(p, directed):
    graph, rounds = nx.complete_graph(10), 100
    graph = graph.to_directed() if directed else graph
    before = graph.size()
    dropped = topology.drop_links(graph, p)
    left = [dropped(t) for t in range(1, rounds + 1)]
    total = rounds * before
    lost = total - sum(g.size() for g in left)
    assert abs(lost - p * total) <= 5 * (total * p * (1 - p)) ** 0.5
    assert graph.size() == before
    assert all(set(g) == set(graph) and g.is_directed() == directed for g in left)


def test_drop_links_can_lose_one_direction_alone():
    dropped = topology.drop_links(nx.complete_graph(10).to_directed(), 0.5)(1)
    assert any(not dropped.has_edge(j, i) for i, j in dropped.edges)


@pytest.mark.parametrize("online", [0.0, 0.7, 1.0])
def test_churn_keeps_clients_online_with_their_probability(online):
    graph, rounds = nx.cycle_graph(20), 100
    churned = topology.churn(graph, online)
    here = np.array(
        [
            [topology.is_online(churned(t), i) for i in graph]
            for t in range(1, rounds + 1)
        ]
    )
    assert abs(here.mean() - online) <= 5 * (online * (1 - online) / here.size) ** 0.5
    # Each client on its own, and all of them alike.
    assert np.abs(here.mean(axis=0) - online).max() <= 0.25


def test_churn_isolates_offline_clients_and_leaves_the_other_links():
    graph = nx.complete_graph(12)
    churned = topology.churn(graph, 0.5)(3)
    here = {i for i in graph if topology.is_online(churned, i)}
    assert 0 < len(here) < 12
    assert edges(churned) == edges(graph.subgraph(here))
    assert all(topology.is_online(graph, i) for i in graph)  # graph itself unchanged


def test_churn_of_churn_leaves_online_who_is_so_in_both():
    graph = nx.complete_graph(12)
    inner = topology.churn(graph, 0.5, seed=1)
    both, outer = topology.churn(inner, 0.5, seed=2), topology.churn(graph, 0.5, seed=2)
    for i in graph:
        expected = topology.is_online(inner(1), i) and topology.is_online(outer(1), i)
        assert topology.is_online(both(1), i) == expected


@pytest.mark.parametrize(
    ("compose", "share"),
    [
        (lambda g: topology.drop_links(topology.churn(g, 0.5), 0.5), 0.125),
        (lambda g: topology.churn(topology.drop_links(g, 0.5), 0.5), 0.125),
        (lambda g: topology.churn(topology.churn(g, 0.5), 0.5, seed=1), 0.0625),
    ],
    ids=["drop(churn)", "churn(drop)", "churn(churn)"],
)
def test_composed_schedules_are_independent(compose, share):
    rounds, graph = 1000, nx.cycle_graph(16)
    schedule = compose(graph)
    seen = Counter(e for t in range(rounds) for e in edges(schedule(t)))
    often = np.array([seen[e] for e in edges(graph)]) / rounds
    # 5 standard deviations around what independent losses would leave of each link.
    assert np.abs(often - share).max() < 5 * (share * (1 - share) / rounds) ** 0.5


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_probabilities_are_checked(p):
    with pytest.raises(ValueError, match="from 0 to 1"):
        topology.drop_links(nx.path_graph(3), p)
    with pytest.raises(ValueError, match="from 0 to 1"):
        topology.churn(nx.path_graph(3), p)


def test_senders_are_neighbours_or_predecessors():
    assert topology.senders(nx.star_graph(3), 0) == [1, 2, 3]
    graph = nx.DiGraph([(2, 0), (1, 0), (0, 3)])
    assert topology.senders(graph, 0) == [1, 2]
    assert topology.senders(graph, 3) == [0]


def test_numpy_numbers_are_clients_too():
    graph = nx.Graph()
    graph.add_edges_from(np.array([[0, 1], [1, 2]]))
    topology.check_graph(graph, 3)
    assert [type(j) for j in topology.senders(graph, 1)] == [int, int]


def graph_of(*links, nodes=(), kind=nx.Graph):
    graph = kind(links)
    graph.add_nodes_from(nodes)
    return graph


@pytest.mark.parametrize(
    ("graph", "n", "error", "says"),
    [
        (nx.path_graph(3), 4, ValueError, "missing 3; not a client none"),
        (nx.path_graph(4), 3, ValueError, "missing none; not a client 3"),
        (nx.path_graph(9), 3, ValueError, "3, 4, 5, 6, 7 and 1 more"),
        (graph_of((1, 2), (2, 3)), 3, ValueError, "missing 0; not a client 3"),
        (graph_of((0, "a")), 2, ValueError, "missing 1; not a client 'a'"),
        (nx.grid_2d_graph(2, 2), 4, ValueError, r"not a client \(0, 0\)"),
        (graph_of((0, 1), (1, 1)), 2, ValueError, "self-loops at 1"),
        (
            graph_of((0, 1), nodes=[2]),
            3,
            ValueError,
            "disconnected.*2 parts.*smallest 2",
        ),
        (graph_of((0, 1), kind=nx.DiGraph), 2, ValueError, "disconnected.*2 parts"),
        (nx.MultiGraph([(0, 1)]), 2, TypeError, "MultiGraph"),
        (nx.MultiDiGraph([(0, 1)]), 2, TypeError, "MultiDiGraph"),
        (np.eye(2), 2, TypeError, "ndarray"),
        (None, 2, TypeError, "NoneType"),
    ],
)
def test_check_graph_names_the_culprit(graph, n, error, says):
    with pytest.raises(error, match=says):
        topology.check_graph(graph, n)


def test_one_round_of_a_schedule_may_be_disconnected():
    topology.check_graph(nx.empty_graph(3), 3, connected=False)
    topology.check_graph(nx.empty_graph(1), 1)


@pytest.mark.parametrize("make", [topology.push, topology.random_matching])
def test_a_schedule_of_foreign_nodes_says_so(make):
    with pytest.raises(ValueError, match=r"not a client \(0, 0\)"):
        make(nx.grid_2d_graph(3, 3))(1)


def test_a_random_topology_can_be_denser_or_rewired():
    assert set(dict(topology.named("regular", 12, degree=6).degree).values()) == {6}
    ring = topology.named("small-world", 12, degree=2, p=0)
    assert nx.is_isomorphic(ring, nx.cycle_graph(12))
    assert topology.named("random", 12, p=1).number_of_edges() == 66
    with pytest.raises(ValueError, match="6-regular.*at least 7 clients; n is 6"):
        topology.named("regular", 6, degree=6)
    with pytest.raises(ValueError, match="p is a probability"):
        topology.named("random", 12, p=2)
    with pytest.raises(ValueError, match="p belongs to random.*regular takes none"):
        topology.named("regular", 12, p=0.5)


def test_a_generator_is_a_seed_that_moves_on():
    """As in networkx: an int gives the same graph again, a generator another one."""
    draws = [
        lambda seed: topology.named("regular", 16, seed),
        lambda seed: topology.push(nx.cycle_graph(16), seed)(1),
        lambda seed: topology.churn(nx.cycle_graph(16), 0.5, seed)(1),
        lambda seed: topology.drop_links(nx.cycle_graph(16), 0.5, seed)(1),
        lambda seed: topology.random_matching(nx.complete_graph(16), seed)(1),
    ]
    for draw in draws:
        generator = np.random.default_rng(0)
        assert set(draw(generator).edges) != set(draw(generator).edges)
        assert set(draw(3).edges) == set(draw(3).edges)
        again = np.random.default_rng(0)
        assert set(draw(again).edges) == set(draw(np.random.default_rng(0)).edges)


@pytest.mark.parametrize(
    ("name", "n", "degree", "says"),
    [
        ("regular", 5, 3, "n or degree must be even; n is 5"),
        ("regular", 8, 2.5, "degree must be a whole number, at least 2; got 2.5"),
        ("small-world", 12, 3, "degree of a small world is even; got 3"),
        ("small-world", 12, 0, "at least 2"),
    ],
)
def test_a_degree_that_no_graph_has_is_refused(name, n, degree, says):
    with pytest.raises(ValueError, match=says):
        topology.named(name, n, degree=degree)
