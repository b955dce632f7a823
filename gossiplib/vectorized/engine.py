"""Gossip learning as an array program: ten thousand to a million clients.

All clients' models are the rows of one tensor X. A round trains all rows at once (see
`training`) and averages them by one sparse product, X ← W X (see `averaging`). What is
missing are the messages, and what can happen to them.
"""

import contextlib
import functools
import math
from typing import Any, TypeAlias

import numpy as np
import torch
from flwr.app import MetricRecord
from scipy.sparse import csr_array
from tqdm import tqdm

from gossiplib.core import checkpoint as checkpoints, mixing, topology
from gossiplib.core.averaging import Average, name_of, weighted_mean
from gossiplib.core.checkpoint import Checkpoint, Identity, Where, fingerprint
from gossiplib.core.result import EvaluateFn, GossipResult, Loss, as_evaluate_fn
from gossiplib.system.numbers import check_whole, draw
from gossiplib.system.records import (
    StackedMetrics,
    StackedModels,
    array_bytes,
    pack,
    unravel,
)
from gossiplib.system.runs import Interrupt, check_memory, due, each_round, updates_bar
from gossiplib.tasks.task import Task
from gossiplib.vectorized._speed import keep_freed_memory, repeat, threads
from gossiplib.vectorized.averaging import Exchange, RoundGraph, among, to_torch
from gossiplib.vectorized.rows import Place, chunks, mean_and_distance, place, put, take
from gossiplib.vectorized.training import Batch, Options, StackedTask

__all__ = ["gossip_learning"]

Piece: TypeAlias = tuple[np.ndarray, Place, list[Batch]]  # a chunk; what it may keep


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
    weights: mixing.Weights = mixing.metropolis,
    evaluate_every: int = 1,
    observe_every: int = 1,
    evaluate_fn: EvaluateFn | None = None,
    sample: int | None = None,
    device: str | torch.device | None = None,
    checkpoint: Where | None = None,
    checkpoint_every: int = 1,
    resume: Where | None = None,
) -> GossipResult:
    """Run gossip learning on arrays.

    The same seed, the task's, gives the models of ``Gossip(schedule).start(LocalGrid(
    gossip(task.client_app()), n), task.initial_arrays())``, to rounding.

    Parameters
    ----------
    task : Task
        Data and model of each client, their data type, and the seed.
    schedule : networkx.Graph, scipy.sparse.csr_array or callable
        The graph of the clients 0..n-1, or a function from the round (1, 2, ...) to a
        graph; see `topology`. Clients take all neighbours that it offers.
    num_rounds, epochs, batch_size : int
        Number of rounds; and n_ep and B of Algorithm 1, the passes over the training
        part in a round and the examples in a step.
    lr, momentum, weight_decay : float
        Options of the gradient descent, `torch.optim.SGD`. Momentum starts afresh in
        each round.
    average : callable
        Average function, see `core.averaging`. The default, `weighted_mean` itself,
        becomes one sparse product, which is much faster. Any other function is called
        for many clients at once; what it raises ends the run.
    weights : callable
        graph -> mixing matrix W, dense or of scipy.sparse; see `mixing`. A function
        that takes ``sparse=True``, as those of `mixing` do, is asked for a sparse one.
    evaluate_every, observe_every, checkpoint_every : int
        Rounds between two evaluations of clients on their own test parts, 0 is never;
        between two measurements of the consensus distance, and by `evaluate_fn`; and
        between two checkpoints. For these two 0 is after the last round only.
    evaluate_fn : callable, optional
        (round, arrays) -> MetricRecord or None, for each client's model, one after the
        other; but `Task.evaluate_fn` is computed for many models at once.
    sample : int, optional
        Clients whose metrics are measured and kept, drawn anew in each round, without
        replacement; by default all. The mean loss of training and the consensus
        distance are over all clients in any case.
    device : str, optional
        "cpu" or "cuda"; by default a GPU if there is one.
    checkpoint, resume : str or path-like, optional
        File to write checkpoints to, see `core.checkpoint` (an interrupted run writes a
        last one); and one from which the run goes on, as if it had never stopped.
        `num_rounds`, that of the whole run, may be larger than before; what only
        measures may differ.

    Returns
    -------
    GossipResult
        As of `Gossip`; a client's model and metrics are looked up in arrays. No models
        pass through a server, so `server_bytes` are 0. If the run is interrupted
        (Ctrl-C), it ends after its round, with a warning.

    Raises
    ------
    MemoryError, OSError
        If the models do not fit in what is free, before the work starts; or the
        checkpoint to resume from cannot be opened.
    TypeError
        If an argument is of another kind, or schedule or weights give no graph or no
        matrix.
    ValueError
        If schedule, weights or a number do not fit, there is no such device, or the
        model cannot be stacked (a few examples try it before the work: dropout,
        recurrent layers, what normalises over a batch or changes from call to call are
        for LocalGrid); if the checkpoint was cut short or altered, or is of another run
        or version.
    RuntimeError
        If all clients fail before any has a model.
    """
    if not isinstance(task, Task):
        raise TypeError(f"task must be a Task; got {type(task).__name__}")
    as_evaluate_fn(evaluate_fn)  # if it is none, say so now
    num_rounds = check_whole("num_rounds", num_rounds, 1)
    check_whole("evaluate_every", evaluate_every, 0)
    check_whole("observe_every", observe_every, 0)
    check_whole("checkpoint_every", checkpoint_every, 0)
    checkpoint = checkpoints.check_path(checkpoint)
    if sample is not None:
        check_whole("sample", sample, 1, task.num_clients)
    if evaluate_every and not task.parts.held.all():
        raise ValueError(
            "clients have no test part to evaluate on, as holdout is 0: set "
            "evaluate_every=0, and measure with evaluate_fn"
        )
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(1, device=device).cpu()  # "meta" has no numbers
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ValueError(f"device {device!r} cannot be used: {error}") from error
    options = Options(epochs, batch_size, lr, momentum, weight_decay)
    stacked = StackedTask(task, torch.device(device), options)
    opened = (
        contextlib.nullcontext()
        if resume is None
        else checkpoints.reading(resume, num_rounds)
    )
    with opened as kept:
        done = kept.server_round if kept else 0
        graph = RoundGraph(schedule, weights, task.num_clients)
        graph.go_to(max(done, 1))
        run = _Run(stacked, graph, average, evaluate_fn, sample)
        if kept:
            kept.check(run.identity())
        run.begin(kept)
    bar = updates_bar(num_rounds - done, run.n)
    with threads(run.X), Interrupt() as interrupt, bar:
        for t in each_round(
            done + 1,
            num_rounds,
            observe=run.observe,
            observe_every=observe_every,
            save=functools.partial(run.save, checkpoint) if checkpoint else None,
            save_every=checkpoint_every,
            interrupt=interrupt,
        ):
            run.train(t, bar)
            run.average(t)
            if due(t, evaluate_every):
                run.evaluate(t)
    return run.finish()


