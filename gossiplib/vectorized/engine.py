"""Gossip learning as an array program: ten thousand to a million clients.

All clients' models are the rows of one tensor X. A round trains all rows at once (see
`vectorized.training`) and averages them by one sparse product, X ← W X (see `rounds`).
Algorithm, seeds and result are those of `server.Gossip` with
`gossip(task.client_app())`. What is missing are the messages, and what can happen to
them.

The rounds of `vectorized.gossip_learning`: all clients' models at once.

`Rounds` holds the models and does what a round asks for: train, average, evaluate,
observe, and write a checkpoint. When it does what, `gossip_learning` decides.
"""

import contextlib
import functools
import os
from collections.abc import Callable

import networkx as nx
import numpy as np
import torch
from flwr.app import ArrayRecord, MetricRecord
from tqdm import tqdm

from gossiplib.core import mixing, topology
from gossiplib.core.averaging import Average, weighted_mean
from gossiplib.core.checkpoint import (
    Checkpoint,
    Identity,
    check_path,
    fingerprint,
    reading,
    save,
)
from gossiplib.core.models import array_bytes, pack, unravel
from gossiplib.core.result import (
    GossipResult,
    Loss,
    StackedMetrics,
    StackedModels,
    draw,
    due,
    mean_metrics,
)
from gossiplib.system.numbers import check_whole
from gossiplib.system.runs import Interrupt, check_memory, updates_bar
from gossiplib.tasks.task import Task
from gossiplib.tasks.training import one_thread
from gossiplib.vectorized.averaging import Exchange, weigh
from gossiplib.vectorized.rows import (
    Place,
    chunks,
    consensus,
    keep_freed_memory,
    place,
    put,
    stack,
    take,
)
from gossiplib.vectorized.training import BatchedTask

__all__ = ["Rounds", "gossip_learning"]


