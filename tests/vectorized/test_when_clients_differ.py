"""What notebook 06 concludes, in small."""

import random

import networkx as nx
import numpy as np
import pytest
import torch
from flwr.serverapp.strategy import FedAvg
from sklearn.datasets import load_digits

from gossiplib.core import mixing, topology
from gossiplib.core.averaging import SoftmaxDistance, weighted_mean
from gossiplib.core.grid import LocalGrid
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


def test_uneven_data_hurts_where_mixing_is_slow():
    ring = topology.named("ring", 16)
    lost = {}
    for name, graph in {"ring": ring, "complete": COMPLETE}.items():
        even, uneven = (
            np.mean(
                [accuracies(digits(16, alpha=a, seed=s), graph, 15)[1] for s in (0, 1)]
            )
            for a in (10, 0.1)
        )
        lost[name] = even - uneven
    assert lost["ring"] > 0.2 > 0.15 > lost["complete"]


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
    x, y = load_digits(return_X_y=True)
    graph = topology.named("regular", 16, seed=0)
    found = {}
    for same_start, average in [
        (True, weighted_mean),
        (False, weighted_mean),
        (False, variance_corrected),
    ]:
        options = {"partition": "iid", "build": five_layers, "same_start": same_start}
        task = Task(x / 16, y, 16, **options)
        result = gossip_learning(
            task,
            graph,
            16,
            average=average,
            lr=0.2,
            evaluate_every=0,
            observe_every=16,
            evaluate_fn=task.evaluate_fn,
        )
        accuracy = result.evaluate_metrics_serverapp[16]["accuracy"]
        found[same_start, average] = accuracy
    assert found[False, weighted_mean] < 0.2
    assert found[False, variance_corrected] > 0.4
    assert found[True, weighted_mean] > 0.4
