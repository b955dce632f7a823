"""The gossip server: it holds the graph of the clients, and calls their functions.

`Gossip` is a Flower Strategy: `FedAvg()` becomes `Gossip(graph)`. In each round it
calls `train` and `train.average` of the clients, and relays each client's model to its
neighbours only. It averages nothing itself; that is the clients' part, see `client`.

A strategy says what a run does, and can be in several at once: what belongs to one run
is its `Membership`, and its result.
"""

import logging
import os
from collections.abc import Iterable
from contextlib import nullcontext
from contextvars import ContextVar

import networkx as nx
import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from gossiplib.core import checkpoint as checkpoints, mixing, topology
from gossiplib.core.calls import Calls
from gossiplib.core.membership import Membership
from gossiplib.core.models import check_initial, mean_arrays
from gossiplib.core.result import EvaluateFn, GossipResult, as_evaluate_fn
from gossiplib.system.numbers import check_seconds, check_whole
from gossiplib.system.records import first_metrics, flat, mean_metrics
from gossiplib.system.runs import due, each_round, progress

__all__ = ["Gossip", "GossipResult"]

logger = logging.getLogger("gossiplib")


#: The clients of the run that this thread is in: the hooks of a Flower strategy, such
#: as `configure_train`, are not given them.
_CLIENTS: ContextVar[Membership] = ContextVar("gossiplib.clients")


