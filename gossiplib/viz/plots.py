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
from gossiplib.viz.style import COLOURS, GRAPHS, INK, QUIET, ROLES

if TYPE_CHECKING:  # which few pictures need
    import pandas as pd

    from gossiplib.core.result import GossipResult

__all__ = [
    "COLOURS",
    "GRAPHS",
    "INK",
    "QUIET",
    "ROLES",
    "accuracy",
    "by_round",
    "consensus_distance",
    "guess",
    "heat_map",
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
    decimals: int = 2,
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
    decimals : int
        Of the numbers at the ends.
    """
    ax = plt.subplots(figsize=(6, 3.6))[1]
    for name, result in results.items():
        table: Any = result.to_pandas() if hasattr(result, "to_pandas") else result
        clients = table.dropna(subset=[value]).groupby("round")[value]
        low, high = clients.min(), clients.max()
        colour = _line(ax, clients.mean().to_dict(), name, decimals)
        ax.fill_between(low.index, low, high, color=colour, alpha=0.15, linewidth=0)
    for name, points in (lines or {}).items():
        _line(ax, points, name, decimals)
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
    low, high = ax.get_ylim()
    if ax.get_yscale() == "log" and value <= 0:
        value = low  # off the scale
    ax.set_ylim(min(low, value), max(high, value))  # wherever it is
    if at is None:
        ax.axhline(value, color=ROLES["guess"], linestyle=":", linewidth=1)
        where: dict[str, Any] = {
            "xy": (0.01, value),
            "xycoords": ("axes fraction", "data"),
        }
    else:
        star: dict[str, Any] = {"color": ROLES["guess"], "markersize": 13, "zorder": 9}
        ax.plot([at], [value], "*", clip_on=False, **star)  # whole, at an edge too
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
    """Return colour, marker and line style of a role, or of the k-th line."""
    k = [*ROLES].index(name) if name in ROLES else k
    kinds = {"color": _FREE, "marker": _MARKERS, "linestyle": _STYLES}
    look: dict[str, Any] = {kind: of[k % len(of)] for kind, of in kinds.items()}
    return look | {"color": (ROLES | GRAPHS).get(name.split(",")[0], look["color"])}


def _line(ax: Axes, points: Mapping[int, float], name: str, decimals: int) -> str:
    """Draw a line, and return its colour."""
    every = max(1, len(points) // 8)
    look = _look(name, len(ax.lines)) | {"markersize": 5, "markevery": every}
    rounds, values = list(points), list(points.values())
    # Nothing may have been measured.
    last = f" {values[-1]:.{decimals}f}" if values else ""
    ax.plot(rounds, values, label=name + last, **look)
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
    look: dict[str, Any] = {
        "color": INK,
        "markersize": 12,
        "label": "theory: at most\n|λ₂| × the peak",
    }
    ax.plot(rounds, bounds, "_", **look)
    bold: dict[str, Any] = {"weight": "bold"}
    ax.text(0.7, 1.03 * max(distances), "training", color=COLOURS[5], **bold)
    ax.text(1.2, 0.6 * min(distances[2::2]), "averaging", color=COLOURS[0], **bold)
    ax.set_ylim(0, 1.12 * max(distances))
    return by_round(ax, "distance to consensus")


def heat_map(
    values: np.ndarray,
    *,
    ax: Axes,
    label: str = "",
    cmap: str = "cividis",
) -> Figure:
    """Draw a table of numbers into `ax`, coloured by value, and return its figure.

    Parameters
    ----------
    values : numpy.ndarray
        Shape (rows, columns). NaN stays white.
    ax : matplotlib.axes.Axes
        Where to draw.
    label : str
        What the numbers are, beside the colour bar.
    cmap : str
        Name of a matplotlib colour map.

    Returns
    -------
    matplotlib.figure.Figure
        The figure of `ax`.
    """
    image = ax.imshow(values, aspect="auto", cmap=cmap)
    figure = _figure(ax)
    figure.colorbar(image, ax=ax, label=label)
    return figure


def _figure(ax: Axes) -> Figure:
    return cast(Figure, ax.figure)  # none is drawn into a part of a figure
