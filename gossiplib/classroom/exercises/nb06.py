"""Checks of the exercises of notebook 06: when clients differ."""

from typing import Any

import networkx as nx
import numpy as np
from scipy import stats

from gossiplib.classroom.checking import (
    Function,
    checks,
    need,
    need_number,
    predicts,
    untouched,
)
from gossiplib.classroom.exercises.runs import accuracies
from gossiplib.core import mixing, topology
from gossiplib.tasks.task import digits


@checks("06.1")
def _(clients: int) -> str:
    need(clients == int(clients) and 0 <= clients <= 16, "Give a number of clients.")
    counts = digits(16, alpha=0.1, seed=0).label_counts()
    need(clients != (counts[:, 1] > 0).sum(), "Those who have none are asked for.")
    need(clients == (counts[:, 1] == 0).sum(), "Count in the column of the digit 1.")
    return f"The ones are spread like this: {counts[:, 1].tolist()}."


@checks("06.2")
def _(later_or_worse: Function) -> None:
    rng = np.random.default_rng(0)
    # Seeds differ by far more than methods do, and a little from each other in that.
    b = np.linspace(0.5, 0.9, 8) + rng.normal(scale=0.1, size=(5, 1))
    noise = rng.normal(scale=0.01, size=b.shape)
    noise -= noise.mean(axis=0)
    behind = {
        "same": np.zeros(8),
        "later": np.linspace(0.3, 0, 8),
        "worse": np.full(8, 0.1),
    }
    hints = {
        "same": "Where the interval of the differences holds 0, nobody is behind.",
        "later": "It is behind in the middle, but not at the last measurement.",
        "worse": "It ends behind in each seed: take the interval of the differences.",
    }
    for verdict, gap in behind.items():
        _need_verdict(later_or_worse, b - gap + noise, b, verdict, hints[verdict])
    hint = "It is ahead all along, so it is neither later nor worse."
    _need_verdict(later_or_worse, b + 0.1 + noise, b, "same", hint)
    late = np.zeros(8)
    late[-1] = 0.1
    hint = "It is level at first, and behind at the end: the end decides."
    _need_verdict(later_or_worse, b - late + noise, b, "worse", hint)
    hint = "It is behind at the first measurement only, and that counts."
    _need_verdict(later_or_worse, b - late[::-1] + noise, b, "later", hint)
    t, spread = stats.t.ppf(0.975, 4), stats.sem(noise[:, -1])
    for times, verdict in ((0.9, "same"), (1.1, "worse")):
        hint = f"A mean difference of {times} times the interval's half width: count it"
        hint += " only if it is more. Student's t for five seeds is 2.78."
        a = b - times * t * spread * (np.arange(8) == 7) + noise * (np.arange(8) == 7)
        _need_verdict(later_or_worse, a, b, verdict, hint)


def _need_verdict(
    judge: Function, a: np.ndarray, b: np.ndarray, verdict: str, hint: str
) -> None:
    with untouched("accuracies", a, b):
        found = judge(a, b)
    words = ("later", "worse", "same")
    need(
        isinstance(found, str) and found in words, 'Return "later", "worse" or "same".'
    )
    need(found == verdict, hint)


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
def _(rate: float, rounds: int) -> str:
    need_number(rate)
    need(0 < rate <= 10, "A rate is above 0, and 10 is more than enough.")
    need(rounds in range(1, 61), "At most 60 rounds.")
    options: dict[str, Any] = {"lr": float(rate), "weight_decay": 0.01}
    half, end = (
        accuracies(
            topology.named("ring", 16), t, {"alpha": 0.1}, batch_size=64, **options
        ).mean()
        for t in (-(-rounds // 2), rounds)
    )
    told = f"It reaches {half:.3f} after half of the rounds, and {end:.3f} after all."
    need(end >= 0.66, f"{told} Does it still rise, or has it ended?")
    return told


@predicts(
    "06.5",
    "better",
    "worse",
    "The star: with each kind of weights, how much of the centre's model does another "
    "client take?",
    "The ring: with each kind of weights, write down three neighbouring clients' rows "
    "of W.",
    same=0.01,
    told="Accuracy with uniform weights: {0:+.3f} on the star, {1:+.3f} on the ring.",
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