class Rounds:
    """The state of a run: all models, the round's links, and the result so far.

    Parameters
    ----------
    batched : BatchedTask
        Training and evaluation.
    schedule, weights, average, sample
        As in `vectorized.gossip_learning`.
    server_round : int
        The round whose graph is taken at first.

    Attributes
    ----------
    n : int
        Number of clients.
    X : torch.Tensor
        All models, one a row.
    result : GossipResult
        The result so far.
    """

    def __init__(
        self,
        batched: BatchedTask,
        schedule: topology.Schedule,
        weights: Callable[[nx.Graph], np.ndarray],
        average: Average,
        sample: int | None,
        server_round: int,
    ) -> None:
        self.batched, self.task = batched, batched.task
        self.n = n = self.task.num_clients
        self.sample, self.average_function = sample, average
        self.exchange: Exchange | None = None  # the usual average is one product
        if average is not weighted_mean:
            # Only a function that looks at models itself can try them on examples.
            _, kinds = self.task.parts.span(np.arange(n), "validation")
            kinds = None if hasattr(average, "send") else kinds
            self.exchange = Exchange(average, batched.shapes, n, batched.chunk, kinds)
        self.schedule, self.weights = schedule, weights
        self.static = isinstance(schedule, nx.Graph)
        self.W: torch.Tensor | None = None
        self._meet(server_round)
        self._check_memory()
        self.links = weigh(self.graph, weights)
        self.initial_arrays = self.task.initial_arrays()
        self.by_size = np.argsort(-batched.sizes, kind="stable")
        self.all_chunks: list[tuple[np.ndarray, Place]] = []

    def begin(self, kept: Checkpoint | None = None) -> None:
        """Take the clients' first models, or those of a checkpoint."""
        if kept is None:
            self.X = self.batched.start()
            self.have_model = np.zeros(self.n, dtype=bool)
            self.result = GossipResult()
        else:
            models = torch.from_numpy(kept.members["models"])
            self.X = models.to(self.batched.device)
            self.have_model = kept.members["have_model"]
            self.result = kept.result
            if self.exchange:
                self.exchange.states.restore(kept.more["states"], kept.members)
        self.Y = stack(self.batched.initial, self.n)  # trained, not yet averaged
        keep_freed_memory()

    @functools.cached_property
    def _told(self) -> Identity:
        """Return what decides the models, beside graph and weights."""
        task, batched, average = self.task, self.batched, self.average_function
        data = [tensor.cpu().numpy() for tensor in (task.x, task.y, batched.initial)]
        return {
            "engine": "gossip_learning",
            "clients": self.n,
            "data or first model": fingerprint(*data, *task.parts),
            "same_start": task.same_start,
            "seed": task.seed,
            "epochs": batched.epochs,
            "batch_size": batched.batch_size,
            "lr": batched.lr,
            "momentum": batched.momentum,
            "weight_decay": batched.weight_decay,
            "average": getattr(average, "__name__", type(average).__name__),
        }

    def identity(self) -> Identity:
        """Return what decides the models of a run, see `checkpoint`."""
        return self._told | {"graph or weights": fingerprint(*self.links[1:])}

    def save(self, path: str | os.PathLike, server_round: int) -> None:
        """Write a checkpoint."""
        with self.result.timed("checkpoint"):
            members = {"models": self.X.cpu().numpy(), "have_model": self.have_model}
            more = {}
            if self.exchange:
                more["states"], states = self.exchange.states.keep()
                members |= states
            save(path, server_round, self.identity(), self.result, more, members)

    def _check_memory(self) -> None:
        batched, model = self.batched, self.batched.initial
        links = self.graph.number_of_edges() * (1 if self.graph.is_directed() else 2)
        needed = (
            2 * self.n * len(model) * model.element_size()  # X and Y
            + 100 * (links + self.n)  # W, while it is made
            + 8 * batched.chunk_bytes  # models, examples, gradients, ... of a chunk
        )
        what = f"{self.n:,} clients with {len(model):,} parameters"
        check_memory(needed, batched.device, what)

    def _meet(self, server_round: int) -> None:
        """Take the graph of a round, and who is online."""
        self._met = server_round
        self.graph = topology.at(self.schedule, server_round)
        topology.check_graph(self.graph, self.n, connected=self.static)
        self.online = np.ones(self.n, dtype=bool)
        for i, online in self.graph.nodes(data="online", default=True):
            self.online[int(i)] = online

    def train(self, server_round: int, bar: tqdm) -> None:
        """Train the models of the clients that are online."""
        if not self.static and server_round != self._met:
            self._meet(server_round)
            self.links = weigh(self.graph, self.weights)
        self.trained = self.online.copy()
        losses = np.empty(self.n)
        with self.result.timed("train"):
            keys = self.batched.keys(server_round)
            if not self.online.all():
                away = torch.from_numpy(np.flatnonzero(~self.online)).to(self.X.device)
                put(self.Y, away, take(self.X, away))
            for ids, at in self._chunks():
                old, new = take(self.X, at), take(self.Y, at)
                losses[ids] = self.batched.train(old, new, ids, keys)
                lost = self._lose(server_round, "train", ids, old, new)
                self.trained[lost] = False
                put(self.Y, at, new)
                bar.update(len(ids))
        self.have_model |= self.trained
        failed = {x.client for x in self.result.lost if x.call == "train"}
        if not self.have_model.any() and len(failed) == self.n:
            loss = self.result.lost[-1]
            raise RuntimeError(
                f"all clients failed to train by round {server_round}; client "
                f"{loss.client}: {loss.reason}"
            )
        means = MetricRecord()
        if self.trained.any():
            means["loss"] = float(losses[self.trained].mean())
        self.result.train_metrics_clientapp[server_round] = means
        kept = self.sampled(server_round, self.trained)
        columns = {"loss": losses[kept], "num-examples": self.batched.sizes[kept]}
        metrics = StackedMetrics(kept, columns)
        self.result.node_train_metrics[server_round] = metrics

    def _chunks(self) -> list[tuple[np.ndarray, Place]]:
        """Return the clients to train, those with most examples first, and places."""
        if self.online.all() and self.all_chunks:
            return self.all_chunks
        ids = self.by_size[self.online[self.by_size]]
        pieces = chunks(ids, self.batched.chunk)
        found = [(some, place(some, self.X.device)) for some in pieces]
        if self.online.all():
            self.all_chunks = found
        return found

    def _lose(
        self,
        server_round: int,
        call: str,
        ids: np.ndarray,
        old: torch.Tensor,
        new: torch.Tensor,
    ) -> np.ndarray:
        """Give clients whose new model is not finite their old one back; name them."""
        if new.sum().isfinite():
            return ids[:0]
        bad = ~new.isfinite().all(dim=1)
        new[bad] = old[bad]
        lost = np.sort(ids[bad.cpu().numpy()])
        reason = "its model has NaN or infinite values"
        self.result.lost += [Loss(server_round, i, call, reason) for i in lost.tolist()]
        return lost

    def average(self, server_round: int) -> None:
        """Average the models of the clients that trained with their neighbours'."""
        links = self.links.among(self.trained)
        count = len(links.receivers)
        message_bytes = array_bytes(self.initial_arrays)
        usual = self.static and links is self.links
        with self.result.timed("average"):
            if self.exchange:
                self.X.copy_(self.Y)
                heard = self.exchange(self.Y, self.links, self.trained, server_round)
                for ids, averages in heard:
                    at = place(ids, self.X.device)
                    old, new = take(self.Y, at), averages.to(self.X.device)
                    self._lose(server_round, "train.average", ids, old, new)
                    put(self.X, at, new)
                message_bytes = self.exchange.message_bytes or message_bytes
            else:
                W = self.W if usual and self.W is not None else links.matrix(self.X)
                self.W = W if usual else None
                torch.addmm(self.X, W, self.Y, beta=0, out=self.X)
                everyone = np.arange(self.n)
                self._lose(server_round, "train.average", everyone, self.Y, self.X)
        self.result.messages[server_round] = count
        self.result.bytes[server_round] = count * message_bytes
        self.result.server_bytes[server_round] = 0

    def evaluate(self, server_round: int) -> None:
        """Evaluate clients on the test part of their own."""
        kept = self.sampled(server_round, self.have_model & self.online)
        with self.result.timed("measure"):
            columns = self.batched.evaluate(self.X, kept, "test")
        _, sizes = self.task.parts.span(kept, "test")
        metrics = StackedMetrics(kept, columns | {"num-examples": sizes})
        self.result.node_evaluate_metrics[server_round] = metrics
        self.result.evaluate_metrics_clientapp[server_round] = metrics.mean()

    def observe(self, server_round: int, evaluate_fn: Callable | None) -> None:
        """Measure the consensus distance, and call `evaluate_fn`."""
        with self.result.timed("measure"):
            members = np.flatnonzero(self.have_model)
            if not members.size:
                return
            self.mean, distance = consensus(self.X, members)
            self.result.consensus_distance[server_round] = distance
            if evaluate_fn is None:
                return
            kept = self.sampled(server_round, self.have_model)
            if evaluate_fn == self.task.evaluate_fn and (
                type(self.task).evaluate_fn is Task.evaluate_fn
            ):
                columns = self.batched.evaluate(self.X, kept, "common")
                metrics = StackedMetrics(kept, columns)
            else:
                models = self._models()
                metrics = {
                    i: metrics
                    for i in kept.tolist()
                    if (metrics := evaluate_fn(server_round, models[i])) is not None
                }
        if len(metrics):
            self.result.node_server_metrics[server_round] = metrics
            mean = mean_metrics(metrics)
            self.result.evaluate_metrics_serverapp[server_round] = mean

    def sampled(self, server_round: int, among: np.ndarray) -> np.ndarray:
        """Return the clients to measure, in ascending order."""
        ids = np.flatnonzero(among)
        return draw(self.sample, ids, self.task.seed, server_round)

    def _models(self) -> StackedModels:
        rows = self.X.cpu().numpy()
        ids = np.flatnonzero(self.have_model)
        return StackedModels(rows, self.batched.shapes, ids)

    def finish(self) -> GossipResult:
        """Return the result."""
        self.result.node_arrays = self._models()
        if self.have_model.any():
            mean = self.mean.to(self.X.dtype).cpu().numpy()
            arrays = unravel(mean, self.batched.shapes).values()
            self.result.arrays = pack(list(arrays), like=self.initial_arrays)
        return self.result


