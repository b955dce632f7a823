"""Checks of the exercises of notebook 01: with a server, and without."""

from typing import Any

import networkx as nx
import numpy as np

from gossiplib.classroom.checking import (
    Function,
    checks,
    need,
    need_number,
    predicts,
)
from gossiplib.classroom.exercises.runs import accuracies
from gossiplib.core import topology


@checks("01.1")
def _(bytes_through_server: Any, model_bytes: int, clients: int, rounds: int) -> None:
    need(not isinstance(bytes_through_server, str), "Write it as Python, with size.")
    ways = bytes_through_server / (model_bytes * clients * rounds)
    need(0.4 < ways < 5, "Did you count every client and every round, in bytes?")
    need(abs(ways - 2) < 0.01, "Which way do models travel in a round?")


@checks("01.2")
def _(strategy: Any, result: Any) -> None:
    is_one = hasattr(strategy, "fraction_train")
    need(is_one, "Give the FedAvg(...) that you ran, then its result.")
    few = 0 < strategy.fraction_train <= 0.5
    need(few, "Let at most half of the clients train in a round.")
    metrics = getattr(result, "evaluate_metrics_serverapp", {})
    need(metrics, "Run it with evaluate_fn=task.evaluate_fn.")
    last = sorted(metrics)[-5:]  # one round alone depends on whom chance has drawn
    accuracy = np.mean([metrics[t]["accuracy"] for t in last])
    need(accuracy > 0.93, f"The accuracy is {accuracy:.3f}: are there enough rounds?")


@checks("01.3")
def _(busiest_bytes: Function) -> None:
    for name in ("ring", "star", "path", "random"):
        graph = topology.named(name, 9, seed=3)
        models = busiest_bytes(graph.copy(), 100) / 100
        degree = max(degree for _, degree in graph.degree)
        links = graph.number_of_edges()
        need(models <= 2 * links, "No client sends more than all clients together.")
        both = models != degree or not nx.is_regular(graph)
        need(both, "A client receives, and it sends.")
        need(abs(models - 2 * degree) < 1e-9, "Who has the most neighbours?")


def _parts(number: int) -> None:
    need_number(number)
    left = topology.named("star", 16)
    left.remove_node(0)
    parts = nx.number_connected_components(left)
    need(
        number == parts, "The reason: take client 0 out of the drawing, and its lines."
    )


@predicts(
    "01.4",
    "higher",
    "lower",
    "Client 0: whom can the others still hear?",
    "Client 1: who heard it, and how much did it count?",
    same=0.02,
    reason=_parts,
    told="Accuracy of the others: {0:+.3f} without client 0, {1:+.3f} without 1.",
)
def _() -> list[float]:
    """Return how the others' accuracy on a star changes without client 0, or 1."""
    star = topology.named("star", 16)

    def without(client: int) -> topology.Schedule:
        left = star.copy()
        left.remove_edges_from(list(star.edges(client)))
        return lambda server_round: left if server_round > 10 else star

    data = {"alpha": 0.3}
    before = accuracies(star, 30, data)
    changes = [accuracies(without(client), 30, data) - before for client in (0, 1)]
    return [np.delete(changes[client], client, axis=1).mean() for client in (0, 1)]
