"""What a neighbour can learn from the models that it is sent, and what noise promises.

`HonestButCurious` clients note the models that reach them. `membership` is the attack
on these: it judges by the loss whether an example was trained on (Yeom et al. 2018,
arXiv:1709.01604); `reconstruct` makes the examples themselves of one step of training.
Flower adds the noise (`flwr.clientapp.mod.LocalDpMod`, by `with_mods`); `noise_std`,
`exact_epsilon` and `found_bound` are its theory, and `heard_share` and `hop_bound` that
of noise which gossip spreads. Nothing here attacks encrypted messages.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from flwr.clientapp import ClientApp
from scipy.optimize import brentq, least_squares
from scipy.sparse.csgraph import shortest_path
from scipy.special import softmax
from scipy.stats import norm
from torch.nn import functional as F

from gossiplib.core.averaging import Average, Model, Models, weighted_mean
from gossiplib.core.context import RoundContext
from gossiplib.system.numbers import check_number, check_whole
from gossiplib.tasks.task import Task

__all__ = [
    "HonestButCurious",
    "exact_epsilon",
    "found_bound",
    "heard_share",
    "hop_bound",
    "membership",
    "noise_std",
    "reconstruct",
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


def reconstruct(
    before: Model, after: Model, examples: int, lr: float, steps: int = 200
) -> tuple[np.ndarray, np.ndarray]:
    """Return the examples that a step of logistic regression was made with.

    The gradient of W is (1/m) Σ (p - y) xᵀ over the m examples of the step, that of b
    the same without xᵀ. So Σ y, how many of each class there are, is known, but for Σ p
    at first. Where x is known, so is each p = softmax(W x + b); where each p - y is
    known, least squares give x. The two take turns, from grey x on. So examples that
    are alone in their class are found; others of a class stay equal, at their mean.

    What is left is a search for the p - y, m vectors of K numbers, each of which sums
    to 0: softmax(W x + b) - y, for the x that follow, must be the same again, and x
    must lie between 0 and 1. From where the turns end, with noise, it parts what shares
    a class. It needs as many equations as unknowns: as the K gradients sum to 0, they
    tell K - 1 examples at most. Of more, the turns find some that are alone; the others
    are blurs, and y is a guess.

    Parameters
    ----------
    before, after : list of numpy.ndarray
        W and b, shapes (K, features) and (K,), around the step.
    examples : int
        m.
    lr : float
        The learning rate.
    steps : int
        Turns.

    Returns
    -------
    x, y : numpy.ndarray
        The examples, shape (examples, features), from 0 to 1, and their classes in
        ascending order.

    References
    ----------
    Zhu, Liu and Han 2019, "Deep leakage from gradients", arXiv:1906.08935, match the
    gradient of any model by searching for x. Geiping et al. 2020, "Inverting
    gradients", arXiv:2003.14053, have the closed form of one example.
    """
    W, b = (np.asarray(a, dtype=np.float64) for a in before)
    dW, db = ((a - c) / lr for a, c in zip((W, b), after, strict=True))
    count = examples * (softmax(b) - db)
    y = []
    for _ in range(check_whole("examples", examples, 1)):
        y.append(int(count.argmax()))
        count[y[-1]] -= 1
    y.sort()

    def apart(x: np.ndarray) -> np.ndarray:
        p_minus_y = softmax(x @ W.T + b, axis=1) - np.eye(len(b))[y]
        return np.asarray(p_minus_y + db - p_minus_y.mean(axis=0))  # the mean is known

    def images(p_minus_y: np.ndarray, rcond: float) -> np.ndarray:
        return np.asarray(examples * np.linalg.pinv(p_minus_y.T, rcond=rcond) @ dW)

    x = np.full((examples, W.shape[1]), 0.3)
    for _ in range(steps):
        x = np.clip(images(apart(x), 0.01), 0, 1)
    if 1 < examples < len(b):
        x = _search(x, apart, partial(images, rcond=1e-9))
    return x, np.array(y)


def _search(
    x: np.ndarray,
    apart: Callable[[np.ndarray], np.ndarray],
    images: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """Return the best x, between 0 and 1, with x = images(apart(x)) as far as can be.

    It looks for p - y, which has far fewer unknowns, and whose errors are of one size.
    """

    def errors(flat: np.ndarray) -> np.ndarray:
        p_minus_y = flat.reshape(len(x), -1)
        then = images(p_minus_y)
        again, beyond = apart(then) - p_minus_y, then - np.clip(then, 0, 1)
        return np.concatenate([10 * again, beyond], axis=1).ravel()

    draws, best, least = np.random.default_rng(0), apart(x), math.inf
    for _ in range(10):  # starts
        start = apart(np.clip(x + 0.3 * draws.standard_normal(x.shape), 0, 1))
        found = least_squares(
            errors, start.ravel(), max_nfev=40, xtol=1e-14, ftol=1e-14, gtol=1e-14
        )
        if found.cost < least:
            best, least = found.x.reshape(best.shape), found.cost
        if least < 1e-7:  # where it is stuck, it stays a thousand times higher
            break
    return np.clip(images(best), 0, 1)


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
    _check_promise("delta", delta, sensitivity=sensitivity, epsilon=epsilon)
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
    _check_promise("delta", delta, sensitivity=sensitivity, std=std)
    check_whole("rounds", rounds, 1)
    mu = math.sqrt(rounds) * sensitivity / std

    def excess(epsilon: float) -> float:
        # e^ε Φ(...) by logarithms: e^ε alone would overflow.
        tail = math.exp(epsilon + norm.logcdf(-mu / 2 - epsilon / mu))
        return float(norm.cdf(mu / 2 - epsilon / mu)) - tail - delta

    if excess(0) <= 0:
        return 0.0
    return float(brentq(excess, 0, mu**2 / 2 + mu * norm.isf(delta) + 1))


def found_bound(
    sensitivity: float, std: float, false_alarms: float, rounds: int = 1
) -> float:
    """Return a share that no attack on messages with Gaussian noise finds more of.

    Φ(μ - Φ⁻¹(1 - α)), with μ = √rounds Δ/σ and α, the share of false alarms: the power
    of the best test between two normal distributions that are μ standard deviations
    apart, which is the worst case of Gaussian noise (Dong, Roth and Su 2019).

    Parameters
    ----------
    sensitivity, std, rounds
        As in `exact_epsilon`.
    false_alarms : float
        α, above 0 and below 1.

    Raises
    ------
    ValueError
        If one is not above 0, or α not below 1.
    """
    _check_promise("false_alarms", false_alarms, sensitivity=sensitivity, std=std)
    check_whole("rounds", rounds, 1)
    mu = math.sqrt(rounds) * sensitivity / std
    return float(norm.cdf(mu - norm.isf(false_alarms)))


def heard_share(W: np.ndarray, listener: int, rounds: int) -> np.ndarray:
    """Return what share of each client's noisy value a listener can work out, 0 to 1.

    Each client adds Gaussian noise to its value once, and all average, X ← W X. Before
    each round the listener v hears its neighbours: rows of Wᵗ (X + noise), which make
    a matrix A; and it knows its own value. A change of client u's value by Δ is then
    as hard to notice as behind σ/√s of noise in place of σ, if s is client u's entry
    on the diagonal of A⁺A, the projection on what was heard. So
    ``exact_epsilon(Δ, σ / √s, δ)`` is what u is promised towards v (in papers: pairwise
    network differential privacy). It is also the R² with which v predicts u's noise.

    It takes all messages together. One after the other, as if each had noise of its
    own, they seem to say less, and what they say does not add up: what is left when one
    is taken out of another is news of those farther away. What is smaller than 1e-10 of
    the largest singular value counts as nothing: after very many rounds, new messages
    hardly differ from old ones.

    Parameters
    ----------
    W : numpy.ndarray
        The mixing matrix, shape (n, n).
    listener, rounds : int
        v, and how many rounds it hears.

    Returns
    -------
    numpy.ndarray
        Shape (n,).

    References
    ----------
    Cyffers, Even, Bellet and Massoulié 2022, "Muffliato", arXiv:2206.05091: the setting
    and the name. Koskela and Kulkarni 2025, arXiv:2505.19969: the view as one linear
    system; so Bellet, Cyffers and others 2025, arXiv:2510.17480.
    """
    n = len(W)
    check_whole("listener", listener, 0, n - 1)  # -1 would be the last, and not itself
    near = np.flatnonzero(W[listener] * (np.arange(n) != listener))
    sees, now = [np.eye(n)[[listener]]], np.eye(n)
    for _ in range(check_whole("rounds", rounds, 1)):
        sees.append(now[near])
        now = W @ now
    _, sizes, directions = np.linalg.svd(np.concatenate(sees), full_matrices=False)
    return np.square(directions[sizes > 1e-10 * sizes[0]]).sum(axis=0)


def hop_bound(W: np.ndarray, listener: int, rounds: int) -> np.ndarray:
    """Return a bound on the mean `heard_share` of those k hops away or more.

    What a neighbour says in round t = 1, 2, ... is made of clients up to t hops from
    the listener. So news of those k hops away or more comes in at most
    T - k + 1 rounds, from d neighbours: d (T - k + 1) numbers, which tell at most as
    many of theirs. Shared by all that are so far away, that is the bound; at most 1.

    Parameters
    ----------
    W, listener, rounds
        As in `heard_share`; T rounds.

    Returns
    -------
    numpy.ndarray
        Shape (hops,), for k = 1, 2, ... up to the farthest client.
    """
    check_whole("listener", listener, 0, len(W) - 1)
    linked = (np.asarray(W) != 0) & ~np.eye(len(W), dtype=bool)
    hops = shortest_path(linked, unweighted=True, indices=listener)
    bounds = []
    for k in range(1, int(hops[np.isfinite(hops)].max()) + 1):
        numbers = linked[listener].sum() * max(0, rounds - k + 1)
        bounds.append(min(1.0, numbers / (hops >= k).sum()))
    return np.array(bounds)


def _check_promise(which: str, probability: float, **amounts: float) -> None:
    for name, value in amounts.items():
        if not check_number(name, value) > 0:  # nor NaN
            raise ValueError(f"{name} must be above 0; got {value}")
    if not 0 < check_number(which, probability) < 1:
        raise ValueError(f"{which} must be above 0 and below 1; got {probability}")