#: Parameters of all clients together below which one thread does the work. More would
#: gain nothing, and wait for each other where other programs run on the same cores: a
#: step may then take 20 times as long.
SMALL = 2**19


def gossip_learning(
    task: Task,
    schedule: topology.Schedule,
    num_rounds: int = 3,
    *,
    epochs: int = 1,
    batch_size: int = 16,
    lr: float = 0.5,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    average: Average = weighted_mean,
    weights: Callable[[nx.Graph], np.ndarray] = mixing.metropolis,
    evaluate_every: int = 1,
    observe_every: int = 1,
    evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    sample: int | None = None,
    device: str | torch.device | None = None,
    checkpoint: str | os.PathLike | None = None,
    checkpoint_every: int = 1,
    resume: str | os.PathLike | None = None,
) -> GossipResult:
    """Run gossip learning on arrays.

    The same seed gives the models of ``Gossip(schedule).start(LocalGrid(gossip(
    task.client_app()), n), task.initial_arrays())``, to rounding.

    Parameters
    ----------
    task : Task
        Data and model of each client. Data type and seed are the task's.
    schedule, weights, evaluate_every, observe_every
        As in `server.Gossip`. Clients take all neighbours that the schedule offers.
    num_rounds, evaluate_fn
        As in `server.Gossip.start`. `task.evaluate_fn` is computed for many models at
        once; any other function is called for each.
    epochs, batch_size, lr, momentum, weight_decay
        As in `Task.client_app`.
    average : callable
        As in `client.gossip`; it is called for many clients at once, see `averaging`.
        What it raises ends the run. `weighted_mean` is not called: it becomes one
        sparse product.
    sample : int, optional
        Clients that are evaluated and whose metrics are kept, drawn anew in each round,
        without replacement. By default all. The mean loss of training and the
        consensus distance are over all clients in any case.
    device : str, optional
        "cpu" or "cuda"; by default a GPU if there is one.
    checkpoint, checkpoint_every
        As in `server.Gossip`. An interrupted run writes a last one.
    resume : str or path-like, optional
        Checkpoint from which the run goes on, as with `server.Gossip.resume`.

    Returns
    -------
    GossipResult
        As of `server.Gossip`; models and metrics of a client are looked up in arrays
        (see `rows`). No models pass through a server, so `server_bytes` are 0. If
        the run is interrupted (Ctrl-C), it ends after its round, with a warning.

    Raises
    ------
    MemoryError
        If the models do not fit in what is free, before the work starts.
    OSError
        If the checkpoint to resume from cannot be opened.
    ValueError
        If schedule, weights or a number do not fit, or the model cannot be stacked; if
        the checkpoint was cut short or altered, or is of another run or version.
    RuntimeError
        If all clients fail before any has a model.
    """
    check_whole("num_rounds", num_rounds, 1)
    check_whole("evaluate_every", evaluate_every, 0)
    check_whole("observe_every", observe_every, 0)
    check_whole("checkpoint_every", checkpoint_every, 0)
    check_path(checkpoint)
    if sample is not None:
        check_whole("sample", sample, 1, task.num_clients)
    if evaluate_every and not task.parts.held.all():
        raise ValueError(
            "clients have no test part to evaluate on, as holdout is 0: set "
            "evaluate_every=0, and measure with evaluate_fn"
        )
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    batched = BatchedTask(
        task,
        torch.device(device),
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        momentum=momentum,
        weight_decay=weight_decay,
    )
    opened = contextlib.nullcontext() if resume is None else reading(resume)
    with opened as kept:
        done = kept.server_round if kept else 0
        run = Rounds(batched, schedule, weights, average, sample, max(done, 1))
        if kept:
            kept.check(run.identity(), num_rounds)
        run.begin(kept)
    if not done and evaluate_fn and (metrics := evaluate_fn(0, task.initial_arrays())):
        everyone = run.sampled(0, np.ones(run.n, dtype=bool))
        run.result.evaluate_metrics_serverapp[0] = metrics
        run.result.node_server_metrics[0] = dict.fromkeys(everyone.tolist(), metrics)
    small = run.X.device.type == "cpu" and run.X.numel() < SMALL
    threads = one_thread() if small else contextlib.nullcontext()
    left = num_rounds - done
    t, looked = done, 0
    with threads, Interrupt() as interrupt, updates_bar(left, run.n) as bar:
        for t in range(done + 1, num_rounds + 1):
            run.train(t, bar)
            run.average(t)
            if due(t, evaluate_every):
                run.evaluate(t)
            if due(t, observe_every):
                run.observe(t, evaluate_fn)
                looked = t
            last = t == num_rounds or interrupt.asked
            if checkpoint and (last or due(t, checkpoint_every)):
                run.save(checkpoint, t)
            if last and t < num_rounds:
                interrupt.warn(t, num_rounds)
                break
        if looked != t:
            run.observe(t, evaluate_fn)
    return run.finish()
