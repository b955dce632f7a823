"""Drawings of graphs of clients, each in its own geometry, and of what they hold.

Each function returns a matplotlib Figure and shows nothing, see `display.show`.
"""

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, cast

import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from gossiplib.viz import style
from gossiplib.viz.style import COLOURS, INK, QUIET, WAVE

__all__ = [
    "at_points",
    "graph",
    "graphs",
    "layout",
    "mixing_matrix",
    "slow_wave",
    "unrolled",
]

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
    if not graph.is_directed() and graph.number_of_edges() >= len(graph):
        if nx.has_bridges(graph):
            return _as_links_pull(graph)
    return nx.circular_layout(graph)


def _as_links_pull(graph: nx.Graph) -> dict[int, np.ndarray]:
    circle = nx.circular_layout(graph)
    return nx.spring_layout(graph, pos=circle, seed=1, iterations=200)  # without scipy


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
    "regular": _as_links_pull,
    "random": _as_links_pull,
}


def graph(
    graph: nx.Graph,
    values: Sequence[float] | None = None,
    *,
    ax: Axes | None = None,
    title: str = "",
    label: str = "",
    limits: tuple[float, float] | None = None,
    cmap: str | Colormap = "viridis",
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
    cmap : str or matplotlib.colors.Colormap
        Name of a matplotlib colour map, or one.
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
    for bend in (0, 0.28, -0.28):
        some = [e for e in links if _bend(graph, e) == bend]
        width = [wide if widths is None else widths[e] for e in some]
        more: dict[str, Any] = {"edgelist": some, "width": width}
        more["connectionstyle"] = f"arc3,rad={bend}"
        if some:
            nx.draw_networkx_edges(graph, pos, arrows=True, **look | more)
    if door:
        more = {"edgelist": list(door), "edge_color": INK, "width": 4}
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


def _bend(graph: nx.Graph, link: tuple[int, int]) -> float:
    """Return how far a link is drawn bent: where it would lie on others."""
    (a, b), name = link, graph.graph.get("name")
    if name == "small-world" and abs(a - b) in (2, len(graph) - 2):
        return 0.28 if (b - a) % len(graph) == 2 else -0.28  # inwards on the circle
    if name == "torus":
        (a, b), (c, d) = (divmod(i, _columns(graph)) for i in link)
        return 0.28 if abs(a - c) + abs(b - d) > 1 else 0
    return 0


def graphs(
    named: Mapping[str, nx.Graph],
    values: Mapping[str, Sequence[float]] | None = None,
    **options: Any,
) -> Figure:
    """Return a figure of several graphs by their names, four in a row.

    Parameters
    ----------
    named : dict
        Name -> graph.
    values : dict, optional
        Name -> one value a client.
    **options
        Those of `graph`.
    """
    rows = -(-len(named) // 4)
    size = (9.2, 2.4 * rows)
    figure, axes = plt.subplots(
        rows, 4, figsize=size, squeeze=False, layout="constrained"
    )
    for ax in axes.flat[len(named) :]:
        ax.set_axis_off()
    for ax, (name, one) in zip(axes.flat, named.items(), strict=False):
        graph(one, values[name] if values else None, ax=ax, title=name, **options)
    return figure


def slow_wave(graph: nx.Graph, W: np.ndarray) -> np.ndarray:
    """Return a pattern that W takes longest to average away: an eigenvector of λ₂.

    Where several are as slow, it is the one that lies along the drawing, see `layout`.

    Parameters
    ----------
    graph : networkx.Graph
        Nodes 0..n-1.
    W : numpy.ndarray
        Its mixing matrix, shape (n, n): doubly stochastic and normal, such as
        symmetric, so that the eigenvectors of W'W are those of W.

    Returns
    -------
    numpy.ndarray
        One number a client, from -1 to 1; their sum is 0.
    """
    n, place = len(graph), layout(graph)
    # By |λ|², then without a change of sign in each round; agreement comes last.
    order, waves = np.linalg.eigh(W.T @ W + 1e-6 * (W + W.T) - 2 / n)
    slowest = waves[:, order > order[-1] - 1e-9]
    along = np.array([place[i] for i in range(n)]) @ [1, 0.4]
    along += 1e-3 * np.random.default_rng(0).normal(size=n)  # no wave is across it
    wave = slowest @ (slowest.T @ (along - along.mean()))
    return np.asarray(wave / np.abs(wave).max())


def at_points(
    ax: Axes, points: Mapping[str, tuple[float, float]], named: Mapping[str, nx.Graph]
) -> None:
    """Draw graphs, small, beside their points, none above another.

    The lowest stand below their points, the others above.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        With its limits as they shall be.
    points : dict
        Name -> where its dot is, in data of the axes.
    named : dict
        Name -> graph.
    """
    room = np.array([66.0, 86.0]) * ax.figure.dpi / 90  # pixels, with the name
    dots = ax.transData.transform([*points.values()])
    apart = np.random.default_rng(0).normal(size=dots.shape)  # some are one point
    away = np.sign(dots[:, 1] - np.quantile(dots[:, 1], 0.3)) * 0.7 * room[1]
    places = dots + np.stack([0 * away, away], axis=1) + apart
    inside = ax.bbox.get_points() + 0.5 * np.array([room, -room])
    for _ in range(500):
        for a, b in itertools.combinations(range(len(dots)), 2):
            lack = room - np.abs(places[a] - places[b])
            for c, d in ((a, b), (b, a)):  # of no other drawing, and of no other dot
                over = room / 1.7 - np.abs(places[c] - dots[d])
                if (over > 0).all():
                    k = int(over[1] < over[0])
                    places[c, k] += np.copysign(over[k], places[c, k] - dots[d, k])
            if (lack > 0).all():
                k = int(lack[1] < lack[0])
                push = np.copysign(lack[k] / 2, places[a, k] - places[b, k])
                places[a, k] += push
                places[b, k] -= push
        places = np.clip(places, *inside)
    size = (room - [0, 26]) / ax.bbox.size
    for name, dot, place in zip(points, dots, places, strict=True):
        edge = np.clip(dot, place - 0.35 * room, place + 0.35 * room)
        ends = ax.transData.inverted().transform([dot, edge])
        ax.plot(*ends.T, color=QUIET, linewidth=0.8, zorder=1)
        ax.plot(*ends[0], "o", color=COLOURS[0], zorder=5)
        middle = ax.transAxes.inverted().transform(place)
        inset = ax.inset_axes((*(middle - size / 2), *size), zorder=3)
        graph(named[name], ax=inset, sizes=[9] * len(named[name]), labels={})
        y, side = (1, "bottom") if place[1] > dot[1] else (0, "top")
        words: dict[str, Any] = {"ha": "center", "va": side, "fontsize": 9}
        inset.text(0.5, y, name, transform=inset.transAxes, **words)


def mixing_matrix(
    W: np.ndarray,
    *,
    ax: Axes | None = None,
    title: str = "W",
    door: Collection[tuple[int, int]] = (),
) -> Figure:
    """Return a figure of a mixing matrix: row i has the weights that client i gives.

    Parameters
    ----------
    W : numpy.ndarray
        Shape (n, n). Negative weights are drawn in red.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default a new figure.
    title : str
        Stands above the picture.
    door : collection of links
        Whose weights are outlined, as in `graph`.
    """
    ax = ax or plt.subplots(figsize=(4, 3.4))[1]
    top = max(abs(W).max(), 1e-9)
    cmap, low = ("RdBu", -top) if W.min() < -1e-9 else ("Blues", 0)
    image = ax.imshow(W, cmap=cmap, vmin=low, vmax=top)
    ax.figure.colorbar(image, ax=ax, label="weight", shrink=0.8)
    for i, j in [*door, *(link[::-1] for link in door)]:
        box = Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, color=INK, lw=2.5)
        ax.add_patch(box)
    ax.set(xlabel="model of client j", ylabel="client i", title=title)
    return cast(Figure, ax.figure)


def unrolled(panels: Mapping[str, np.ndarray]) -> Figure:
    """Return a figure of what clients hold by round: time runs down, a column a client.

    Parameters
    ----------
    panels : dict
        Title -> numbers, shape (rounds, clients): 0 is white, above it blue, below it
        orange. Each has a scale of its own.
    """
    size = (3.3 * len(panels) + 0.4, 4.2)
    figure, axes = plt.subplots(
        1, len(panels), figsize=size, squeeze=False, layout="constrained"
    )
    for ax, (title, numbers) in zip(axes[0], panels.items(), strict=True):
        top = np.abs(numbers).max()
        look: dict[str, Any] = {"cmap": WAVE, "vmin": -top, "vmax": top}
        image = ax.imshow(numbers, aspect="auto", interpolation="nearest", **look)
        figure.colorbar(image, ax=ax, shrink=0.7)
        ax.set(xlabel="client", ylabel="round", title=title)
        ax.spines[:].set_visible(False)
    return figure
