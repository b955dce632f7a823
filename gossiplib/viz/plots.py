"""Pictures: graphs, mixing matrices, consensus, accuracy, and who has which labels.

Each function returns a matplotlib Figure and shows nothing; `show` displays a figure
with a text for those who cannot see it. Colours are told apart by colour-blind eyes,
and lines differ in marker and style too.

Drawings of graphs and of mixing matrices. `plots` offers them beside the charts.
"""

import io
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

__all__ = [
    "COLOURS",
    "accuracy",
    "consensus",
    "filmstrip",
    "graph",
    "graphs",
    "guess",
    "heat_map",
    "label_counts",
    "layout",
    "matrix",
    "png",
    "show",
]

_MARKERS = "osD^vPX"
_STYLES = ["-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1))]


def png(figure: Figure) -> bytes:
    """Return a figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90, bbox_inches="tight")
    return buffer.getvalue()


def show(figure: Figure, alt: str) -> None:
    """Display a figure in a notebook, with `alt` as its text in words."""
    from IPython.display import display

    data = {"image/png": png(figure), "text/plain": alt}
    display(data, metadata={"image/png": {"alt": alt}}, raw=True)
    plt.close(figure)


def consensus(
    measured: Mapping[str, Sequence[float]],
    theory: Mapping[str, float] | None = None,
) -> Figure:
    """Draw distances to consensus by round, on a logarithmic scale.

    Parameters
    ----------
    measured : dict
        Name -> distance after round 0, 1, ... Drawn with markers.
    theory : dict, optional
        Name -> factor a round. Drawn as a thin line from the first measured distance.
    """
    figure, ax = plt.subplots(figsize=(6, 3.6))
    for k, (name, distances) in enumerate(measured.items()):
        colour = COLOURS[k % len(COLOURS)]
        rounds = np.arange(len(distances))
        ax.plot(
            rounds,
            np.maximum(distances, 1e-16),
            color=colour,
            marker=_MARKERS[k % len(_MARKERS)],
            markersize=4,
            linestyle="none",
            label=f"{name}: measured",
        )
        if theory and name in theory:
            line = np.maximum(distances[0] * theory[name] ** rounds, 1e-16)
            style = _STYLES[k % len(_STYLES)]
            text = f"{name}: theory"
            ax.plot(
                rounds, line, color=colour, linestyle=style, linewidth=1, label=text
            )
    ax.set_yscale("log")
    ax.set(xlabel="round", ylabel="distance to consensus")
    _finish(ax)
    return figure


def accuracy(
    results: Mapping[str, object],
    lines: Mapping[str, Mapping[int, float]] | None = None,
    *,
    value: str = "evaluate_accuracy",
) -> Figure:
    """Draw the clients' accuracy by round: the mean, and from the worst to the best.

    Parameters
    ----------
    results : dict
        Name -> `GossipResult`.
    lines : dict, optional
        Name -> (round -> accuracy) of methods with one model, such as FedAvg.
    value : str
        Column of `GossipResult.to_pandas()`.
    """
    figure, ax = plt.subplots(figsize=(6, 3.6))
    for name, result in results.items():
        k = len(ax.lines)
        clients = result.to_pandas().dropna(subset=[value]).groupby("round")[value]
        mean = clients.mean()
        _line(ax, k, mean.index, mean, f"{name} (mean, worst to best client)")
        ax.fill_between(
            mean.index,
            clients.min(),
            clients.max(),
            color=COLOURS[k % len(COLOURS)],
            alpha=0.15,
        )
    for name, points in (lines or {}).items():
        _line(ax, len(ax.lines), list(points), list(points.values()), name)
    ax.set(xlabel="round", ylabel="accuracy")
    _finish(ax)
    return figure


def guess(ax: Axes, value: float | None) -> None:
    """Draw the reader's guess as a horizontal line; None draws nothing."""
    if value is not None:
        ax.axhline(value, color="black", linestyle=":")
        ax.annotate("your guess", (1, value), xycoords=("axes fraction", "data"))


def heat_map(
    values: np.ndarray,
    intervals: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    label: str,
    centre: float | None = None,
) -> Figure:
    """Draw a table of numbers with their intervals, coloured by value.

    Parameters
    ----------
    values, intervals : numpy.ndarray
        Shape (rows, columns): what was measured, and half the width of its interval.
    rows, columns : sequence of str
        Their names.
    label : str
        What the numbers are.
    centre : float, optional
        A value that is to be white, with one colour above it and one below.
    """
    size = (1.1 * len(columns) + 2.6, 0.5 * len(rows) + 1.2)
    figure, ax = plt.subplots(figsize=size)
    limits = {}
    if centre is not None:
        most = np.abs(values - centre).max()
        limits = {"cmap": "PuOr", "vmin": centre - most, "vmax": centre + most}
    image = ax.imshow(values, aspect="auto", **({"cmap": "cividis"} | limits))
    for (i, j), value in np.ndenumerate(values):
        text = f"{value:.2f} ± {intervals[i, j]:.2f}"
        dark = np.mean(image.cmap(image.norm(value))[:3]) < 0.5
        color = "white" if dark else "black"
        ax.text(j, i, text, ha="center", va="center", color=color, fontsize=8)
    ax.set_xticks(range(len(columns)), columns)
    ax.set_yticks(range(len(rows)), rows)
    figure.colorbar(image, ax=ax, label=label)
    return figure


def label_counts(counts: np.ndarray) -> Figure:
    """Draw how many examples of each class (columns) each client (rows) has."""
    figure, ax = plt.subplots(figsize=(5.2, 0.22 * len(counts) + 1.4))
    image = ax.imshow(counts, cmap="Blues", aspect="auto")
    for (i, c), count in np.ndenumerate(counts):
        if count and len(counts) <= 24:
            white = count > 0.6 * counts.max()
            ax.text(
                c,
                i,
                count,
                ha="center",
                va="center",
                fontsize=7,
                color="white" if white else "black",
            )
    ax.set(xlabel="class", ylabel="client", xticks=range(counts.shape[1]))
    figure.colorbar(image, ax=ax, label="training examples")
    return figure


def _line(ax: Axes, k: int, x: Sequence, y: Sequence, name: str) -> None:
    ax.plot(
        x,
        y,
        color=COLOURS[k % len(COLOURS)],
        linestyle=_STYLES[k % len(_STYLES)],
        marker=_MARKERS[k % len(_MARKERS)],
        markevery=max(1, len(x) // 8),
        markersize=5,
        label=name,
    )


def _finish(ax: Axes) -> None:
    ax.grid(alpha=0.3)
    ax.spines[["top", "right"]].set_visible(False)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2)


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
