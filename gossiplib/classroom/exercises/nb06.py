"""Checks of the exercises of notebook 06: when clients differ."""

from collections.abc import Callable
from types import SimpleNamespace

import networkx as nx
import numpy as np

from gossiplib.classroom.exercises.registry import checks, need, need_words, word_for
from gossiplib.core import mixing, topology


@checks("06.1")
def _(clients: int) -> None:
    from gossiplib.tasks.task import digits  # torch: notebooks 02 and 03 run without it

    need(clients == int(clients) and 0 <= clients <= 16, "Give a number of clients.")
    counts = digits(16, alpha=0.1, seed=0).label_counts()
    need(clients != (counts[:, 1] > 0).sum(), "Those who have none are asked for.")
    need(clients == (counts[:, 1] == 0).sum(), "Count in the column of the digit 1.")


@checks("06.2")
def _(self_weight: float, alpha: float, rounds: int) -> None:
    from sklearn.datasets import load_digits

    from gossiplib.core.averaging import SoftmaxDistance
    from gossiplib.tasks.task import Task
    from gossiplib.vectorized.engine import gossip_learning

    need(0 <= self_weight <= 1, "W_ii is a share, from 0 to 1.")
    need(rounds in range(1, 21), "At most 20 rounds.")
    x, y = load_digits(return_X_y=True)
    found = []
    for seed in (0, 1):
        task = Task(x / 16, y, 16, partition="iid", holdout=0.2, seed=seed)
        rows = task.parts.index[task.parts.starts[8] : task.parts.starts[16]]
        task.y[rows] = (task.y[rows] + 5) % 10
        rule = SoftmaxDistance(task.predict, self_weight=self_weight, alpha=alpha)
        result = gossip_learning(
            task,
            nx.complete_graph(16),
            rounds,
            average=rule,
            batch_size=64,
            lr=1.0,
            evaluate_every=rounds,
            observe_every=0,
        )
        found.append(result.evaluate_metrics_clientapp[rounds]["accuracy"])
    accuracy = np.mean(found)
    if alpha >= 0:
        hint = "Whom should a client listen to here?"
    elif rounds < 20:
        hint = "It may take longer."
    else:
        hint = "How far should a client trust the others, even those who agree?"
    need(accuracy >= 0.83, f"It reaches {accuracy:.3f}. {hint}")


@checks("06.3")
def _(weights: Callable[[nx.Graph, np.ndarray], np.ndarray]) -> None:
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
        for i in range(7):
            j = np.flatnonzero(here[i])
            share = W[i, j] / sizes[j]
            need(np.allclose(share, share[0]), "Twice the examples, twice the weight.")


@checks("06.4")
def _(average: Callable) -> None:
    rng = np.random.default_rng(0)
    # The largest array, the largest number and the largest sum of two norms are in
    # models that do not win.
    models = [[rng.normal(size=(3, 2)), rng.normal(size=2)] for _ in range(4)]
    models[1][0][:] = -8.6
    models[2][0][:], models[2][1][:] = 6.6, 10.5
    models[3][0][:], models[3][1][:] = 8.2, -7.0
    weights = np.array([0.4, 0.3, 0.2, 0.1])
    for first in range(4):
        order = [models[(first + k) % 4] for k in range(4)]
        own, *neighbours = order
        norms = [np.sqrt(sum((a**2).sum() for a in m)) for m in order]
        winner = order[int(np.argmax(norms))]
        for t in (1, 2, 3, 4, 9):
            now = SimpleNamespace(server_round=t)
            mixed = average(own, neighbours, weights, now)
            need(len(mixed) == 2, "Return a list with the arrays of a model.")
            if t <= 3:
                need(
                    all(np.allclose(a, b) for a, b in zip(mixed, winner, strict=True)),
                    f"In round {t}, adopt the model of the largest norm, which is over "
                    "all its arrays. It may be the own one.",
                )
                continue
            layers = zip(*order, strict=True)
            mean = [np.tensordot(weights, np.stack(a), 1) for a in layers]
            need(
                all(np.allclose(a, b) for a, b in zip(mixed, mean, strict=True)),
                f"In round {t}, average with the weights.",
            )


@checks("06.5")
def _(star: str, ring: str) -> None:
    from gossiplib.tasks.task import digits
    from gossiplib.vectorized.engine import gossip_learning

    need_words((star, ring), "better", "worse", "same")
    for name, answer, hint in (
        ("star", star, "how much of the centre's model does another client take?"),
        ("ring", ring, "write down three neighbouring clients' rows of W."),
    ):
        graph, gains = topology.named(name, 16), []
        for seed in (0, 1):
            task = digits(16, alpha=0.1, seed=seed)
            options = {"batch_size": 64, "lr": 1.0, "evaluate_every": 0}
            options |= {"evaluate_fn": task.evaluate_fn, "observe_every": 12}
            before, after = (
                gossip_learning(task, graph, 12, weights=weights, **options)
                for weights in (mixing.metropolis, mixing.uniform)
            )
            both = (
                r.evaluate_metrics_serverapp[12]["accuracy"] for r in (after, before)
            )
            gains.append(np.subtract(*both))
        found = word_for(np.mean(gains), "better", "worse", same=0.01)
        need(answer == found, f"The {name}: with each kind of weights, {hint}")
