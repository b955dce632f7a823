"""Linear models, and what a client makes of one that arrives: create functions.

A client that receives a model makes a new one of it, with its own examples, and of the
model that it had received before that. How it does so is a *create* function, after the
CREATEMODEL of Ormándi, Hegedűs and Jelasity 2013 (doi:10.1002/cpe.2858):

    create(received, before, update) -> model

`random_walk`, `merge_update` and `update_merge` are the paper's three. They take one
client or many at once: models are the rows of a `Linear`.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
import torch

from gossiplib.tasks.task import Task
from gossiplib.tasks.training import one_thread

__all__ = [
    "Learner",
    "Linear",
    "accuracy",
    "hinge",
    "logistic",
    "merge_update",
    "random_walk",
    "update_merge",
]


class Linear(NamedTuple):
    """Models, one a row; linear ones are positive where `w @ x > 0`.

    `w` are the weights, shape (models, features), and `age` is the number of updates in
    the longest chain behind each, one update an example, shape (models,).
    """

    w: np.ndarray
    age: np.ndarray

    def take(self, rows: np.ndarray) -> "Linear":
        """Return a copy of the models in these `rows`."""
        return Linear(self.w.take(rows, axis=0), self.age.take(rows))

    def put(self, rows: np.ndarray, models: "Linear") -> None:
        """Overwrite some models.

        Parameters
        ----------
        rows, models : numpy.ndarray, Linear
            Which ones; and what takes their places, one for each row.
        """
        self.w[rows], self.age[rows] = models


#: models -> models that have seen the client's own examples as well
Update: TypeAlias = Callable[[Linear], Linear]
#: (received, before, update) -> new models
CreateModel: TypeAlias = Callable[[Linear, Linear, Update], Linear]


def merge(a: Linear, b: Linear) -> Linear:
    """Return the mean of two models, as old as the older one."""
    return Linear((a.w + b.w) / 2, np.maximum(a.age, b.age))


def random_walk(received: Linear, before: Linear, update: Update) -> Linear:
    """Return the received model, updated: it walks alone, in one gradient descent.

    Parameters
    ----------
    received, before, update
        The models that have just arrived and those that arrived before them, a row for
        each receiving client; and an `Update`, which teaches models their examples.
    """
    return update(received)


def merge_update(received: Linear, before: Linear, update: Update) -> Linear:
    """Return the mean of the received model and the one received before, updated.

    Parameters
    ----------
    received, before, update
        Those of `random_walk`.
    """
    return update(merge(received, before))


def update_merge(received: Linear, before: Linear, update: Update) -> Linear:
    """Return the mean of the updated received model and the updated one before it.

    Parameters
    ----------
    received, before, update
        Those of `random_walk`.
    """
    return merge(update(received), update(before))


def hinge(margin: np.ndarray) -> np.ndarray:
    """Return minus the slope of the hinge loss at a `margin`, y w·x (y is -1 or 1)."""
    return np.asarray(margin < 1, dtype=margin.dtype)


def logistic(margin: np.ndarray) -> np.ndarray:
    """Return minus the slope of the logistic loss at a `margin`, y w·x."""
    grown = np.exp(np.minimum(margin, 80))  # exp(89) is infinite in float32
    return np.asarray(1 / (1 + grown))


class Learner:
    """Update linear models with the examples of clients, one example after another.

    A model of age t makes a step of length η = 1 / (λ t) for each of a client's
    training examples: w ← (1 - η λ) w + η y loss(y w·x) x. With `hinge`, it is Pegasos
    (Shalev-Shwartz et al. 2011, doi:10.1007/s10107-010-0420-4).

    Parameters
    ----------
    task : Task
        With two classes.
    loss, lam : callable, float
        `hinge` or `logistic`, or minus the slope of another loss of the margin; and λ,
        the strength of regularisation.
    """

    def __init__(
        self, task: Task, loss: Callable[[np.ndarray], np.ndarray], lam: float
    ) -> None:
        self.x = task.x.numpy()
        self.y = (2 * task.y.numpy() - 1).astype(self.x.dtype)
        self.loss, self.lam, self.index = loss, lam, task.parts.index
        self.first, self.count = task.parts.span(np.arange(task.num_clients), "train")

    def __call__(self, clients: np.ndarray, models: Linear) -> Linear:
        """Return new models: those of these clients, updated with their examples."""
        w, age = models
        first, count = self.first.take(clients), self.count.take(clients)
        for k in range(count.max()):
            row = self.index.take(first + np.minimum(k, count - 1))
            x, y = self.x.take(row, axis=0), self.y.take(row)
            older = age + 1
            slope = self.loss(y * np.einsum("cf,cf->c", w, x))
            step = w * (1 - 1 / older)[:, None]
            x *= (slope * y / (self.lam * older))[:, None]
            step += x
            more = count > k
            if more.all():
                w, age = step, older
            else:
                w, age = np.where(more[:, None], step, w), np.where(more, older, age)
        return Linear(w, age)


def check_made(made: object, like: Linear, cycle: int, clients: np.ndarray) -> Linear:
    """Return clients' new models, if they are finite and like others; else raise."""
    if not isinstance(made, tuple | list) or len(made) != 2:
        kind = type(made).__name__
        raise TypeError(f"create must make a Linear, weights and ages, not {kind}")
    made = Linear(*map(np.asarray, made))
    found, wanted = ([np.shape(array) for array in models] for models in (made, like))
    if found != wanted:
        raise ValueError(f"create made models of shapes {found}, not {wanted}")
    if not all(
        np.can_cast(a.dtype, b.dtype, "same_kind")
        for a, b in zip(made, like, strict=True)
    ):
        kinds = ", ".join(str(array.dtype) for array in made)
        raise ValueError(f"create made models of {kinds}, not of {like.w.dtype}")
    with np.errstate(over="ignore"):  # a sum may be infinite where no model is
        if np.isfinite(made.w.sum() + made.age.sum()):
            return made
    bad = ~np.isfinite(made.w).all(axis=1) | ~np.isfinite(made.age)
    if bad.any():
        raise ValueError(
            f"the new model of client {clients[bad].min()} is not finite, in cycle "
            f"{cycle}: look at create, at loss and at the client's examples"
        )
    return made


@one_thread()
def accuracy(models: Linear, task: Task) -> np.ndarray:
    """Return each model's share of hits on the common test set, shape (models,).

    Parameters
    ----------
    models, task : Linear, Task
        One model a row; and whose test set, of two classes.
    """
    x, y = task.test
    pieces = np.array_split(models.w, 1 + len(models.w) * len(y) // 2**24)
    spam = (x @ torch.from_numpy(w).T > 0 for w in pieces)
    hits = [(s == y[:, None]).double().mean(dim=0).numpy() for s in spam]
    return np.concatenate(hits)