class _Run:
    """A run: all clients' models, and the result so far.

    X are all models, shape (n, parameters); Y are those of the round, trained and not
    yet averaged. `_exchange` is None, and `_common_test` is True, where a faster way
    makes the same numbers.
    """

    def __init__(
        self,
        stacked: StackedTask,
        graph: RoundGraph,
        average: Average,
        evaluate_fn: EvaluateFn | None,
        sample: int | None,
    ) -> None:
        self.stacked, self.task, self.graph = stacked, stacked.task, graph
        self.n = n = self.task.num_clients
        self._evaluate_fn = as_evaluate_fn(evaluate_fn)
        self._average, self._sample = average, sample
        self._exchange: Exchange | None = None
        if average is not weighted_mean:
            # Only a function that looks at models itself can try them on examples.
            _, kinds = self.task.parts.span(np.arange(n), "validation")
            kept = None if hasattr(average, "send") else kinds
            self._exchange = Exchange(average, stacked.shapes, n, stacked.chunk, kept)
        common = type(self.task).evaluate_fn is Task.evaluate_fn
        self._common_test = common and evaluate_fn == self.task.evaluate_fn
        theirs = evaluate_fn is not None and not self._common_test
        graph.watched = theirs or self._exchange is not None
        self._check_memory()
        self.W = graph.W  # now, as it may be wrong
        self.initial_arrays = self.task.initial_arrays()
        self._by_size = np.argsort(-stacked.sizes, kind="stable")
        self._all_chunks = self._chunks(np.ones(n, dtype=bool))
        self._product: tuple[csr_array, torch.Tensor, bool] | None = None

    def _check_memory(self) -> None:
        stacked, model = self.stacked, self.stacked.initial
        links, _ = mixing.links(self.graph.graph)
        needed = (
            2 * self.n * len(model) * model.element_size()  # X and Y
            + 100 * (len(links) + self.n)  # W, while it is made
            + 8 * stacked.chunk_bytes  # models, examples, gradients, ... of a chunk
        )
        what = f"{self.n:,} clients with {len(model):,} parameters"
        check_memory(int(needed), stacked.device, what)

    def begin(self, kept: Checkpoint | None) -> None:
        """Take what a checkpoint holds, or the clients' first models; measure those."""
        self.result = kept.result if kept else GossipResult()
        if kept:
            initial = self.stacked.initial
            code = initial.cpu().numpy().dtype.char
            models = kept.members.array("models", code, (self.n, len(initial)))
            if not np.isfinite(models).all():
                raise ValueError(f"{kept.path} has models that are not finite")
            self.X = torch.from_numpy(models).to(initial.device)
            self.have_model = kept.members.array("have_model", "?", (self.n,))
            if self._exchange:
                self._exchange.states.load(kept.more.get("states"), kept.members)
        else:
            self.X = self.stacked.start()
            self.have_model = np.zeros(self.n, dtype=bool)
        self.Y = repeat(self.stacked.initial, self.n)
        keep_freed_memory()
        if kept or not self._evaluate_fn:
            return
        if metrics := self._evaluate_fn(0, self.task.initial_arrays()):
            everyone = self._sampled(0, np.ones(self.n, dtype=bool)).tolist()
            self.result.evaluate_metrics_serverapp[0] = metrics
            self.result.node_server_metrics[0] = dict.fromkeys(everyone, metrics)

    @functools.cached_property
    def _identity(self) -> Identity:
        """What decides the models, beside graph and weights."""
        task, stacked = self.task, self.stacked
        data = [tensor.cpu().numpy() for tensor in (task.x, task.y, stacked.initial)]
        return {
            "engine": "gossip_learning",
            "clients": self.n,
            "data or first model": fingerprint(*data, *task.parts),
            "same_start": task.same_start,
            "seed": task.seed,
            **stacked.options._asdict(),
            "average": name_of(self._average),
        }

    def identity(self) -> Identity:
        """Return what decides the models of a run, see `core.checkpoint`."""
        W = self.graph.W
        places = (a.astype(np.int64) for a in (W.indptr, W.indices))
        return self._identity | {"graph or weights": fingerprint(*places, W.data)}

    def save(self, path: Where, server_round: int) -> None:
        with self.result.timed("checkpoint"):
            members = {"models": self.X.cpu().numpy(), "have_model": self.have_model}
            more = {}
            if self._exchange:
                more["states"], states = self._exchange.states.dump()
                members |= states
            identity = self.identity()
            checkpoints.save(path, server_round, identity, self.result, more, members)

    def train(self, server_round: int, bar: tqdm) -> None:
        """Train the models of the clients that are online."""
        self.graph.go_to(server_round)
        self.W, online = self.graph.W, self.graph.online
        self.trained = online.copy()
        losses = np.empty(self.n)
        with self.result.timed("train"):
            keys = self.stacked.keys(server_round)
            pieces = self._all_chunks
            if not online.all():
                pieces = self._chunks(online)
                away = torch.from_numpy(np.flatnonzero(~online)).to(self.X.device)
                put(self.Y, away, take(self.X, away))
            for ids, at, kept in pieces:
                old = take(self.X, at)
                new = self.Y[at] if isinstance(at, slice) else torch.empty_like(old)
                losses[ids] = self.stacked.train(old, new, ids, keys, kept)
                lost = self._undo("train", ids, old, new)
                self.trained[lost] = False
                put(self.Y, at, new)
                bar.update(len(ids))
        means = MetricRecord()
        if self.trained.any():
            self.have_model |= self.trained
            means["loss"] = float(losses[self.trained].mean())
        elif not self.have_model.any():
            self.result.raise_if_all_lost(self.n, f"round {server_round}", "train")
        self.result.train_metrics_clientapp[server_round] = means
        some = self._sampled(server_round, self.trained)
        columns = {"loss": losses[some], "num-examples": self.stacked.sizes[some]}
        self.result.node_train_metrics[server_round] = StackedMetrics(some, columns)

    def _chunks(self, online: np.ndarray) -> list[Piece]:
        """Return the clients to train, those with most examples first, and places."""
        pieces = chunks(self._by_size[online[self._by_size]], self.stacked.best)
        return [(ids, place(ids, self.stacked.device), []) for ids in pieces]

    def _undo(
        self, call: str, ids: np.ndarray, old: torch.Tensor, new: torch.Tensor
    ) -> np.ndarray:
        """Give clients whose new model is not finite their old one back; name them."""
        if math.isfinite(float(new.sum())):
            return ids[:0]
        bad = ~new.isfinite().all(dim=1)
        new[bad] = old[bad]
        lost = np.sort(ids[bad.cpu().numpy()])
        t, reason = self.graph.server_round, "its model has NaN or infinite values"
        self.result.lost += [Loss(t, i, call, reason) for i in lost.tolist()]
        return lost

    def average(self, server_round: int) -> None:
        """Average the models of the clients that trained with their neighbours'."""
        sent, means = 0, self.result.train_metrics_clientapp[server_round]
        with self.result.timed("average"):
            if exchange := self._exchange:
                self.X.copy_(self.Y)
                averages = exchange(self.Y, self.W, self.trained, server_round)
                for ids, mixed in averages:
                    at, new = place(ids, self.X.device), mixed.to(self.X.device)
                    self._undo("train.average", ids, take(self.Y, at), new)
                    put(self.X, at, new)
                messages, sent = exchange.messages, exchange.bytes
                told: Any = self.result.node_train_metrics[server_round]
                for name, values in exchange.metrics.items():
                    told.columns[name] = values[told.clients]
                    means[name] = float(values[self.trained].mean())
            else:
                W = among(self.W, self.trained)
                messages = W.nnz - self.n
                if self._product is None or self._product[0] is not W:
                    self._product = W, to_torch(W, self.X), bool((W.data < 0).any())
                torch.addmm(self.X, self._product[1], self.Y, beta=0, out=self.X)
                if self._product[2]:  # else these are means of finite numbers
                    self._undo("train.average", np.arange(self.n), self.Y, self.X)
        self.result.messages[server_round] = messages
        size = array_bytes(self.initial_arrays)
        self.result.bytes[server_round] = sent or messages * size
        self.result.server_bytes[server_round] = 0

    def evaluate(self, server_round: int) -> None:
        """Evaluate clients on the test part of their own."""
        kept = self._sampled(server_round, self.have_model & self.graph.online)
        with self.result.timed("measure"):
            columns = self.stacked.evaluate(self.X, kept, "test")
        _, columns["num-examples"] = self.task.parts.span(kept, "test")
        metrics = StackedMetrics(kept, columns)
        self.result.node_evaluate_metrics[server_round] = metrics
        self.result.evaluate_metrics_clientapp[server_round] = metrics.mean()

    def observe(self, server_round: int) -> None:
        """Measure the consensus distance, and evaluate all models."""
        result = self.result
        with result.timed("measure"):
            members = np.flatnonzero(self.have_model)
            if not members.size:
                return
            self._mean, distance = mean_and_distance(self.X, members)
            result.consensus_distance[server_round] = distance
            kept = self._sampled(server_round, self.have_model)
            if self._common_test:
                columns = self.stacked.evaluate(self.X, kept, "common")
                metrics = StackedMetrics(kept, columns)
                result.node_server_metrics[server_round] = metrics
                result.evaluate_metrics_serverapp[server_round] = metrics.mean()
            elif self._evaluate_fn:
                result.evaluate(server_round, self._models(kept), self._evaluate_fn)

    def _sampled(self, server_round: int, some: np.ndarray) -> np.ndarray:
        """Return the clients to measure, in ascending order."""
        return draw(self._sample, np.flatnonzero(some), self.task.seed, server_round)

    def _models(self, clients: np.ndarray) -> StackedModels:
        return StackedModels(self.X.cpu().numpy(), self.stacked.shapes, clients)

    def finish(self) -> GossipResult:
        self.result.node_arrays = self._models(np.flatnonzero(self.have_model))
        if self.have_model.any():
            mean = self._mean.to(self.X.dtype).cpu().numpy()
            arrays = unravel(mean, self.stacked.shapes).values()
            self.result.arrays = pack(list(arrays), like=self.initial_arrays)
        return self.result
