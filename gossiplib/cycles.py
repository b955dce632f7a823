"""Gossip without rounds, a cycle at a time: linear models walk from client to client.

In Ormándi, Hegedűs and Jelasity's protocol (2013, doi:10.1002/cpe.2858) a client waits
for nobody. Once in a cycle it sends its newest model to another client, chosen at
random. A client that receives a model makes a new one of it, with its own examples, and
of the model that it had received before that. How it does so is the *create* function:
`random_walk` or `merge_update`.

All models of a cycle leave at its start. A client may receive none, or many: it handles
them in the order of their arrival, one after the other. So the first messages of all
clients are one step on arrays, the second messages the next, and so on.
"""

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import networkx as nx
import numpy as np
from flwr.app import ArrayRecord

from gossiplib import mixing, topology
from gossiplib.arrays import array_bytes
from gossiplib.progress import Interrupt, updates_bar
from gossiplib.result import GossipResult, check_whole, draw, due
from gossiplib.stacked import StackedMetrics, StackedModels
from gossiplib.task import Task

__all__ = [
    "Linear",
    "gossip_cycles",
    "hinge",
    "logistic",
    "merge",
    "merge_update",
    "random_walk",
]


class Linear(NamedTuple):
    """Linear models, one a row: positive where `w @ x > 0`.

    Attributes
    ----------
    w : numpy.ndarray
        Weights, shape (models, features).
    age : numpy.ndarray
        How many examples each has seen, shape (models,).
    """

    w: np.ndarray
    age: np.ndarray

    def take(self, rows: np.ndarray) -> "Linear":
        """Copy some models."""
        return Linear(self.w.take(rows, axis=0), self.age.take(rows))

    def put(self, rows: np.ndarray, models: "Linear") -> None:
        """Overwrite some models."""
        self.w[rows], self.age[rows] = models


Update = Callable[[Linear], Linear]
Create = Callable[[Linear, Linear, Update], Linear]


def merge(a: Linear, b: Linear) -> Linear:
    """Return the mean of two models, as old as the older one."""
    return Linear((a.w + b.w) / 2, np.maximum(a.age, b.age))


def random_walk(received: Linear, before: Linear, update: Update) -> Linear:
    """Update the received model: it walks alone, as one long gradient descent."""
    return update(received)


def merge_update(received: Linear, before: Linear, update: Update) -> Linear:
    """Merge the received model with the one received before, and update the result."""
    return update(merge(received, before))


def hinge(margin: np.ndarray) -> np.ndarray:
    """Return minus the slope of the hinge loss, of Pegasos' support vector machine."""
    return (margin < 1).astype(margin.dtype)


def logistic(margin: np.ndarray) -> np.ndarray:
    """Return minus the slope of the logistic loss."""
    return 1 / (1 + np.exp(np.minimum(margin, 80)))  # exp(89) is infinite in float32


def gossip_cycles(
    task: Task,
    num_cycles: int,
    *,
    create: Create = merge_update,
    loss: Callable[[np.ndarray], np.ndarray] = hinge,
    lam: float = 1e-4,
    graph: nx.Graph | None = None,
    observe_every: int = 1,
    sample: int | None = None,
) -> GossipResult:
    """Run gossip learning of linear models without rounds.

    A model of age t makes a step of length η = 1 / (λ t) for each of a client's
    training examples: w ← (1 - η λ) w + η y loss(y w·x) x. With `hinge`, it is Pegasos.
    All models start as 0.

    Parameters
    ----------
    task : Task
        With two classes. Ormándi's clients have one example each: ``holdout=0``.
    num_cycles : int
        Cycles, in each of which every client sends one model.
    create : callable
        (received, before, update) -> new model; called for many clients at once.
    loss : callable
        `hinge` or `logistic`, or minus the slope of another loss of the margin.
    lam : float
        λ, the strength of regularisation.
    graph : networkx.Graph, optional
        To which clients each may send; by default to any other.
    observe_every : int
        Cycles between two measurements on the common test set; 0 is after the last.
    sample : int, optional
        Clients that are measured, drawn without replacement; by default all.

    Returns
    -------
    GossipResult
        Where it speaks of rounds, these are cycles. Metrics are the accuracies on the
        common test set, `node_server_metrics`. `models()` has w and, last, the age;
        there is no mean model, `arrays`. If the run is interrupted (Ctrl-C) it
        ends after its cycle.

    Raises
    ------
    ValueError
        If the task has not two classes, the graph does not fit, or a number is wrong.
    """
    if task.num_classes != 2:
        raise ValueError(f"the models need 2 classes; the task has {task.num_classes}")
    check_whole("num_cycles", num_cycles, 1)
    check_whole("observe_every", observe_every, 0)
    if sample is not None:
        check_whole("sample", sample, 1, task.num_clients)
    if not 0 < lam < float("inf"):
        raise ValueError(f"lam must be above 0, and finite; got {lam}")
    if task.num_clients < 2:
        raise ValueError("gossip takes at least 2 clients")
    if not len(task.test[1]):
        raise ValueError("the common test set is empty: test_fraction is 0")
    n, x = task.num_clients, task.x.numpy()
    choose = _receivers(graph, n)
    learn = _Learner(task, loss, lam)
    newest = Linear(np.zeros((n, x.shape[1]), x.dtype), np.zeros(n, x.dtype))
    before = Linear(*map(np.copy, newest))  # what each client received last
    result = GossipResult()
    message = ArrayRecord([newest.w[0], newest.age[:1]])
    with Interrupt() as interrupt, updates_bar(num_cycles, n) as bar:
        for cycle in range(1, num_cycles + 1):
            rng = np.random.default_rng([task.seed, cycle, *b"cycle"])
            with result.timed("train"):
                sent = Linear(*map(np.copy, newest))
                for senders, receivers in _arrivals(choose(rng), rng):
                    received = sent.take(senders)
                    update = functools.partial(learn, receivers)
                    previous = before.take(receivers)
                    before.put(receivers, received)
                    made = create(received, previous, update)
                    _check(made, received, cycle, receivers)
                    newest.put(receivers, made)
            result.messages[cycle] = n
            result.bytes[cycle] = n * array_bytes(message)
            result.server_bytes[cycle] = 0
            bar.update(n)
            if due(cycle, observe_every) or cycle == num_cycles or interrupt.asked:
                with result.timed("measure"):
                    clients = draw(sample, np.arange(n), task.seed, cycle)
                    metrics = _accuracy(newest.take(clients), task)
                    metrics = StackedMetrics(clients, {"accuracy": metrics})
                result.node_server_metrics[cycle] = metrics
                result.evaluate_metrics_serverapp[cycle] = metrics.mean()
            if interrupt.asked and cycle < num_cycles:
                interrupt.warn(cycle, num_cycles, "cycles")
                break
    rows = np.concatenate([newest.w, newest.age[:, None]], axis=1)
    shapes = {"w": x[0].shape, "age": ()}
    result.node_arrays = StackedModels(rows, shapes, np.arange(n))
    return result


