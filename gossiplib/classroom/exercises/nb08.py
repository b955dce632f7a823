"""Checks of the exercises of notebook 08: correcting the drift."""

import itertools
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits

from gossiplib.classroom.checking import (
    Function,
    checks,
    close,
    need,
    need_number,
    predicts,
    untouched,
)
from gossiplib.core import mixing, topology
from gossiplib.core.averaging import Model, Models, weighted_mean
from gossiplib.tasks.task import Task
from gossiplib.vectorized.engine import gossip_learning


class Bowls:
    """Losses of n clients, Σ_k h_ik (x_k - b_ik)² / 2: notebook 08's six, or others."""

    def __init__(self, steep: np.ndarray, bottom: np.ndarray) -> None:
        self.steep, self.bottom = steep, bottom
        self.best = (steep * bottom).sum(axis=0) / steep.sum(axis=0)

    def gradient(self, x: np.ndarray) -> np.ndarray:
        """Return each client's gradient at its own model."""
        return self.steep * (x - self.bottom)

    def miss(self, x: np.ndarray) -> float:
        """Return the root of the mean squared distance from the optimum."""
        return float(np.sqrt(((x - self.best) ** 2).sum(axis=1).mean()))


def _six() -> Bowls:
    """Return the bowls of the notebook."""
    angles = 2 * np.pi * np.arange(6) / 6
    steep = np.random.default_rng(5).uniform(0.2, 1.5, size=(6, 2))
    return Bowls(steep, np.stack([np.cos(angles), np.sin(angles)], axis=1))


@checks("08.1")
def _(rests_at: float) -> str:
    need_number(rests_at)
    need(abs(rests_at) > 1e-6, "Its own data pull it away from the optimum, 0.")
    need(rests_at > 0, "Which side do its own data pull it to?")
    need(rests_at < 1, "It hears client 1 too, which holds it back.")
    W, b = mixing.metropolis(topology.named("path", 3)), np.array([-1.0, 0.0, 1.0])
    x = np.zeros(3)
    for _ in range(200):
        x = W @ (x - 0.3 * (x - b))
    hint = "Write one round of client 2, with client 1 at 0."
    need(abs(rests_at - x[2]) < 1e-6, hint)
    after = ", ".join(f"{number:.3f}" for number in x)
    return f"After 200 rounds the three clients are at {after}."


@checks("08.2")
def _(extra: Function) -> str:
    rng = np.random.default_rng(1)
    bowls = Bowls(rng.uniform(0.3, 1.2, size=(8, 2)), rng.normal(size=(8, 2)))
    W = mixing.metropolis(topology.named("ring", 8))
    x = rng.normal(size=(8, 2))
    wanted, memory = [x], None
    for t in range(1500):
        with untouched("models", given := x.copy()):
            made = extra(given, memory, W, bowls.gradient, 0.1)
        need(len(made) == 2, "Return two things: the models, and what to remember.")
        x, memory = np.asarray(made[0], dtype=float), made[1]
        if t < 3:
            wanted.append(_extra(wanted, W, bowls))
            which = ("The first round", "Round 2", "Round 3")[t]
            need(close(x, wanted[-1]), f"{which} is not as the formula says.")
    need(bowls.miss(x) < 1e-8, "It does not come to rest at the optimum.")
    return f"After 1500 rounds it is {bowls.miss(x):.0e} from the optimum."


def _extra(x: list[np.ndarray], W: np.ndarray, bowls: Bowls) -> np.ndarray:
    """Return the next models of EXTRA after those so far."""
    g, eye = bowls.gradient, np.eye(len(W))
    if len(x) == 1:
        return W @ x[0] - 0.1 * g(x[0])
    change = 0.1 * (g(x[-1]) - g(x[-2]))
    return np.asarray((eye + W) @ x[-1] - (eye + W) / 2 @ x[-2] - change)


@checks("08.3")
def _(smallest: float) -> str:
    need_number(smallest)
    need(0 <= smallest <= 1, "It is a share, from 0 to 1.")
    apart = {a: _lazy(a) for a in (smallest - 0.02, smallest + 0.02)}
    below, above = apart.values()
    need(
        above < 1e3, "A little above it, D² still blows up. Which is the lowest λ of W?"
    )
    need(below > 1e3, "A little below it, D² is stable already.")
    need(abs(smallest - 1 / 3) < 1e-3, "You are near. Give it more exactly.")
    return "After 400 rounds, distance to the optimum: " + ", ".join(
        f"{miss:.0e} with a = {a:.2f}" for a, miss in apart.items()
    )


def _lazy(a: float) -> float:
    """Return how far from the optimum D² is on a ring that hears not itself."""
    bowls = Bowls(np.ones((16, 1)), np.random.default_rng(0).normal(size=(16, 1)))
    ring = np.eye(16)
    W = a * ring + (1 - a) * (np.roll(ring, 1, axis=0) + np.roll(ring, -1, axis=0)) / 2
    x, c = np.zeros((16, 1)), np.zeros((16, 1))
    for _ in range(400):
        trained = x - 0.05 * bowls.gradient(x)
        x = W @ (trained + c)
        c = x - trained
    return bowls.miss(x)


