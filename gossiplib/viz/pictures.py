"""Small pictures: digits, what clients hold of them, and what models make of them.

Each function returns a matplotlib Figure and shows nothing, see `display.show`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from gossiplib.viz import style
from gossiplib.viz.style import COLOURS, INK

__all__ = ["answers", "holdings", "images"]

style.use()


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
        Title -> a picture to compare with, framed, as tall as all rows. It has no sign,
        and the rows then have one scale, and as many pictures each.
    size : float
        Width of a picture, in inches.
    """
    most, more = max(len(row) for row in rows.values()), len(beside or {})
    figure, axes = plt.subplots(
        len(rows),
        most + more,
        figsize=(size * (most + 1.1 * more * len(rows)) + 0.9, size * len(rows) + 0.3),
        width_ratios=[1] * most + [1.1 * len(rows)] * more,  # with a gap before it
        squeeze=False,
        layout="constrained",
    )
    for k, (title, picture) in enumerate((beside or {}).items(), most):
        for ax in axes[:, k]:
            ax.remove()
        ax = figure.add_subplot(axes[0, k].get_gridspec()[:, k])
        ax.imshow(picture, cmap="gray_r", vmin=0)
        ax.set_title(title, fontsize=9, weight="normal", loc="center")
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set(visible=True, color=INK, linewidth=2)
        ax.set_anchor("E")
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
    columns: int = 13,
) -> Figure:
    """Return a figure of pictures and, below each, what was said of it.

    Parameters
    ----------
    pictures : numpy.ndarray
        Shape (pictures, height, width).
    truth : sequence
        What is right, for each picture.
    said : dict
        Name -> an answer to each picture. Right ones are bold, in colour; wrong ones
        are struck through.
    titles : sequence of str
        What stands above each picture.
    columns : int
        Pictures in a row.
    """
    wide, high = min(columns, len(pictures)), -(-len(pictures) // columns)
    each = 0.75 + 0.27 * len(said) + 0.25 * bool(titles)
    size = (0.66 * wide + 1.5, each * high)
    figure, axes = plt.subplots(high, wide, figsize=size, squeeze=False)
    figure.subplots_adjust(left=1.5 / size[0], right=1, hspace=each / 0.6 - 1)
    for ax in axes.flat:
        ax.set_axis_off()
    at: Any = {"xycoords": "axes fraction", "textcoords": "offset points"}
    for k, (ax, picture) in enumerate(zip(axes.flat, pictures, strict=False)):
        ax.imshow(picture, cmap="gray_r")
        title = "".join(titles[k : k + 1])
        ax.set_title(title, fontsize=8, weight="normal", loc="center")
        for line, (name, told) in enumerate(said.items(), 1):
            right = told[k] == truth[k]
            words = (
                str(told[k]) if right else "".join(c + "\u0336" for c in str(told[k]))
            )
            look: Any = {"color": COLOURS[2] if right else "#777777", "fontsize": 11}
            look["weight"] = "bold" if right else "normal"
            y = 2 - 19 * line
            ax.annotate(words, (0.5, 0), (0, y - 3), ha="center", **at, **look)
            if k % columns == 0:
                ax.annotate(name, (0, 0), (-10, y), ha="right", va="center", **at)
    return figure


def holdings(
    examples: Sequence[tuple[np.ndarray, np.ndarray]],
    classes: int,
    *,
    mark: tuple[int, int] | None = None,
) -> Figure:
    """Return a figure of what clients hold: a row each, with a column for each class.

    A cell shows the client's most typical example of the class, the nearest to the mean
    of all, and how many there are; it is empty if there is none.

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
    xs, ys = (np.concatenate(parts) for parts in zip(*examples, strict=True))
    means = {k: xs[ys == k].mean(axis=0) for k in np.unique(ys)}
    for i, (x, y) in enumerate(examples):
        for k in np.unique(y):
            far = np.square(x[y == k] - means[k]).sum(axis=(1, 2))
            place = (k - 0.45, k + 0.05, i + 0.42, i - 0.42)
            ax.imshow(x[y == k][far.argmin()], cmap="gray_r", extent=place)
            ax.text(k + 0.1, i, str((y == k).sum()), va="center", fontsize=8.5)
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
