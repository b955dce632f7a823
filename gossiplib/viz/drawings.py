"""Drawings of graphs of clients, each in its own geometry, and of mixing matrices.

Each function returns a matplotlib Figure and shows nothing, see `display.show`.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, cast

import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gossiplib.viz import style
from gossiplib.viz.style import COLOURS, INK, QUIET

__all__ = ["filmstrip", "graph", "graphs", "layout", "mixing_matrix"]

style.use()


def layout(graph: nx.Graph) -> dict[int, np.ndarray]:
    """Return where each client of a graph is drawn, so that its structure is seen.

    At their "pos", if each has one; those of `topology.named` in their own geometry.
    Others stand on a circle, or, where that would hide a bridge, as links pull.
    """
    places = nx.get_node_attributes(graph, "pos")
    if len(places) == len(graph):
        return places
    if place := _PLACES.get(graph.graph.get("name", "")):
        return place(graph)
    circle = nx.circular_layout(graph)
    if not graph.is_directed() and graph.number_of_edges() >= len(graph):
        if nx.has_bridges(graph):
            return nx.spring_layout(graph, pos=circle, seed=1, iterations=200)
    return circle


def _ring(n: int, first: float = 0.25, turn: float = 1.0) -> np.ndarray:
    """Return n places on a circle, from a part of a turn on, clockwise."""
    angle = 2 * np.pi * (first - turn * np.arange(n) / n)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _columns(graph: nx.Graph) -> int:
    """Return how many columns a torus has: client 0 is linked to that number."""
    return sorted(graph[0])[2]  # of 1, columns - 1, columns, n - columns


def _on_grid(graph: nx.Graph) -> dict[int, np.ndarray]:
    columns = _columns(graph)
    return {i: np.array([i % columns, -(i // columns)], float) for i in graph}


def _cubes(graph: nx.Graph) -> dict[int, np.ndarray]:
    # Each further dimension is a second copy beside the first.
    axes = [(1, 0), (0, 1.3), (0.42, 0.5), (1.75, -0.3), (0.6, 2.9), (4.2, 0.9)]
    bits = np.arange(len(graph))[:, None] >> np.arange(len(axes)) & 1
    return dict(enumerate(bits @ np.array(axes)))


def _bells(graph: nx.Graph) -> dict[int, np.ndarray]:
    half = len(graph) // 2
    left = _ring(half, turn=-1.0, first=1 / half)  # the last faces right
    left = left @ [[0.8, -0.6], [0.6, 0.8]] + (-1.5, 1.1)  # or down, to save room
    return dict(enumerate([*left, *np.zeros((len(graph) % 2, 2)), *-left[::-1]]))


_PLACES: dict[str, Callable[[nx.Graph], dict[int, np.ndarray]]] = {
    **dict.fromkeys(
        ("ring", "complete", "small-world", "exponential"),
        lambda graph: dict(enumerate(_ring(len(graph)))),
    ),
    "path": lambda graph: dict(enumerate(_ring(len(graph), 0.7, 0.9))),
    "star": lambda graph: dict(enumerate([np.zeros(2), *_ring(len(graph) - 1)])),
    "torus": _on_grid,
    "hypercube": _cubes,
    "barbell": _bells,
    "regular": nx.kamada_kawai_layout,
    "random": nx.kamada_kawai_layout,
}


def graph(
    graph: nx.Graph,
    values: Sequence[float] | None = None,
    *,
    ax: Axes | None = None,
    title: str = "",
    label: str = "",
    limits: tuple[float, float] | None = None,
    cmap: str = "viridis",
    pos: Mapping[int, np.ndarray] | None = None,
    widths: Mapping[tuple[int, int], float] | None = None,
    sizes: Sequence[float] | None = None,
    labels: Mapping[int, str] | None = None,
    door: Collection[tuple[int, int]] = (),
) -> Figure:
    """Return a figure of a graph of clients, coloured by a value each.

    Parameters
    ----------
    graph : networkx.Graph
        Nodes 0..n-1. Directed links are drawn as arrows.
    values : sequence of float, optional
        One value a client; NaN, as of one that is offline, is grey.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default a new figure.
    title, label : str
        Title, and what the values are (drawn beside a colour bar).
    limits : (float, float), optional
        Values at the ends of the colour scale.
    cmap : str
        Name of a matplotlib colour map.
    pos : dict, optional
        Node -> position, shape (2,); by default see `layout`.
    widths : dict, optional
        Link -> how wide it is drawn, in points; by default all alike.
    sizes : sequence of float, optional
        How large each client is drawn, in square points; by default all alike.
    labels : dict, optional
        Client -> what is written on it; by default its number, if there is room.
    door : collection of links
        Drawn in colour: the only ways through.
    """
    size = (5.2 if label else 4, 3.8)
    ax = ax or plt.subplots(figsize=size, layout="constrained")[1]
    pos = layout(graph) if pos is None else pos
    area: Any = 40 if len(graph) > 24 else 190
    area = area if sizes is None else np.asarray(sizes, float)
    links, n = list(graph.edges), len(graph)
    look: dict[str, Any] = {"ax": ax, "node_size": area, "edge_color": QUIET}
    look |= {"arrowsize": 6} if graph.is_directed() else {"arrowstyle": "-"}
    wide = 1.0 if len(links) < 4 * n else 0.4
    for curved in (False, True):
        some = [e for e in links if _hides(graph, e) is curved]
        width = [wide if widths is None else widths[e] for e in some]
        bend = "arc3,rad=0.28" if curved else "arc3"
        more: dict[str, Any] = {"edgelist": some, "width": width}
        more["connectionstyle"] = bend
        if some:
            nx.draw_networkx_edges(graph, pos, arrows=True, **look | more)
    if door:
        more = {"edgelist": list(door), "edge_color": COLOURS[1], "width": 4}
        nx.draw_networkx_edges(graph, pos, arrows=True, **look | more)
    shown = np.full(n, np.nan) if values is None else np.asarray(values, float)
    colours = plt.get_cmap(cmap).with_extremes(
        bad="#cfe3f1" if values is None else "#ddd"
    )
    low, high = limits or (
        (np.nanmin(shown), np.nanmax(shown)) if np.isfinite(shown).any() else (0, 1)
    )
    places = np.array([pos[i] for i in range(n)])
    nodes = ax.scatter(
        places[:, 0],
        places[:, 1],
        s=area,
        c=shown,
        cmap=colours,
        vmin=low,
        vmax=high,
        edgecolors=INK,
        linewidths=0.8,
        plotnonfinite=True,
        zorder=3,
        clip_on=False,
    )
    if labels is None:
        labels = {i: str(i) for i in range(n) if n <= 24}
    for i, words in labels.items():
        light = np.isnan(shown[i]) or np.mean(nodes.to_rgba(shown[i])[:3]) > 0.5
        ink = INK if light else "white"
        x, y = places[i]
        ax.text(x, y, words, ha="center", va="center", color=ink, fontsize=7, zorder=4)
    if label:
        ax.figure.colorbar(nodes, ax=ax, label=label, shrink=0.8)
    ax.set_title(title, loc="center")
    ax.set_axis_off()
    ax.margins(0.12)
    ax.set_aspect("equal")
    return cast(Figure, ax.figure)


def _hides(graph: nx.Graph, link: tuple[int, int]) -> bool:
    """Tell whether a link would lie on others, and is drawn bent: round a torus."""
    if graph.graph.get("name") != "torus":
        return False
    columns = _columns(graph)
    (a, b), (c, d) = (divmod(i, columns) for i in link)
    return abs(a - c) + abs(b - d) > 1


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
    return cast(Figure, ax.figure)
