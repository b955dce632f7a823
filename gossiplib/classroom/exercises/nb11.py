"""Checks of the exercises of notebook 11: fewer bytes."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np

from gossiplib.classroom.checking import Function, checks, need, predicts, untouched
from gossiplib.core.averaging import weighted_mean
from gossiplib.core.topology import named
from gossiplib.protocols.codecs import Qsgd, RandomK, TopK
from gossiplib.protocols.compressed import Choco, Shared
from gossiplib.tasks.task import digits
from gossiplib.vectorized.consensus import averaging_rounds
from gossiplib.vectorized.engine import gossip_learning


@predicts(
    "11.1",
    "higher",
    "lower",
    "On its own data: what does a head learn from one client's few images alone?",
    "Can a head name a digit that its client has never seen?",
    same=0.05,
    told="Accuracy with private heads: {0:+.2f} on own tests, {1:+.2f} on the common.",
)
def _() -> list[float]:
    """Return what sharing the hidden layer alone adds: on own, and on common tests."""
    found = []
    for seed in range(5):
        task = digits(16, alpha=0.3, hidden=32, holdout=0.2, seed=seed)
        shared, whole = (_both_tests(task, rule) for rule in (Shared([0, 1]), None))
        found.append(np.subtract(shared, whole))
    return [float(change) for change in np.mean(found, axis=0)]


def _both_tests(task: Any, average: Any) -> tuple[float, float]:
    result = gossip_learning(
        task,
        named("regular", 16, seed=0),
        15,
        batch_size=32,
        average=average or weighted_mean,
        evaluate_every=15,
        observe_every=15,
        evaluate_fn=task.evaluate_fn,
    )
    tables: Any = result.evaluate_metrics_clientapp, result.evaluate_metrics_serverapp
    own, common = (float(table[15]["accuracy"]) for table in tables)
    return own, common


@checks("11.2")
def _(codec: Any, step: float) -> str:
    need(hasattr(codec, "encode"), "First give a codec, such as TopK(0.1).")
    values = _signal_and_noise(n=9, d=4000, strength=3)
    for spent, (error, size) in enumerate(_choco(values, codec, float(step)), 1):
        need(error < 1e3, f"It diverges: the error is {error:.0e} after {spent} steps.")
        if (spent + 1) * size > 140_000:
            break
    found = f"140 kB are {spent} steps with {size} bytes each; then the error is "
    found += f"{error:.1e}."
    need(error < 1e-6, found)
    return found


@checks("11.3")
def _(encode: Function, decode: Function) -> str:
    rng = np.random.default_rng(0)
    for size in (8, 100, 2403):
        x = rng.normal(size=size) * rng.exponential(size=size)
        with untouched("vector", x):
            message = encode(x)
        need(isinstance(message, list), "A message is a list of arrays.")
        content, most = sum(np.asarray(a).nbytes for a in message), -(-size // 8) + 8
        need(content <= most, f"{size} numbers took {content} bytes, not {most}.")
        q = np.asarray(decode(message, size))
        need(q.shape == x.shape, "Decode a vector of the size that is told.")
        need(np.array_equal(np.sign(q), np.sign(x)), "Some signs are wrong.")
        need(np.ptp(np.abs(q)) < 1e-6, "All that is received has one magnitude.")
        error, least = ((q - x) ** 2).sum(), (x**2).sum() - np.abs(x).sum() ** 2 / size
        need(error < least * 1.001, "Another magnitude is nearer to x.")
    x = rng.normal(size=10_000)
    lost = ((decode(encode(x), len(x)) - x) ** 2).sum() / (x**2).sum()
    told = f"Of ten thousand numbers from a bell curve it loses {lost:.2f}"
    return f"{told} (theory: 1 - 2/π = {1 - 2 / np.pi:.2f}), with a bit for each."


@checks("11.4")
def _(encode: Function, decode: Function) -> str:
    rng = np.random.default_rng(0)
    x, told, every = rng.normal(size=(4, 200)) + 5, [], []
    for server_round in range(1, 101):
        for row in x[: 1 + 3 * (server_round == 1)]:
            message = encode(row, server_round)
            need(isinstance(message, list), "A message is a list of arrays.")
            content = sum(np.asarray(a).nbytes for a in message)
            need(content <= 20 * row.itemsize, f"The message has {content} bytes.")
            told.append((row, message, server_round))
    # The last first: what the sender still remembers is no help to a receiver.
    for row, message, server_round in reversed(told):
        q = np.asarray(decode(message, len(row), server_round))
        need(q.shape == row.shape, "Decode a vector of the size that is told.")
        heard = q != 0
        need(heard.sum() == 20, f"{heard.sum()} numbers are heard, not 20.")
        need(np.allclose(q[heard], row[heard]), "Some values are at wrong places.")
        every.append(heard)
    said = np.array(every)
    need(said.any(axis=0).all(), "After 100 rounds, some numbers were never said.")
    together = said[:, 0] @ said.astype(float) / said[:, 0].sum()
    need(together[1:].max() < 0.9, "Places are not drawn anew in each round.")
    times = said[:100].sum(axis=0)  # once a round
    return f"In 100 rounds each number was said {times.min()} to {times.max()} times."


def _signal_and_noise(n: int, d: int, strength: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    return strength * rng.normal(size=d) + rng.normal(size=(n, d))


def _choco(values: np.ndarray, codec: Any, step: float) -> Iterator[tuple[float, int]]:
    """Yield the error on a ring after each step, and the bytes of a message."""
    n, mean = len(values), values.mean(axis=0)
    ring, average = named("ring", n), Choco(codec, step)
    for X, sent in averaging_rounds(values, ring, average=average):
        yield ((X - mean) ** 2).sum() / ((values - mean) ** 2).sum(), sent // (2 * n)


@predicts(
    "11.5",
    "larger",
    "smaller",
    "With 256 levels: what does a client say, once its copy has come near?",
    "With top 1 %: which numbers are said first, and by whom?",
    "With random 1 %: what if one client has said a number and its neighbour has not?",
    same=1,
    told="Errors, to those of the weak signal: {3:.2f} times with 256 levels, {4:.2f} "
    "times with top 1 %, {5:.2f} times with random 1 %.",
)
def _() -> list[float]:
    """Return how often errors after 200 steps double as the signal grows; factors."""
    found = []
    for codec, step in ((Qsgd(256), 1.0), (TopK(0.01), 0.046), (RandomK(0.01), 0.011)):
        weak, strong = (
            next(islice(_choco(_signal_and_noise(25, 2000, s), codec, step), 199, None))
            for s in (4, 16)
        )
        found.append(strong[0] / weak[0])
    return [*np.log2(found), *found]
