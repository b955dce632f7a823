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
from gossiplib.viz.style import COLOURS, INK, QUIET, ROLES

if TYPE_CHECKING:  # which few pictures need
    import pandas as pd

    from gossiplib.core.result import GossipResult

__all__ = [
    "COLOURS",
    "INK",
    "QUIET",
    "ROLES",
    "accuracy",
    "answers",
    "by_round",
    "consensus_distance",
    "guess",
    "heat_map",
    "holdings",
    "images",
    "judged",
    "label_counts",
    "label_lines",
    "sawtooth",
    "show",
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
    return by_round(ax, f"{ylabel} (lines: theory)" if theory else ylabel)


def accuracy(
    results: Mapping[str, "GossipResult | pd.DataFrame"],
    lines: Mapping[str, Mapping[int, float]] | None = None,
    *,
    value: str = "evaluate_accuracy",
) -> Figure:
    """Return a figure of accuracy by round: the mean client, and worst to best.

    A method is drawn in the colour of its role, see `style.ROLES`, if its name is one,
    or begins with one and a comma. What it ends with is written beside its name.

    Parameters
    ----------
    results : dict
        Name -> `GossipResult`, or some rows of its table, `to_pandas()`.
    lines : dict, optional
        Name -> (round -> accuracy) of methods with one model, such as FedAvg.
    value : str
        Column of `GossipResult.to_pandas()`.
    """
    ax = plt.subplots(figsize=(6, 3.6))[1]
    for name, result in results.items():
        table: Any = result.to_pandas() if hasattr(result, "to_pandas") else result
        clients = table.dropna(subset=[value]).groupby("round")[value]
        low, high = clients.min(), clients.max()
        colour = _line(ax, clients.mean().to_dict(), name)
        ax.fill_between(low.index, low, high, color=colour, alpha=0.15, linewidth=0)
    for name, points in (lines or {}).items():
        _line(ax, points, name)
    return by_round(ax, "accuracy (bands: worst to best client)")


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
        ax.autoscale_view()  # which is put off, else
        place = ax.transAxes.inverted().transform(ax.transData.transform((at, value)))
        where = {"xy": (at, value), "ha": "left" if place[0] < 0.3 else "right"}
    left = where.get("ha") == "left"  # where there is no room on the other side
    where |= {"xytext": (8, -12) if left else (-6, 7), "textcoords": "offset points"}
    ax.annotate("your guess", fontsize=9, **where)


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


def _look(name: str, k: int) -> dict[str, Any]:
    """Return colour, marker and line style of a name, which is the k-th line."""
    kinds = {"color": _FREE, "marker": _MARKERS, "linestyle": _STYLES}
    look: dict[str, Any] = {kind: of[k % len(of)] for kind, of in kinds.items()}
    return look | {"color": ROLES.get(name.split(",")[0], look["color"])}


def _line(ax: Axes, points: Mapping[int, float], name: str) -> str:
    """Draw a line, and return its colour."""
    every = max(1, len(points) // 8)
    look = _look(name, len(ax.lines)) | {"markersize": 5, "markevery": every}
    rounds, values = list(points), list(points.values())
    ax.plot(rounds, values, label=f"{name} {values[-1]:.2f}", **look)
    return str(look["color"])


def by_round(ax: Axes, ylabel: str) -> Figure:
    """Return a figure of lines over rounds, finished.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        With lines that have labels; these are written at the lines' ends.
    ylabel : str
        What the lines show.
    """
    ax.set(xlabel="round", ylabel=ylabel)
    ax.grid(True)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    label_lines(ax)
    return _figure(ax)


def sawtooth(distances: Sequence[float], bounds: Sequence[float]) -> Figure:
    """Return a figure of what training and averaging do to the distance to consensus.

    Parameters
    ----------
    distances : sequence of float
        At the start and then, for each round, after training and after averaging.
    bounds : sequence of float
        What theory says of averaging: at most so much, after each round.
    """
    ax = plt.subplots(figsize=(6.4, 3.2))[1]
    halves = np.arange(len(distances)) / 2
    for k in range(len(distances) - 1):
        colour = COLOURS[0] if k % 2 else COLOURS[5]
        ax.plot(halves[k : k + 2], distances[k : k + 2], color=colour)
    rounds = np.arange(1, len(bounds) + 1)
    look: dict[str, Any] = {"color": INK, "markersize": 12, "label": "theory:\nat most"}
    ax.plot(rounds, bounds, "_", **look)
    ax.text(0.7, 1.03 * max(distances), "training", color=COLOURS[5])
    ax.text(1.2, 0.6 * min(distances[2::2]), "averaging", color=COLOURS[0])
    ax.set_ylim(0, 1.12 * max(distances))
    return by_round(ax, "distance to consensus")


def images(
    rows: Mapping[str, np.ndarray],
    columns: Sequence[str] = (),
    *,
    signed: bool = False,
    beside: Mapping[str, np.ndarray] | None = None,
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
    beside : dict, optional
        Title -> a picture to compare with, as tall as all rows. It has no sign, and the
        rows then have one scale, and as many pictures each.
    size : float
        Width of a picture, in inches.
    """
    most, more = max(len(row) for row in rows.values()), len(beside or {})
    figure, axes = plt.subplots(
        len(rows),
        most + more,
        figsize=(size * (most + more * len(rows)) + 0.9, size * len(rows) + 0.3),
        width_ratios=[1] * most + [len(rows)] * more,
        squeeze=False,
        layout="constrained",
    )
    for k, (title, picture) in enumerate((beside or {}).items(), most):
        for ax in axes[:, k]:
            ax.remove()
        ax = figure.add_subplot(axes[0, k].get_gridspec()[:, k])
        ax.imshow(picture, cmap="gray_r", vmin=0)
        ax.set_title(title, fontsize=9, weight="normal", loc="center")
        ax.set_axis_off()
    tops = {name: np.abs(row).max() for name, row in rows.items()}
    if more:  # few weights are far larger than all others
        tops = dict.fromkeys(rows, np.quantile(np.abs([*rows.values()]), 0.98))
    for line, (name, row) in zip(axes[:, :most], rows.items(), strict=True):
        limit = tops[name] if signed else max(tops.values())
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


def answers(
    pictures: np.ndarray,
    truth: Sequence[Any],
    said: Mapping[str, Sequence[Any]],
    titles: Sequence[str] = (),
    *,
    columns: int = 7,
) -> Figure:
    """Return a figure of pictures, and below each what was said of it.

    What is right is written in the colour of who said it, with a tick; what is wrong is
    grey, with a cross.

    Parameters
    ----------
    pictures : numpy.ndarray
        Shape (pictures, height, width).
    truth : sequence
        What is right, for each picture.
    said : dict
        Name -> an answer to each picture.
    titles : sequence of str
        What stands above each picture.
    columns : int
        Pictures in a row.
    """
    high = -(-len(pictures) // columns)
    size = (1.15 * columns, (1.1 + 0.24 * len(said)) * high)
    figure, axes = plt.subplots(high, columns, figsize=size, squeeze=False)
    figure.subplots_adjust(hspace=0.35 + 0.25 * len(said))
    for ax in axes.flat:
        ax.set_axis_off()
    for k, (ax, picture) in enumerate(zip(axes.flat, pictures, strict=False)):
        ax.imshow(picture, cmap="gray_r")
        ax.set_title(
            "".join(titles[k : k + 1]), fontsize=9, weight="normal", loc="center"
        )
        for line, (name, each) in enumerate(said.items()):
            right = each[k] == truth[k]
            words = f"{name}: {each[k]} {'✓' if right else '✗'}"
            look: dict[str, Any] = {"fontsize": 9, "color": "#666666"}
            if right:
                look |= {"color": ROLES.get(name, INK), "weight": "bold"}
            where: dict[str, Any] = {"transform": ax.transAxes, "ha": "center"}
            ax.text(0.5, -0.16 - 0.2 * line, words, **where, **look)
    return figure


def holdings(
    examples: Sequence[tuple[np.ndarray, np.ndarray]],
    classes: int,
    *,
    mark: tuple[int, int] | None = None,
) -> Figure:
    """Return a figure of what clients hold: a row each, with a column for each class.

    A cell shows an example of the class, and how many there are; it is empty if there
    is none.

    Parameters
    ----------
    examples : sequence of (numpy.ndarray, numpy.ndarray)
        Pictures and their classes, shapes (examples, height, width) and (examples,),
        for each client.
    classes : int
        Number of classes.
    mark : (int, int), optional
        Client and class of a cell to frame.
    """
    size = (0.62 * classes + 1.0, 0.32 * len(examples) + 0.6)
    figure, ax = plt.subplots(figsize=size)
    for i, (x, y) in enumerate(examples):
        for k, first in zip(*np.unique(y, return_index=True), strict=True):
            place = (k - 0.45, k + 0.05, i + 0.42, i - 0.42)
            ax.imshow(x[first], cmap="gray_r", extent=place)
            ax.text(k + 0.1, i, str((y == k).sum()), va="center", fontsize=7)
    if mark:
        client, k = mark
        frame: dict[str, Any] = {"fill": False, "edgecolor": COLOURS[1], "linewidth": 2}
        ax.add_patch(plt.Rectangle((k - 0.5, client - 0.48), 1, 0.96, **frame))
    ax.set(xticks=range(classes), yticks=range(len(examples)), ylabel="client")
    ax.set(xlim=(-0.55, classes - 0.45), ylim=(len(examples) - 0.45, -0.55))
    ax.set_aspect("auto")
    ax.tick_params(length=0, labeltop=True, labelbottom=False)
    ax.spines[:].set_visible(False)
    ax.hlines(
        np.arange(len(examples) + 1) - 0.5, -0.5, classes - 0.5, "#e4e4e4", lw=0.6
    )
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


def judged(
    pictures: np.ndarray, truth: Sequence[int], answers: Mapping[str, Sequence[int]]
) -> Figure:
    """Return a figure of digits in a row and, below each, what models take it for.

    Parameters
    ----------
    pictures : numpy.ndarray
        Shape (pictures, height, width).
    truth : sequence of int
        What each one is.
    answers : dict
        Name of a model -> its answers. Right ones are in colour.
    """
    n = len(pictures)
    size = (0.56 * n + 1.3, 0.62 + 0.3 * len(answers))
    figure, axes = plt.subplots(1, n, figsize=size, squeeze=False)
    figure.subplots_adjust(left=1.3 / size[0], right=1, top=1, bottom=1 - 0.6 / size[1])
    for k, (ax, digit) in enumerate(zip(axes[0], pictures, strict=True)):
        ax.imshow(digit, cmap="gray_r")
        ax.set_axis_off()
        for line, (name, said) in enumerate(answers.items(), 1):
            at = {"xycoords": "axes fraction", "textcoords": "offset points"}
            y, right = 2 - 20 * line, said[k] == truth[k]
            look: dict[str, Any] = {"color": COLOURS[2] if right else QUIET}
            look |= {"weight": "bold" if right else "normal", "fontsize": 12}
            look["ha"] = "center"
            ax.annotate(str(said[k]), (0.5, 0), (0, y - 3), **at, **look)
            if not k:
                ax.annotate(name, (0, 0), (-10, y), **at, ha="right", va="center")
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
