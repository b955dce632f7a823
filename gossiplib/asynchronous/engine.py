"""Gossip without rounds, as an array program: linear models walk among many clients.

In Ormándi, Hegedűs and Jelasity's protocol (2013, doi:10.1002/cpe.2858) a client waits
for nobody. Once in a cycle it sends its newest model to another client, chosen at
random. One that receives a model makes a new one of it, by a *create* function of
`merging`. It may receive none in a cycle, or many, and handles them one after the
other, as they arrive. So the first messages that reach all clients in a slot are one
step on arrays, the second ones the next, and so on (see `network`). `client` and
`server` run the same through Flower, for any ClientApp.
"""

import functools
from collections.abc import Callable

import numpy as np
from flwr.app import ArrayRecord

from gossiplib.asynchronous import merging
from gossiplib.asynchronous.merging import CreateModel, Learner, Linear
from gossiplib.asynchronous.network import (
    NetworkModel,
    SimpleTokenAccount,
    TokenAccount,
    Traffic,
)
from gossiplib.asynchronous.seconds import Pace
from gossiplib.core.adjacency import Graph
from gossiplib.core.result import GossipResult
from gossiplib.system.numbers import Seed, check_number, check_whole, draw, seed_of
from gossiplib.system.records import StackedMetrics, StackedModels, array_bytes
from gossiplib.system.runs import Interrupt, each_round, updates_bar
from gossiplib.tasks.task import Task

__all__ = ["gossip_cycles"]


def gossip_cycles(
    task: Task,
    num_cycles: int,
    *,
    create: CreateModel = merging.merge_update,
    loss: Callable[[np.ndarray], np.ndarray] = merging.hinge,
    lam: float = 1e-4,
    seed: Seed | None = None,
    graph: Graph | None = None,
    slots: int = 1,
    network: NetworkModel = NetworkModel(),  # noqa: B008  it cannot change
    account: TokenAccount = SimpleTokenAccount(0),  # noqa: B008
    pace: Pace | None = None,
    observe_every: int = 1,
    sample: int | None = None,
) -> GossipResult:
    """Run gossip learning of linear models without rounds.

    All models start as 0. `merging.Learner` is how they learn.

    Parameters
    ----------
    task : Task
        With two classes. Ormándi's clients have one example each: ``holdout=0``.
    num_cycles : int
        Cycles, in each of which every client's timer wakes it once.
    create : callable
        (received, before, update) -> new model; called for many clients at once.
    loss, lam : callable, float
        `hinge` or `logistic`, or minus the slope of another loss of the margin; and λ,
        the strength of regularisation.
    seed : int or numpy.random.Generator, optional
        Decides who sends to whom, in which order models arrive, what the network does
        to them, and who is measured; by default the seed of the task.
    graph : networkx.Graph or scipy.sparse.csr_array, optional
        To which clients each may send; by default to any other.
    slots : int
        Slots in a cycle; a message takes one or more. With 1, all messages of a cycle
        leave at its start and arrive at its end.
    network, account : NetworkModel, TokenAccount
        Loss, delay and churn; and when a client sends, by default whenever its timer
        wakes it. A received model is useful if it is at least as old as the newest.
    pace : Pace, optional
        How many slots each client trains and sends, as of `Devices.pace`; then a cycle
        is so many slots, and nothing else. By default training takes no time, and all
        timers are alike.
    observe_every, sample : int
        Cycles between two measurements on the common test set, 0 is after the last; and
        of how many clients, drawn without replacement, by default all.

    Returns
    -------
    GossipResult
        Where it speaks of rounds, these are cycles. `node_server_metrics` has the
        accuracies on the common test set, `node_train_metrics` the clients' tokens and
        how many messages they sent in that cycle. `messages` and `bytes` count what was
        sent, also if it was lost. `models()` has w and, last, the age; there is no mean
        model, `arrays`. If the run is interrupted (Ctrl-C) it ends after its cycle.

    Raises
    ------
    TypeError
        If `graph` is no topology, or an argument is of another kind.
    ValueError
        If the task has not two classes, is not for linear models or has no common test
        set, the graph does not fit, a number is wrong, or `create` makes models that
        are not finite or not shaped like those it gets.
    """
    if not isinstance(task, Task):
        raise TypeError(f"task must be a Task; got {type(task).__name__}")
    if task.num_classes != 2:
        raise ValueError(f"the models need 2 classes; the task has {task.num_classes}")
    if task.x.ndim != 2 or not task.x.is_floating_point():
        raise ValueError(
            "the models are linear, and need floats of shape (examples, features); the "
            f"task has {task.x.dtype} of shape {tuple(task.x.shape)}"
        )
    num_cycles = check_whole("num_cycles", num_cycles, 1)
    check_whole("observe_every", observe_every, 0)
    if sample is not None:
        check_whole("sample", sample, 1, task.num_clients)
    for name, function in (("create", create), ("loss", loss)):
        if not callable(function):
            raise TypeError(f"{name} must be callable, not {function!r}")
    if not 0 < check_number("lam", lam) < float("inf"):
        raise ValueError(f"lam must be above 0, and finite; got {lam}")
    if not len(task.test[1]):
        raise ValueError("the common test set is empty: test_fraction is 0")
    seed = task.seed if seed is None else seed_of(seed)
    n, result = task.num_clients, GossipResult()
    traffic = Traffic(
        n, seed, graph=graph, slots=slots, network=network, account=account, pace=pace
    )
    clients = _Clients(create, Learner(task, loss, lam), n, traffic.longest)
    newest = clients.newest
    size = array_bytes(ArrayRecord([newest.w[0], newest.age[:1]]))

    def observe(cycle: int) -> None:
        with result.timed("measure"):
            some = draw(sample, np.arange(n), seed, cycle)
            accuracy = merging.accuracy(newest.take(some), task)
            hits = StackedMetrics(some, {"accuracy": accuracy})
        columns = {"tokens": traffic.tokens[some], "messages": traffic.sent[some]}
        result.node_train_metrics[cycle] = StackedMetrics(some, columns)
        result.node_server_metrics[cycle] = hits
        result.evaluate_metrics_serverapp[cycle] = hits.mean()

    with Interrupt() as interrupt, updates_bar(num_cycles, n) as bar:
        for cycle in each_round(
            1,
            num_cycles,
            observe=observe,
            observe_every=observe_every,
            interrupt=interrupt,
            unit="cycles",
        ):
            with result.timed("train"):
                for _ in traffic.slots(cycle):
                    clients.send(traffic.leave())
                    for numbers, _, receivers in traffic.arrive():
                        useful = clients.receive(numbers, receivers, cycle)
                        traffic.react(receivers, useful)
            result.messages[cycle] = sent = int(traffic.sent.sum())
            result.bytes[cycle] = sent * size
            result.server_bytes[cycle] = 0
            bar.update(n)
    rows = np.concatenate([newest.w, newest.age[:, None]], axis=1)
    shapes = {"w": newest.w[0].shape, "age": ()}
    result.node_arrays = StackedModels(rows, shapes, np.arange(n))
    return result


