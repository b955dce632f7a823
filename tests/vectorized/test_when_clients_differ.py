"""What notebook 06 concludes, and 07 and 08 on the same data, in small."""

import random

import networkx as nx
import numpy as np
import pytest
import torch
from flwr.serverapp.strategy import FedAvg
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from gossiplib.core import mixing, topology
from gossiplib.core.averaging import SoftmaxDistance, weighted_mean
from gossiplib.core.grid import LocalGrid
from gossiplib.protocols.diffusion import ExactDiffusion
from gossiplib.protocols.momentum import QuasiGlobalMomentum
from gossiplib.protocols.tracking import GradientTracking
from gossiplib.protocols.variance import variance_corrected
from gossiplib.tasks.task import Task, digits
from gossiplib.vectorized.engine import gossip_learning

COMPLETE = nx.complete_graph(16)


def accuracies(task, graph, rounds, **options):
    """Return the mean accuracy on the personal and on the common test sets."""
    once = {"evaluate_every": rounds, "observe_every": rounds, "batch_size": 32}
    once["evaluate_fn"] = task.evaluate_fn
    result = gossip_learning(task, graph, rounds, **once, **options)
    clients = result.evaluate_metrics_clientapp[rounds]["accuracy"]
    return clients, result.evaluate_metrics_serverapp[rounds]["accuracy"]


def test_complete_graph_with_weights_by_examples_is_flowers_fedavg():
    task = digits(8, alpha=0.1, seed=0)
    _, sizes = task.parts.span(np.arange(8), "train")
    assert len(set(sizes)) > 4
    random.seed(0)
    server = FedAvg(fraction_evaluate=0.0).start(
        LocalGrid(task.client_app(), 8), task.initial_arrays(), num_rounds=3
    )
    ours = gossip_learning(
        task,
        nx.complete_graph(8),
        3,
        weights=lambda graph: np.tile(sizes / sizes.sum(), (8, 1)),
        evaluate_every=0,
    ).models()
    theirs = np.concatenate([a.ravel() for a in server.arrays.to_numpy_ndarrays()])
    assert np.allclose(ours, theirs, atol=1e-5)


RING = topology.named("ring", 16)


def alone(server_round):
    return nx.empty_graph(16)


def common(graph, at, alpha=0.1, **options):
    """Return the mean client's accuracy after some rounds, over two seeds."""
    options = {"lr": 1.0, "batch_size": 64, "evaluate_every": 0} | options
    found = []
    for seed in (0, 1):
        task = digits(16, alpha=alpha, seed=seed)
        options |= {"evaluate_fn": task.evaluate_fn, "observe_every": at[0]}
        measured = gossip_learning(task, graph, at[-1], **options)
        measured = measured.evaluate_metrics_serverapp
        found.append([measured[t]["accuracy"] for t in at])
    return np.mean(found, axis=0)


def test_uneven_data_make_slow_mixing_later_not_worse():
    ring, complete = (common(graph, (12, 900)) for graph in (RING, COMPLETE))
    even = common(RING, (12,), alpha=10)
    assert complete[0] - ring[0] > 0.2 and even[0] - ring[0] > 0.2
    assert complete[1] - ring[1] < 0.05
    assert common(alone, (12, 204))[1] < 0.5 < complete[1] - 0.4


def test_without_weight_decay_one_model_gets_every_training_image_right():
    task = digits(16, alpha=0.1, seed=0)
    parts = [task.part(client, "train") for client in range(16)]
    x, y = (np.concatenate([part[k] for part in parts]) for k in (0, 1))
    model = LogisticRegression(C=1e4, max_iter=2000).fit(x, y)
    assert model.score(x, y) == 1


def test_with_weight_decay_it_ends_worse_and_less_so_at_a_small_rate():
    decay = {"weight_decay": 0.01}
    before, end = common(RING, (150, 300), **decay)
    assert abs(end - before) < 0.05  # it has ended
    assert common(COMPLETE, (300,), **decay)[0] - end > 0.12
    assert common(RING, (600,), lr=0.1, **decay)[0] - end > 0.1


CORRECTED = (GradientTracking(), ExactDiffusion())


@pytest.fixture(scope="module")
def at_rest():
    """Return the mean client's accuracy with weight decay: of the graph, in the end."""
    decay = {"lr": 0.3, "weight_decay": 0.01}
    return common(RING, (300,), **decay)[0], common(COMPLETE, (300,), **decay)[0]


