"""What an average function is told, what it may send, and what it may keep."""

import math

import networkx as nx
import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, RecordDict

from gossiplib.core import mixing, topology
from gossiplib.core.averaging import weighted_mean
from gossiplib.core.client import gossip
from gossiplib.core.context import RoundContext, uniforms
from gossiplib.core.grid import LocalGrid
from gossiplib.core.server import Gossip
from gossiplib.system.records import unpack
from gossiplib.tasks.task import digits
from gossiplib.vectorized.consensus import averaging_rounds
from gossiplib.vectorized.engine import gossip_learning
from toy_apps import drifting_app, zeros

STAR = topology.named("star", 5)


def turn(clients, server_round=3):
    config = {"partition-id": clients, "num-partitions": 9}
    return RoundContext(Context(0, 0, config, RecordDict(), {}), server_round)


class Doubled:
    """Sends the model twice as large, and remembers how often."""

    def __init__(self, fail_at=0):
        self.fail_at = fail_at

    def send(self, model, turn):
        times = np.zeros(np.shape(turn.node_config["partition-id"]))
        if "times" in turn.state:
            (times,) = unpack(turn.state["times"])
        times = np.asarray(times + 1)
        turn.state["times"] = ArrayRecord([times])
        if self.fail_at == turn.server_round:
            raise RuntimeError("no")
        return [*(2 * a for a in model), times]

    def __call__(self, own, neighbours, weights, turn):
        assert turn.senders.shape == (len(neighbours), *np.shape(weights)[1:])
        models = [[a / 2 for a in said[:-1]] for said in neighbours]
        for said in neighbours:
            assert np.all(said[-1] == turn.server_round)
        return weighted_mean(own, models, weights)


def test_uniforms_are_the_same_alone_as_among_many():
    many = uniforms(5, turn(np.array([4, 0, 7])), 6)
    assert many.shape == (3, 6) and (0 <= many).all() and (many < 1).all()
    for k, client in enumerate([4, 0, 7]):
        assert np.array_equal(uniforms(5, turn(client), 6), many[k])


def test_uniforms_depend_on_seed_round_and_client():
    one = uniforms(0, turn(1), 8)
    assert not np.isin(one, uniforms(1, turn(1), 8)).any()
    assert not np.isin(one, uniforms(0, turn(1, 4), 8)).any()
    assert not np.isin(one, uniforms(0, turn(2), 8)).any()
    everyone = uniforms(0, turn(np.arange(1000)), 10)
    assert abs(everyone.mean() - 0.5) < 0.01


@pytest.mark.parametrize("graph", [STAR, topology.push(STAR, seed=1)])
def test_neighbours_hear_what_send_returns(graph):
    task = digits(5, seed=0)
    options = {"evaluate_every": 0}
    plain = gossip_learning(task, graph, 3, **options)
    arrays = gossip_learning(task, graph, 3, average=Doubled(), **options)
    grid = LocalGrid(gossip(task.client_app(), average=Doubled()), 5)
    flower = Gossip(graph, **options).start(grid, task.initial_arrays(), num_rounds=3)
    assert not flower.lost
    assert np.allclose(arrays.models(), plain.models(), atol=1e-6)
    assert np.allclose(flower.models(), plain.models(), atol=1e-5)
    extra = len(ArrayRecord([np.zeros(())])["0"].data)
    assert arrays.bytes == flower.bytes
    for t, count in plain.messages.items():
        assert arrays.bytes[t] == plain.bytes[t] + count * extra


def test_a_client_that_fails_remembers_nothing_of_it():
    """The count of messages stays in step: only those that were sent are counted."""

    class Once(Doubled):
        def __call__(self, own, neighbours, weights, turn):
            models = [[a / 2 for a in said[:-1]] for said in neighbours]
            sent = turn.server_round - (turn.server_round >= 2)
            assert all(np.all(said[-1] == sent) for said in neighbours)
            return weighted_mean(own, models, weights)

    graph = nx.complete_graph(3)
    grid = LocalGrid(gossip(drifting_app(), average=Once(fail_at=2)), 3)
    result = Gossip(graph, evaluate_every=0).start(grid, zeros(), num_rounds=4)
    assert {(loss.round, loss.call) for loss in result.lost} == {(2, "train")}


@pytest.mark.parametrize(
    ("message", "culprit"),
    [
        (lambda model: [np.full(3, np.nan)], "message of send"),
        (lambda model: [np.array(["a"])], "message of send"),
    ],
)
def test_a_message_that_cannot_be_used_is_a_loss(message, culprit):
    class Broken(Doubled):
        def send(self, model, turn):
            if turn.node_config["partition-id"] == 1:
                return message(model)
            return [*model, np.array(0.0)]

        def __call__(self, own, neighbours, weights, turn):
            return weighted_mean(own, [said[:-1] for said in neighbours], weights)

    grid = LocalGrid(gossip(drifting_app(), average=Broken()), 3)
    result = Gossip(nx.complete_graph(3), evaluate_every=0).start(grid, zeros(), 2)
    assert {(x.client, x.call) for x in result.lost} == {(1, "train")}
    assert all(culprit in loss.reason for loss in result.lost)


