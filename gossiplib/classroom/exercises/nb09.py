"""Checks of the exercises of notebook 09: averaging without rounds."""

from collections.abc import Sequence
from functools import cache

import numpy as np

from gossiplib.classroom.checking import (
    Function,
    checks,
    need,
    need_number,
    predicts,
    untouched,
)


@cache
def _left(answered: float, n: int = 1000, cycles: int = 20) -> float:
    """Return what a cycle of calls in turn leaves, if only some calls are answered."""
    rng = np.random.default_rng(0)
    left = []
    for _ in range(cycles):
        x = rng.normal(size=(n, 20))
        before = x.var(axis=0).mean()
        heard = rng.random(n) < answered
        for i, j in enumerate(rng.integers(1, n, size=n)):
            j = (i + j) % n
            if heard[i]:
                x[i] = x[j] = (x[i] + x[j]) / 2
        left.append(x.var(axis=0).mean() / before)
    return float(np.mean(left))


@checks("09.1")
def _(share: float) -> str:
    need_number(share)
    need(0 < share < 1, "A share of the variance is between 0 and 1.")
    measured = _left(0.5)
    hint = "How many meetings of its own calls has a client now, how many of others'?"
    need(abs(share / measured - 1) < 0.02, hint)
    return f"Measured: a cycle leaves {measured:.3f} of the variance."


@checks("09.2")
def _(meetings: Sequence[tuple[int, int]]) -> str:
    pairs = [tuple(map(int, pair)) for pair in meetings]
    need(len(pairs) <= 32, f"32 meetings are enough; these are {len(pairs)}.")
    x = np.eye(16)  # a row is what a client holds of each number
    for i, j in pairs:
        two = i != j and {i, j} <= set(range(16))
        need(two, f"({i}, {j}) are not two clients of 0, ..., 15.")
        x[i] = x[j] = (x[i] + x[j]) / 2
    error = np.abs(x - 1 / 16).max(axis=1)
    done = int((error < 1e-9).sum())
    hint = "Once two hold the same, whom must they meet, so that four hold the same?"
    need(done == 16, f"{done} of 16 clients hold the average. {hint}")
    return f"All sixteen are done, after {len(pairs)} meetings."


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
    "09.3",
    "more",
    "less",
    "The first meeting: Two fresh numbers: does it matter who has them?",
    "The later meeting: How far apart are neighbours by then?",
    same=1e-3,
    reason=_alike,
    told="A meeting takes away {2:.4f} of the variance at first, {3:.4f} later, and "
    "{4:.4f} on the complete graph. Later the squared difference of neighbours is "
    "{5:.2f} of that of any two.",
)
def _() -> list[float]:
    """Return by how much more of the variance goes than on the complete graph; more."""
    (first, later), complete = _shares(), 1 / 49
    more = [first - complete, later - complete]
    return [*more, first, later, complete, later / complete]


@checks("09.4")
def _(push: Function) -> str:
    rng = np.random.default_rng(0)
    n, s = 30, np.arange(30.0)
    w = np.ones(n)
    for t in range(60):
        to = (np.arange(n) + rng.integers(1, n, size=n)) % n
        if t == 0:
            to[:5] = 17  # several send to one
        with untouched("arrays", s, w, to):
            new_s, new_w = push(s, w, to)
        need(np.shape(new_s) == np.shape(new_w) == (n,), "Return two arrays like s.")
        kept = np.isclose(new_s.sum(), s.sum()) and np.isclose(new_w.sum(), w.sum())
        need(kept, "The sums of all s and of all w must not change.")
        for old, new in ((s, new_s), (w, new_w)):
            right = [old[i] / 2 + old[to == i].sum() / 2 for i in range(n)]
            need(np.allclose(new, right), "A client has its half, and what comes.")
        s, w = new_s, new_w
    need(np.allclose(s / w, 14.5, atol=1e-4), "s / w must tend to the mean.")
    left = _left_by(push)
    return f"Over six rounds of 500 clients, a round leaves {left:.2f} of the variance."


def _left_by(push: Function, n: int = 500, runs: int = 50) -> float:
    """Return what a round of push-sum leaves, all at once, on average over six."""
    rng = np.random.default_rng(0)
    left = []
    for _ in range(runs):
        start = rng.normal(size=n)
        s, w = start, np.ones(n)
        for _ in range(6):
            s, w = push(s, w, (np.arange(n) + rng.integers(1, n, size=n)) % n)
        left.append(((s / w - start.mean()) ** 2).mean() / start.var())
    return float(np.mean(left) ** (1 / 6))


@checks("09.5")
def _(start_s: Sequence[float], start_w: Sequence[float]) -> str:
    s, w = np.asarray(start_s, dtype=float), np.asarray(start_w, dtype=float)
    need(s.shape == w.shape == (20,), "Give two lists of 20 numbers, one a client.")
    alike = np.ptp(s[1:]) == np.ptp(w[1:]) == 0
    need(alike, "Clients 1 to 19 cannot tell who they are: they start alike.")
    known = np.isin([*s, *w], (0, 1)).all()
    need(known, "Give zeros and ones.")
    need(w.sum() > 0, "With no weight anywhere, there is nothing to divide by.")
    rng = np.random.default_rng(0)
    told = []
    for _ in range(80):
        told.append(s[7] / w[7] if w[7] > 0 else np.inf)
        to = (np.arange(20) + rng.integers(1, 20, size=20)) % 20
        P = np.eye(20) / 2
        P[to, np.arange(20)] += 1 / 2
        s, w = P @ s, P @ w
    found = s / w
    near = np.allclose(found, 20, atol=1e-3)
    need(near, f"All agree on {found[0]:.3g}: what is the ratio of the two sums?")
    later = ", ".join(f"round {t} {told[t]:.3g}" for t in (10, 20, 40))
    return f"What client 7 believes: round 0 {told[0]:g} (no weight has come), {later}."
