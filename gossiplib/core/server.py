"""The gossip server: it holds the graph of the clients, and calls their functions.

`Gossip` is a Flower Strategy: `FedAvg()` becomes `Gossip(graph)`. In each round it
calls `train` and `train.average` of the clients, and relays each client's model to its
neighbours only. It averages nothing itself; that is the clients' part, see `client`.
"""

import logging
import os
from collections.abc import Callable, Iterable

import networkx as nx
import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from tqdm import tqdm

from gossiplib.core import checkpoint, mixing, topology
from gossiplib.core.calls import Calls
from gossiplib.core.checkpoint import Checkpoint, check_path, reading, save
from gossiplib.core.membership import Members, Neighbourhood
from gossiplib.core.models import array_bytes, check_initial, flat, mean_arrays
from gossiplib.core.result import GossipResult, due, first_metrics, mean_metrics

__all__ = ["Gossip", "GossipResult"]

logger = logging.getLogger("gossiplib")


class Gossip(Strategy):
    """Gossip learning on a graph of clients: FED-0002's Algorithm 1.

    Parameters
    ----------
    schedule : networkx.Graph or callable
        The graph of the clients 0..n-1, or a function from the round (1, 2, ...) to a
        graph; see `topology`.
    weights : callable
        graph -> mixing matrix W; see `mixing`.
    discover_every : int, optional
        Rounds between two calls of the clients' discover function; 0 is once. By
        default once for a graph, and in each round for a function. Who is online and
        which links hold is taken from the schedule in each round all the same.
    evaluate_every : int
        Rounds between two calls of the clients' evaluate function; 0 is never.
    observe_every : int
        Rounds between two looks at all clients' models, which measure the consensus
        distance and call `evaluate_fn`; 0 is after the last round only.
    join_timeout : float
        Seconds to wait for the next client to appear on the grid, while some are
        missing. Then the run goes on without them, and books them as lost.
    checkpoint : str or path-like, optional
        File from which `resume` can go on, see `checkpoint`.
    checkpoint_every : int
        Rounds between two checkpoints; 0 is after the last round only.

    Notes
    -----
    A client whose training fails takes no part in averaging in that round: the weight
    that its neighbours give to it they keep for themselves, so W stays symmetric where
    it was.
    """

    def __init__(
        self,
        schedule: topology.Schedule,
        *,
        weights: Callable[[nx.Graph], np.ndarray] = mixing.metropolis,
        discover_every: int | None = None,
        evaluate_every: int = 1,
        observe_every: int = 1,
        join_timeout: float = 10.0,
        checkpoint: str | os.PathLike | None = None,
        checkpoint_every: int = 1,
    ) -> None:
        graph = topology.at(schedule, 1)
        if not len(graph):
            raise ValueError("the graph has no nodes; it needs one for each client")
        self._static = isinstance(schedule, nx.Graph)
        topology.check_graph(graph, len(graph), connected=self._static)
        every = {"evaluate_every": evaluate_every, "observe_every": observe_every}
        every["checkpoint_every"] = checkpoint_every
        for name, rounds in (every | {"discover_every": discover_every or 0}).items():
            if rounds != int(rounds) or rounds < 0:
                raise ValueError(f"{name} is a number of rounds; got {rounds}")
        check_path(checkpoint)
        self.num_clients = len(graph)
        self.schedule = schedule
        self.weights = weights
        if discover_every is None:
            discover_every = 0 if self._static else 1
        self.discover_every = discover_every
        self.evaluate_every = evaluate_every
        self.observe_every = observe_every
        self.join_timeout = join_timeout
        self.checkpoint, self.checkpoint_every = checkpoint, checkpoint_every

    def summary(self) -> None:
        """Log the configuration."""
        kind = "graph" if self._static else "schedule"
        logger.info("gossip on a %s of %d clients", kind, self.num_clients)

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
        """Run gossip learning.

        The signature is that of any Strategy of Flower's.

        Parameters
        ----------
        grid : flwr.serverapp.Grid
            Where the clients are.
        initial_arrays : flwr.app.ArrayRecord
            Each client's first model.
        num_rounds : int
            Number of rounds, at least 1.
        timeout : float
            Seconds to wait for the replies to each set of calls; None is for ever.
        train_config, evaluate_config : flwr.app.ConfigRecord, optional
            Passed on to the clients, with `server-round` added.
        evaluate_fn : callable, optional
            (round, arrays) -> MetricRecord or None. It is called for each client's
            model, as there is no other.

        Returns
        -------
        GossipResult
            What each client has, and what was lost.

        Raises
        ------
        TypeError
            If schedule, weights or initial_arrays are of another kind.
        ValueError
            If graph, weights or clients do not fit each other, or num_rounds is not at
            least 1.
        RuntimeError
            If no client joins, or all of them fail in the first round.
        """
        told = (initial_arrays, train_config, evaluate_config)
        self._prepare(grid, timeout, num_rounds, told)
        if evaluate_fn and (metrics := evaluate_fn(0, initial_arrays.copy())):
            result = self._result
            result.evaluate_metrics_serverapp[0] = metrics
            result.node_server_metrics[0] = dict.fromkeys(self._calls.nodes, metrics)
        return self._run(1, num_rounds, grid, evaluate_fn)

    def resume(
        self,
        path: str | os.PathLike,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> GossipResult:
        """Go on with a run from its checkpoint, as if it had never stopped.

        Clients get back what they kept. Those that could not tell it when the
        checkpoint was written take part as clients that come late.

        Parameters
        ----------
        path : str or path-like
            The checkpoint. The run writes its own to the `checkpoint` of the strategy.
        grid, initial_arrays, ... : see `start`
            As at the start of the run. `num_rounds`, that of the whole run, may be
            larger; what only measures may differ.

        Returns
        -------
        GossipResult
            That of the whole run.

        Raises
        ------
        OSError
            If the file cannot be opened.
        ValueError
            If it was cut short or altered, or is of another run or version.
        RuntimeError
            If a client of the checkpoint is not on the grid.
        """
        told = (initial_arrays, train_config, evaluate_config)
        with reading(path) as kept:
            identity = checkpoint.identity(self, kept.server_round, told)
            kept.check(identity, num_rounds)
            self._prepare(grid, timeout, num_rounds, told, kept)
            checkpoint.restore(kept, self._members)
        return self._run(kept.server_round + 1, num_rounds, grid, evaluate_fn)

    def _prepare(
        self,
        grid: Grid,
        timeout: float,
        num_rounds: int,
        told: tuple[ArrayRecord, ConfigRecord | None, ConfigRecord | None],
        kept: Checkpoint | None = None,
    ) -> None:
        """Check what a run is given, and let the clients join."""
        if num_rounds < 1:
            raise ValueError(f"num_rounds must be at least 1; got {num_rounds}")
        check_initial(told[0])
        self.summary()
        self._told = told
        self._result = kept.result if kept else GossipResult()
        self._calls = Calls(grid, timeout, self._result)
        if kept:
            self._calls.run = kept.more["run"]
        self._neighbourhood = Neighbourhood(
            self.schedule, self.num_clients, self.weights, self.discover_every
        )
        self._members = Members(self._calls, self._neighbourhood, told[0])
        self._calls.join(self.num_clients, self.join_timeout)

    def _run(
        self,
        first: int,
        num_rounds: int,
        grid: Grid,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None,
    ) -> GossipResult:
        """Run the rounds from `first` on."""
        result, (arrays, *configs) = self._result, self._told
        train_config, evaluate_config = (c or ConfigRecord() for c in configs)
        rounds = range(first, num_rounds + 1)
        looked = 0
        for t in tqdm(rounds, "Gossip", unit="round", delay=2, leave=False):
            self._calls.server_round = t
            if t > 1:
                self._members.welcome(self.num_clients)
            self._neighbourhood.update(t, self._calls)
            self._book(t, self._members.catch_up())
            with result.timed("train"):
                calls = self.configure_train(t, arrays, train_config, grid)
                _, metrics = self.aggregate_train(t, self._calls.send(calls))
                result.train_metrics_clientapp[t] = metrics
            with result.timed("average"):
                self._calls.send(self.configure_average(t))
            with result.timed("measure"):
                if due(t, self.evaluate_every):
                    calls = self.configure_evaluate(t, arrays, evaluate_config, grid)
                    metrics = self.aggregate_evaluate(t, self._calls.send(calls))
                    result.evaluate_metrics_clientapp[t] = metrics
                if due(t, self.observe_every):
                    self._observe(t, evaluate_fn)
                    looked = t
            if self.checkpoint and (t == num_rounds or due(t, self.checkpoint_every)):
                with result.timed("checkpoint"):
                    self._save(t)
        if looked != num_rounds:
            with result.timed("measure"):
                self._observe(num_rounds, evaluate_fn)
        if result.node_arrays:
            result.arrays = mean_arrays(list(result.node_arrays.values()))
        return result

    def _save(self, server_round: int) -> None:
        """Write a checkpoint."""
        more, members = checkpoint.take(self._members)
        identity = checkpoint.identity(self, server_round, self._told)
        save(self.checkpoint, server_round, identity, self._result, more, members)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Call each online client's train; a first time, with the initial model."""
        # A record of its own for each round: a queued message must not see the next.
        config = ConfigRecord({**config, "server-round": server_round})
        for i in range(self.num_clients):
            if not topology.is_online(self._neighbourhood.graph, i):
                continue
            if i not in self._calls.nodes:
                self._calls.lose(i, "train", self._calls.why_missing)
                continue
            receivers = len(topology.receivers(self._neighbourhood.graph, i))
            told = ConfigRecord({"server-round": server_round, "receivers": receivers})
            told["run"] = self._calls.run
            first = self._members.first_model(i)
            yield self._calls.message("train", i, config=config, gossip=told, **first)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[None, MetricRecord]:
        """Keep the sound models, to relay them; return the mean metrics."""
        self._trained: dict[int, ArrayRecord] = {}
        metrics = self._result.node_train_metrics[server_round] = {}
        for reply in replies:
            i = self._calls.client_of(reply)
            if not reply.content.get("gossip", {}).get("joined", True):
                self._calls.lapse(i, "train")
                continue
            self._members.have_model.add(i)
            if (arrays := self._members.sound_model(reply)) is not None:
                self._trained[i] = arrays
                metrics[i] = first_metrics(reply.content)
        failed = {x.client for x in self._result.lost if x.call == "train"}
        if not self._members.have_model and len(failed) == self.num_clients:
            loss = self._result.lost[-1]
            raise RuntimeError(
                f"all clients failed to train in round {server_round}; client "
                f"{loss.client}: {loss.reason}"
            )
        return None, mean_metrics(metrics)

    def configure_average(self, server_round: int) -> Iterable[Message]:
        """Call average of each client that trained, with its neighbours' models."""
        models, now = self._trained, self._neighbourhood
        relayed = []
        for i in models:
            senders = [j for j in topology.senders(now.graph, i) if j in models]
            if not senders:
                continue
            weights = [float(now.W[i, j]) for j in senders]
            sent = ConfigRecord(
                {
                    "server-round": server_round,
                    "senders": senders,
                    "weights": [1 - sum(weights), *weights],
                }
            )
            neighbours = {str(j): models[j] for j in senders}
            relayed += senders
            yield self._calls.message("train.average", i, gossip=sent, **neighbours)
        self._book(server_round, [models[j] for j in relayed])

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Call evaluate of each online client, on its own model."""
        config = ConfigRecord({**config, "server-round": server_round})
        for i in sorted(self._members.have_model):
            if not topology.is_online(self._neighbourhood.graph, i):
                continue
            yield self._calls.message(
                "evaluate", i, config=config, gossip=ConfigRecord()
            )

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord:
        """Keep the clients' metrics; return their mean."""
        metrics = {self._calls.client_of(r): first_metrics(r.content) for r in replies}
        self._result.node_evaluate_metrics[server_round] = metrics
        return mean_metrics(metrics)

    def _observe(
        self,
        server_round: int,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None,
    ) -> None:
        """Measure all clients' models. Gossip itself does not need this look."""
        models = self._members.look(sorted(self._members.have_model))
        self._result.node_arrays = models
        if not models:
            return
        rows = np.stack([flat(model) for model in models.values()])
        self._result.consensus_distance[server_round] = mixing.consensus_distance(rows)
        if evaluate_fn:
            self._result.evaluate(server_round, models, evaluate_fn)

    def _book(self, server_round: int, models: list[ArrayRecord]) -> None:
        """Count models that clients receive from neighbours."""
        result, size = self._result, sum(map(array_bytes, models))
        result.messages[server_round] = result.messages.get(server_round, 0)
        result.messages[server_round] += len(models)
        result.bytes[server_round] = result.bytes.get(server_round, 0) + size
