"""Runs of gossip on digits, by which a student's prediction is judged."""

from typing import Any

import numpy as np

from gossiplib.core.result import GossipResult
from gossiplib.core.topology import Schedule
from gossiplib.tasks.task import digits
from gossiplib.vectorized.engine import gossip_learning

#: A prediction is about both: of one run alone, chance may decide.
SEEDS = (0, 1)


def compare_runs(
    schedule: Schedule | list[Schedule],
    rounds: int,
    data: dict[str, Any],
    *,
    clients: int = 16,
    **options: Any,
) -> list[GossipResult]:
    """Return a run for each of two seeds, to compare with those of other settings.

    All models are measured after the last round, on the common test set. `data` are
    options of `digits`, the others those of `gossip_learning`.
    """
    schedules = schedule if isinstance(schedule, list) else [schedule] * len(SEEDS)
    options |= {"evaluate_every": 0, "observe_every": rounds}
    results = []
    for seed, each in zip(SEEDS, schedules, strict=True):
        task = digits(clients, seed=seed, **data)
        options["evaluate_fn"] = task.evaluate_fn
        results.append(gossip_learning(task, each, rounds, **options))
    return results


def accuracies(*settings: Any, **options: Any) -> np.ndarray:
    """Return the accuracies in each run of `compare_runs`, shape (seeds, clients)."""
    results = compare_runs(*settings, **options)
    found = (result.node_server_metrics[max(result.messages)] for result in results)
    return np.array([[m["accuracy"] for m in clients.values()] for clients in found])