@cache
def _rests(method: str, eta: float, beta: float = 0.9, order: str = "012345") -> float:
    """Return how far from the optimum one of the notebook's methods rests."""
    bowls, ring = _six(), np.eye(6)
    W = (ring + np.roll(ring, 1, axis=0) + np.roll(ring, -1, axis=0)) / 3
    at = np.argsort([int(client) for client in order])
    W = W[np.ix_(at, at)]
    x, memory = np.zeros((6, 2)), np.zeros((6, 2))
    for _ in range(4000):
        u = -eta * bowls.gradient(x)
        if method == "tracking":
            x, memory = W @ (x + u + memory), W @ (memory + u) - u
        else:
            new = W @ (x + u + (beta * memory if method == "momentum" else 0))
            x, memory = new, 0.9 * memory + 0.1 * (new - x)
    return bowls.miss(x)


@predicts(
    "08.4",
    "larger",
    "smaller",
    "Plain gossip, η: what does the formula of its distance say?",
    "Tracking: where are the gradients zero in sum, whatever η?",
    "Momentum: what is v when nothing moves?",
    "The order: whose gradients cancel within a neighbourhood now?",
    same=1e-6,
    told="Distance at rest: {0:+.3f} with plain gossip, {1:+.3f} with tracking, "
    "{2:+.3f} with momentum, {3:+.3f} with the other order.",
)
def _() -> list[float]:
    """Return how the distance at rest changes, in each of the four cases."""
    plain = _rests("plain", 0.05)
    return [
        _rests("plain", 0.1) - plain,
        _rests("tracking", 0.1) - _rests("tracking", 0.05),
        _rests("momentum", 0.05, 0.5) - _rests("momentum", 0.05),
        _rests("plain", 0.05, order="031425") - plain,
    ]


def _five_layers() -> torch.nn.Module:
    """Return the network of the notebook."""
    layers: list[torch.nn.Module] = []
    for wide, next_wide in itertools.pairwise([64, 32, 32, 32, 32, 10]):
        linear = torch.nn.Linear(wide, next_wide)
        torch.nn.init.xavier_uniform_(linear.weight)
        torch.nn.init.zeros_(linear.bias)
        layers += [linear, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def _learns(average: Function) -> float:
    """Return the accuracy of five layers, after 60 rounds from starts of their own."""

    def many(own: Model, neighbours: Models, weights: Any, context: Any) -> Model:
        if weights.ndim == 1:  # one client, called apart
            return list(average(own, neighbours, weights, context))
        made = []
        for i in range(len(own[0])):
            mine, *theirs = ([array[i] for array in m] for m in (own, *neighbours))
            made.append(average(mine, theirs, weights[:, i], context))
        return [np.stack(arrays) for arrays in zip(*made, strict=True)]

    x, y = load_digits(return_X_y=True)
    how: dict[str, Any] = {"partition": "iid", "build": _five_layers}
    task = Task(x / 16, y, 16, seed=0, same_start=False, **how)
    options: dict[str, Any] = {"lr": 0.1, "evaluate_every": 0, "observe_every": 0}
    graph = topology.named("regular", 16, seed=0)
    result = gossip_learning(
        task, graph, 60, average=many, evaluate_fn=task.evaluate_fn, **options
    )
    measured: Any = result.evaluate_metrics_serverapp[60]["accuracy"]
    return float(measured)


@checks("08.5")
def _(average: Function) -> str:
    rng = np.random.default_rng(0)
    # The largest array, the largest number and the largest sum of two norms are in
    # models that do not win.
    models = [[rng.normal(size=(3, 2)), rng.normal(size=2)] for _ in range(4)]
    models[1][0][:] = -8.6
    models[2][0][:], models[2][1][:] = 6.6, 10.5
    models[3][0][:], models[3][1][:] = 8.2, -7.0
    weights = np.array([0.4, 0.3, 0.2, 0.1])
    for first in range(4):
        own, *neighbours = order = [*models[first:], *models[:first]]
        winner = max(order, key=lambda model: sum((a**2).sum() for a in model))
        for t in (1, 2, 3, 4, 9):
            now = SimpleNamespace(server_round=t)
            mixed = average(own, neighbours, weights, now)
            need(len(mixed) == 2, "Return a list with the arrays of a model.")
            hint = "average with the weights."
            wanted = [np.tensordot(weights, a, 1) for a in zip(*order, strict=True)]
            if t <= 3:
                hint = "adopt the model of the largest norm, which is over all its "
                hint += "arrays. It may be the own one."
                wanted = winner
            need(close(mixed, wanted), f"In round {t}, {hint}")
    told = "Five layers with starts of their own, after 60 rounds: accuracy"
    found = _learns(average), _learns(weighted_mean)
    return f"{told} {found[0]:.2f}, and without adoption {found[1]:.2f}."
