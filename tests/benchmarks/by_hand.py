"""A round written by hand: what the array engine is measured against.

Logistic regression on digits, batches of 8, averaging over a 4-regular graph: two
batched products and a softmax for a chunk of clients, and one sparse product for all.
It checks nothing, books nothing, and can do nothing else.
"""

from collections.abc import Callable

import numpy as np
import torch

from gossiplib.core import mixing
from gossiplib.core.topology import named
from gossiplib.system.records import flat
from gossiplib.tasks.task import Task
from gossiplib.vectorized.averaging import to_torch

#: Clients that are worked on at once, and the learning rate.
CHUNK, LR = 250, 0.5


def rounds_of(task: Task) -> Callable[[int], torch.Tensor]:
    """Return a function that does so many rounds more; it returns all models."""
    n, classes = task.num_clients, int(task.y.max()) + 1
    first, _ = task.parts.span(np.arange(n), "train")
    places = torch.from_numpy(task.parts.index[first[:, None] + np.arange(8)])
    W = mixing.metropolis(named("regular", n), sparse=True).astype(np.float32)
    M = to_torch(W, torch.zeros(1))
    width = task.x.shape[1]
    split, size = classes * width, classes * (width + 1)
    first_model = torch.from_numpy(flat(task.initial_arrays())).float()
    X, Y, one_hot = first_model.repeat(n, 1), torch.zeros(n, size), torch.eye(classes)

    def run(rounds: int) -> torch.Tensor:
        for _ in range(rounds):
            for s in range(0, n, CHUNK):
                some = slice(s, s + CHUNK)
                at = places[some]
                x = task.x[at.ravel()].view(-1, 8, width)
                y = one_hot[task.y[at]]
                w, b = X[some, :split].view(-1, classes, width), X[some, split:]
                p = torch.softmax(torch.baddbmm(b[:, None], x, w.mT), -1).sub_(y)
                new = torch.baddbmm(w, p.mT, x, alpha=-LR / 8)
                Y[some, :split].view(-1, classes, width).copy_(new)
                torch.sub(b, p.mean(1), alpha=LR, out=Y[some, split:])
            torch.addmm(X, M, Y, beta=0, out=X)
        return X

    return run
