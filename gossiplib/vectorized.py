"""Gossip learning as an array program: ten thousand to a million clients.

All clients' models are the rows of one tensor X. A round trains all rows at once (see
`batched`) and averages them by one sparse product, X ← W X (see `rounds`). Algorithm,
seeds and result are those of `server.Gossip` with `gossip(task.client_app())`. What is
missing are the messages, and what can happen to them.
"""

import contextlib
import os
from collections.abc import Callable

import networkx as nx
import numpy as np
import torch
from flwr.app import ArrayRecord, MetricRecord

from gossiplib import mixing, topology
from gossiplib.averaging import Average, weighted_mean
from gossiplib.batched import BatchedTask
from gossiplib.checkpoint import check_path, reading
from gossiplib.progress import Interrupt, updates_bar
from gossiplib.result import GossipResult, check_whole, due
from gossiplib.rounds import Rounds
from gossiplib.task import Task
from gossiplib.training import one_thread

__all__ = ["gossip_learning"]

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
        (see `stacked`). No models pass through a server, so `server_bytes` are 0. If
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
