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
def _shares(n: int = 50) -> tuple[float, float]:
    """Return what share of the variance a meeting on a ring takes away.

    The first, and one after 200 others: on average over all pairs of neighbours that
    may meet and over many starts. As it is half of a squared difference, it is to the
    complete graph's, 1 / (n - 1), as the neighbours' squared difference to any two's.
    """
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, n))
    rows = np.arange(len(x))

    def share() -> float:
        apart = ((x - np.roll(x, 1, axis=1)) ** 2).mean(axis=1)
        return float((apart / (2 * n * x.var(axis=1))).mean())

    first = share()
    for _ in range(200):
        i = rng.integers(n, size=len(x))
        j = (i + 1) % n
        x[rows, i] = x[rows, j] = (x[rows, i] + x[rows, j]) / 2
    return first, share()


def _alike(number: float) -> None:
    need_number(number)
    share = 49 * _shares()[1]
    hint = "The reason: measure both squared differences after 200 meetings."
    need(share / 2 < number < 2 * share, hint)


@predicts(
    "03.4",
    "more",
    "less",
    "The first meeting: Two fresh numbers: does it matter who has them?",
    "The later meeting: How far apart are neighbours by then?",
    same=1e-3,
    reason=_alike,
)
def _() -> list[float]:
    """Return by how much more of the variance goes than on the complete graph."""
    return [share - 1 / 49 for share in _shares()]
