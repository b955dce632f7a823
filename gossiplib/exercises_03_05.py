"""Checks of the exercises of notebooks 03 to 05: averaging, the client, the server."""

from collections.abc import Callable
from typing import Any

import networkx as nx
import numpy as np

from gossiplib import mixing, topology
from gossiplib.exercises import checks, need, need_clients


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
    need_clients(result, 16)
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
