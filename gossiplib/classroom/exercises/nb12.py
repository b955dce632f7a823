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
def _(radius: float, by_clipping: float, by_mean: float) -> None:
    far = np.array([1, 1, 2, 2, 2, 3, 3, 4, 50, 90.0])
    tau = np.sort(far)[-3]
    need(radius < 50, "τ: with that, a lie may be as long as it likes.")
    need(abs(radius - tau) < 0.01, "τ: how many of the farthest may be liars?")
    hint = "Clipping: how long is an arrow at most? How many are there, of what weight?"
    need(abs(by_clipping - 2 * tau / 11) < 0.01, hint)
    hint = "The mean: the same two arrows, and nobody shortens them."
    need(abs(by_mean - far[-2:].sum() / 11) < 0.05, hint)


@checks("12.2")
def _(not_cut: nx.Graph, brought_together: nx.Graph) -> str:
    for part, graph in (("(a)", not_cut), ("(b)", brought_together)):
        _need_two_groups(part, graph)
    for liars in combinations(range(11), 2):
        honest = not_cut.subgraph(set(not_cut) - set(liars))
        hint = f"(a): clients {liars[0]} and {liars[1]} can cut it."
        need(nx.is_connected(honest), hint)
    apart = _apart_with_a_yes_man(brought_together)
    hint = f"(b): still {apart:.2f} apart. How many voices bring news to each client?"
    need(apart < 0.01, hint)  # as are all that ever meet; the others stay at 1
    first = _apart_with_a_yes_man(not_cut)
    return f"Measured: (a) {first:.2f} apart, (b) {apart:.4f}."


def _need_two_groups(part: str, graph: nx.Graph) -> None:
    """Raise AssertionError unless a graph is the two groups and at most three links."""
    need(isinstance(graph, nx.Graph), f"{part}: give a networkx graph.")
    need(not graph.is_directed(), f"{part}: links go both ways here.")
    need(sorted(graph) == list(range(11)), f"{part}: its nodes are 0 to 10.")
    loops = nx.number_of_selfloops(graph)
    need(loops == 0, f"{part}: a client is not its own neighbour.")
    two_groups = nx.barbell_graph(5, 1)
    kept = all(graph.has_edge(*link) for link in two_groups.edges)
    need(kept, f"{part}: the links of the two groups stay.")
    more = graph.number_of_edges() - two_groups.number_of_edges()
    need(more <= 3, f"{part}: you added {more} links.")


def _apart_with_a_yes_man(graph: nx.Graph) -> float:
    """Return how far honest values are apart after 300 rounds, in 12.2."""
    sides = np.repeat([0.0, 0.5, 1.0], [5, 1, 5])[:, None]

    def yes_man(view: AttackView) -> list[list[np.ndarray]]:
        return [view.own] * len(view.true)

    lied = Byzantine(robust.TrimmedMean(f=1), [5], yes_man)
    rounds = averaging_rounds(sides, graph, average=lied)
    x = [next(rounds)[0] for _ in range(300)][-1][:, 0]
    return float(np.ptp(np.delete(x, 5)))


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
        hint = (
            f"Another model has a smaller sum of distances (case {case + 1} of 4): are "
            "yours over all arrays together, and is your own model among them?"
        )
        need(distances(found, rows) <= least * (1 + 1e-4) + 1e-4, hint)


@checks("12.4")
def _(median: int, trimmed: int, clipped: int) -> str:
    hints = (
        "the median: which value is in the middle?",
        "the trimmed mean: how many of the lies does it leave out?",
        "clipping: how long is the radius, if a lie is in the sum?",
    )
    given = (median, trimmed, clipped)
    for answer, (most, _, _), hint in zip(given, _most_liars(), hints, strict=True):
        need(answer in range(11), "Each answer is a number of liars.")
        need(answer == most, f"Another number for {hint}")
    _, few, more = zip(*_most_liars(), strict=True)
    told = ["{:.1f}, {:.1f} and {:.1f}".format(*few)]
    told += ["{:.0f}, {:.0f} and {:.0f}".format(*more)]
    return (
        f"With so many liars the mean moves by {told[0]}; with one more, by {told[1]}, "
        "all the way to the lie or nearly so."
    )


@cache
def _most_liars() -> list[tuple[int, float, float]]:
    """Return how many liars each rule withstands, in the first setting of 12.

    And how far the honest mean moves with so many, and with one more.
    """
    start = np.random.default_rng(0).normal(size=(11, 2))

    def drift(average: Function, liars: int) -> float:
        def lie(view: AttackView) -> list[list[np.ndarray]]:
            return [[np.full_like(a, 1000.0) for a in model] for model in view.true]

        lied = Byzantine(average, range(liars), lie)
        rounds = averaging_rounds(start, nx.complete_graph(11), average=lied)
        x = [next(rounds)[0] for _ in range(20)][-1]
        return float(np.linalg.norm((x - start)[liars:].mean(axis=0)))

    trimmed, clipped = robust.TrimmedMean(f=3), robust.ClippedGossip(f=1)
    found = []
    for rule in (robust.coordinate_median, trimmed, clipped):
        moved = [drift(rule, liars) for liars in range(10)]
        most = max(liars for liars in range(10) if moved[liars] < 10)
        found.append((most, moved[most], moved[most + 1]))
    return found


@predicts(
    "12.5",
    "more",
    "less",
    "The middle: which weights do honest images train?",
    "One liar: what share of the mean is its model?",
    "Four liars: how large was the share before?",
    same=0.2,
    told="Called 7: {0:+.2f} with the middle, {1:+.2f} by one liar, {2:+.2f} by four.",
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
