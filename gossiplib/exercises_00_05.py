"""Checks of the exercises of notebooks 00 to 05: the prototype."""

from collections.abc import Callable
from typing import Any

import networkx as nx
import numpy as np

from gossiplib import mixing, topology
from gossiplib.exercises import checks, need


def _sample_graphs() -> list[nx.Graph]:
    return [topology.named(name, 9, seed=3) for name in ("star", "path", "random")]


def _need_clients(result: Any, n: int) -> None:
    models = getattr(result, "node_arrays", None)
    need(models is not None, "Give what Gossip(...).start(...) returns.")
    need(len(models) == n, f"Run it with all {n} clients.")


@checks("00.1")
def _(result: Any) -> None:
    _need_clients(result, 16)
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


@checks("03.1")
def _(rounds: int, rate: float) -> None:
    need(rounds == int(rounds), "Give a whole number of rounds.")
    need(rate**rounds <= 1e-3, "Theory does not promise it so early.")
    need(rate ** (rounds - 1) > 1e-3, "Theory promises it earlier.")


@checks("03.2")
def _(matrices: list[np.ndarray]) -> None:
    product = np.eye(12)
    for W in map(np.asarray, matrices):
        need(W.shape == (12, 12), "Each W is for 12 clients.")
        need(np.allclose(W.sum(axis=1), 1), "The weights of a client must sum to 1.")
        need((W >= 0).all(), "Weights must not be negative here.")
        heard = ((W != 0) & ~np.eye(12, dtype=bool)).sum(axis=1)
        need((heard <= 2).all(), "A client may hear at most two others in a round.")
        product = W @ product
    need(len(matrices) <= 4, "Four rounds are enough.")
    error = np.abs(product - 1 / 12).max()
    need(error < 1e-9, f"The largest error after the last round is {error:.2g}.")


@checks("04.1")
def _(average: Callable) -> None:
    rng = np.random.default_rng(0)
    own = [rng.normal(size=(2, 3)), rng.normal(size=3)]
    near = [[a + 0.1 * rng.normal(size=a.shape) for a in own] for _ in range(2)]
    far = [own[0] + 0.01, own[1] + [20, -20, 0]]  # far in one array, by no sum
    expected = [np.mean(layer, axis=0) for layer in zip(own, *near, strict=True)]
    weights = np.array([0.4, 0.3, 0.2, 0.1])
    for place in range(3):
        neighbours = [*near[:place], far, *near[place:]]
        mixed = average(own, neighbours, weights, None)
        need(len(neighbours) == 3, "Do not change the list that you are given.")
        need(len(mixed) == 2, "Return a list with the arrays of a model.")
        need(mixed[0].shape == (2, 3), "Keep the shapes of the arrays.")
        worst = max(np.abs(m - a).max() for m, a in zip(mixed, own, strict=True))
        need(worst < 1, "The farthest neighbour, over all arrays, still has a say.")
        need(
            all(np.allclose(m, e) for m, e in zip(mixed, expected, strict=True)),
            "All that remain, and the own model, must weigh alike.",
        )
    for few in ([], [far]):
        kept = average(own, few, np.full(1 + len(few), 1 / (1 + len(few))), None)
        need(
            all(np.allclose(k, a) for k, a in zip(kept, own, strict=True)),
            f"With {len(few)} neighbours, nothing but the own model remains.",
        )


@checks("04.2")
def _(discover: Callable) -> None:
    for client in (0, 8, 20):
        context = type("Context", (), {"node_config": {"partition-id": client}})
        for candidates in ([], [5], [30, 2, 11, 7, 9]):
            chosen = list(discover(list(candidates), 13, context))
            need(set(chosen) <= set(candidates), "Choose among the candidates only.")
            need(len(chosen) == len(set(chosen)), "Choose each neighbour once.")
            need(len(chosen) == min(2, len(candidates)), "Choose two, if there are.")
            gaps = sorted(abs(j - client) for j in candidates)
            mine = sorted(abs(j - client) for j in chosen)
            need(mine == gaps[: len(mine)], "Choose those with the nearest numbers.")


@checks("05.1")
def _(result: Any) -> None:
    _need_clients(result, 16)
    trained = [len(clients) for clients in result.node_train_metrics.values()]
    need(len(trained) >= 20, "Let it run for 20 rounds or more.")
    need(not result.lost, "Calls were lost: an offline client is not to be called.")
    share = sum(trained) / (16 * len(trained))
    need(0.6 < share < 0.8, f"The share of clients online is {share:.2f}.")


@checks("05.2")
def _(schedule: Callable[[int], nx.Graph]) -> None:
    product = np.eye(16)
    links = []
    for t in range(1, 21):
        graph = topology.at(schedule, t)
        topology.check_graph(graph, 16, connected=False)
        links.append(max(len(topology.senders(graph, i)) for i in graph))
        product = mixing.metropolis(graph) @ product
    need(max(links) <= 2, "A client may hear at most two others in a round.")
    spread = np.linalg.norm(product - 1 / 16, 2)
    ring = mixing.slem(mixing.metropolis(topology.named("ring", 16))) ** 20
    need(spread < ring / 10, "It should come ten times nearer than a ring does.")
