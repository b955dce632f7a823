"""Checks of the exercises of notebooks 00 to 02: the idea and the graph."""

from collections.abc import Callable
from typing import Any

import networkx as nx
import numpy as np

from gossiplib.classroom.exercises.registry import (
    checks,
    need,
    need_clients,
    need_words,
    word_for,
)
from gossiplib.core import mixing, topology


def _sample_graphs() -> list[nx.Graph]:
    return [topology.named(name, 9, seed=3) for name in ("star", "path", "random")]


def _accuracies(
    seed: int, schedule: topology.Schedule, rounds: int, **data: Any
) -> np.ndarray:
    """Return the accuracy of each of 16 clients on digits, on the common test set."""
    from gossiplib.tasks.task import digits
    from gossiplib.vectorized.engine import gossip_learning

    task = digits(num_clients=16, seed=seed, **data)
    result = gossip_learning(
        task,
        schedule,
        rounds,
        evaluate_every=0,
        observe_every=rounds,
        evaluate_fn=task.evaluate_fn,
    )
    return result.to_pandas().query("round == @rounds")["server_accuracy"].to_numpy()


@checks("00.1")
def _(number: int) -> None:
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


@checks("00.3")
def _(accuracy_alone: str, added_by_gossip: str) -> None:
    need_words((accuracy_alone, added_by_gossip), "larger", "smaller", "same")
    graph = topology.named("regular", 16, seed=0)

    def alone_and_added(**data: Any) -> np.ndarray:
        alone, gossip = (
            np.mean([_accuracies(seed, schedule, 20, **data) for seed in (0, 1)])
            for schedule in (lambda server_round: nx.empty_graph(16), graph)
        )
        return np.array([alone, gossip - alone])

    change = alone_and_added(partition="iid") - alone_and_added(alpha=0.3)
    for answer, more, hint in (
        (accuracy_alone, change[0], "Alone: which digits does a client see now?"),
        (added_by_gossip, change[1], "Gossip: what can neighbours still add?"),
    ):
        need(answer == word_for(more, "larger", "smaller", same=0.02), hint)


@checks("01.1")
def _(bytes_through_server: Any, model_bytes: int, clients: int, rounds: int) -> None:
    need(not isinstance(bytes_through_server, str), "Write it as Python, with size.")
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
    last = sorted(metrics)[-5:]  # one round alone depends on whom chance has drawn
    accuracy = np.mean([metrics[t]["accuracy"] for t in last])
    need(accuracy > 0.93, f"The accuracy is {accuracy:.3f}: are there enough rounds?")


@checks("01.3")
def _(busiest_bytes: Callable[[nx.Graph, int], float]) -> None:
    for graph in [topology.named("ring", 9), *_sample_graphs()]:
        models = busiest_bytes(graph.copy(), 100) / 100
        degree = max(degree for _, degree in graph.degree)
        links = graph.number_of_edges()
        need(models <= 2 * links, "No client sends more than all clients together.")
        both = models != degree or not nx.is_regular(graph)
        need(both, "A client receives, and it sends.")
        need(abs(models - 2 * degree) < 1e-9, "Who has the most neighbours?")


@checks("01.4")
def _(middle_lost: str, another_lost: str) -> None:
    need_words((middle_lost, another_lost), "higher", "lower", "same")
    star = topology.named("star", 16)

    def without(client: int) -> Callable[[int], nx.Graph]:
        left = star.copy()
        left.remove_edges_from(list(star.edges(client)))
        return lambda server_round: left if server_round > 10 else star

    changes = np.zeros((2, 16))  # client 0 lost, client 1 lost
    for seed in (0, 1):
        before = _accuracies(seed, star, 30, alpha=0.3)
        for client in (0, 1):
            changes[client] += _accuracies(seed, without(client), 30, alpha=0.3)
            changes[client] -= before
    for answer, client, hint in (
        (middle_lost, 0, "Client 0: whom can the others still hear?"),
        (another_lost, 1, "Client 1: who heard it, and how much did it count?"),
    ):
        change = np.delete(changes[client], client).mean() / 2
        need(answer == word_for(change, "higher", "lower", same=0.02), hint)


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


@checks("02.4")
def _(ring_and_link: str, path_and_link: str) -> None:
    need_words((ring_and_link, path_and_link), "larger", "smaller", "same")
    for name, answer, link, hint in (
        ("ring", ring_and_link, (0, 8), "how do clients 0 and 8 weigh others now?"),
        ("path", path_and_link, (0, 15), "which graph is it now?"),
    ):
        graph = topology.named(name, 16)
        before = mixing.spectral_gap(mixing.metropolis(graph))
        graph.add_edge(*link)
        change = mixing.spectral_gap(mixing.metropolis(graph)) - before
        word = word_for(change, "larger", "smaller", same=1e-6)
        need(answer == word, f"The {name}: {hint}")
