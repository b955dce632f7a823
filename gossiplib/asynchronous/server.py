"""Gossip without rounds through Flower, the server: timer and network of all clients.

Flower's clients cannot wake themselves or talk to each other. `Relay` is the strategy
that does it for them: it asks a client for its newest model when its timer is due, and
passes that on unchanged. Who sends when, to whom, is decided by `network`, as in
`asynchronous.engine`: the same seed gives the same models. The clients are those of
`asynchronous.client`.
"""

from collections.abc import Callable, Iterable

import networkx as nx
import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from gossiplib.asynchronous.network import Account, Network, Simple, Traffic
from gossiplib.core.averaging import check_model
from gossiplib.core.calls import Calls
from gossiplib.core.models import array_bytes, check_initial, only_arrays, unpack
from gossiplib.core.result import GossipResult, due, first_metrics, mean_metrics
from gossiplib.system.numbers import check_whole

__all__ = ["Relay"]


class Relay(Strategy):
    """Relay models between clients that wait for nobody.

    Parameters
    ----------
    n : int
        Number of clients, the partition ids 0..n-1.
    seed : int
        Decides who sends to whom, and in which order models arrive.
    graph, slots, network, account
        As in `asynchronous.gossip_cycles`.
    observe_every : int
        Cycles between two looks at all clients' models; 0 is after the last only.
    join_timeout : float
        Seconds to wait for the next client to appear on the grid, as in `Gossip`.
    """

    def __init__(
        self,
        n: int,
        *,
        seed: int = 0,
        graph: nx.Graph | None = None,
        slots: int = 1,
        network: Network = Network(),  # noqa: B008  it cannot change
        account: Account = Simple(0),  # noqa: B008
        observe_every: int = 1,
        join_timeout: float = 10.0,
    ) -> None:
        check_whole("observe_every", observe_every, 0)
        self._options = {"graph": graph, "slots": slots}
        self._options |= {"network": network, "account": account}
        Traffic(n, seed, **self._options)  # raises now what is wrong with them
        self.n, self.seed = n, seed
        self.observe_every, self.join_timeout = observe_every, join_timeout

    def summary(self) -> None:
        """Say nothing: Flower's strategies log their configuration here."""

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> GossipResult:
        """Run gossip learning for so many cycles.

        Parameters and result as of `server.Gossip.start`; where they speak of rounds,
        these are cycles. `messages` and `bytes` count what clients sent. A call that
        fails is in `lost`: the client keeps its model, and the message is gone.

        Raises
        ------
        TypeError, ValueError
            If a number or the initial model cannot be used.
        RuntimeError
            If no client joins, or all of them fail.
        """
        check_whole("num_rounds", num_rounds, 1)
        self._like = check_initial(initial_arrays)
        self._initial, self._config = initial_arrays, dict(train_config or {})
        self._result = result = GossipResult()
        self._calls = calls = Calls(grid, timeout, result)
        self._have_model: set[int] = set()
        self._mail: dict[int, ArrayRecord] = {}  # number of a message -> its model
        self._numbers = 0
        calls.join(self.n, self.join_timeout)
        traffic = Traffic(self.n, self.seed, **self._options)
        for cycle in range(1, num_rounds + 1):
            calls.server_round = cycle
            result.node_train_metrics[cycle] = {}
            result.bytes[cycle] = 0
            with result.timed("train"):
                for _ in traffic.slots(cycle):
                    self._collect(traffic.leave())
                    for numbers, _, receivers in traffic.arrive():
                        self._wave = dict(zip(receivers, numbers, strict=True))
                        wave = self.configure_train(
                            cycle, initial_arrays, ConfigRecord(), grid
                        )
                        self.aggregate_train(cycle, calls.send(wave))
                        clients = np.array(list(self._useful), dtype=np.int64)
                        useful = np.array(list(self._useful.values()), dtype=bool)
                        traffic.react(clients, useful)
                    self._mail = {k: self._mail.get(k) for k in traffic.flying()}
            result.messages[cycle] = int(traffic.sent.sum())
            metrics = result.node_train_metrics[cycle]
            result.train_metrics_clientapp[cycle] = mean_metrics(metrics)
            failed = {loss.client for loss in result.lost}
            if not self._have_model and len(failed) == self.n:
                loss = result.lost[-1]
                raise RuntimeError(
                    f"all clients failed by cycle {cycle}; client {loss.client}: "
                    f"{loss.reason}"
                )
            if cycle == num_rounds or due(cycle, self.observe_every):
                with result.timed("measure"):
                    self._observe(cycle, evaluate_fn)
        return result

    def _collect(self, senders: np.ndarray) -> None:
        """Ask the senders for their newest models."""
        first, self._numbers = self._numbers, self._numbers + len(senders)
        models = {}
        some = [int(i) for i in np.unique(senders)]
        for reply in self._calls.send(self._messages("query.send", some)):
            client = self._calls.client_of(reply)
            try:
                said = only_arrays(reply.content)
                check_model(unpack(said)[:-1], self._like)
            except ValueError as error:
                self._calls.lose(client, "query.send", f"cannot be used: {error}")
                continue
            self._have_model.add(client)
            models[client] = said
        for number, client in enumerate(senders.tolist(), first):
            if client in models:
                self._mail[number] = models[client]
                self._result.bytes[self._calls.server_round] += array_bytes(
                    models[client]
                )

    def _messages(
        self, call: str, clients: Iterable[int], **records
    ) -> Iterable[Message]:
        """Write to clients; the first time, with the initial model."""
        for i in clients:
            if i not in self._calls.nodes:
                self._calls.lose(i, call, self._calls.why_missing)
                continue
            first = {} if i in self._have_model else {"initial": self._initial}
            yield self._calls.message(call, i, **first, **records)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Pass on one message to each client of a wave, if its sender could be read."""
        told = {"gossip": ConfigRecord({"cycle": server_round})}
        for client, number in self._wave.items():
            if (said := self._mail.get(int(number))) is None:
                continue
            config = ConfigRecord({**self._config, "server-round": server_round})
            records = told | {"config": config, "arrays": said}
            yield from self._messages("train", [int(client)], **records)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[None, MetricRecord]:
        """Keep the metrics, and to whom the message was useful."""
        self._useful = {}
        for reply in replies:
            client = self._calls.client_of(reply)
            self._have_model.add(client)
            metrics = first_metrics(reply.content)
            self._useful[client] = bool(metrics["useful"])
            self._result.node_train_metrics[server_round][client] = metrics
        return None, MetricRecord()

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Call nobody: models are measured by `evaluate_fn`."""
        return []

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Return nothing."""

    def _observe(self, cycle: int, evaluate_fn: Callable | None) -> None:
        """Measure all clients' models. Gossip itself does not need this look."""
        replies = self._calls.send(
            self._messages("query.model", sorted(self._have_model)), counted=False
        )
        models = {self._calls.client_of(r): only_arrays(r.content) for r in replies}
        self._result.node_arrays = models
        if evaluate_fn:
            self._result.evaluate(cycle, models, evaluate_fn)
