"""Checks of the exercises of notebook 06: when clients differ."""

from functools import cache
from types import SimpleNamespace
from typing import Any

import networkx as nx
import numpy as np
from sklearn.datasets import load_digits

from gossiplib.classroom.checking import Function, checks, close, need, predicts
from gossiplib.classroom.exercises.runs import SEEDS, accuracies
from gossiplib.core import mixing, topology
from gossiplib.core.averaging import SoftmaxDistance
from gossiplib.tasks.task import Task, digits
from gossiplib.vectorized.engine import gossip_learning


@checks("06.1")
def _(clients: int) -> None:
    need(clients == int(clients) and 0 <= clients <= 16, "Give a number of clients.")
    counts = digits(16, alpha=0.1, seed=0).label_counts()
    need(clients != (counts[:, 1] > 0).sum(), "Those who have none are asked for.")
    need(clients == (counts[:, 1] == 0).sum(), "Count in the column of the digit 1.")


@checks("06.2")
def _(self_weight: float, alpha: float, rounds: int) -> None:
    need(0 <= self_weight <= 1, "W_ii is a share, from 0 to 1.")
    need(rounds in range(1, 21), "At most 20 rounds.")
    options: dict[str, Any] = {"batch_size": 64, "lr": 1.0, "observe_every": 0}
    options["evaluate_every"] = rounds
    found = []
    for task in _two_schools():
        rule = SoftmaxDistance(task.predict, self_weight=self_weight, alpha=alpha)
        everybody = nx.complete_graph(16)
        result = gossip_learning(task, everybody, rounds, average=rule, **options)
        found.append(result.evaluate_metrics_clientapp[rounds]["accuracy"])
    accuracy = np.mean(found)
    hint = "How far should a client trust the others, even those who agree?"
    if rounds < 20:
        hint = "It may take longer."
    if alpha >= 0:
        hint = "Whom should a client listen to here?"
    need(accuracy >= 0.83, f"It reaches {accuracy:.3f}. {hint}")


@cache
def _two_schools() -> list[Task]:
    """Return the task of 06.2 for each seed: half of the clients name digits anew."""
    x, y = load_digits(return_X_y=True)
    tasks = [Task(x / 16, y, 16, partition="iid", holdout=0.2, seed=s) for s in SEEDS]
    for task in tasks:
        rows = task.parts.index[task.parts.starts[8] : task.parts.starts[16]]
        task.y[rows] = (task.y[rows] + 5) % 10
    return tasks


@checks("06.3")
def _(weights: Function) -> None:
    for name in ("star", "path", "complete"):
        graph = topology.named(name, 7)
        sizes = np.array([5, 1, 40, 8, 20, 3, 9])
        W = np.asarray(weights(graph, sizes))
        need(W.shape == (7, 7), "W has one row and one column for each client.")
        need(np.allclose(W.sum(axis=1), 1), "The weights of a client must sum to 1.")
        linked = nx.to_numpy_array(graph, nodelist=range(7)) > 0
        here = linked | np.eye(7, dtype=bool)
        need((W[~here] == 0).all(), "A client hears its neighbours only.")
        need((W[here] > 0).all(), "A client listens to itself and to all neighbours.")
        share = W / sizes
        alike = np.allclose(share, here * np.diag(share)[:, None])
        need(alike, "Twice the examples, twice the weight.")


@checks("06.4")
def _(average: Function) -> None:
    rng = np.random.default_rng(0)
    # The largest array, the largest number and the largest sum of two norms are in
    # models that do not win.
    models = [[rng.normal(size=(3, 2)), rng.normal(size=2)] for _ in range(4)]
    models[1][0][:] = -8.6
    models[2][0][:], models[2][1][:] = 6.6, 10.5
    models[3][0][:], models[3][1][:] = 8.2, -7.0
    weights = np.array([0.4, 0.3, 0.2, 0.1])
    for first in range(4):
        own, *neighbours = order = [*models[first:], *models[:first]]
        winner = max(order, key=lambda model: sum((a**2).sum() for a in model))
        for t in (1, 2, 3, 4, 9):
            now = SimpleNamespace(server_round=t)
            mixed = average(own, neighbours, weights, now)
            need(len(mixed) == 2, "Return a list with the arrays of a model.")
            hint = "average with the weights."
            wanted = [np.tensordot(weights, a, 1) for a in zip(*order, strict=True)]
            if t <= 3:
                hint = "adopt the model of the largest norm, which is over all its "
                hint += "arrays. It may be the own one."
                wanted = winner
            need(close(mixed, wanted), f"In round {t}, {hint}")


@predicts(
    "06.5",
    "better",
    "worse",
    "The star: with each kind of weights, how much of the centre's model does another "
    "client take?",
    "The ring: with each kind of weights, write down three neighbouring clients' rows "
    "of W.",
    same=0.01,
)
def _() -> list[float]:
    """Return what accuracy gains by uniform weights, on the star and on the ring."""
    changes = []
    for graph in (topology.named("star", 16), topology.named("ring", 16)):
        uniform, metropolis = (
            accuracies(graph, 12, {"alpha": 0.1}, weights=rule, batch_size=64, lr=1.0)
            for rule in (mixing.uniform, mixing.metropolis)
        )
        changes.append(uniform.mean() - metropolis.mean())
    return changes
