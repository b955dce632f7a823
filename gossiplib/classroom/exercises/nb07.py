"""Checks of the exercises of notebook 07: whom to listen to."""

from functools import cache
from itertools import combinations
from typing import Any

import networkx as nx
import numpy as np
from flwr.app import Context, RecordDict
from sklearn.datasets import load_digits

from gossiplib.classroom.checking import checks, need, need_number, predicts
from gossiplib.classroom.exercises.runs import SEEDS
from gossiplib.core.averaging import SoftmaxDistance
from gossiplib.core.client import gossip
from gossiplib.core.context import RoundContext
from gossiplib.core.grid import LocalGrid
from gossiplib.core.server import Gossip
from gossiplib.protocols.labels import d_cliques, shares_of, skew
from gossiplib.protocols.neighbours import LikeModels
from gossiplib.tasks.task import Task, digits
from gossiplib.vectorized.engine import gossip_learning


@checks("07.1")
def _(alpha: float) -> str:
    need_number(alpha)
    need(alpha < 0, "Whom should a client listen to here?")
    need(alpha >= -20, "No power below -20, please.")
    accuracy = _by_power(float(alpha))
    hint = "So choosy that each hears hardly anybody."
    if alpha > -3:
        hint = "Who keeps little of its own must be choosier."
    need(accuracy >= 0.74, f"It reaches {accuracy:.3f}. {hint}")
    rivals = ", ".join(f"{power} reaches {_by_power(power):.3f}" for power in (-2, -6))
    return f"It reaches {accuracy:.3f}; {rivals}."


@cache
def _by_power(alpha: float) -> float:
    """Return the accuracy of Algorithm 2 on the camps after 20 rounds."""
    options: dict[str, Any] = {"batch_size": 64, "lr": 1.0, "observe_every": 0}
    found = []
    for task in _camps():
        rule = SoftmaxDistance(task.predict, self_weight=0.3, alpha=alpha)
        result = gossip_learning(
            task, nx.complete_graph(16), 20, average=rule, evaluate_every=20, **options
        )
        found.append(result.evaluate_metrics_clientapp[20]["accuracy"])
    return float(np.mean(found))


@cache
def _camps() -> list[Task]:
    """Return the camps for each seed: half give the digits other names."""
    x, y = load_digits(return_X_y=True)
    tasks = [Task(x / 16, y, 16, partition="iid", holdout=0.2, seed=s) for s in SEEDS]
    for task in tasks:
        rows = task.parts.index[task.parts.starts[8] : task.parts.starts[16]]
        task.y[rows] = (task.y[rows] + 5) % 10
    return tasks


@checks("07.2")
def _(fair: Any) -> None:
    made = callable(fair) and hasattr(fair, "hear") and not isinstance(fair, type)
    need(made, "Give an object with hear and __call__, such as Fair().")
    rng = np.random.default_rng(0)
    contexts = {
        i: Context(0, 0, {"partition-id": i, "num-partitions": 10}, RecordDict(), {})
        for i in (0, 1)
    }
    counts = {i: dict.fromkeys(range(2, 10), 0) for i in contexts}
    model = [np.zeros(2)]
    for server_round in range(1, 15):
        for i, heard in counts.items():
            size = 8 if server_round % 3 else 5
            candidates = rng.permutation(range(2, 10))[:size].tolist()
            given = [*candidates]
            chosen = [int(j) for j in fair(given, server_round, contexts[i])]
            need(len({*chosen}) == 2, "It takes two of the candidates.")
            need({*chosen} <= {*candidates}, "It takes candidates only.")
            least = sorted(heard[j] for j in candidates)[:2]
            hint = "It takes those whom this client has heard least often so far."
            need(sorted(heard[j] for j in chosen) == least, hint)
            # Each client loses the other one's model in every fourth round.
            came = chosen[:1] if (server_round + i) % 4 == 0 else chosen
            now = RoundContext(contexts[i], server_round, senders=came)
            fair.hear(model, [model] * len(came), now)
            contexts[i].state = now.state
            for j in came:
                heard[j] += 1


#: The table of 07.3.
SIX = [[8, 1, 0], [7, 0, 2], [0, 9, 1], [1, 6, 0], [0, 2, 5], [3, 0, 8]]


@checks("07.3")
def _(clique: list[int]) -> str:
    members = {int(i) for i in clique}
    hint = "Give three clients of 0 to 5, and client 0 is one of them."
    need(len(members) == len(clique) == 3 and members <= {*range(6)}, hint)
    need(0 in members, hint)
    shares = shares_of(np.array(SIX))

    def both(one: set[int]) -> float:
        return skew(shares, [*one]) + skew(shares, [*({*range(6)} - one)])

    best = min(both({0, *two}) for two in combinations(range(1, 6), 2))
    found = both(members)
    need(
        found < best + 1e-9,
        f"The sum of the skews is {found:.3f}. There is a better way.",
    )
    ends = [d_cliques(np.array(SIX), 3, seed=s).graph["cliques"][0] for s in range(20)]
    hits = sum(both({*end}) < best + 1e-9 for end in ends)
    told = f"The sum of the skews is {best:.3f}"
    return f"{told}; greedy swaps end there in {hits} of 20 tries."


@checks("07.4")
def _(for_one: float, for_five: float) -> str:
    need_number(for_one)
    need_number(for_five)
    need(for_one > 0, "ε is above 0.")
    q = np.exp(-for_one)
    spread = np.sqrt(2 * q) / (1 - q)
    need(
        abs(for_one - np.log(2)) < 0.006,
        f"Then the standard deviation is {spread:.2f}.",
    )
    hint = "Each time spends as much as the first. Add up."
    need(abs(for_five - 5 * for_one) < 0.04, hint)
    return "It is ln 2: then q = 1/2, and each step away from 0 is half as probable."


@predicts(
    "07.5",
    "better",
    "worse",
    "The camps: how many friends has a client?",
    "The uneven digits: what is wrong with those who are alike, and are ten all alike?",
    same=0.03,
    told="Accuracy with ten: {0:+.3f} on the camps, {1:+.3f} on the uneven digits.",
)
def _() -> list[float]:
    """Return what accuracy gains by hearing ten, on camps and on uneven digits."""
    uneven = [digits(16, alpha=0.1, holdout=0.2, seed=seed) for seed in SEEDS]
    changes = []
    for tasks, common in ((_camps(), False), (uneven, True)):
        four, ten = ([_play(task, k, common) for task in tasks] for k in (4, 10))
        changes.append(float(np.mean(ten) - np.mean(four)))
    return changes


def _play(task: Task, k: int, common: bool) -> float:
    """Return the accuracy after 25 rounds with k neighbours by likeness."""
    discover, rounds = LikeModels(k, seed=task.seed), 25
    app = gossip(task.client_app(batch_size=64, lr=1.0), discover=discover)
    strategy = Gossip(
        nx.complete_graph(16), discover_every=1, evaluate_every=rounds, observe_every=0
    )
    grid, look = LocalGrid(app, 16), task.evaluate_fn if common else None
    arrays = task.initial_arrays()
    result = strategy.start(grid, arrays, rounds, evaluate_fn=look)
    metrics: Any = result.evaluate_metrics_clientapp
    if common:
        metrics = result.evaluate_metrics_serverapp
    return float(metrics[rounds]["accuracy"])
