"""The fault detective: a run of gossip in which one thing is broken.

Twelve clients learn digits, and one fault is hidden. What is broken, and where? A
diagnosis is compared by hashes, so no answer stands in the data. The run is plain
numpy, so that a fault can sit anywhere in it: in training, in what is said, in weights.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Any

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
from gossiplib.viz import drawings
from gossiplib.viz.style import WAVE

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

#: Column of a case's table -> what it is.
WORDS = {
    "test": "accuracy on the test set",
    "norm": "length of its model",
    "heard": "share of models that came",
    "own": "accuracy on its own data",
    "step": "how far training moved it",
    "shift": "how far averaging moved it",
}
#: Level -> the columns that are shown. On level 2 nobody looks into the clients.
COLUMNS = {1: list(WORDS), 2: list(WORDS)[:3]}

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
    "heard", the share of its neighbours' models that reached it; "step" and "shift",
    how far training and averaging moved its model (Euclidean distance); "norm", the
    model's length after the round; "own" and "test", its accuracy on its own training
    data and on the common test set. `arrived`: messages that client i heard from client
    j, shape (n, n). `distance`: the mean distance of these models from that of i, over
    its length; NaN where nothing arrived. `check` takes one of `KINDS`, and where.
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
    degrees = (W > 0).sum(axis=1) - 1  # without the own model
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
        heard = here.sum(axis=1) / degrees
        seen = {"round": t, "client": range(CLIENTS), "heard": heard}
        seen |= {"step": _length(trained - models), "shift": _length(mixed - trained)}
        own = [float(_accuracy(mixed[i], *data[i])) for i in range(CLIENTS)]
        seen |= {"norm": _length(mixed), "own": own, "test": _accuracy(mixed, *test)}
        tables.append(pd.DataFrame(seen))
        models = mixed
    with np.errstate(invalid="ignore"):
        return pd.concat(tables, ignore_index=True), arrived.astype(int), far / arrived


def by_round(seen: Case, *, level: int = 1) -> Figure:
    """Return maps of the table in `seen`, one a column: clients down, rounds across.

    A map shows how far a client is from the median client of the round, where the usual
    distance in that map is 1. On `level` 2 the columns that only the client itself can
    know are left out; see `COLUMNS`.
    """
    columns, rows = COLUMNS[level], len(COLUMNS[level]) // 3
    figure, axes = plt.subplots(
        rows, 3, figsize=(9.2, 0.4 + 2.7 * rows), layout="constrained"
    )
    for ax, column in zip(axes.flat, columns, strict=True):
        values = seen.table.pivot(index="client", columns="round", values=column)
        apart = values.sub(values.median(axis=0), axis="columns").to_numpy()
        usual = np.abs(apart[np.abs(apart) > 0]).mean()
        look: dict[str, Any] = {"cmap": WAVE, "vmin": -4, "vmax": 4}
        image = ax.imshow(apart / usual, aspect="auto", **look)
        ax.set_title(f"{column}: {WORDS[column]}", fontsize=9)
        ax.set_xticks(range(4, ROUNDS, 5), range(5, ROUNDS + 1, 5))
        ax.set(yticks=range(CLIENTS))
        ax.tick_params(labelsize=8)
    for ax in axes.reshape(-1, 3)[-1]:
        ax.set_xlabel("round")
    for ax in axes.reshape(-1, 3)[:, 0]:
        ax.set_ylabel("client")
    bar = figure.colorbar(image, ax=axes, aspect=15 * rows, ticks=[-4, 0, 4])
    bar.ax.set_yticklabels(["far\nbelow", "median\nclient", "far\nabove"])
    return figure


def by_link(seen: Case) -> Figure:
    """Return a figure of the links in `seen`: planned, what arrived, how far off."""
    figure = plt.figure(figsize=(9.2, 6.4), layout="constrained")
    places: Any = [["graph", "graph"], ["arrived", "distance"]]
    axes = figure.subplot_mosaic(places, height_ratios=[0.6, 1])
    drawings.graph(seen.graph, ax=axes["graph"], title="who should talk to whom")
    linked = nx.to_numpy_array(seen.graph, nodelist=range(CLIENTS)) > 0
    arrived = np.where(linked, seen.arrived, np.nan)
    title = f"models that arrived, of {ROUNDS}"
    _map(axes["arrived"], arrived, title, "{:.0f}", ROUNDS)
    title = "distance from the receiver's own (1: its length)"
    _map(axes["distance"], seen.distance, title, "{:.2f}", 2)
    return figure


def _map(ax: Axes, values: np.ndarray, title: str, digits: str, top: float) -> None:
    ax.imshow(values, cmap="Blues", vmin=0, vmax=2 * top)  # for dark numbers
    for i, j in np.argwhere(np.isfinite(values)):
        words: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8}
        ax.text(j, i, digits.format(values[i, j]), **words)
    ax.set_title(title, fontsize=9)
    ax.set(xlabel="from client", ylabel="at client")
    ax.set(xticks=range(CLIENTS), yticks=range(CLIENTS))
    ax.tick_params(labelsize=8)
