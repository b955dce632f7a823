"""Checks of the exercises of notebook 12: liars."""

from functools import cache
from itertools import combinations
from typing import Any

import networkx as nx
import numpy as np
import torch
from scipy.optimize import minimize

from gossiplib.classroom.checking import Function, checks, need, predicts, untouched
from gossiplib.protocols import robust
from gossiplib.protocols.byzantine import AttackView, Byzantine
from gossiplib.system.records import unpack
from gossiplib.tasks.poisoning import poisoned
from gossiplib.tasks.task import Examples, digits
from gossiplib.vectorized.consensus import averaging_rounds
from gossiplib.vectorized.engine import gossip_learning


@checks("12.1")
def _(radius: float) -> None:
    far = np.array([1, 1, 2, 2, 2, 3, 3, 4, 50, 90.0])
    need(radius > 0, "A radius is above 0.")
    need(radius < 45, "Two neighbours are to be left out of the sum.")
    right = np.sqrt(np.square(np.sort(far)[:-2]).sum() / 11 / (2 / 11))
    hint = "It is a root, and δ is the weight of as many neighbours as may lie."
    need(abs(radius - right) < 0.01, hint)


@checks("12.2")
def _(graph: nx.Graph) -> None:
    need(isinstance(graph, nx.Graph), "Give a networkx graph.")
    need(not graph.is_directed(), "Links go both ways here.")
    need(sorted(graph) == list(range(11)), "Its nodes are the clients 0 to 10.")
    need(nx.number_of_selfloops(graph) == 0, "A client is not its own neighbour.")
    two_groups = nx.barbell_graph(5, 1)
    kept = all(graph.has_edge(*link) for link in two_groups.edges)
    need(kept, "The links of the two groups stay.")
    more = graph.number_of_edges() - two_groups.number_of_edges()
    need(more <= 3, f"You added {more} links.")
    for liars in combinations(range(11), 2):
        honest = graph.subgraph(set(graph) - set(liars))
        need(nx.is_connected(honest), f"Clients {liars[0]} and {liars[1]} can cut it.")


@checks("12.3")
def _(average: Function) -> None:
    def distances(x: np.ndarray, rows: list[np.ndarray]) -> float:
        return float(np.linalg.norm(rows - x, axis=1).sum())

    rng = np.random.default_rng(0)
    for case in range(4):
        models = [[rng.normal(size=(3, 2)), rng.normal(size=4)] for _ in range(6)]
        if case == 1:
            models[2] = [a + 1e6 for a in models[2]]
        if case == 2:
            models[1:4] = [[a.copy() for a in models[0]] for _ in range(3)]
        if case == 3:
            models = models[:1]
        weights = np.array([0.5] + [0.5 / max(1, len(models) - 1)] * (len(models) - 1))
        with untouched("models", models):
            mixed = average(models[0], models[1:], weights, None)
        shapes = [np.shape(a) for a in mixed]
        need(shapes == [(3, 2), (4,)], "Return a model: arrays like those of own.")
        found, *rows = (np.concatenate([*map(np.ravel, m)]) for m in (mixed, *models))
        need(np.isfinite(found).all(), "It gave NaN: a distance may be 0.")
        best = minimize(distances, np.median(rows, axis=0), args=(rows,)).fun
        least = min(best, *(distances(row, rows) for row in rows))
        hint = f"Another model has a smaller sum of distances (case {case + 1} of 4)."
        need(distances(found, rows) <= least * (1 + 1e-4) + 1e-4, hint)


@checks("12.4")
def _(median: int, trimmed: int, clipped: int) -> None:
    hints = (
        "the median: which value is in the middle?",
        "the trimmed mean: how many of the lies does it leave out?",
        "clipping: how long is the radius, if a lie is in the sum?",
    )
    given = (median, trimmed, clipped)
    for answer, most, hint in zip(given, _most_liars(), hints, strict=True):
        need(answer in range(11), "Each answer is a number of liars.")
        need(answer == most, f"Another number for {hint}")


@cache
def _most_liars() -> list[int]:
    """Return how many liars each rule withstands, in the first setting of 12."""
    start = np.random.default_rng(0).normal(size=(11, 2))

    def drift(average: Function, liars: int) -> float:
        def lie(view: AttackView) -> list[list[np.ndarray]]:
            return [[np.full_like(a, 1000.0) for a in model] for model in view.true]

        lied = Byzantine(average, range(liars), lie)
        rounds = averaging_rounds(start, nx.complete_graph(11), average=lied)
        x = [next(rounds)[0] for _ in range(20)][-1]
        return float(np.linalg.norm((x - start)[liars:].mean(axis=0)))

    trimmed, clipped = robust.TrimmedMean(f=3), robust.ClippedGossip(f=1)
    return [
        max(liars for liars in range(10) if drift(rule, liars) < 10)
        for rule in (robust.coordinate_median, trimmed, clipped)
    ]


@predicts(
    "12.5",
    "more",
    "less",
    "The middle: which weights do honest images train?",
    "One liar: what share of the mean is its model?",
    "Four liars: how large was the share before?",
    same=0.2,
    told="Called 7: {0:+.0%} with the middle, {1:+.0%} by one liar, {2:+.0%} by four.",
)
def _() -> list[float]:
    """Return how much more stamped images are called 7 than in notebook 12."""
    corner, middle = [48, 49, 56, 57], [27, 28, 35, 36]
    usual = _hits(corner, 2)
    return [_hits(*case) - usual for case in ((middle, 2), (corner, 1), (corner, 4))]


def _hits(trigger: list[int], liars: int) -> float:
    """Return what share of stamped test images is called 7, as in notebook 12."""

    def stamp(x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        x[:, trigger] = 1
        return x

    def backdoor(x: torch.Tensor, y: torch.Tensor) -> Examples:
        half = len(x) // 2
        x[:half], y[:half] = stamp(x[:half]), 7
        return x, y

    task = digits(55, partition="iid", holdout=0, seed=0)
    honest = [i for i in range(55) if i % 11 >= liars]
    forged = poisoned(task, set(range(55)) - {*honest}, backdoor)
    groups = nx.disjoint_union_all([nx.complete_graph(11)] * 5)
    options: dict[str, Any] = {"batch_size": 1000, "lr": 1.0}
    options |= {"evaluate_every": 0, "observe_every": 30}
    result = gossip_learning(forged, lambda t: groups, 30, **options)
    x, y = task.test
    stamped = stamp(x[y != 7]).numpy()
    models = (unpack(result.node_arrays[i]) for i in honest)
    said = [(stamped @ W.T + b).argmax(axis=1) for W, b in models]
    return float(np.mean(np.array(said) == 7))
