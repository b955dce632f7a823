"""Checks of the exercises of notebook 05: the server."""

from typing import Any

import numpy as np

from gossiplib.classroom.checking import Function, checks, need, need_clients, predicts
from gossiplib.classroom.exercises.runs import compare_runs
from gossiplib.core import mixing, topology


@checks("05.1")
def _(models: int) -> None:
    need(models == int(models), "Give a whole number of models.")
    need(models != 4000, "These go out. What comes in?")
    need(models != 2000, "That is what FedAvg needs.")
    need(models == 1000 + 4000, "Count what comes in, and what goes out.")


@checks("05.2")
def _(result: Any) -> None:
    need_clients(result, 16)
    trained = [len(clients) for clients in result.node_train_metrics.values()]
    need(len(trained) >= 20, "Let it run for 20 rounds or more.")
    need(not result.lost, "Calls were lost: an offline client is not to be called.")
    share = sum(trained) / (16 * len(trained))
    need(0.6 < share < 0.8, f"The share of clients online is {share:.2f}.")


@checks("05.3")
def _(schedule: Function) -> None:
    product, links = np.eye(16), []
    for t in range(1, 21):
        graph = topology.at(schedule, t)
        topology.check_graph(graph, 16, connected=False)
        links.append(max(len(topology.senders(graph, i)) for i in graph))
        product = mixing.metropolis(graph) @ product
    need(max(links) <= 2, "A client may hear at most two others in a round.")
    spread = np.linalg.norm(product - 1 / 16, 2)
    ring = mixing.slem(mixing.metropolis(topology.named("ring", 16))) ** 20
    need(spread < ring / 10, "It should come ten times nearer than a ring does.")


@predicts(
    "05.4",
    "larger",
    "smaller",
    "With two epochs: how far does training pull models apart?",
    "With clients alike: how far does training pull models apart?",
    same=0.05,
)
def _() -> list[float]:
    """Return by which share two epochs, or clients alike, widen the distance."""
    graph = topology.named("regular", 16, seed=0)

    def distances(epochs: int = 1, **data: Any) -> np.ndarray:
        runs = compare_runs(graph, 20, data, epochs=epochs)
        return np.array([run.consensus_distance[20] for run in runs])

    usual = distances(alpha=0.3)
    others = (distances(epochs=2, alpha=0.3), distances(partition="iid"))
    return [(other / usual).mean() - 1 for other in others]
