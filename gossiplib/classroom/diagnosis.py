"""The fault detective: a run of gossip in which one thing is broken.

Twelve clients learn digits, and one fault is hidden. What is broken, and where? A
diagnosis is compared by hashes, so no answer stands in the data. The run is plain
numpy, so that a fault can sit anywhere in it: in training, in what is said, in weights.
"""

import hashlib
from dataclasses import dataclass, field

import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import softmax

from gossiplib.core import mixing, topology
from gossiplib.system.numbers import rng as stream
from gossiplib.tasks.task import digits
from gossiplib.viz import drawings, plots

CLIENTS, ROUNDS = 12, 30

#: Kind of fault -> what is broken.
KINDS = {
    "liar": "the client sends minus its model to its neighbours",
    "labels": "the client has wrong labels: a 0 is called 1, a 1 is called 2, ...",
    "no training": "the client averages, but never trains",
    "frozen": "the client keeps and sends its first model for ever",
    "weights": "the weights of the client sum to less than 1",
    "lossy link": "most messages on a link are lost; name either end",
    "cut": "no message crosses between two parts; name a client of the smaller part",
}

#: Share of messages that any link loses.
LOSS = 0.05


@dataclass(frozen=True)
class Case:
    """A run with a fault: a table by round and client, and matrices of links."""

    seed: int
    graph: nx.Graph
    table: pd.DataFrame
    arrived: np.ndarray
    distance: np.ndarray
    _answers: frozenset[str] = field(repr=False)

    def check(self, kind: str | None, client: int | None) -> None:
        """Print whether this kind of fault is hidden at this client."""
        print(f"Case {self.seed}: {self.verdict(kind, client)}")

    def verdict(self, kind: str | None, client: int | None) -> str:
        """Return what `check` prints: "right!", or what is wrong."""
        if kind is None or client is None:
            return "no diagnosis yet."
        if kind not in KINDS:
            raise ValueError(f"no kind {kind!r}; there are {', '.join(KINDS)}")
        if client not in range(CLIENTS):
            raise ValueError(f"no client {client}; there are 0 to {CLIENTS - 1}")
        if _hash(self.seed, kind, client) in self._answers:
            return "right!"
        if _hash(self.seed, kind) in self._answers:
            return "not yet. The kind is right, the client is not."
        return "not yet. Something else is broken. What do the others show?"


def case(seed: int) -> Case:
    """Return what an observer sees of a run with the fault that belongs to a `seed`.

    `graph`: who should talk to whom. `table`: one row for each round and client, with
    "heard", the models that reached it; "step" and "shift", how far training and
    averaging moved its model (Euclidean distance); "norm", the model's length after the
    round; "own" and "test", its accuracy on its own training data and on the common
    test set. `arrived`: messages that client i heard from client j, shape (n, n).
    `distance`: the mean distance of these models from that of i, over its length; NaN
    where nothing arrived. `check` takes one of `KINDS`, and where.
    """
    rng = stream(seed, use="detective")
    name = rng.choice(["torus", "regular", "small-world"])
    graph = topology.named(str(name), CLIENTS, seed=seed)
    kind, culprits = _hide(graph, rng)
    answers = {_hash(seed, kind)} | {_hash(seed, kind, i) for i in culprits}
    return Case(seed, graph, *_run(graph, kind, culprits, rng), frozenset(answers))


def _hash(*diagnosis: object) -> str:
    return hashlib.sha256(repr(("gossiplib", *diagnosis)).encode()).hexdigest()


def _hide(graph: nx.Graph, rng: np.random.Generator) -> tuple[str, list[int]]:
    """Draw a kind of fault, and the clients that may be named for it."""
    kind = str(rng.choice(list(KINDS)))
    if kind == "lossy link":
        links = list(graph.edges)
        return kind, list(links[rng.integers(len(links))])
    if kind != "cut":
        return kind, [int(rng.integers(CLIENTS))]
    while True:  # a connected part of 3 to 5 clients that leaves a connected rest
        part = [int(rng.integers(CLIENTS))]
        size = int(rng.integers(3, 6))
        while len(part) < size:
            part.append(int(rng.choice(sorted(nx.node_boundary(graph, part)))))
        if nx.is_connected(graph.subgraph(set(graph) - set(part))):
            return kind, part


