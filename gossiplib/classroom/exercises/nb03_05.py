"""Checks of the exercises of notebooks 03 to 05: averaging, the client, the server."""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
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
from gossiplib.core import averaging, mixing, topology


@checks("03.1")
def _(rounds: int, rate: float) -> None:
    need(rounds == int(rounds), "Give a whole number of rounds.")
    need(rate**rounds <= 1e-3, "Theory does not promise it so early.")
    need(rate ** (rounds - 1) > 1e-3, "Theory promises it earlier.")


@checks("03.2")
def _(start: np.ndarray) -> None:
    x = np.asarray(start, dtype=float)
    need(x.shape == (15,), "Give 15 numbers, one a client.")
    need(np.ptp(x) > 1e-6, "The numbers must not all be equal.")
    x = x - x.mean()
    after = mixing.metropolis(topology.named("ring", 15)) @ x
    left = np.linalg.norm(after) / np.linalg.norm(x)
    need(left < 1e-9, f"A round leaves {left:.2g} of the distance. What do three hold?")


@checks("03.3")
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


@checks("03.4")
def _(first: str, later: str) -> None:
    need_words((first, later), "more", "less", "same")
    found = _taken_by_meetings_on_a_ring(50, 200)
    for name, answer, share, hint in (
        ("first", first, found[0], "Two fresh numbers: does it matter who has them?"),
        ("later", later, found[1], "How far apart are neighbours by then?"),
    ):
        more = share - 1 / 49  # the complete graph: the same share from any start
        need(
            answer == word_for(more, "more", "less", same=1e-3),
            f"The {name} meeting: {hint}",
        )


def _taken_by_meetings_on_a_ring(n: int, meetings: int) -> tuple[float, float]:
    """Return which share of the variance the first and a later meeting take away.

    The mean over all pairs of neighbours that may meet, and over many starts.
    """
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, n))
    rows = np.arange(len(x))

    def share() -> float:
        apart = ((x - np.roll(x, 1, axis=1)) ** 2).mean(axis=1)
        return float((apart / (2 * n * x.var(axis=1))).mean())

    first = share()
    for _ in range(meetings):
        i = rng.integers(n, size=len(x))
        j = (i + 1) % n
        x[rows, i] = x[rows, j] = (x[rows, i] + x[rows, j]) / 2
    return first, share()


@checks("04.1")
def _(weights: np.ndarray) -> None:
    w = np.asarray(weights, dtype=float)
    need(w.shape == (3,), "Give three weights: the own, then those of the neighbours.")
    need(abs(w.sum() - 1) < 1e-6, "The weights of a client must sum to 1.")
    need(abs(w[0] - 0.4) < 1e-6, "The own weight comes first, and is given.")
    need(w[1] > w[2], "Whom does a client hear more with an α below 0?")
    need(np.allclose(w, [0.4, 0.45, 0.15], atol=1e-3), "Which powers? See the formula.")


@checks("04.3")
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


@checks("04.4")
def _(fours: int, copy: str) -> None:
    need(fours in (1, 2), "The first answer is 1 or 2, a client.")
    need(copy in ("all", "half", "none"), 'The second is "all", "half" or "none".')
    on_fours, with_copy = _weights_of_client_0()
    more = 1 + int(np.argmax(on_fours[1:]))
    need(fours == more, "Whose model knows the fours? Whom does this α hear?")
    share = with_copy[1] / with_copy[1:].sum()
    found = "all" if share > 0.99 else "none" if share < 0.01 else "half"
    need(copy == found, "How far is a copy from the model? What is its power?")


def _weights_of_client_0() -> tuple[np.ndarray, np.ndarray]:
    """Return client 0's weights in notebook 04, α = -1: on fours, and with a copy."""
    from flwr.app import ConfigRecord, Message, RecordDict

    from gossiplib.core.grid import LocalGrid
    from gossiplib.tasks.task import digits

    task = digits(num_clients=16, alpha=0.3, seed=0)
    grid = LocalGrid(task.client_app(epochs=5), num_nodes=16)
    config = ConfigRecord({"server-round": 1})
    first = {"arrays": task.initial_arrays(), "config": config}
    calls = [
        Message(RecordDict(first), node, "train") for node in grid.get_node_ids()[:3]
    ]
    context = SimpleNamespace(node_config={"partition-id": 0})
    outputs = [
        task.predict(reply.content["arrays"].to_numpy_ndarrays(), context)
        for reply in grid.send_and_receive(calls)
    ]
    weigh = partial(averaging.softmax_distance_weights, self_weight=0.5, alpha=-1)
    is_four = task.part(0, "validation")[1].numpy() == 4
    own, *others = (output[is_four] for output in outputs)
    return weigh(own, others), weigh(outputs[0], [outputs[0], outputs[1]])


@checks("05.1")
def _(models: int) -> None:
    need(models == int(models), "Give a whole number of models.")
    need(models != 4000, "These go out. What comes in?")
    need(models != 2000, "That is what FedAvg needs.")
    need(models == 1000 + 4000, "Count what comes in, and what goes out.")


@checks("05.2")
def _(result: Any) -> None:
    need_clients(result, 16)
    trained = [len(clients) for clients in result.node_train_metrics.values()]
    need(len(trained) >= 20, "Let it run for 20 rounds or more.")
    need(not result.lost, "Calls were lost: an offline client is not to be called.")
    share = sum(trained) / (16 * len(trained))
    need(0.6 < share < 0.8, f"The share of clients online is {share:.2f}.")


@checks("05.3")
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


@checks("05.4")
def _(two_epochs: str, alike: str) -> None:
    from gossiplib.tasks.task import digits
    from gossiplib.vectorized.engine import gossip_learning

    need_words((two_epochs, alike), "larger", "smaller", "same")
    graph = topology.named("regular", 16, seed=0)

    def distance(seed: int, epochs: int = 1, **data: Any) -> float:
        task = digits(16, seed=seed, **data)
        options = {"epochs": epochs, "evaluate_every": 0, "observe_every": 20}
        return gossip_learning(task, graph, 20, **options).consensus_distance[20]

    runs = {
        "two epochs": (two_epochs, {"epochs": 2, "alpha": 0.3}),
        "clients alike": (alike, {"partition": "iid"}),
    }
    for name, (answer, setting) in runs.items():
        ratio = np.mean(
            [distance(s, **setting) / distance(s, alpha=0.3) for s in (0, 1)]
        )
        found = word_for(ratio - 1, "larger", "smaller", same=0.05)
        need(answer == found, f"With {name}: how far does training pull models apart?")
