"""Checks of the exercises of notebook 02: the graph."""

import networkx as nx
import numpy as np

from gossiplib.classroom.checking import (
    Function,
    checks,
    need,
    need_number,
    predicts,
)
from gossiplib.core import mixing, topology


@checks("02.1")
def _(weights: Function) -> None:
    for name in ("star", "path", "random"):
        graph = topology.named(name, 9, seed=3)
        W = np.asarray(weights(graph))
        need(W.shape == (9, 9), "W has one row and one column for each client.")
        need(np.allclose(W.sum(axis=1), 1), "The weights of a client must sum to 1.")
        need(np.allclose(W, W.T), "i must weigh j as j weighs i.")
        need((np.diag(W) >= 0.5 - 1e-12).all(), "A lazy client keeps half or more.")
        off = W - np.diag(np.diag(W))
        need((off >= 0).all(), "Weights must not be negative here.")
        linked = nx.to_numpy_array(graph, nodelist=range(9)) > 0
        need((off[linked] > 0).all(), "A client must hear all its neighbours.")
        need((off[~linked] == 0).all(), "A client hears its neighbours only.")


@checks("02.2")
def _(graph: nx.Graph) -> None:
    try:
        topology.check_graph(graph, 16)
    except (TypeError, ValueError) as error:
        raise AssertionError(f"Not a topology of 16 clients: {error}.") from error
    links = graph.number_of_edges()
    need(not graph.is_directed(), "Use an undirected graph.")
    need(links <= 24, f"It has {links} links; 24 are allowed.")
    gap = mixing.spectral_gap(mixing.metropolis(graph))
    need(gap > 0.15, f"Its gap is {gap:.3f}. Which clients are far from each other?")


@checks("02.3")
def _(n: int) -> None:
    def rounds(size: int) -> float:
        return mixing.rounds_to_consensus(mixing.metropolis(nx.cycle_graph(size)))

    need(n == int(n) and n > 2, "Give a whole number of clients, above 2.")
    need(rounds(int(n)) > 1000, "A ring of this size is there within 1000 rounds.")
    early = rounds(int(n) - 1) <= 1000
    need(early, "A smaller ring takes more than 1000 rounds already.")


def _weight(number: float) -> None:
    need_number(number)
    graph = topology.named("ring", 16)
    graph.add_edge(0, 8)
    weight = mixing.metropolis(graph)[0, 1]
    need(abs(number - weight) < 1e-3, "The reason: count client 0's neighbours again.")


@predicts(
    "02.4",
    "larger",
    "smaller",
    "The ring: how do clients 0 and 8 weigh others now?",
    "The path: which graph is it now?",
    same=1e-6,
    reason=_weight,
    told="Spectral gap: {0:+.4f} on the ring, {1:+.4f} on the path.",
)
def _() -> list[float]:
    """Return what a link adds to the gap of a ring, and of a path."""
    changes = []
    for name, link in (("ring", (0, 8)), ("path", (0, 15))):
        graph = topology.named(name, 16)
        before = mixing.spectral_gap(mixing.metropolis(graph))
        graph.add_edge(*link)
        changes.append(mixing.spectral_gap(mixing.metropolis(graph)) - before)
    return changes
