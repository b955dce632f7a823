"""Checks of the exercises of notebook 05: the server."""

from collections.abc import Iterable
from typing import Any

import networkx as nx
import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from gossiplib.classroom.checking import Function, checks, need, predicts
from gossiplib.classroom.exercises.runs import compare_runs
from gossiplib.core import mixing, topology
from gossiplib.core.client import gossip
from gossiplib.core.grid import LocalGrid

#: Of one round: who trained; and whom each that averaged heard, and by which weights.
Calls = tuple[list[int], dict[int, dict[int, float]]]


class Listening(LocalGrid):
    """Sixteen clients that learn nothing, and what they are called for."""

    def __init__(self) -> None:
        app = ClientApp()

        @app.train()
        def train(message: Message, context: Context) -> Message:
            arrays = {"arrays": message.content["arrays"]}
            return Message(RecordDict(arrays), reply_to=message)

        super().__init__(gossip(app), 16)
        self.trained: list[int] = []
        self.averaged: dict[int, dict[int, float]] = {}

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Note who is called for what, and call them."""
        messages, nodes = list(messages), self.get_node_ids()
        for message in messages:
            client = nodes.index(message.metadata.dst_node_id)
            if message.metadata.message_type == "train":
                self.trained.append(client)
            elif message.metadata.message_type == "train.average":
                told: dict[str, Any] = {**message.content.config_records["gossip"]}
                senders, weights = told["senders"], told["weights"]
                need(
                    len(weights) == 1 + len(senders) and abs(sum(weights) - 1) < 1e-6,
                    "The weights of each client are its own and the senders': their "
                    "sum is 1.",
                )
                self.averaged[client] = dict(zip(senders, weights[1:], strict=True))
        return super().send_and_receive(messages, timeout=timeout)


def _rounds(gossip_round: Function, num_rounds: int) -> list[Calls]:
    """Let a student's server go through rounds; return what it called."""
    graph = topology.named("regular", 16, seed=0)
    grid, W, first = Listening(), mixing.metropolis(graph), ArrayRecord([np.zeros(1)])
    heard = {i: topology.senders(graph, i) for i in graph}
    for i, node in enumerate(grid.get_node_ids()):
        offer = ConfigRecord({"candidates": heard[i], "server-round": 1})
        for call in ("query.join", "query.discover"):
            grid.send_and_receive([Message(RecordDict({"gossip": offer}), node, call)])
    found = []
    for t in range(1, num_rounds + 1):
        grid.trained, grid.averaged = [], {}
        before = {i: list(near) for i, near in heard.items()}
        try:
            gossip_round(grid, heard, W, t, first)
        except KeyError as error:
            hint = "A model was asked for that did not come: hear those that trained."
            raise AssertionError(hint) from error
        need(before == heard, "Do not change `heard`: each round begins with it.")
        need(len(set(grid.trained)) == len(grid.trained), "Call each client once.")
        _check_heard(graph, W, grid.averaged)
        found.append((sorted(grid.trained), grid.averaged))
    return found


def _check_heard(
    graph: nx.Graph, W: np.ndarray, averaged: dict[int, dict[int, float]]
) -> None:
    for i, given in averaged.items():
        need(set(given) <= set(graph[i]), "A client averages with those that it hears.")
        kept = all(abs(w - W[i, j]) < 1e-6 for j, w in given.items())
        need(kept, "A neighbour that is heard has its weight of W, no more.")


@checks("05.1")
def _(lossy_round: Function) -> None:
    found = _rounds(lossy_round, 80)
    for trained, _ in found:
        need(trained == list(range(16)), "All clients train in each round.")
    lost = [
        64 - sum(len(given) for given in averaged.values()) for _, averaged in found
    ]
    need(any(lost), "No message was lost.")
    alone = mixed = hit = 0
    patterns = {str({i: sorted(a.get(i, {})) for i in range(16)}) for _, a in found}
    need(len(patterns) > 60, "Which messages are lost is drawn afresh in each round.")
    graph = topology.named("regular", 16, seed=0)
    for _, averaged in found:
        gone = {(i, j) for i in graph for j in graph[i] if j not in averaged.get(i, {})}
        alone += sum((j, i) not in gone for i, j in gone)
        mixed += sum(0 < len(averaged.get(i, {})) < 4 for i in graph)
        hit += len({i for i, _ in gone})
    by_itself = 2 * alone > sum(lost) and 2 * mixed > hit
    need(
        by_itself,
        "Each message is lost by itself: others of a client, or back, arrive.",
    )
    share = sum(lost) / (64 * len(found))
    need(0.08 < share < 0.12, f"Of all messages, a share of {share:.2f} was lost.")


@checks("05.2")
def _(half_round: Function) -> None:
    found = _rounds(half_round, 30)
    for trained, averaged in found:
        need(len(trained) == 8, f"In a round, {len(trained)} of 16 clients trained.")
        need(set(averaged) <= set(trained), "Who does not train is not called at all.")
        for i, given in averaged.items():
            away = set(given) - set(trained)
            need(not away, "A model came from a client that did not train.")
            near = set(topology.named("regular", 16, seed=0)[i]) & set(trained)
            need(set(given) == near, "Of those that train, neighbours hear each other.")
    need(len({str(t) for t, _ in found}) > 20, "Another half is drawn in each round.")
    need(any(averaged for _, averaged in found), "Nobody averaged.")


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
    told="Distance: {0:+.0%} with two epochs, {1:+.0%} with digits spread evenly.",
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
