"""Gossip without rounds through Flower, the server: timer and network of all clients.

Flower's clients cannot wake themselves or talk to each other. `AsyncServer` does it for
them: it asks a client for its newest model when its timer is due, and passes that on
unchanged. `network` decides who sends when, to whom, as in `engine`: the same seed
gives the same models.
"""

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from gossiplib.asynchronous.network import (
    NetworkModel,
    SimpleTokenAccount,
    TokenAccount,
    Traffic,
)
from gossiplib.core.adjacency import Graph
from gossiplib.core.calls import Calls
from gossiplib.core.models import (
    check_arrays,
    check_initial,
    check_model,
    mean_arrays,
)
from gossiplib.core.result import EvaluateFn, GossipResult, as_evaluate_fn
from gossiplib.system.numbers import Seed, check_seconds, check_whole, seed_of
from gossiplib.system.records import (
    array_bytes,
    first_metrics,
    mean_metrics,
    only_arrays,
    unpack,
)
from gossiplib.system.runs import each_round

__all__ = ["AsyncServer"]

T = TypeVar("T")


class AsyncServer(Strategy):
    """Relay models between clients that wait for nobody.

    Parameters
    ----------
    num_clients, slots : int
        Number of clients, the partition ids 0..num_clients-1; and of slots in a cycle,
        of which a message takes one or more. With 1 slot, all messages of a cycle leave
        at its start and arrive at its end.
    seed : int or numpy.random.Generator
        Decides who sends to whom, in which order models arrive, and what the network
        does to them.
    graph : networkx.Graph or scipy.sparse.csr_array, optional
        To which clients each may send; by default to any other.
    network, account : NetworkModel, TokenAccount
        Loss, delay and churn; and when a client sends, by default whenever its timer
        wakes it. A received model is useful if it is at least as old as the newest.
    observe_every : int
        Cycles between two looks at all clients' models; 0 is after the last only.
    join_timeout : float
        Seconds to wait for the next client to appear on the grid. Then the run goes on
        without those that are missing, and books them as lost.

    Raises
    ------
    TypeError, ValueError
        If the graph does not fit, or a number is wrong.
    """

    def __init__(
        self,
        num_clients: int,
        *,
        seed: Seed = 0,
        graph: Graph | None = None,
        slots: int = 1,
        network: NetworkModel = NetworkModel(),  # noqa: B008  it cannot change
        account: TokenAccount = SimpleTokenAccount(0),  # noqa: B008
        observe_every: int = 1,
        join_timeout: float = 10.0,
    ) -> None:
        n, seed = num_clients, seed_of(seed)
        self.traffic = Traffic(  # as it is before a run; each run has a copy
            n, seed, graph=graph, slots=slots, network=network, account=account
        )
        self.observe_every = check_whole("observe_every", observe_every, 0)
        check_seconds("join_timeout", join_timeout, zero=True)
        self.join_timeout = join_timeout

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: EvaluateFn | None = None,
    ) -> GossipResult:
        """Run gossip learning for so many cycles.

        The signature is that of any Strategy of Flower's. `initial_arrays` is each
        client's first model; `num_rounds` is the number of cycles, in each of which
        every client's timer wakes it once; `timeout` is in seconds, for each set of
        calls. `train_config` is passed on to the clients, with `server-round`, the
        cycle, added; `evaluate_config` is not used. `evaluate_fn`, (cycle, arrays) ->
        MetricRecord, a dict of numbers, or None, is called for each client's model.

        Where the result speaks of rounds, these are cycles. `messages` and `bytes`
        count what clients sent, also if it was lost on its way. A call that fails is in
        `lost`: the client keeps its model, and the message is gone. If no client joins,
        or all of them fail, a RuntimeError is raised.
        """
        num_rounds = check_whole("num_rounds", num_rounds, 1)
        check_initial(initial_arrays, train_config, evaluate_config)
        evaluate_fn = as_evaluate_fn(evaluate_fn)
        result, traffic = GossipResult(), copy.deepcopy(self.traffic)
        calls, config = Calls(grid, timeout, result), dict(train_config or {})
        run = _Run(calls, result, initial_arrays, config, evaluate_fn)
        run.calls.join(traffic.num_clients, self.join_timeout)
        for cycle in each_round(
            1,
            num_rounds,
            observe=run.observe,
            observe_every=self.observe_every,
            unit="cycles",
        ):
            run.begin(cycle)
            with result.timed("train"):
                for _ in traffic.slots(cycle):
                    run.collect(traffic.leave())
                    for numbers, _, receivers in traffic.arrive():
                        traffic.react(*run.deliver(numbers, receivers))
                    left = run.flying.keys() & traffic.flying()
                    run.flying = {number: run.flying[number] for number in left}
            result.messages[cycle] = int(traffic.sent.sum())
            run.end(traffic.num_clients)
        if result.node_arrays:
            result.arrays = mean_arrays(list(result.node_arrays.values()))
        return result

    def summary(self) -> None:
        """Log nothing: Flower's strategies log their configuration here."""

    def _no_rounds(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError("AsyncServer has no rounds: call its start")

    # What else Flower demands of a Strategy, for its own `start`, which is not used.
    configure_train = aggregate_train = _no_rounds
    configure_evaluate = aggregate_evaluate = _no_rounds


@dataclass
class _Run:
    """One run: which clients have a model, and the models on their way."""

    calls: Calls
    result: GossipResult
    initial: ArrayRecord
    config: dict[str, Any]
    evaluate_fn: EvaluateFn | None
    have_model: set[int] = field(default_factory=set)
    flying: dict[int, ArrayRecord] = field(default_factory=dict)  # by their numbers
    sent: int = 0  # messages so far, also those that are lost

    def begin(self, cycle: int) -> None:
        """Book to a cycle what comes now."""
        self.cycle = self.calls.server_round = cycle
        self.metrics: dict[int, MetricRecord] = {}
        self.result.bytes[cycle] = 0

    def end(self, num_clients: int) -> None:
        """Keep the clients' metrics; raise an error if nobody is left."""
        result = self.result
        result.node_train_metrics[self.cycle] = self.metrics
        result.train_metrics_clientapp[self.cycle] = mean_metrics(self.metrics)
        if not self.have_model:
            result.raise_if_all_lost(num_clients, f"cycle {self.cycle}")

    def messages(
        self, call: str, clients: Iterable[int], **records: Any
    ) -> Iterator[Message]:
        """Write to clients; the first time, with the initial model."""
        for i in clients:
            if i in self.calls.nodes:
                first = {} if i in self.have_model else {"initial": self.initial}
                yield self.calls.message(call, i, **first, **records)
            else:
                self.calls.lose(i, call, self.calls.why_missing)

    def collect(self, senders: np.ndarray) -> None:
        """Ask the senders for their newest models, and put these on their way."""
        like = unpack(self.initial)

        def parse(content: RecordDict) -> ArrayRecord:
            arrays = only_arrays(content)
            check_model(unpack(arrays)[:-1], like)  # the last one is the age
            return arrays

        calls = self.messages("query.send", np.unique(senders).tolist())
        models = self._read(self.calls.send(calls), parse)
        self.have_model |= set(models)
        for number, client in enumerate(senders.tolist(), self.sent):
            if client in models:
                self.flying[number] = models[client]
                self.result.bytes[self.cycle] += array_bytes(models[client])
        self.sent += len(senders)

    def deliver(
        self, numbers: np.ndarray, receivers: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pass a message on to each receiver, if its sender could be read.

        Returns the clients that learned from it, and whether it was useful to each.
        """
        config = ConfigRecord({**self.config, "server-round": self.cycle})
        records = {"config": config, "gossip": ConfigRecord({"cycle": self.cycle})}
        calls: list[Message] = []
        for number, client in zip(numbers.tolist(), receivers.tolist(), strict=True):
            if arrays := self.flying.get(number):
                calls += self.messages("train", [client], arrays=arrays, **records)
        learned = self._read(self.calls.send(calls), _what_it_learned, "its reply")
        self.metrics |= learned
        self.have_model |= set(learned)
        useful = [bool(metrics["useful"]) for metrics in learned.values()]
        return np.array(list(learned), np.int64), np.array(useful, bool)

    def _read(
        self,
        replies: list[Message],
        parse: Callable[[RecordDict], T],
        what: str = "its model",
    ) -> dict[int, T]:
        """Return what `parse` makes of the replies, by clients; the others are lost."""
        calls = self.calls
        read = {calls.client_of(r): calls.read(r, parse, what) for r in replies}
        return {i: one for i, one in read.items() if one is not None}

    def observe(self, cycle: int) -> None:
        """Measure all clients' models. Gossip itself does not need this look."""
        with self.result.timed("measure"):
            calls = self.messages("query.model", sorted(self.have_model))
            replies = self.calls.send(calls, counted=False)
            models = self._read(replies, self._model)
            self.result.node_arrays = models
            if self.evaluate_fn:
                self.result.evaluate(cycle, models, self.evaluate_fn)

    def _model(self, content: RecordDict) -> ArrayRecord:
        return check_arrays(only_arrays(content), self.initial)


def _what_it_learned(content: RecordDict) -> MetricRecord:
    metrics = first_metrics(content)
    if "useful" not in metrics:
        raise ValueError("it does not tell whether the model was useful")
    return metrics
