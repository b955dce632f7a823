"""Checks of the exercises of notebooks 00 to 02: the idea and the graph."""

from collections.abc import Callable
from typing import Any

import networkx as nx
import numpy as np

from gossiplib import mixing, topology
from gossiplib.exercises import checks, need, need_clients


def _sample_graphs() -> list[nx.Graph]:
    return [topology.named(name, 9, seed=3) for name in ("star", "path", "random")]


@checks("00.1")
def _(result: Any) -> None:
    need_clients(result, 16)
    need(len(result.messages) == 20, "Keep to 20 rounds.")
    sent = max(result.messages.values())
    need(sent <= 48, f"A round costs {sent} messages; 48 are allowed.")
    table = result.to_pandas()
    need("server_accuracy" in table, "Use run(...), which measures the accuracy.")
    last = table.query("round == 20")["server_accuracy"].mean()
    need(last > 0.85, f"The mean accuracy is {last:.3f}: does news travel fast?")


@checks("01.1")
def _(bytes_through_server: Any, model_bytes: int, clients: int, rounds: int) -> None:
    ways = bytes_through_server / (model_bytes * clients * rounds)
    need(0.4 < ways < 5, "Did you count every client and every round, in bytes?")
    need(abs(ways - 2) < 0.01, "Which way do models travel in a round?")


@checks("01.2")
def _(strategy: Any, result: Any) -> None:
    share = getattr(strategy, "fraction_train", None)
    need(share is not None, "Give the FedAvg(...) that you ran, then its result.")
    need(0 < share <= 0.5, "Let at most half of the clients train in a round.")
    metrics = getattr(result, "evaluate_metrics_serverapp", None)
    need(bool(metrics), "Run it with evaluate_fn=task.evaluate_fn.")
    accuracy = metrics[max(metrics)]["accuracy"]
    need(accuracy > 0.93, f"The accuracy is {accuracy:.3f}: are there enough rounds?")


@checks("02.1")
def _(weights: Callable[[nx.Graph], np.ndarray]) -> None:
    for graph in _sample_graphs():
        n = len(graph)
        W = np.asarray(weights(graph))
        need(W.shape == (n, n), "W has one row and one column for each client.")
        need(np.allclose(W.sum(axis=1), 1), "The weights of a client must sum to 1.")
        need(np.allclose(W, W.T), "i must weigh j as j weighs i.")
        need((np.diag(W) >= 0.5 - 1e-12).all(), "A lazy client keeps half or more.")
        off = W - np.diag(np.diag(W))
        need((off >= 0).all(), "Weights must not be negative here.")
        linked = nx.to_numpy_array(graph, nodelist=range(n)) > 0
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
    n = int(n)
    need(rounds(n) > 1000, "A ring of this size is there within 1000 rounds.")
    need(rounds(n - 1) <= 1000, "A smaller ring takes more than 1000 rounds already.")
