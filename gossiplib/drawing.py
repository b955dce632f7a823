"""Drawings of graphs and of mixing matrices. `plots` offers them beside the charts."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["COLOURS", "filmstrip", "graph", "graphs", "layout", "matrix"]

#: Okabe and Ito's palette, without its yellow, which is faint on white.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000"]


def layout(graph: nx.Graph) -> dict[int, np.ndarray]:
    """Return a position for each client: its place if it has one, else on a circle.

    Where the circle would hide the structure (a hub, a bridge), links pull.
    """
    circle = nx.circular_layout(graph)
    places = nx.get_node_attributes(graph, "pos")
    if len(places) == len(graph):
        return places
    if graph.is_directed():
        return circle
    hub = max(graph, key=graph.degree)
    if (
        len(graph) > 2
        and graph.number_of_edges() == graph.degree(hub) == len(graph) - 1
    ):
        return nx.shell_layout(graph, [[hub], sorted(set(graph) - {hub})])
    if graph.number_of_edges() >= len(graph) and nx.has_bridges(graph):
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
    """Draw a graph of clients, coloured by a value each.

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
        Positions, see `layout`.
    """
    ax = ax or plt.subplots(figsize=(4, 3.6))[1]
    pos = pos or layout(graph)
    size = 40 if len(graph) > 24 else 160
    colours: dict = {"node_color": COLOURS[4]}
    if values is not None:
        low, high = limits or (min(values), max(values))
        colours = {"node_color": list(values), "cmap": "viridis"}
        colours |= {"vmin": low, "vmax": high}
    nodes = nx.draw_networkx_nodes(
        graph,
        pos,
        ax=ax,
        nodelist=range(len(graph)),
        node_size=size,
        edgecolors="black",
        linewidths=0.8,
        **colours,
    )
    nx.draw_networkx_edges(graph, pos, ax=ax, edge_color="#666666", node_size=size)
    if len(graph) <= 24 and values is None:
        nx.draw_networkx_labels(graph, pos, ax=ax, font_size=7)
    if label:
        ax.figure.colorbar(nodes, ax=ax, label=label, shrink=0.8)
    ax.set_title(title, fontsize=10)
    ax.set_axis_off()
    ax.margins(0.12)
    ax.set_aspect("equal")
    return ax.figure


def graphs(named: Mapping[str, nx.Graph]) -> Figure:
    """Draw several graphs side by side, each under its name."""
    columns = 4
    rows = -(-len(named) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(2.6 * columns, 2.6 * rows), squeeze=False
    )
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, (name, one) in zip(axes.flat, named.items(), strict=False):
        graph(one, ax=ax, title=name)
    return figure


def filmstrip(
    graph_: nx.Graph,
    frames: Mapping[str, Sequence[float]],
    *,
    label: str = "",
) -> Figure:
    """Draw the same graph for each frame (title -> values), on one colour scale."""
    everything = np.concatenate([np.asarray(v, dtype=float) for v in frames.values()])
    limits = (everything.min(), everything.max())
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


def matrix(W: np.ndarray, *, ax: Axes | None = None, title: str = "W") -> Figure:
    """Draw a mixing matrix: row i holds the weights that client i gives."""
    ax = ax or plt.subplots(figsize=(4, 3.4))[1]
    top = max(abs(W).max(), 1e-9)
    signed = W.min() < -1e-9
    image = ax.imshow(
        W, cmap="RdBu" if signed else "Blues", vmin=-top if signed else 0, vmax=top
    )
    ax.figure.colorbar(image, ax=ax, label="weight", shrink=0.8)
    ax.set(xlabel="model of client j", ylabel="client i", title=title)
    return ax.figure