@pytest.mark.parametrize("average", CORRECTED, ids=["GT", "D2"])
def test_with_weight_decay_corrected_clients_end_where_the_complete_graph_does(
    average, at_rest
):
    (end,) = common(RING, (300,), lr=0.3, weight_decay=0.01, average=average)
    assert at_rest[0] < at_rest[1] - 0.08
    assert abs(end - at_rest[1]) < 0.02


def test_with_weight_decay_momentum_is_ahead_and_falls_back(at_rest):
    momentum = {"average": QuasiGlobalMomentum(), "lr": 0.3, "weight_decay": 0.01}
    found = common(RING, (80, 400), **momentum)
    assert found[0] > found[1] + 0.03
    assert abs(found[1] - at_rest[0]) < 0.04 and found[1] < at_rest[1] - 0.06


@pytest.mark.parametrize("average", [*CORRECTED, QuasiGlobalMomentum()], ids=str)
def test_without_weight_decay_they_save_rounds(average):
    plain = common(RING, (80, 240))
    (soon,) = common(RING, (80,), average=average)
    assert soon > plain[0] + 0.05 and soon > plain[1]


def test_on_personal_sets_gossip_is_behind_learning_alone_and_then_ahead():
    graph, gains = topology.named("regular", 16, seed=0), []
    for seed in range(5):
        task = digits(16, alpha=0.1, seed=seed)
        options = {"lr": 1.0, "batch_size": 64, "evaluate_every": 12}
        with_others, by_itself = (
            gossip_learning(task, schedule, 204, **options).evaluate_metrics_clientapp
            for schedule in (graph, alone)
        )
        gains.append(
            [with_others[t]["accuracy"] - by_itself[t]["accuracy"] for t in (12, 204)]
        )
    soon, late = np.mean(gains, axis=0)
    assert soon < -0.02 and late > 0.015


@pytest.fixture(scope="module")
def other_labels():
    """Return tasks in which half of the clients name the digits differently."""
    x, y = load_digits(return_X_y=True)
    tasks = []
    for seed in (0, 1):
        task = Task(x / 16, y, 16, partition="iid", holdout=0.2, seed=seed)
        rows = task.parts.index[task.parts.starts[8] : task.parts.starts[16]]
        task.y[rows] = (task.y[rows] + 5) % 10
        tasks.append(task)
    return tasks


def test_algorithm_2_helps_where_clients_disagree(other_labels):
    for task in other_labels:
        rule = SoftmaxDistance(task.predict, self_weight=0.5, alpha=-4)
        listens, _ = accuracies(task, COMPLETE, 10, average=rule)
        uniform, _ = accuracies(task, COMPLETE, 10, weights=mixing.uniform)
        assert listens > uniform + 0.2


def test_algorithm_2_harms_where_clients_know_different_things():
    graph = topology.named("regular", 16, seed=0)
    for seed in (0, 1):
        task = digits(16, alpha=0.1, holdout=0.2, seed=seed)
        rule = SoftmaxDistance(task.predict, self_weight=0.2, alpha=-4)
        _, listens = accuracies(task, graph, 10, average=rule)
        _, uniform = accuracies(task, graph, 10, weights=mixing.uniform)
        assert listens < uniform - 0.05


def five_layers():
    layers = []
    for wide, next_wide in [(64, 32), (32, 32), (32, 32), (32, 32), (32, 10)]:
        linear = torch.nn.Linear(wide, next_wide)
        torch.nn.init.xavier_uniform_(linear.weight)
        torch.nn.init.zeros_(linear.bias)
        layers += [linear, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def test_a_network_with_starts_of_its_own_needs_its_variance():
    """At a small learning rate it ends where those do that start alike."""
    x, y = load_digits(return_X_y=True)
    graph = topology.named("regular", 16, seed=0)
    found = {}
    for same_start, average in [
        (True, weighted_mean),
        (True, variance_corrected),
        (False, weighted_mean),
        (False, variance_corrected),
    ]:
        how = {"partition": "iid", "build": five_layers, "same_start": same_start}
        task = Task(x / 16, y, 16, **how)
        options = {"average": average, "lr": 0.1, "evaluate_fn": task.evaluate_fn}
        options |= {"evaluate_every": 0, "observe_every": 100}
        result = gossip_learning(task, graph, 100, **options)
        end = result.evaluate_metrics_serverapp[100]["accuracy"]
        found[same_start, average] = end
    assert found.pop((False, weighted_mean)) < 0.2
    assert min(found.values()) > 0.85
