"""Checks of the exercises of notebook 03: averaging."""

from functools import cache

import numpy as np

from gossiplib.classroom.checking import checks, need, need_number, predicts
from gossiplib.core import mixing, topology


@checks("03.1")
def _(rounds: int, rate: float) -> None:
    need(rounds == int(rounds), "Give a whole number of rounds.")
    need(rate**rounds <= 1e-3, "Theory does not promise it so early.")
    need(rate ** (rounds - 1) > 1e-3, "Theory promises it earlier.")


@checks("03.2")
def _(start: np.ndarray) -> None:
    x = np.asarray(start, dtype=float)
    need(x.shape == (15,), "Give 15 numbers, one a client.")
    need(np.ptp(x) > 1e-6, "The numbers must not all be equal.")
    x = x - x.mean()
    after = mixing.metropolis(topology.named("ring", 15)) @ x
    left = np.linalg.norm(after) / np.linalg.norm(x)
    need(left < 1e-9, f"A round leaves {left:.2g} of the distance. What do three hold?")


@checks("03.3")
def _(matrices: list[np.ndarray]) -> None:
    product = np.eye(12)
    for W in map(np.asarray, matrices):
        need(W.shape == (12, 12), "Each W is for 12 clients.")
        need(np.allclose(W.sum(axis=1), 1), "The weights of a client must sum to 1.")
        need((W >= 0).all(), "Weights must not be negative here.")
        heard = ((W != 0) & ~np.eye(12, dtype=bool)).sum(axis=1)
        need((heard <= 2).all(), "A client may hear at most two others in a round.")
        product = W @ product
    need(len(matrices) <= 4, "Four rounds are enough.")
    error = np.abs(product - 1 / 12).max()
    need(error < 1e-9, f"The largest error after the last round is {error:.2g}.")


@cache
def _effective(n: int = 100, *, memory: float = 100, lazy: bool = False) -> float:
    """Return the effective neighbours of a ring."""
    W = mixing.metropolis(topology.named("ring", n))
    W = (W + np.eye(n)) / 2 if lazy else W
    return mixing.effective_neighbours(W, 1 - 1 / memory)


def _factor(number: float) -> None:
    need_number(number)
    found = _effective(memory=200) / _effective()
    hint = "The factor: what does the picture's line of the ring look like, and why?"
    need(abs(number / found - 1) < 0.05, hint)


@predicts(
    "03.4",
    "more",
    "fewer",
    "Half kept: how far does noise get in a round then?",
    "Twice as many clients: how far does noise get before it is forgotten?",
    same=0.01,
    reason=_factor,
    told="Effective neighbours: {2:.2f}; {3:.2f} if each keeps half, {4:.2f} with 200 "
    "clients. Half the learning rate: {5:.2f} times as many.",
)
def _() -> list[float]:
    """Return how many effective neighbours come in, on a ring of 100; and how many."""
    ring, half_kept, longer = _effective(), _effective(lazy=True), _effective(200)
    factor = _effective(memory=200) / ring
    return [half_kept - ring, longer - ring, ring, half_kept, longer, factor]
