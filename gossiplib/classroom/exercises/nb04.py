"""Checks of the exercises of notebook 04: the client."""

from functools import cache, partial

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict

from gossiplib.classroom.checking import Function, checks, close, need, untouched
from gossiplib.core.averaging import softmax_distance_weights
from gossiplib.core.grid import LocalGrid
from gossiplib.tasks.task import digits


@checks("04.1")
def _(mean: Function) -> None:
    rng = np.random.default_rng(0)
    for count in (3, 1, 0):
        own, *others = (
            [rng.normal(size=(2, 3)), rng.normal(size=3)] for _ in range(count + 1)
        )
        weights = rng.dirichlet(np.ones(count + 1))
        with untouched("models", own, others):
            mixed = mean(own, others, weights)
        need(isinstance(mixed, list | tuple), "Return a list of arrays, a model.")
        need(len(mixed) == 2, "A model has as many arrays as the own one.")
        shapes = [np.shape(array) for array in mixed]
        need(shapes == [(2, 3), (3,)], "Each array keeps its shape.")
        for k, array in enumerate(mixed):
            right = sum(w * m[k] for w, m in zip(weights, [own, *others], strict=True))
            hint = "The first weight is for the own model, then each neighbour has one."
            need(np.allclose(array, right), hint)


@checks("04.2")
def _(weights: np.ndarray) -> None:
    w = np.asarray(weights, dtype=float)
    need(w.shape == (3,), "Give three weights: the own, then those of the neighbours.")
    need(abs(w.sum() - 1) < 1e-6, "The weights of a client must sum to 1.")
    need(abs(w[0] - 0.4) < 1e-6, "The own weight comes first, and is given.")
    need(w[1] > w[2], "Whom does a client hear more with an α below 0?")
    need(np.allclose(w, [0.4, 0.45, 0.15], atol=1e-3), "Which powers? See the formula.")


@checks("04.3")
def _(discover: Function) -> None:
    for client in (0, 8, 20):
        node = {"partition-id": client, "num-partitions": 31}
        context = type("Context", (), {"node_config": node})
        for candidates in ([], [5], [30, 2, 11, 7, 9]):
            chosen = list(discover(list(candidates), 13, context))
            need(set(chosen) <= set(candidates), "Choose among the candidates only.")
            need(len(chosen) == len(set(chosen)), "Choose each neighbour once.")
            need(
                len(chosen) == min(2, len(candidates)), "Choose two, if there are two."
            )
            gaps = sorted(abs(j - client) for j in candidates)
            mine = sorted(abs(j - client) for j in chosen)
            need(mine == gaps[: len(mine)], "Choose those with the nearest numbers.")


@checks("04.4")
def _(average: Function) -> None:
    rng = np.random.default_rng(0)
    own = [rng.normal(size=(2, 3)), rng.normal(size=3)]
    near = [[a + 0.1 * rng.normal(size=a.shape) for a in own] for _ in range(2)]
    far = [own[0] + 0.01, own[1] + [20, -20, 0]]  # far in one array, by no sum
    expected = [np.mean(layer, axis=0) for layer in zip(own, *near, strict=True)]
    weights = np.array([0.4, 0.3, 0.2, 0.1])
    for place in range(3):
        neighbours = [*near[:place], far, *near[place:]]
        with untouched("list", neighbours):
            mixed = average(own, neighbours, weights, None)
        need(len(mixed) == 2, "Return a list with the arrays of a model.")
        need(mixed[0].shape == (2, 3), "Keep the shapes of the arrays.")
        worst = max(np.abs(m - a).max() for m, a in zip(mixed, own, strict=True))
        need(worst < 1, "The farthest neighbour, over all arrays, still has a say.")
        alike = close(mixed, expected)
        need(alike, "All that remain, and the own model, must weigh alike.")
    # Farther in one array, and nearer in all of them by the sum of distances.
    one, both = ([a.copy() for a in own] for _ in range(2))
    one[1][0] += 3
    both[0][0, 0] += 2
    both[1][0] += 2
    mixed = average(own, [one, both], np.full(3, 1 / 3), None)
    rest = [(a + b) / 2 for a, b in zip(own, both, strict=True)]
    need(close(mixed, rest), "Distance is Euclidean, over all numbers of a model.")
    for few in ([], [far]):
        kept = average(own, few, np.full(1 + len(few), 1 / (1 + len(few))), None)
        whom = "one neighbour" if few else "no neighbour"
        hint = f"With {whom}, nothing but the own model remains."
        need(close(kept, own), hint)


@checks("04.5")
def _(fours: int, copy: str) -> None:
    need(fours in (1, 2), "The first answer is 1 or 2, a client.")
    need(copy in ("all", "half", "none"), 'The second is "all", "half" or "none".')
    on_fours, with_copy = _weights_of_client_0()
    more = 1 + int(np.argmax(on_fours[1:]))
    need(fours == more, "Whose model knows the fours? Whom does this α hear?")
    share = with_copy[1] / with_copy[1:].sum()
    found = "all" if share > 0.99 else "none" if share < 0.01 else "half"
    need(copy == found, "How far is a copy from the model? What is its power?")


@cache
def _weights_of_client_0() -> tuple[np.ndarray, np.ndarray]:
    """Return client 0's weights in notebook 04, α = -1: on fours, and with a copy."""
    task = digits(num_clients=16, alpha=0.3, seed=0)
    grid = LocalGrid(task.client_app(epochs=5), num_nodes=16)
    first = RecordDict({"arrays": task.initial_arrays()})
    first["config"] = ConfigRecord({"server-round": 1})
    calls = [Message(first, node, "train") for node in grid.get_node_ids()[:3]]
    context = Context(0, 0, {"partition-id": 0}, RecordDict(), {})
    outputs = [
        task.predict(reply.content.array_records["arrays"].to_numpy_ndarrays(), context)
        for reply in grid.send_and_receive(calls)
    ]
    weigh = partial(softmax_distance_weights, self_weight=0.5, alpha=-1)
    is_four = task.part(0, "validation")[1].numpy() == 4
    own, *others = (output[is_four] for output in outputs)
    return weigh(own, others), weigh(outputs[0], [outputs[0], outputs[1]])
