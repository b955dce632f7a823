"""Checks of the exercises of notebook 08: fewer bytes."""

from collections.abc import Callable
from itertools import islice

import numpy as np

from gossiplib.exercises import checks, need
from gossiplib.topology import named


@checks("08.1")
def _(content: float) -> None:
    need(content > 40_000, "Each number needs its place as well.")
    need(content < 100_000, "Only a hundredth of the numbers is said.")
    need(
        content == 80_000,
        "How many bytes has the smallest unsigned whole number that holds any place?",
    )


@checks("08.2")
def _(step: float) -> None:
    # Not at the top: notebooks 02 and 03 run without Flower and PyTorch.
    from gossiplib.choco import Choco
    from gossiplib.compression import TopK
    from gossiplib.consensus import averaging_rounds

    rng = np.random.default_rng(0)
    values = 3 * rng.normal(size=100) + rng.normal(size=(9, 100))
    mean = values.mean(axis=0)
    average = Choco(TopK(0.1), float(step))
    rounds = averaging_rounds(values, named("ring", 9), average=average)
    errors = np.array([((X - mean) ** 2).sum() for X, _ in islice(rounds, 150)])
    errors /= ((values - mean) ** 2).sum()
    need(errors[-1] < 1, f"It diverges: the error is {errors[-1]:.2g} at the end.")
    need(errors[-1] < 1e-6, f"The error is {errors[-1]:.1g} at the end.")


@checks("08.3")
def _(encode: Callable, decode: Callable) -> None:
    rng = np.random.default_rng(0)
    for size in (8, 100, 2403):
        x = rng.normal(size=size) * rng.exponential(size=size)
        kept = x.copy()
        message = encode(x)
        need(np.array_equal(x, kept), "Do not change the vector that you are given.")
        need(isinstance(message, list), "A message is a list of arrays.")
        content = sum(np.asarray(a).nbytes for a in message)
        most = -(-size // 8) + 8
        need(content <= most, f"{size} numbers took {content} bytes, not {most}.")
        q = np.asarray(decode(message, size))
        need(q.shape == x.shape, "Decode a vector of the size that is told.")
        need(np.array_equal(np.sign(q), np.sign(x)), "Some signs are wrong.")
        need(np.ptp(np.abs(q)) < 1e-6, "All numbers that are heard have one size.")
        error, least = ((q - x) ** 2).sum(), (x**2).sum() - np.abs(x).sum() ** 2 / size
        need(error < least * 1.001, "Another size of the numbers is nearer to x.")


@checks("08.4")
def _(encode: Callable, decode: Callable) -> None:
    rng = np.random.default_rng(0)
    x, said = rng.normal(size=(4, 200)) + 5, []
    for server_round in range(1, 101):
        for row in x[: 1 + 3 * (server_round == 1)]:
            message = encode(row, server_round)
            need(isinstance(message, list), "A message is a list of arrays.")
            content = sum(np.asarray(a).nbytes for a in message)
            need(content <= 20 * row.itemsize, f"The message has {content} bytes.")
            q = np.asarray(decode(message, len(row), server_round))
            need(q.shape == row.shape, "Decode a vector of the size that is told.")
            heard = q != 0
            need(heard.sum() == 20, f"{heard.sum()} numbers are heard, not 20.")
            need(np.allclose(q[heard], row[heard]), "Some values are at wrong places.")
        said.append(heard)
    said = np.array(said)
    need(said.any(axis=0).all(), "After 100 rounds, some numbers were never said.")
    together = said[:, 0] @ said.astype(float) / said[:, 0].sum()
    need(together[1:].max() < 0.9, "Places are not drawn anew in each round.")
