"""Gossip without rounds, as an array program: linear models walk among many clients.

In Ormándi, Hegedűs and Jelasity's protocol (2013, doi:10.1002/cpe.2858) a client waits
for nobody. Once in a cycle it sends its newest model to another client, chosen at
random. A client that receives a model makes a new one of it, by a *create* function of
`merging`. It may receive none in a cycle, or many: it handles them in the order of
their arrival, one after the other. So the first messages that reach all clients in a
slot are one step on arrays, the second messages the next, and so on (see `network`).

`asynchronous.client` runs the same through Flower, for any ClientApp.
"""

import functools
from collections.abc import Callable

import networkx as nx
import numpy as np
from flwr.app import ArrayRecord

from gossiplib.asynchronous.merging import (
    Create,
    Learner,
    Linear,
    accuracy,
    check_made,
    hinge,
    merge_update,
    random_walk,
)
from gossiplib.asynchronous.network import Account, Network, Simple, Traffic
from gossiplib.core.models import array_bytes
from gossiplib.core.result import GossipResult, StackedMetrics, StackedModels, draw, due
from gossiplib.system.numbers import check_whole
from gossiplib.system.runs import Interrupt, updates_bar
from gossiplib.tasks.task import Task

__all__ = ["gossip_cycles", "merge_update", "random_walk"]


def gossip_cycles(
    task: Task,
    num_cycles: int,
    *,
    create: Create = merge_update,
    loss: Callable[[np.ndarray], np.ndarray] = hinge,
    lam: float = 1e-4,
    graph: nx.Graph | None = None,
    slots: int = 1,
    network: Network = Network(),  # noqa: B008  it cannot change
    account: Account = Simple(0),  # noqa: B008
    observe_every: int = 1,
    sample: int | None = None,
) -> GossipResult:
    """Run gossip learning of linear models without rounds.

    All models start as 0. How they learn is told in `merging.Learner`.

    Parameters
    ----------
    task : Task
        With two classes. Ormándi's clients have one example each: ``holdout=0``.
    num_cycles : int
        Cycles, in each of which every client's timer wakes it once.
    create : callable
        (received, before, update) -> new model; called for many clients at once.
    loss : callable
        `hinge` or `logistic`, or minus the slope of another loss of the margin.
    lam : float
        λ, the strength of regularisation.
    graph : networkx.Graph, optional
        To which clients each may send; by default to any other.
    slots : int
        Slots in a cycle; a message takes one or more. With 1, all messages of a cycle
        leave at its start and arrive at its end.
    network : Network
        Loss, delay and churn.
    account : Account
        When a client sends, see `tokens`; by default whenever its timer wakes it. A
        received model is useful if it is at least as old as the client's newest.
    observe_every : int
        Cycles between two measurements on the common test set; 0 is after the last.
    sample : int, optional
        Clients that are measured, drawn without replacement; by default all.

    Returns
    -------
    GossipResult
        Where it speaks of rounds, these are cycles. Metrics are the accuracies on the
        common test set, `node_server_metrics`; `node_train_metrics` has the tokens of
        the clients, and how many messages they sent in that cycle. `messages` and
        `bytes` count what was sent, also if it was lost on its way. `models()` has w
        and, last, the age; there is no mean model, `arrays`. If the run is interrupted
        (Ctrl-C) it ends after its cycle.

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
    if not len(task.test[1]):
        raise ValueError("the common test set is empty: test_fraction is 0")
    n, x = task.num_clients, task.x.numpy()
    traffic = Traffic(
        n, task.seed, graph=graph, slots=slots, network=network, account=account
    )
    clients = _Clients(create, Learner(task, loss, lam), n, x[0], network.delay)
    result = GossipResult()
    newest = clients.newest
    message = ArrayRecord([newest.w[0], newest.age[:1]])
    with Interrupt() as interrupt, updates_bar(num_cycles, n) as bar:
        for cycle in range(1, num_cycles + 1):
            with result.timed("train"):
                for _ in traffic.slots(cycle):
                    clients.send(traffic.leave())
                    for numbers, _, receivers in traffic.arrive():
                        useful = clients.receive(numbers, receivers, cycle)
                        traffic.react(receivers, useful)
            result.messages[cycle] = sent = int(traffic.sent.sum())
            result.bytes[cycle] = sent * array_bytes(message)
            result.server_bytes[cycle] = 0
            bar.update(n)
            if due(cycle, observe_every) or cycle == num_cycles or interrupt.asked:
                with result.timed("measure"):
                    some = draw(sample, np.arange(n), task.seed, cycle)
                    metrics = {"accuracy": accuracy(newest.take(some), task)}
                    metrics = StackedMetrics(some, metrics)
                    columns = {"tokens": traffic.tokens, "messages": traffic.sent}
                    columns = {name: a[some] for name, a in columns.items()}
                result.node_train_metrics[cycle] = StackedMetrics(some, columns)
                result.node_server_metrics[cycle] = metrics
                result.evaluate_metrics_serverapp[cycle] = metrics.mean()
            if interrupt.asked and cycle < num_cycles:
                interrupt.warn(cycle, num_cycles, "cycles")
                break
    rows = np.concatenate([newest.w, newest.age[:, None]], axis=1)
    shapes = {"w": x[0].shape, "age": ()}
    result.node_arrays = StackedModels(rows, shapes, np.arange(n))
    return result


class _Clients:
    """All clients' models, and the models on their way."""

    def __init__(
        self, create: Create, learn: Learner, n: int, like: np.ndarray, delay: int
    ) -> None:
        self.create, self.learn = create, learn
        self.newest = Linear(
            np.zeros((n, *like.shape), like.dtype), np.zeros(n, like.dtype)
        )
        self.before = Linear(*map(np.copy, self.newest))  # what each received last
        self.delay = delay
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
        """Let clients receive a message each; tell whether it was useful."""
        received = self.flying.take(numbers - self.first)
        useful = received.age >= self.newest.age.take(receivers)
        update = functools.partial(self.learn, receivers)
        previous = self.before.take(receivers)
        self.before.put(receivers, received)
        made = self.create(received, previous, update)
        check_made(made, received, cycle, receivers)
        self.newest.put(receivers, made)
        return useful
