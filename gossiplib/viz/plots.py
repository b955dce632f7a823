"""Pictures: curves of learning and of consensus, tables of numbers, graphs of clients.

Each function returns a matplotlib Figure and shows nothing; `show` displays a figure
with a text for those who cannot see it. Colours are told apart by colour-blind eyes,
and lines differ in marker and style too.
"""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:  # Flower, which few pictures need
    from gossiplib.core.result import GossipResult

__all__ = [
    "COLOURS",
    "accuracy",
    "consensus_distance",
    "filmstrip",
    "graph",
    "graphs",
    "guess",
    "heat_map",
    "label_counts",
    "mixing_matrix",
    "show",
]

#: Okabe and Ito's palette, without its yellow, which is faint on white.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000"]

_MARKERS = "osD^vPX"
_STYLES = ["-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1))]


def png(figure: Figure) -> bytes:
    """Return a figure as the bytes of a PNG, 90 dots to an inch, without margins."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90, bbox_inches="tight")
    return buffer.getvalue()


def show(figure: Figure, alt: str) -> None:
    """Display a figure in a notebook, and close it.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        The picture.
    alt : str
        What a reader sees in it, in words: for those who cannot see it.
    """
    from IPython.display import display

    data = {"image/png": png(figure), "text/plain": alt}
    display(data, metadata={"image/png": {"alt": alt}}, raw=True)
    plt.close(figure)


def consensus_distance(
    measured: Mapping[str, Sequence[float]], theory: Mapping[str, float] | None = None
) -> Figure:
    """Return a figure of distances to consensus by round, on a logarithmic scale.

    Parameters
    ----------
    measured : dict
        Name -> distance after round 0, 1, ... Drawn with markers, and zero as 1e-16.
    theory : dict, optional
        Name -> factor a round. Drawn as a thin line from the first measured distance.
    """
    ax = plt.subplots(figsize=(6, 3.6))[1]
    for k, (name, distances) in enumerate(measured.items()):
        rounds, look = np.arange(len(distances)), _look(k)
        points = look | {"linestyle": "none", "markersize": 4}
        shown = np.maximum(distances, 1e-16)
        ax.plot(rounds, shown, label=f"{name}: measured", **points)
        if theory and name in theory:
            thin = look | {"marker": "", "linewidth": 1}
            line = np.maximum(distances[0] * theory[name] ** rounds, 1e-16)
            ax.plot(rounds, line, label=f"{name}: theory", **thin)
    ax.set_yscale("log")
    return _finished(ax, "distance to consensus")


def accuracy(
    results: Mapping[str, "GossipResult"],
    lines: Mapping[str, Mapping[int, float]] | None = None,
    *,
    value: str = "evaluate_accuracy",
) -> Figure:
    """Return a figure of accuracy by round: the mean client, and worst to best.

    Parameters
    ----------
    results : dict
        Name -> `GossipResult`.
    lines : dict, optional
        Name -> (round -> accuracy) of methods with one model, such as FedAvg.
    value : str
        Column of `GossipResult.to_pandas()`.
    """
    ax = plt.subplots(figsize=(6, 3.6))[1]
    for name, result in results.items():
        k = len(ax.lines)
        clients = result.to_pandas().dropna(subset=[value]).groupby("round")[value]
        low, high = clients.min(), clients.max()
        _line(ax, clients.mean().to_dict(), f"{name} (mean, worst to best client)")
        ax.fill_between(low.index, low, high, color=_look(k)["color"], alpha=0.15)
    for name, points in (lines or {}).items():
        _line(ax, points, name)
    return _finished(ax, "accuracy")


def guess(ax: Axes, value: float | None) -> None:
    """Draw the reader's guess, if there is one, as a horizontal line.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        Where to draw.
    value : float or None
        The guess, in the units of the vertical axis.
    """
    if value is not None:
        ax.axhline(value, color="black", linestyle=":")
        ax.annotate("your guess", (1, value), xycoords=("axes fraction", "data"))


def _look(k: int) -> dict[str, Any]:
    """Return colour, marker and line style of the k-th line."""
    kinds = {"color": COLOURS, "marker": _MARKERS, "linestyle": _STYLES}
    return {name: kind[k % len(kind)] for name, kind in kinds.items()}


def _line(ax: Axes, points: Mapping[int, float], name: str) -> None:
    every = max(1, len(points) // 8)
    look = _look(len(ax.lines)) | {"markersize": 5, "markevery": every}
    ax.plot(list(points), list(points.values()), label=name, **look)


def _finished(ax: Axes, ylabel: str) -> Figure:
    ax.set(xlabel="round", ylabel=ylabel)
    ax.grid(alpha=0.3)
    ax.spines[["top", "right"]].set_visible(False)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2)
    return _figure(ax)


def heat_map(
    values: np.ndarray,
    text: Sequence[Sequence[str]] | None = None,
    *,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    ax: Axes | None = None,
    label: str = "",
    cmap: str = "cividis",
    least: float | None = None,
) -> Figure:
    """Return a figure of a table of numbers, coloured by value.

    Parameters
    ----------
    values : numpy.ndarray
        Shape (rows, columns). NaN stays white.
    text : sequence of sequence of str, optional
        What to write into each cell, of the same shape.
    rows, columns : sequence of str, optional
        Their names; by default their numbers.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default a new figure with room for the text.
    label : str
        What the numbers are, beside the colour bar.
    cmap : str
        Name of a matplotlib colour map.
    least : float, optional
        Value at the lower end of the colours; by default the least one.
    """
    height, width = np.shape(values)
    ax = ax or plt.subplots(figsize=(1.1 * width + 2.6, 0.5 * height + 1.2))[1]
    image = ax.imshow(values, aspect="auto", cmap=cmap, vmin=least)
    for i, line in enumerate(text or []):
        for j, words in enumerate(line):
            ink = "white" if np.mean(image.to_rgba(values[i, j])[:3]) < 0.5 else "black"
            ax.text(j, i, words, ha="center", va="center", color=ink, fontsize=8)
    if columns is not None:
        ax.set_xticks(range(width), columns)
    if rows is not None:
        ax.set_yticks(range(height), rows)
    figure = _figure(ax)
    figure.colorbar(image, ax=ax, label=label)
    return figure


def label_counts(counts: np.ndarray) -> Figure:
    """Return a figure of how many examples of each class each client has.

    The counts, of shape (clients, classes), are those of `Task.label_counts`. They are
    written down for up to 24 clients.
    """
    figure, ax = plt.subplots(figsize=(5.2, 0.22 * len(counts) + 1.4))
    text = [[str(count or "") for count in line] for line in counts]
    text = text if len(counts) <= 24 else []
    heat_map(counts, text, ax=ax, label="training examples", cmap="Blues")
    ax.set(xlabel="class", ylabel="client", xticks=range(counts.shape[1]))
    return figure


def layout(graph: nx.Graph) -> dict[int, np.ndarray]:
    """Place the clients of a graph: at their "pos", if each has one, else on a circle.

    Where the circle would hide the structure (a hub, a bridge), links pull.
    """
    n, links = len(graph), graph.number_of_edges()
    places = nx.get_node_attributes(graph, "pos")
    if len(places) == n:
        return places
    circle = nx.circular_layout(graph)
    if not graph.is_directed():
        hub = max(graph, key=graph.degree)
        if n > 2 and links == graph.degree(hub) == n - 1:
            return nx.shell_layout(graph, [[hub], sorted(set(graph) - {hub})])
        if links >= n and nx.has_bridges(graph):
            return nx.spring_layout(graph, pos=circle, seed=1, iterations=200)
    return circle


def graph(
    graph: nx.Graph,
    values: Sequence[float] | None = None,
    *,
    ax: Axes | None = None,
    title: str = "",
    label: str = "",
    limits: tuple[float, float] | None = None,
    pos: Mapping[int, np.ndarray] | None = None,
) -> Figure:
    """Return a figure of a graph of clients, coloured by a value each.

    Parameters
    ----------
    graph : networkx.Graph
        Nodes 0..n-1. Directed links are drawn as arrows.
    values : sequence of float, optional
        One value a client.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default a new figure.
    title, label : str
        Title, and what the values are (drawn beside a colour bar).
    limits : (float, float), optional
        Values at the ends of the colour scale.
    pos : dict, optional
        Node -> position, shape (2,); by default their "pos", or places on a circle.
    """
    ax = ax or plt.subplots(figsize=(4, 3.6))[1]
    pos = pos or layout(graph)
    size = 40 if len(graph) > 24 else 160
    look: dict[str, Any] = {"node_size": size, "edgecolors": "black", "linewidths": 0.8}
    look["node_color"] = COLOURS[4]
    if values is not None:
        low, high = limits or (min(values), max(values))
        look |= {"node_color": list(values), "cmap": "viridis"}
        look |= {"vmin": low, "vmax": high}
    nodelist = range(len(graph))
    nodes = nx.draw_networkx_nodes(graph, pos, ax=ax, nodelist=nodelist, **look)
    nx.draw_networkx_edges(graph, pos, ax=ax, edge_color="#666666", node_size=size)
    if len(graph) <= 24 and values is None:
        nx.draw_networkx_labels(graph, pos, ax=ax, font_size=7)
    if label:
        ax.figure.colorbar(nodes, ax=ax, label=label, shrink=0.8)
    ax.set_title(title, fontsize=10)
    ax.set_axis_off()
    ax.margins(0.12)
    ax.set_aspect("equal")
    return _figure(ax)


def graphs(named: Mapping[str, nx.Graph]) -> Figure:
    """Return a figure of several graphs by their names, `named`, four in a row."""
    rows = -(-len(named) // 4)
    figure, axes = plt.subplots(rows, 4, figsize=(10.4, 2.6 * rows), squeeze=False)
    for ax in axes.flat[len(named) :]:
        ax.set_axis_off()
    for ax, (name, one) in zip(axes.flat, named.items(), strict=False):
        graph(one, ax=ax, title=name)
    return figure


def filmstrip(
    graph_: nx.Graph, frames: Mapping[str, Sequence[float]], *, label: str = ""
) -> Figure:
    """Return a figure of one graph in several frames, on one colour scale.

    Parameters
    ----------
    graph_ : networkx.Graph
        Nodes 0..n-1.
    frames : dict
        Title -> one value a client.
    label : str
        What the values are, beside the colour bar.
    """
    limits = (np.min([*frames.values()]), np.max([*frames.values()]))
    width = 2.3 * len(frames) + 0.8
    figure, axes = plt.subplots(
        1, len(frames), figsize=(width, 2.7), squeeze=False, layout="constrained"
    )
    pos = layout(graph_)
    for ax, (title, values) in zip(axes[0], frames.items(), strict=True):
        graph(graph_, values, ax=ax, title=title, limits=limits, pos=pos)
    nodes = axes[0, -1].collections[0]
    figure.colorbar(nodes, ax=axes, label=label, shrink=0.8)
    return figure


def mixing_matrix(W: np.ndarray, *, ax: Axes | None = None, title: str = "W") -> Figure:
    """Return a figure of a mixing matrix: row i has the weights that client i gives.

    Parameters
    ----------
    W : numpy.ndarray
        Shape (n, n). Negative weights are drawn in red.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default a new figure.
    title : str
        Stands above the picture.
    """
    ax = ax or plt.subplots(figsize=(4, 3.4))[1]
    top = max(abs(W).max(), 1e-9)
    cmap, low = ("RdBu", -top) if W.min() < -1e-9 else ("Blues", 0)
    image = ax.imshow(W, cmap=cmap, vmin=low, vmax=top)
    ax.figure.colorbar(image, ax=ax, label="weight", shrink=0.8)
    ax.set(xlabel="model of client j", ylabel="client i", title=title)
    return _figure(ax)


def _figure(ax: Axes) -> Figure:
    return cast(Figure, ax.figure)  # none is drawn into a part of a figure
