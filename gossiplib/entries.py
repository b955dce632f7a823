"""Four entries for the project of notebook 13: where to start, and three references.

Each adds one idea to the one before. Each is complete in itself, as `project.score`
runs nothing but its source; the imports here stand for `project.NAMES`.
"""

import networkx as nx
import numpy as np

from gossiplib import robust, topology
from gossiplib.project import Plan

__all__ = ["REFERENCES", "at_home", "brief", "start", "wary"]


def start(network):
    """Gossip as in notebook 05: a ring, whole models, the weighted mean."""
    ring = topology.named("ring", network.num_clients)
    return Plan(ring, num_rounds=20)


def at_home(network):
    """Learn more between two messages, as they are dear."""
    ring = topology.named("ring", network.num_clients)
    return Plan(ring, num_rounds=20, epochs=8)


def wary(network):
    """Trust nobody (notebook 09): the median, among six neighbours."""
    graph = nx.random_regular_graph(6, network.num_clients, seed=1)
    return Plan(graph, num_rounds=20, average=robust.coordinate_median, epochs=8)


def brief(network):
    """Say a number in one byte (notebook 08), to ten neighbours; then the median."""

    class Bytes:
        def send(self, model, turn):
            first = np.ndim(turn.node_config["partition-id"])  # 1 axis if many clients
            most = [np.abs(a).max(axis=tuple(range(first, a.ndim))) for a in model]
            unit = np.max(most, axis=0) / 127
            return [unit, *(np.rint(a.T / unit).T.astype(np.int8) for a in model)]

        def __call__(self, own, neighbours, weights, turn):
            heard = [[(a.T * unit).T for a in said] for unit, *said in neighbours]
            return robust.coordinate_median(own, heard)

    graph = nx.random_regular_graph(10, network.num_clients, seed=1)
    return Plan(graph, num_rounds=20, average=Bytes(), epochs=8)


#: By growing skill.
REFERENCES = (start, at_home, wary, brief)