class _Clients:
    """All clients' models, and the models on their way."""

    def __init__(self, create: CreateModel, learn: Learner, n: int, delay: int) -> None:
        self.create, self.learn, self.delay = create, learn, delay
        w = np.zeros((n, *learn.x[0].shape), learn.x.dtype)
        age = np.zeros(n, w.dtype)
        self.newest = Linear(w, age)
        self.before = Linear(w.copy(), age.copy())  # what each received last
        self.sent: list[Linear] = []  # in each of the last slots
        self.messages = 0

    def send(self, senders: np.ndarray) -> None:
        """Put copies of the senders' newest models on their way."""
        self.messages += len(senders)
        self.sent = [*self.sent, self.newest.take(senders)][-self.delay :]
        self.flying = self.sent[0]
        if len(self.sent) > 1:
            self.flying = Linear(*map(np.concatenate, zip(*self.sent, strict=True)))
        self.first = self.messages - len(self.flying.age)

    def receive(
        self, numbers: np.ndarray, receivers: np.ndarray, cycle: int
    ) -> np.ndarray:
        """Let clients receive a message each; return to whom it was useful, bool."""
        received = self.flying.take(numbers - self.first)
        useful = received.age >= self.newest.age.take(receivers)
        update = functools.partial(self.learn, receivers)
        previous = self.before.take(receivers)
        self.before.put(receivers, received)
        made = self.create(received, previous, update)
        made = merging.check_made(made, received, cycle, receivers)
        self.newest.put(receivers, made)
        return useful