class Gossip(Strategy):
    """Gossip learning on a graph of clients: FED-0002's Algorithm 1.

    Parameters
    ----------
    schedule : networkx.Graph, scipy.sparse.csr_array or callable
        The graph of the clients 0..n-1, or a function from the round (1, 2, ...) to a
        graph; see `topology`.
    weights : callable
        graph -> mixing matrix W; see `mixing`.
    discover_every : int, optional
        Clients choose their neighbours in the first round, and again after so many; 0
        is never again. By default 0 for a graph, and 1 for a function. Who is online
        and which links hold is taken from the schedule in each round all the same.
    evaluate_every : int
        Rounds between two calls of the clients' evaluate function; 0 is never.
    observe_every : int
        Rounds between two looks at all clients' models, which measure the consensus
        distance and call `evaluate_fn`; 0 is never before the last round, after which
        there is one in any case.
    join_timeout : float
        Seconds to wait for the next client to appear on the grid, while some are
        missing. Then the run goes on without them, and books them as lost.
    checkpoint : str or path-like, optional
        File from which `resume` can go on, see `checkpoint`.
    checkpoint_every : int
        Rounds between two checkpoints; 0 is never before the last round, after which
        there is one in any case.

    Raises
    ------
    TypeError
        If the schedule gives something else than a simple networkx graph or an
        adjacency, or weights are no function.
    ValueError
        If the graph has no nodes, other nodes than 0..n-1, self-loops or, given as it
        is, several parts; if a number is not in its range; if no checkpoint could be
        written there.

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
        weights: mixing.Weights = mixing.metropolis,
        discover_every: int | None = None,
        evaluate_every: int = 1,
        observe_every: int = 1,
        join_timeout: float = 10.0,
        checkpoint: checkpoints.Where | None = None,
        checkpoint_every: int = 1,
    ) -> None:
        graph = topology.at(schedule, 1)
        if not (n := topology.num_clients(graph)):
            raise ValueError("the graph has no nodes; it needs one for each client")
        topology.check_graph(graph, n, connected=not callable(schedule))
        if not callable(weights):
            raise TypeError(
                "weights must be a function, graph -> W, such as mixing.metropolis; "
                f"got {weights!r}"
            )
        check_seconds("join_timeout", join_timeout, zero=True)
        if discover_every is None:
            discover_every = 1 if callable(schedule) else 0
        self.num_clients = n
        self.schedule = schedule
        self.weights = weights
        self.discover_every = check_whole("discover_every", discover_every, 0)
        self.evaluate_every = check_whole("evaluate_every", evaluate_every, 0)
        self.observe_every = check_whole("observe_every", observe_every, 0)
        self.join_timeout = join_timeout
        self.checkpoint = checkpoints.check_path(checkpoint)
        self.checkpoint_every = check_whole("checkpoint_every", checkpoint_every, 0)

    def summary(self) -> None:
        """Log the configuration."""
        kind = "schedule" if callable(self.schedule) else "graph"
        logger.info("gossip on a %s of %d clients", kind, self.num_clients)

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
        """Run gossip learning; the signature is that of any Strategy of Flower's.

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
            (round, arrays) -> MetricRecord, a dict of numbers, or None. It is called
            for each client's model, as there is no other.

        Returns
        -------
        GossipResult
            What each client has, and what was lost.

        Raises
        ------
        TypeError
            If schedule, weights, initial_arrays, a config or `evaluate_fn`, or what it
            tells, are of another kind.
        ValueError
            If graph, weights or clients do not fit each other, or num_rounds or timeout
            is out of range.
        RuntimeError
            If no client joins, or all of them fail in the first round.
        """
        records = initial_arrays, train_config, evaluate_config
        return self._start(None, grid, records, num_rounds, timeout, evaluate_fn)

    def resume(
        self,
        path: checkpoints.Where,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: EvaluateFn | None = None,
    ) -> GossipResult:
        """Go on with a run from its checkpoint, as if it had never stopped.

        Clients that are not in it take part as clients that come late.

        Parameters
        ----------
        path : str or path-like
            The checkpoint. The run writes its own to the `checkpoint` of the strategy.
        grid, initial_arrays, timeout, train_config, evaluate_config, evaluate_fn
            As of `start`, and as at the start of the run; what only measures may be
            another.
        num_rounds : int
            Number of rounds of the whole run; it may be larger than at its start.

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
            If a client of the checkpoint is not there, or averages otherwise.
        """
        records = initial_arrays, train_config, evaluate_config
        return self._start(
            os.fspath(path), grid, records, num_rounds, timeout, evaluate_fn
        )

    def _start(
        self,
        path: checkpoints.Where | None,
        grid: Grid,
        records: checkpoints.Records,
        num_rounds: int,
        timeout: float | None,
        evaluate_fn: EvaluateFn | None,
    ) -> GossipResult:
        """Begin a run, or go on with that of a checkpoint; go through its rounds."""
        num_rounds = check_whole("num_rounds", num_rounds, 1)
        check_initial(*records)
        evaluate_fn = as_evaluate_fn(evaluate_fn)
        records = (records[0].copy(), *records[1:])  # late clients begin with it, too
        self.summary()

        def identity(graph: nx.Graph) -> checkpoints.Identity:
            W = self.weights(graph)
            return checkpoints.identity(W, self.discover_every, records)

        opened = (
            nullcontext() if path is None else checkpoints.reading(path, num_rounds)
        )
        with opened as kept:
            first, known = 1, None
            if kept:
                kept.check(identity(topology.at(self.schedule, kept.server_round)))
                first = kept.server_round + 1
                known = checkpoints.known_to(kept, records[0])
            result = kept.result if kept else GossipResult()
            calls = Calls(grid, timeout, result, known.run if known else None)
            clients = Membership(calls, self, records[0])
            calls.join(self.num_clients, self.join_timeout)
            if kept and known:
                checkpoints.restore(kept, known, clients)
        if path is None and evaluate_fn and (m := evaluate_fn(0, records[0].copy())):
            result.evaluate_metrics_serverapp[0] = m
            result.node_server_metrics[0] = dict.fromkeys(calls.nodes, m)

        where = self.checkpoint
        rounds = each_round(
            first,
            num_rounds,
            observe=lambda t: self._observe(clients, t, evaluate_fn),
            observe_every=self.observe_every,
            save=(
                (
                    # A schedule need not give the same graph when it is asked again.
                    lambda t: checkpoints.save_clients(
                        where, t, identity(clients.offer), clients
                    )
                )
                if where is not None
                else None
            ),
            save_every=self.checkpoint_every,
        )
        left = num_rounds - first + 1
        before = _CLIENTS.set(clients)
        try:
            for t in progress(rounds, "Gossip", left, "round"):
                self._round(clients, t, grid, records)
        finally:
            _CLIENTS.reset(before)
        if result.node_arrays:
            result.arrays = mean_arrays(list(result.node_arrays.values()))
        return result

    def _round(
        self, clients: Membership, t: int, grid: Grid, records: checkpoints.Records
    ) -> None:
        """Discover, train, average, and evaluate if that is due."""
        calls, result = clients.calls, clients.calls.result
        arrays, *configs = records
        train_config, evaluate_config = (c or ConfigRecord() for c in configs)
        calls.server_round = t
        if t > 1:
            clients.welcome()
        clients.discover(t)
        calls.book(clients.catch_up())
        with result.timed("train"):
            messages = self.configure_train(t, arrays, train_config, grid)
            _, metrics = self.aggregate_train(t, calls.send(messages))
            result.train_metrics_clientapp[t] = metrics or MetricRecord()
        with result.timed("average"):
            for reply in calls.send(self.configure_average(t)):
                if "unread" in reply.content:
                    why = f"could not read what came: {reply.content['unread']}"
                    calls.lose(calls.client_of(reply), "train.average", why)
        if due(t, self.evaluate_every):
            with result.timed("measure"):
                messages = self.configure_evaluate(t, arrays, evaluate_config, grid)
                metrics = self.aggregate_evaluate(t, calls.send(messages))
                result.evaluate_metrics_clientapp[t] = metrics or MetricRecord()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Call each online client's train; a first time, with the initial model."""
        clients = _clients()
        calls = clients.calls
        # A record of its own for each round: a queued message must not see the next.
        config = ConfigRecord({**config, "server-round": server_round})
        for i in range(self.num_clients):
            if not topology.is_online(clients.graph, i):
                continue
            if i not in calls.nodes:
                calls.lose(i, "train", calls.why_missing)
                continue
            gossip = ConfigRecord({"server-round": server_round, "run": calls.run})
            gossip["receivers"] = len(topology.receivers(clients.graph, i))
            first = clients.first_model(i)
            yield calls.message("train", i, config=config, gossip=gossip, **first)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[None, MetricRecord]:
        """Keep the sound models, to relay them; return the mean metrics."""
        clients = _clients()
        calls, result = clients.calls, clients.calls.result
        clients.trained = {}
        metrics: dict[int, MetricRecord] = {}
        result.node_train_metrics[server_round] = metrics
        for reply in replies:
            i = calls.client_of(reply)
            gossip = reply.content.get("gossip")
            if isinstance(gossip, ConfigRecord) and not gossip.get("joined", True):
                calls.lapse(i, "train")
                continue
            clients.have_model.add(i)
            if (arrays := clients.sound_model(reply)) is not None:
                clients.trained[i] = arrays
                metrics[i] = first_metrics(reply.content)
        if not clients.have_model:
            result.raise_if_all_lost(self.num_clients, f"round {server_round}", "train")
        return None, mean_metrics(metrics)

    def configure_average(self, server_round: int) -> Iterable[Message]:
        """Yield a call of average in `server_round` to each client that trained."""
        clients = _clients()
        models, calls = clients.trained, clients.calls
        relayed: list[int] = []
        for i in models:
            senders = [j for j in topology.senders(clients.graph, i) if j in models]
            if not senders:
                continue
            weights = [float(clients.W[i, j]) for j in senders]
            gossip = ConfigRecord({"server-round": server_round, "senders": senders})
            gossip["weights"] = [1 - sum(weights), *weights]
            neighbours = {str(j): models[j] for j in senders}
            relayed += senders
            yield calls.message("train.average", i, gossip=gossip, **neighbours)
        calls.book([models[j] for j in relayed])

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Call evaluate of each online client, on its own model."""
        clients, gossip = _clients(), ConfigRecord()
        config = ConfigRecord({**config, "server-round": server_round})
        for i in sorted(clients.have_model):
            if topology.is_online(clients.graph, i):
                yield clients.calls.message("evaluate", i, config=config, gossip=gossip)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord:
        """Keep the clients' metrics; return their mean."""
        calls = _clients().calls
        metrics = {calls.client_of(r): first_metrics(r.content) for r in replies}
        calls.result.node_evaluate_metrics[server_round] = metrics
        return mean_metrics(metrics)

    def _observe(
        self, clients: Membership, server_round: int, evaluate_fn: EvaluateFn | None
    ) -> None:
        """Measure all clients' models. Gossip itself does not need this look."""
        result = clients.calls.result
        with result.timed("measure"):
            models = clients.models(sorted(clients.have_model))
            result.node_arrays = models
            if not models:
                return
            rows = np.stack([flat(model) for model in models.values()])
            distance = mixing.consensus_distance(rows)
            result.consensus_distance[server_round] = distance
            if evaluate_fn:
                result.evaluate(server_round, models, evaluate_fn)


def _clients() -> Membership:
    """Return the clients of the run that this thread is in."""
    try:
        return _CLIENTS.get()
    except LookupError:
        why = (
            "Gossip has no clients outside of its run, or in another thread: call start"
        )
        raise RuntimeError(why) from None