def _check(made: Linear, like: Linear, cycle: int, clients: np.ndarray) -> None:
    """Raise ValueError unless the created models are finite, and one for a client."""
    shapes = [np.shape(array) for array in made], [array.shape for array in like]
    if shapes[0] != shapes[1]:
        raise ValueError(f"create made models of shapes {shapes[0]}, not {shapes[1]}")
    if not np.isfinite(made.w.sum() + made.age.sum()):
        bad = ~np.isfinite(made.w).all(axis=1) | ~np.isfinite(made.age)
        raise ValueError(
            f"the new model of client {clients[bad].min()} is not finite, in cycle "
            f"{cycle}: look at create, at loss and at the client's examples"
        )


class _Learner:
    """Update models with the examples of clients, one after another."""

    def __init__(self, task: Task, loss: Callable, lam: float) -> None:
        self.x = task.x.numpy()
        self.y = (2 * task.y.numpy() - 1).astype(self.x.dtype)
        self.loss, self.lam = loss, lam
        self.index = task.parts.index
        everyone = np.arange(task.num_clients)
        self.first, self.count = task.parts.span(everyone, "train")

    def __call__(self, clients: np.ndarray, models: Linear) -> Linear:
        """Return the models of clients, updated with their examples."""
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


def _receivers(
    graph: nx.Graph | None, n: int
) -> Callable[[np.random.Generator], np.ndarray]:
    """Return a function that draws, for each client, whom it sends to."""
    if graph is None:
        # One of the n - 1 others: those from the client itself on are one further.
        return lambda rng: (
            (draws := rng.integers(n - 1, size=n)) + (draws >= np.arange(n))
        )
    topology.check_graph(graph, n)
    if away := [i for i in graph if not topology.is_online(graph, i)]:
        raise ValueError(f"client {away[0]} is offline in the graph, for the whole run")
    to, senders = mixing.links(graph)
    order = np.argsort(senders, kind="stable")
    degree = np.bincount(senders, minlength=n)
    starts = np.cumsum(degree) - degree
    return lambda rng: to[order[starts + rng.integers(degree)]]


def _arrivals(
    receivers: np.ndarray, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Go through messages in the order of arrival, many receivers at a time.

    Parameters
    ----------
    receivers : numpy.ndarray
        Whom each client sends to.
    rng : numpy.random.Generator
        For the order, which is random.

    Yields
    ------
    tuple of numpy.ndarray
        Senders and receivers of the k-th message that each receiver gets, for k = 1,
        2, ...; no receiver is in it twice.
    """
    senders = rng.permutation(len(receivers))
    senders = senders[np.argsort(receivers[senders], kind="stable")]
    ordered = receivers[senders]
    number = np.arange(len(ordered)) - np.searchsorted(ordered, ordered)
    for k in range(number.max() + 1):
        yield senders[number == k], ordered[number == k]


def _accuracy(models: Linear, task: Task) -> np.ndarray:
    """Return the share of hits of each model on the common test set."""
    x, y = (tensor.numpy() for tensor in task.test)
    pieces = np.array_split(models.w, 1 + len(models.w) * len(y) // 2**24)
    return np.concatenate([((x @ w.T > 0) == y[:, None]).mean(axis=0) for w in pieces])
