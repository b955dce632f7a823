"""Local training of one model: minibatch gradient descent, and evaluation.

`vectorized.training` does the same for many models at once.
"""

import contextlib
import functools
import os
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from gossiplib.system.numbers import check_number, check_whole


def check_training(epochs: int, batch_size: int, **rates: float) -> dict[str, Any]:
    """Return how to train, by name, if that makes sense; the rates are lr and such."""
    wholes = {"epochs": epochs, "batch_size": batch_size}
    checked: dict[str, Any] = {k: check_whole(k, n, 1) for k, n in wholes.items()}
    for name, rate in rates.items():
        if not 0 <= check_number(name, rate) < float("inf"):
            raise ValueError(f"{name} must be 0 or more, and finite; got {rate}")
        checked[name] = float(rate)
    return checked


def shuffle_keys(seed: int, server_round: int, start: int, count: int) -> np.ndarray:
    """Return numbers in [0, 1) of a round's random stream, from the place `start` on.

    Each example of each client has a place in the stream, and is visited in the order
    of the numbers. So one client can jump to its own, and an engine with a million can
    draw all of them in one call: both get the same order.
    """
    bits = np.random.PCG64(_entropy(seed, server_round))
    return np.random.Generator(bits.advance(start)).random(count)


@functools.lru_cache(maxsize=16)
def _entropy(*key: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(key)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread: a context, or a decorator.

    For such small models, more only wait for each other. With another program on the
    same two cores, a step may otherwise take 10 times as long.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class _Drawing:
    """The right to draw: torch has one generator for all threads."""

    lock = threading.RLock()

    @classmethod
    def renew(cls) -> None:
        """Take a new lock in a forked child: who has the old one is not there."""
        cls.lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_Drawing.renew)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Let torch draw from a seed, and leave its own random numbers as they were.

    Of several threads, one at a time is in here: it must not wait for another.

    `torch.manual_seed` would also look for each other kind of device, which takes as
    long as a step.
    """
    with _Drawing.lock, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


@one_thread()
@torch.enable_grad()
def train(
    model: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    batches: Iterable[torch.Tensor],
    *,
    lr: float,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
) -> float:
    """Train in place by minibatch gradient descent on the cross-entropy.

    The model is put into the mode of training.

    Parameters
    ----------
    model : torch.nn.Module
        The model to train.
    x, y : torch.Tensor
        The client's examples, shapes (examples, features) and (examples,).
    batches : iterable of torch.Tensor
        Rows of x and y of each step.
    lr, momentum, weight_decay : float
        Options of `torch.optim.SGD`. Momentum starts afresh at each call.

    Returns
    -------
    float
        The mean loss of the batches, each before its step.
    """
    # Steps by hand: an optimizer for one call costs as much as the call's other work.
    weights = [w for w in model.parameters() if w.requires_grad]
    velocities: list[Any] = [0.0] * len(weights)
    model.train()
    losses = []
    for batch in batches:
        loss = F.cross_entropy(model(x[batch]), y[batch])
        gradients = torch.autograd.grad(loss, weights, allow_unused=True)
        with torch.no_grad():
            for k, (w, g) in enumerate(zip(weights, gradients, strict=True)):
                if g is None:  # the model did not use it
                    continue
                if weight_decay:
                    g = g.add(w, alpha=weight_decay)
                if momentum:
                    velocities[k] = g = momentum * velocities[k] + g
                w.add_(g, alpha=-lr)
        losses.append(loss.item())
    return sum(losses) / len(losses)


@one_thread()
@torch.no_grad()
def evaluate(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> dict[str, float]:
    """Return the mean cross-entropy, "loss", and the share of hits, "accuracy"."""
    logits = model.eval()(x.clone())  # a model may work in place
    hits = (logits.argmax(dim=1) == y).to(logits.dtype)
    return {"loss": float(F.cross_entropy(logits, y)), "accuracy": float(hits.mean())}