def _data(rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return x and y of each client, in an order by chance, and of the test set."""
    task = digits(CLIENTS, alpha=1.0, seed=0)
    parts = [task.part(int(i), "train") for i in rng.permutation(CLIENTS)]
    parts.append(task.test)
    return [(np.c_[x.numpy(), np.ones(len(x))], y.numpy()) for x, y in parts]


def _trained(model: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return a logistic regression, (features, classes), after a few steps."""
    labels = np.eye(10)[y]
    for _ in range(3):
        model = model - 0.5 * x.T @ (softmax(x @ model, axis=1) - labels) / len(y)
    return model


def _accuracy(models: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the accuracy of a model, or of each: (..., features, classes)."""
    return np.asarray(((x @ models).argmax(axis=-1) == y).mean(axis=-1))


def _length(models: np.ndarray) -> np.ndarray:
    return np.asarray(np.linalg.norm(models, axis=(-2, -1)))


def _run(
    graph: nx.Graph, kind: str, culprits: list[int], rng: np.random.Generator
) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Run the rounds; return table, arrived and distance of a `Case`."""
    *data, test = _data(rng)
    broken = culprits[0]
    if kind == "labels":
        x, y = data[broken]
        data[broken] = x, (y + 1) % 10
    W, loss = mixing.metropolis(graph), np.full((CLIENTS, CLIENTS), LOSS)
    inside = np.isin(np.arange(CLIENTS), culprits)
    if kind == "lossy link":
        loss[np.ix_(inside, inside)] = 0.7
    if kind == "cut":
        loss[inside[:, None] != inside] = 1
    models = np.repeat(rng.normal(0, 0.1, (1, 65, 10)), CLIENTS, axis=0)
    arrived, far, tables = np.zeros(W.shape), np.zeros(W.shape), []
    for t in range(1, ROUNDS + 1):
        trained = np.array([_trained(models[i], *data[i]) for i in range(CLIENTS)])
        if kind in ("no training", "frozen"):
            trained[broken] = models[broken]
        sent = trained.copy()
        if kind == "liar":
            sent[broken] *= -1
        here = (rng.random(W.shape) >= loss) & (W > 0)
        np.fill_diagonal(here, False)
        links = W * here  # what a lost message would weigh goes to the own model
        kept = 1 - links.sum(axis=1)
        mixed = np.tensordot(links, sent, 1) + kept[:, None, None] * trained
        if kind == "weights":
            mixed[broken] *= 0.8
        if kind == "frozen":
            mixed[broken] = models[broken]
        arrived += here
        far += here * _length(sent - trained[:, None]) / _length(trained)[:, None]
        seen = {"round": t, "client": range(CLIENTS), "heard": here.sum(axis=1)}
        seen |= {"step": _length(trained - models), "shift": _length(mixed - trained)}
        own = [float(_accuracy(mixed[i], *data[i])) for i in range(CLIENTS)]
        seen |= {"norm": _length(mixed), "own": own, "test": _accuracy(mixed, *test)}
        tables.append(pd.DataFrame(seen))
        models = mixed
    with np.errstate(invalid="ignore"):
        return pd.concat(tables, ignore_index=True), arrived.astype(int), far / arrived


def by_round(seen: Case) -> Figure:
    """Return maps of the table in `seen`, one a column: clients down, rounds across."""
    titles = {
        "test": "accuracy on the common test set",
        "own": "accuracy on its own training data",
        "step": "step: training moved it by",
        "shift": "shift: averaging moved it by",
        "norm": "length of its model",
        "heard": "models that reached it",
    }
    figure, axes = plt.subplots(2, 3, figsize=(11, 6), layout="constrained")
    for ax, (column, title) in zip(axes.flat, titles.items(), strict=True):
        values = seen.table.pivot(index="client", columns="round", values=column)
        _map(ax, values, title, "round")
        ax.set_xticks(range(4, ROUNDS, 5), range(5, ROUNDS + 1, 5))
    return figure


def by_link(seen: Case) -> Figure:
    """Return a figure of the links in `seen`: planned, what arrived, how far off."""
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
    drawings.graph(seen.graph, ax=axes[0], title="who should talk to whom")
    linked = nx.to_numpy_array(seen.graph, nodelist=range(CLIENTS)) > 0
    arrived = np.where(linked, seen.arrived, np.nan)
    _map(axes[1], arrived, f"models that arrived in {ROUNDS} rounds", "from client")
    _map(axes[2], seen.distance, "their mean distance from the own", "from client")
    for ax in axes[1:]:
        ax.set_xticks(range(CLIENTS))
    return figure


def _map(ax: Axes, values: np.ndarray, title: str, across: str) -> None:
    plots.heat_map(values, ax=ax, least=0)
    ax.set_title(title, fontsize=9)
    ax.set(xlabel=across, ylabel="client", yticks=range(CLIENTS))
    ax.tick_params(labelsize=7)
