"""What a neighbour can learn from the models that it is sent, and what noise promises.

`HonestButCurious` clients note the models that reach them. `membership` is the attack
on these: it judges by the loss whether an example was trained on (Yeom et al. 2018,
arXiv:1709.01604). Flower adds the noise (`flwr.clientapp.mod.LocalDpMod`, by
`with_mods`); `noise_std`, `exact_epsilon` and `auc_bound` are its theory. Nothing here
attacks encrypted messages, or reconstructs an example.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from flwr.clientapp import ClientApp
from scipy.optimize import brentq
from scipy.stats import norm
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F

from gossiplib.core.averaging import Average, Model, Models, weighted_mean
from gossiplib.core.context import RoundContext
from gossiplib.system.numbers import check_number, check_whole
from gossiplib.tasks.task import Task

__all__ = [
    "HonestButCurious",
    "auc_bound",
    "exact_epsilon",
    "membership",
    "membership_auc",
    "noise_std",
    "with_mods",
]


@dataclass(frozen=True)
class HonestButCurious:
    """Average as another function does, and note what each neighbour sent last.

    An honest client could do it as well: it sees only what it is sent anyway.

    Parameters
    ----------
    heard : dict
        Filled: partition id of the sender -> the model that it sent.
    average : callable
        What the clients do with the models.

    Raises
    ------
    ValueError
        If `average` has a `send`, so that clients send something else than models.
    """

    heard: dict[int, Model] = field(repr=False, compare=False)
    average: Average = weighted_mean

    def __post_init__(self) -> None:
        """Check that clients send models."""
        if hasattr(self.average, "send"):
            raise ValueError(f"what {self.average} sends is no model to be overheard")

    def __call__(
        self, own: Model, neighbours: Models, weights: np.ndarray, context: RoundContext
    ) -> Model:
        """Note the models, and average."""
        for model, senders in zip(neighbours, context.senders, strict=True):
            for at in np.ndindex(context.batch):
                self.heard[int(senders[at])] = [np.array(a[at]) for a in model]
        return self.average(own, neighbours, weights, context)


@torch.no_grad()
def membership(task: Task, model: Model, client: int) -> tuple[np.ndarray, np.ndarray]:
    """Judge by the loss which of a client's examples its model was trained on.

    The examples are all of the client's own: those that it trained on, and those of its
    validation and test part, which come from the same source. A comparison with other
    clients' examples would also see that those have other labels.

    Parameters
    ----------
    task : Task
        Data and kind of the model.
    model : list of numpy.ndarray
        The model that the client sent.
    client : int
        The client.

    Returns
    -------
    trained, scores : numpy.ndarray
        Whether each example was trained on, and its score: the smaller the loss, the
        higher. Both have the shape (examples,).

    Raises
    ------
    ValueError
        If the client holds back no examples.
    """
    parts = [task.part(client, name) for name in ("train", "validation", "test")]
    x, y = (torch.cat(arrays) for arrays in zip(*parts, strict=True))
    trained = len(parts[0][1])
    if trained == len(y):
        raise ValueError(
            f"client {client} holds back no examples to compare with: take a task with "
            "a holdout above 0"
        )
    module = task.model().eval()
    tensors = map(torch.tensor, model)
    module.load_state_dict(dict(zip(module.state_dict(), tensors, strict=True)))
    loss = F.cross_entropy(module(x), y, reduction="none")
    return np.arange(len(y)) < trained, -loss.numpy()


def membership_auc(task: Task, models: Mapping[int, Model]) -> np.ndarray:
    """Return how well `membership` tells each client's training examples from others.

    It is the area under the ROC curve for each client, in the order of `models`: the
    probability that a random training example scores higher than a random other. 0.5 is
    a guess, 1 gives all away. Clients are independent, examples of one client are not:
    so take clients for an interval.

    Parameters
    ----------
    task : Task
        Data and kind of the models.
    models : dict
        Client -> its model.
    """
    judged = [membership(task, model, client) for client, model in models.items()]
    return np.array([roc_auc_score(*one) for one in judged])


def with_mods(app: ClientApp, mods: list[Any]) -> ClientApp:
    """Return a ClientApp that works like another, with mods around its training.

    Parameters
    ----------
    app : flwr.clientapp.ClientApp
        With `train` and `evaluate`.
    mods : list
        Flower mods, such as ``flwr.clientapp.mod.LocalDpMod``.
    """
    modified = ClientApp()
    modified.train(mods=mods)(app)  # a ClientApp can be called, like a handler
    modified.evaluate()(app)
    return modified


def noise_std(sensitivity: float, epsilon: float, delta: float) -> float:
    """Return the standard deviation of the classical Gaussian mechanism.

    Δ √(2 ln(1.25/δ)) / ε, which `LocalDpMod` uses. Its proof holds for ε below 1 (Dwork
    and Roth 2014, "The Algorithmic Foundations of Differential Privacy").

    Parameters
    ----------
    sensitivity, epsilon, delta : float
        Δ, how far two neighbouring data sets can move a message, in Euclidean norm; ε
        and δ of the promise.

    Raises
    ------
    ValueError
        If one is not above 0, or δ not below 1.
    """
    _check_promise(delta, sensitivity=sensitivity, epsilon=epsilon)
    return sensitivity * math.sqrt(2 * math.log(1.25 / delta)) / epsilon


def exact_epsilon(
    sensitivity: float, std: float, delta: float, rounds: int = 1
) -> float:
    """Return the smallest ε for which Gaussian noise is (ε, δ)-private, for any ε.

    It solves δ = Φ(μ/2 - ε/μ) - e^ε Φ(-μ/2 - ε/μ) (Balle and Wang 2018,
    arXiv:1805.06530), with μ = √rounds Δ/σ: several messages with Gaussian
    noise are as one with less (Dong, Roth and Su 2019, arXiv:1905.02383).

    Parameters
    ----------
    sensitivity, std, delta : float
        Δ, see `noise_std`; σ of the noise on each parameter; δ, above 0 and below 1.
    rounds : int
        Messages that an attacker sees, with fresh noise on each.

    Raises
    ------
    ValueError
        If one is not above 0, or δ not below 1.
    """
    _check_promise(delta, sensitivity=sensitivity, std=std)
    check_whole("rounds", rounds, 1)
    mu = math.sqrt(rounds) * sensitivity / std

    def excess(epsilon: float) -> float:
        # e^ε Φ(...) by logarithms: e^ε alone would overflow.
        tail = math.exp(epsilon + norm.logcdf(-mu / 2 - epsilon / mu))
        return float(norm.cdf(mu / 2 - epsilon / mu)) - tail - delta

    if excess(0) <= 0:
        return 0.0
    return float(brentq(excess, 0, mu**2 / 2 + mu * norm.isf(delta) + 1))


def auc_bound(sensitivity: float, std: float, rounds: int = 1) -> float:
    """Return an AUC that no attack on messages with Gaussian noise exceeds: Φ(μ/√2).

    μ = √rounds Δ/σ. It is the AUC of the best test between two normal distributions
    that are μ standard deviations apart, which is the worst case of Gaussian noise
    (Dong, Roth and Su 2019).

    Parameters
    ----------
    sensitivity, std, rounds
        As in `exact_epsilon`.

    Raises
    ------
    ValueError
        If one is not above 0.
    """
    _check_promise(sensitivity=sensitivity, std=std)
    check_whole("rounds", rounds, 1)
    return float(norm.cdf(math.sqrt(rounds / 2) * sensitivity / std))


def _check_promise(delta: float = 0.5, **amounts: float) -> None:
    for name, value in amounts.items():
        if not check_number(name, value) > 0:  # nor NaN
            raise ValueError(f"{name} must be above 0; got {value}")
    if not 0 < check_number("delta", delta) < 1:
        raise ValueError(f"delta must be above 0 and below 1; got {delta}")
