"""Checks of the exercises of notebook 00: the idea."""

from typing import Any

import networkx as nx

from gossiplib.classroom.checking import (
    checks,
    need,
    need_clients,
    need_number,
    predicts,
)
from gossiplib.classroom.exercises.runs import accuracies
from gossiplib.core import topology
from gossiplib.tasks.task import digits


@checks("00.1")
def _(number: int) -> None:
    need_number(number)
    need(number == int(number), "Give a whole number of clients.")
    graph = topology.named("regular", 16, seed=0)
    near = nx.single_source_shortest_path_length(graph, 0, cutoff=2)
    need(number <= 16, "There are 16 clients. Do you count some of them twice?")
    need(number <= len(near), "Not all of these are that near to client 0.")
    need(number >= len(near), "Client 0, its neighbours, and theirs: are all counted?")


@checks("00.2")
def _(result: Any) -> None:
    need(hasattr(result, "node_arrays"), "Give what run(...) returns.")
    need_clients(result, 16)
    need(len(result.messages) == 20, "Keep to 20 rounds.")
    sent = max(result.messages.values())
    need(sent <= 48, f"A round costs {sent} messages; 48 are allowed.")
    table = result.to_pandas()
    need("server_accuracy" in table, "Use run(...), which measures the accuracy.")
    last = table.query("round == 20")["server_accuracy"].mean()
    need(last > 0.85, f"The mean accuracy is {last:.3f}: does news travel fast?")


def _more_digits(number: float) -> None:
    need_number(number)
    uneven, even = (
        (digits(16, seed=0, **data).label_counts() > 0).sum(axis=1).mean()
        for data in ({"alpha": 0.3}, {"partition": "iid"})
    )
    hint = "The reason: count the digits of each client in task.label_counts(), twice."
    need(abs(number - (even - uneven)) < 0.05, hint)


@predicts(
    "00.3",
    "larger",
    "smaller",
    "Alone: which digits does a client see now?",
    "Gossip: what can neighbours still add?",
    same=0.02,
    reason=_more_digits,
    told="Accuracy alone: {0:+.2f}. What gossip adds: {1:+.2f}.",
)
def _() -> list[float]:
    """Return how the accuracy alone changes, and what gossip adds to it."""
    graph = topology.named("regular", 16, seed=0)

    def alone_and_added(**data: Any) -> tuple[float, float]:
        alone = accuracies(lambda server_round: nx.empty_graph(16), 20, data).mean()
        return alone, accuracies(graph, 20, data).mean() - alone

    alike, uneven = alone_and_added(partition="iid"), alone_and_added(alpha=0.3)
    return [now - before for now, before in zip(alike, uneven, strict=True)]
