"""Pictures: curves of learning and of consensus, tables of numbers, small images.

Each function returns a matplotlib Figure and shows nothing; `show` displays a figure
with a text for those who cannot see it. How pictures look is told in `style`, graphs
are drawn in `drawings`.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gossiplib.viz import style
from gossiplib.viz.display import show
from gossiplib.viz.style import COLOURS, INK, QUIET, ROLES, WAVE

if TYPE_CHECKING:  # Flower, which few pictures need
    from gossiplib.core.result import GossipResult

__all__ = [
    "COLOURS",
    "INK",
    "QUIET",
    "ROLES",
    "accuracy",
    "consensus_distance",
    "guess",
    "heat_map",
    "images",
    "label_counts",
    "label_lines",
    "show",
    "unrolled",
]

style.use()

#: Colours of lines that have no role of their own.
_FREE = [
    c for c in COLOURS if c not in {ROLES[k] for k in ("FedAvg", "liar", "central")}
]
_MARKERS = "osD^vPX"
_STYLES = ["-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1))]


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
        rounds, look = np.arange(len(distances)), _look(name, k)
        points = look | {"linestyle": "none", "markersize": 4}
        ax.plot(rounds, np.maximum(distances, 1e-16), label=name, **points)
        if theory and name in theory:
            thin = look | {"marker": "", "linewidth": 1}
            line = np.maximum(distances[0] * theory[name] ** rounds, 1e-16)
            ax.plot(rounds, line, **thin)
    ax.set_yscale("log")
    ylabel = "distance to consensus"
    return _finished(ax, f"{ylabel} (lines: theory)" if theory else ylabel)


def accuracy(
    results: Mapping[str, "GossipResult"],
    lines: Mapping[str, Mapping[int, float]] | None = None,
    *,
    value: str = "evaluate_accuracy",
) -> Figure:
    """Return a figure of accuracy by round: the mean client, and worst to best.

    A method is drawn in the colour of its role, see `style.ROLES`, if its name is one.

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
        clients = result.to_pandas().dropna(subset=[value]).groupby("round")[value]
        low, high = clients.min(), clients.max()
        colour = _line(ax, clients.mean().to_dict(), name)
        ax.fill_between(low.index, low, high, color=colour, alpha=0.15, linewidth=0)
    for name, points in (lines or {}).items():
        _line(ax, points, name)
    return _finished(ax, "accuracy (bands: worst to best client)")


def guess(ax: Axes, value: float | None, at: float | None = None) -> None:
    """Draw the reader's guess, if there is one.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        Where to draw.
    value : float or None
        The guess, in the units of the vertical axis.
    at : float, optional
        Where on the horizontal axis it was asked for; by default, all along.
    """
    if value is None:
        return
    if at is None:
        ax.axhline(value, color=ROLES["guess"], linestyle=":", linewidth=1)
        where: dict[str, Any] = {
            "xy": (0.01, value),
            "xycoords": ("axes fraction", "data"),
        }
    else:
        ax.plot([at], [value], "*", color=ROLES["guess"], markersize=13, zorder=9)
        where = {"xy": (at, value), "ha": "right"}
    where |= {"xytext": (-6, 7), "textcoords": "offset points", "fontsize": 9}
    ax.annotate("your guess", **where)


def label_lines(ax: Axes, room: float = 0.0) -> None:
    """Write the name of each line at its end, in its colour, none above another.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        With its limits as they shall be.
    room : float
        Share of the width to leave free for the names within the axes; by default
        they stand beside them.
    """
    if room:
        low, high = ax.get_xlim()
        ax.set_xlim(low, high + room * (high - low))
    step = 1.25 * plt.rcParams["font.size"] * ax.figure.dpi / 72  # pixels
    ends = []
    for line in ax.lines:
        x, y = (np.asarray(a, float) for a in line.get_data())
        here = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
        name = str(line.get_label())
        if not name.startswith("_") and here.size:
            last = x[here[-1]], y[here[-1]]
            height = ax.transData.transform(last)[1]
            ends.append((height, last, name, line.get_color()))
    ends.sort(key=lambda end: end[0])
    heights = [end[0] for end in ends]
    for _ in range(100):  # push apart what is too near, both ways
        for k in range(1, len(heights)):
            if (lack := step - (heights[k] - heights[k - 1])) > 0:
                heights[k] += lack / 2
                heights[k - 1] -= lack / 2
    for height, (was, last, name, colour) in zip(heights, ends, strict=True):
        ax.annotate(
            name,
            last,
            xytext=(7, (height - was) * 72 / ax.figure.dpi),
            textcoords="offset points",
            va="center",
            color=colour,
            annotation_clip=False,
        )


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


def _look(name: str, k: int) -> dict[str, Any]:
    """Return colour, marker and line style of a name, which is the k-th line."""
    kinds = {"color": _FREE, "marker": _MARKERS, "linestyle": _STYLES}
    look: dict[str, Any] = {kind: of[k % len(of)] for kind, of in kinds.items()}
    return look | {"color": ROLES.get(name, look["color"])}


def _line(ax: Axes, points: Mapping[int, float], name: str) -> str:
    """Draw a line, and return its colour."""
    every = max(1, len(points) // 8)
    look = _look(name, len(ax.lines)) | {"markersize": 5, "markevery": every}
    ax.plot(list(points), list(points.values()), label=name, **look)
    return str(look["color"])


def _finished(ax: Axes, ylabel: str) -> Figure:
    ax.set(xlabel="round", ylabel=ylabel)
    ax.grid(True)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    label_lines(ax)
    return _figure(ax)


def images(
    rows: Mapping[str, np.ndarray],
    columns: Sequence[str] = (),
    *,
    signed: bool = False,
    size: float = 0.95,
) -> Figure:
    """Return a figure of small pictures, such as digits, in rows.

    Parameters
    ----------
    rows : dict
        Name of a row -> its pictures, shape (pictures, height, width).
    columns : sequence of str
        What stands above the pictures of the first row.
    signed : bool
        Whether values have a sign, as weights have: above 0 is blue, below red, and
        each row has its own scale. Otherwise black is the largest of all.
    size : float
        Width of a picture, in inches.
    """
    most = max(len(row) for row in rows.values())
    figure, axes = plt.subplots(
        len(rows),
        most,
        figsize=(size * most + 0.9, size * len(rows) + 0.3),
        squeeze=False,
        layout="constrained",
    )
    top = max(np.max(row) for row in rows.values())
    for line, (name, row) in zip(axes, rows.items(), strict=True):
        limit = np.abs(row).max() if signed else top
        look = {"cmap": "RdBu" if signed else "gray_r", "vmax": limit}
        for ax, picture in zip(line, row, strict=False):
            ax.imshow(picture, vmin=-limit if signed else 0, **look)
        for ax in line:
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
    for ax, title in zip(axes[0], columns, strict=False):
        ax.set_title(title, fontsize=9, weight="normal", loc="center")
    return figure


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


def _figure(ax: Axes) -> Figure:
    return cast(Figure, ax.figure)  # none is drawn into a part of a figure