def test_arrays_refuse_a_message_without_an_axis_of_clients():
    class Flat(Doubled):
        def send(self, model, turn):
            return [np.zeros(2)]

    with pytest.raises(ValueError, match="first axis is the clients"):
        next(averaging_rounds(np.zeros((5, 1)), STAR, average=Flat()))


@pytest.mark.parametrize(
    ("record", "error"),
    [(ConfigRecord({"a": 1}), TypeError), (ArrayRecord([np.zeros(1)]), ValueError)],
)
def test_arrays_refuse_a_state_that_they_cannot_keep(record, error):
    def average(own, neighbours, weights, turn):
        turn.state["mine"] = record
        return own

    with pytest.raises(error, match="mine"):
        next(averaging_rounds(np.zeros((5, 1)), nx.complete_graph(5), average=average))


def left_by_metropolis(most=30):
    """Return the mean of Σ_j W_ij², if each of very many clients swaps with another.

    A client whom K others call has 1 + K links: to one that has 2 + K' (its own call,
    and ours, and others'), and to K that have 1 + K''. All are Poisson with mean 1.
    """
    chance = [math.exp(-1) / math.factorial(k) for k in range(most)]
    left = 0.0
    for K, p in enumerate(chance):
        weights = [[1 / (1 + max(1 + K, a + k)) for k in range(most)] for a in (2, 1)]
        (out, come), (out2, come2) = (
            [np.dot(chance, np.power(w, power)) for w in weights] for power in (1, 2)
        )
        own = (1 - out - K * come) ** 2 + out2 - out**2 + K * (come2 - come**2)
        left += p * (own + out2 + K * come2)
    return left


@pytest.mark.parametrize(
    ("way", "weights", "left"),
    [
        (topology.push, mixing.uniform, 1 - 1 / np.e),
        (topology.pull, mixing.uniform, 1 / 2),
        (topology.push_pull, mixing.uniform, 1 / np.e),
        (topology.push_pull, mixing.metropolis, left_by_metropolis()),
        (topology.random_matching, mixing.metropolis, 1 / 2),
    ],
)
def test_variance_that_a_round_leaves(way, weights, left):
    """A mean of k unrelated numbers has 1/k of their variance.

    A client that pulls has 2. One that is pushed to by K others has 1 + K, one that
    swaps 2 + K, where K is nearly Poisson with mean 1: E 1 / (1 + K) = 1 - 1/e, and
    E 1 / (2 + K) = 1/e.
    """
    schedule = way(nx.complete_graph(400), seed=0)
    x = np.random.default_rng(0).normal(size=(400, 50))
    found = []
    for t in range(1, 11):
        after = weights(topology.at(schedule, t)) @ x
        found.append((after.var(axis=0) / x.var(axis=0)).mean())
    assert np.isclose(np.mean(found), left, atol=0.02)


def test_pull_ends_as_far_from_the_mean_as_theory_says():
    """Columns of W sum to (1 + K) / 2, so the mean's variance is σ²/n times 1/2.

    That is 1/4 in the first round, and each round halves what the next one adds.
    """
    n, moved = 60, []
    for seed in range(150):
        schedule = topology.pull(nx.complete_graph(n), seed=seed)
        heard = np.full(n, 1 / n)  # how much each client's number counts in the mean
        for t in reversed(range(1, 13)):
            heard = heard @ mixing.uniform(topology.at(schedule, t))
        moved.append(n * ((heard - 1 / n) ** 2).sum())
    assert np.mean(moved) == pytest.approx(1 / 2, rel=0.1)


def test_pull_and_push_pull():
    graph = topology.named("regular", 10, seed=0)
    for t in range(1, 5):
        pulled = topology.at(topology.pull(graph, seed=1), t)
        assert [len(topology.senders(pulled, i)) for i in range(10)] == [1] * 10
        swapped = topology.at(topology.push_pull(graph, seed=1), t)
        assert not swapped.is_directed() and min(dict(swapped.degree).values()) >= 1
        for a, b in [*pulled.edges, *swapped.edges]:
            assert graph.has_edge(a, b)
    assert topology.receivers(nx.DiGraph([(0, 2), (0, 1)]), 0) == [1, 2]
    with pytest.raises(ValueError, match="undirected"):
        topology.push_pull(nx.DiGraph([(0, 1), (1, 0)]))
