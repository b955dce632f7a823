"""Checks of the exercises of notebook 09: liars and eavesdroppers."""

from collections.abc import Callable

import networkx as nx
import numpy as np

from gossiplib.exercises import checks, need


@checks("09.1")
def _(radius: float) -> None:
    far = np.array([1, 1, 2, 2, 2, 3, 3, 4, 50, 90.0])
    need(radius > 0, "A radius is above 0.")
    need(radius < 45, "Two neighbours are to be left out of the sum.")
    squares = np.square(np.sort(far)[:-2]).sum() / 11
    need(
        abs(radius - np.sqrt(squares / (2 / 11))) < 0.01,
        "It is a root, and δ is the weight of as many neighbours as may lie.",
    )


@checks("09.2")
def _(graph: nx.Graph) -> None:
    need(isinstance(graph, nx.Graph), "Give a networkx graph.")
    need(not graph.is_directed(), "Links go both ways here.")
    need(sorted(graph) == list(range(12)), "Its nodes are the clients 0 to 11.")
    need(nx.number_of_selfloops(graph) == 0, "A client is not its own neighbour.")
    links = graph.number_of_edges()
    need(links <= 18, f"It has {links} links.")
    need(nx.is_connected(graph), "It is not connected.")
    few = min(degree for _, degree in graph.degree)
    need(few >= 3, f"A client has only {few} neighbours: they may all lie.")
    cut = len(nx.minimum_node_cut(graph))
    need(cut >= 3, f"{cut} liars are enough to cut it in two.")


@checks("09.3")
def _(average: Callable) -> None:
    rng = np.random.default_rng(0)
    for case in range(4):
        models = [[rng.normal(size=(3, 2)), rng.normal(size=4)] for _ in range(6)]
        if case == 1:
            models[2] = [a + 1e6 for a in models[2]]
        if case == 2:
            models[1:4] = [[a.copy() for a in models[0]] for _ in range(3)]
        if case == 3:
            models = models[:1]
        before = [[a.copy() for a in model] for model in models]
        weights = np.array([0.5] + [0.5 / max(1, len(models) - 1)] * (len(models) - 1))
        mixed = average(models[0], models[1:], weights, None)
        shapes = [np.shape(a) for a in mixed]
        need(shapes == [(3, 2), (4,)], "Return a model: arrays like those of own.")
        same = all(
            np.array_equal(a, b)
            for old, new in zip(before, models, strict=True)
            for a, b in zip(old, new, strict=True)
        )
        need(same, "Do not change the models that you are given.")
        rows = np.stack([np.concatenate([a.ravel() for a in m]) for m in models])
        found = np.concatenate([np.ravel(a) for a in mixed])
        need(np.isfinite(found).all(), "It gave NaN: a distance may be 0.")
        here, best = _sum_of_distances(found, rows), _least(rows)
        need(
            here <= best * (1 + 1e-4) + 1e-4,
            f"Another model has a smaller sum of distances (case {case + 1} of 4).",
        )


@checks("09.4")
def _(std: float) -> None:
    # not at the top: notebooks 02 and 03 run without Flower
    from gossiplib.privacy import exact_epsilon

    need(std > 0, "A standard deviation is above 0.")
    epsilon = exact_epsilon(2, std, 1e-5, rounds=20)
    need(epsilon <= 1 + 1e-6, f"Then ε of the twenty together is {epsilon:.2f}.")
    least = exact_epsilon(2, std / 1.01, 1e-5, rounds=20)
    need(least > 1, "Less noise does it too.")


def _sum_of_distances(x: np.ndarray, rows: np.ndarray) -> float:
    return float(np.linalg.norm(rows - x, axis=1).sum())


def _least(rows: np.ndarray) -> float:
    """Return the smallest sum of distances that scipy or one of the rows reaches."""
    from scipy.optimize import minimize

    found = minimize(_sum_of_distances, np.median(rows, axis=0), args=(rows,))
    return min(found.fun, *(_sum_of_distances(row, rows) for row in rows))
