"""Local training of one model: minibatch gradient descent, and evaluation."""

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["evaluate", "train"]


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch use one thread: for such small models, more only wait for each other.

    With another program on the same two cores, a step may otherwise take 10 times as
    long.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@_one_thread()
def train(
    model: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    rng: np.random.Generator,
) -> float:
    """Train in place by minibatch gradient descent on the cross-entropy.

    Returns the mean loss of the batches, each before its step.
    """
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    losses = []
    for _ in range(epochs):
        for batch in torch.from_numpy(rng.permutation(len(y))).split(batch_size):
            loss = F.cross_entropy(model(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
    return float(torch.stack(losses).mean())


@_one_thread()
@torch.no_grad()
def evaluate(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> dict[str, float]:
    """Return the mean cross-entropy, "loss", and the share of hits, "accuracy"."""
    logits = model(x)
    hits = (logits.argmax(dim=1) == y).float()
    return {"loss": float(F.cross_entropy(logits, y)), "accuracy": float(hits.mean())}
