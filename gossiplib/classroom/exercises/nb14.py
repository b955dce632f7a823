"""Checks of the exercises of notebook 14: a million clients."""

import numpy as np
import torch

from gossiplib.classroom.checking import Function, checks, need, predicts, untouched
from gossiplib.classroom.exercises.runs import SEEDS, accuracies
from gossiplib.core import mixing, topology


@checks("14.1")
def _(clients: float) -> None:
    takes = clients * 3 * 4810 * 4
    need(takes < 8.08e9, f"That takes {takes / 1e9:.1f} GB.")
    need(takes > 7.92e9, "More clients fit.")


@checks("14.2")
def _(accuracies_of: Function) -> None:
    rng = np.random.default_rng(0)
    X = torch.tensor(rng.normal(size=(7, 650)), dtype=torch.float32)
    x = torch.tensor(rng.normal(size=(40, 64)), dtype=torch.float32)
    y = torch.tensor(rng.integers(10, size=40))
    found = accuracies_of(X, x, y)
    need(hasattr(found, "shape"), "Return a tensor or an array.")
    need(tuple(found.shape) == (7,), "Return one number for each client.")
    logits = [x @ row[:640].view(10, 64).T + row[640:] for row in X]
    hits = [float((out.argmax(dim=1) == y).double().mean()) for out in logits]
    found = np.asarray(found, dtype=float)
    need((found >= 0).all() and (found <= 1).all(), "An accuracy is from 0 to 1.")
    hint = "Accuracy is the share of images whose largest output is that of their "
    hint += "class. A model has weights and biases; `unpack` tells where they are in a "
    need(np.allclose(found, hits, atol=1e-6), hint + "row.")


@checks("14.3")
def _(average: Function) -> None:
    rng = np.random.default_rng(0)
    star, torus = topology.named("star", 8), topology.named("torus", 9)
    for W in (mixing.metropolis(torus), mixing.uniform(star)):
        n = len(W)
        X, online = rng.normal(size=(n, 3)), np.arange(n) % 3 > 0
        with untouched("arrays", W, X):
            mixed = average(W, X, online)
        need(mixed.shape == X.shape, "Return an array like X.")
        kept = np.allclose(mixed[~online], X[~online])
        need(kept, "A client that is offline keeps its model.")
        ones = average(W, np.ones((n, 2)), online)
        need(np.allclose(ones, 1), "The weights of a client must still sum to 1.")
        other = X + 10 * ~online[:, None]
        heard = not np.allclose(average(W, other, online)[online], mixed[online])
        need(not heard, "A client that is offline must not be heard.")
        everyone = average(W, X, np.ones(n, dtype=bool))
        need(np.allclose(everyone, W @ X), "With everybody online it is W X.")
        links = W * np.outer(online, online) * (1 - np.eye(n))
        right = links @ X + (1 - links.sum(axis=1))[:, None] * X
        need(
            np.allclose(mixed, right),
            "A link between two that are online keeps its weight.",
        )


@predicts(
    "14.4",
    "higher",
    "lower",
    "For two neighbours: Over how many models is what one client learns from 8 images "
    "averaged?",
    "For a larger ring: How far does news come on a ring in 60 rounds, and what is "
    "left of it?",
    same=0.03,
    told="Accuracy on the ring of 400: {0:+.3f} from four neighbours, {1:+.3f} from a "
    "ring of 100.",
)
def _() -> tuple[float, float]:
    """Return how accuracy changes with fewer neighbours, and on a larger ring."""

    def accuracy(name: str, n: int) -> float:
        graphs = [topology.named(name, n, seed=seed) for seed in SEEDS]
        data = {"partition": "dealt", "examples": 10}
        return float(accuracies(graphs, 60, data, clients=n, batch_size=8).mean())

    ring = accuracy("ring", 400)
    return ring - accuracy("regular", 400), ring - accuracy("ring", 100)
