"""The hostile network of the project: who lies, who is away, and where the bytes end.

All of it follows from one seed. `Wire` puts it between the clients of a plan and the
engine, as an average function and a schedule. `project` tells the rules.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import networkx as nx
import numpy as np
from flwr.app import ArrayRecord

from gossiplib import topology
from gossiplib.arrays import array_bytes
from gossiplib.averaging import Average, Model
from gossiplib.checkpoint import fingerprint
from gossiplib.task import Task, digits
from gossiplib.turn import Turn

__all__ = [
    "NETWORK",
    "EntryError",
    "Network",
    "Wire",
    "liars",
    "rough",
    "state_of",
    "task_of",
]

#: Seconds after which a run is given up: nothing may hang.
SECONDS = 120


class EntryError(ValueError):
    """What is wrong with an entry, in words for its author."""


@dataclass(frozen=True)
class Network:
    """What an entry is told of the network.

    Attributes
    ----------
    num_clients, num_liars : int
        Clients in all, and how many of them lie.
    budget : int
        Bytes that may reach clients in all rounds together.
    model_bytes : int
        Size of one whole model, as it is sent.
    lost_links, online : float
        Share of the links that a round loses, and of the clients that take part in it.
    """

    num_clients: int = 16
    num_liars: int = 2
    budget: int = 4_000_000
    model_bytes: int = 10_152
    lost_links: float = 0.1
    online: float = 0.95


NETWORK = Network()


def task_of(seed: int) -> Task:
    """Return the data of the network of a seed, a copy that nobody else holds."""
    # `digits` keeps what it made, and would give it to an entry that asks for the same.
    make = digits.__wrapped__
    return make(NETWORK.num_clients, alpha=0.5, hidden=32, holdout=0, seed=seed)


def liars(seed: int) -> np.ndarray:
    """Return who lies in the network of a seed."""
    rng = np.random.default_rng([seed, *b"liars"])
    return np.sort(rng.choice(NETWORK.num_clients, NETWORK.num_liars, replace=False))


def rough(schedule: topology.Schedule, seed: int) -> topology.Schedule:
    """Return a schedule with the lost links and absent clients of a seed."""
    lossy = topology.drop_links(schedule, NETWORK.lost_links, seed)
    return topology.churn(lossy, NETWORK.online, seed)


def state_of(task: Task) -> tuple:
    """Return a digest of all that an entry must leave as it is."""
    arrays = [a.numpy() for a in (task.x, task.y, *task.test)]
    return fingerprint(*arrays, *task.parts), task.seed, task.num_clients


class Wire:
    """What stands between the clients of a plan: lies, losses, and the count of bytes.

    It is the average function and the schedule that the engine sees.
    """

    def __init__(
        self, average: Average, schedule: topology.Schedule, seed: int
    ) -> None:
        self.average, self.liars = average, liars(seed)
        self.rough = rough(schedule, seed)
        self.message_bytes = 0
        self.messages: dict[int, int] = {}
        self.dark: int | None = None
        self.end = time.monotonic() + SECONDS

    def schedule(self, server_round: int) -> nx.Graph:
        """Return the round's links; none from the round on that would cost too much."""
        if time.monotonic() > self.end:
            raise EntryError(
                f"it took more than {SECONDS} s for one seed, by round {server_round}"
            )
        graph = self.rough(server_round)
        links = graph.number_of_edges() * (1 if graph.is_directed() else 2)
        self.messages[server_round] = links
        needed = sum(self.messages.values()) * self.message_bytes
        if self.dark is None and needed > NETWORK.budget:
            self.dark = server_round
        if self.dark is not None:
            graph = nx.create_empty_copy(graph)
            nx.set_node_attributes(graph, False, "online")
        return graph

    def send(self, model: Model, turn: Turn) -> Model:
        """Return what clients say: what the plan makes of their models, or of lies."""
        clients = np.asarray(turn.node_config["partition-id"])
        sign = np.where(np.isin(clients, self.liars), -1.0, 1.0)
        told = []
        for array in model:
            axes = (1,) * (array.ndim - clients.ndim)
            told.append((array * sign.reshape(sign.shape + axes)).astype(array.dtype))
        send = getattr(self.average, "send", None)
        said = told if send is None else send(told, turn)
        said = [np.asarray(array) for array in said]
        kinds = {array.dtype.kind for array in said}
        if not kinds <= set("biuf"):
            raise EntryError("a message is a list of arrays of numbers")
        if clients.ndim:
            one = ArrayRecord([np.asarray(array[0]) for array in said])
            self.message_bytes = max(self.message_bytes, array_bytes(one))
        return said

    def __call__(
        self, own: Model, neighbours: Sequence[Model], weights: np.ndarray, turn: Turn
    ) -> Model:
        """Average as the plan does."""
        return self.average(own, neighbours, weights, turn)
