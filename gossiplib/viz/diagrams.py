"""Diagrams of who says what to whom: actors, messages, and what each of them keeps."""

from collections.abc import Collection, Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from gossiplib.viz.style import COLOURS, INK, QUIET, ROLES

__all__ = ["sequence", "states"]

#: (from, to, words); where both are one actor, it is what that one does itself.
Step = tuple[str, str, str]


def sequence(
    actors: Sequence[str],
    steps: Sequence[Step | str],
    *,
    replies: Collection[str] | None = None,
) -> Figure:
    """Return a sequence diagram: time runs down, an arrow is a message.

    Parameters
    ----------
    actors : sequence of str
        Who takes part, from left to right. Servers and clients, known by their names,
        and what they send have the colours of their roles.
    steps : sequence
        In the order of time: (from, to, words) is a message, or what an actor does
        itself if it goes to the sender; a text alone is the title of what follows.
    replies : collection of str, optional
        The words of messages that are replies, and dashed; by default all that go to
        the left.
    """
    order = {name: k for k, name in enumerate(actors)}
    apart, right = 1.6, 0.8  # as near as their words allow, for narrow pages
    for source, target, words in (step for step in steps if not isinstance(step, str)):
        reach, wide = abs(order[source] - order[target]), 0.08 * len(words)
        apart = max(apart, wide / max(1, reach) + 0.5)
        if source == target == actors[-1]:
            right = max(right, wide + 0.4)
    width = 1.1 + apart * (len(actors) - 1) + right
    figure, ax = plt.subplots(figsize=(width, 0.36 * len(steps) + 0.7))
    place = {name: apart * k for name, k in order.items()}
    bottom = len(steps) + 0.3
    for name, x in place.items():
        ax.plot([x, x], [0, bottom], color=QUIET, linewidth=1, zorder=0)
        _box(ax, x, -0.35, name)
    for y, step in enumerate(steps, 1):
        if isinstance(step, str):
            ax.axhline(y - 0.15, color="#e4e4e4", linewidth=12, zorder=0)
            ax.text(-1.0, y - 0.15, step, va="center", fontsize=9, weight="bold")
            continue
        source, target, words = step
        a, b = place[source], place[target]
        if a == b:
            ax.plot([a], [y - 0.1], "o", color=COLOURS[2], markersize=7)
            ax.text(a + 0.14, y - 0.1, words, va="center", fontsize=9, color=COLOURS[2])
            continue
        reply = b < a if replies is None else words in replies
        ax.annotate(
            "",
            (b, y),
            (a, y),
            arrowprops={
                "arrowstyle": "-|>",
                "color": _colour(source),
                "shrinkA": 0,
                "shrinkB": 0,
                "linestyle": "--" if reply else "-",
            },
        )
        over = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        middle: dict[str, Any] = {
            "ha": "center",
            "va": "bottom",
            "fontsize": 9,
            "bbox": over,
        }
        ax.text((a + b) / 2, y - 0.1, words, **middle)
    ax.set(xlim=(-1.1, width - 1.1), ylim=(bottom, -0.8))
    ax.set_axis_off()
    return figure


def states(columns: Sequence[tuple[str, Sequence[tuple[str, str]]]]) -> Figure:
    """Return a picture of what one actor keeps, before and after each message.

    Parameters
    ----------
    columns : sequence of tuple
        (what came, what is kept then) in the order of time; what is kept are pairs of
        a name and its value. What is new or another is drawn in colour.
    """
    width, height = 1.9, max(len(kept) for _, kept in columns)
    size = (width * len(columns) + 0.3, 0.5 * height + 0.9)
    figure, ax = plt.subplots(figsize=size)
    before: dict[str, str] = {}
    for k, (came, kept) in enumerate(columns):
        x = k * width
        if came:
            ax.annotate(
                "",
                (x - 0.02, height / 2),
                (x - 0.28, height / 2),
                arrowprops={"arrowstyle": "-|>", "color": COLOURS[0]},
            )
        ax.text(x + 0.78, -0.35, came or "at first", ha="center", fontsize=9)
        style = "round,pad=0,rounding_size=0.1"
        ax.add_patch(
            FancyBboxPatch(
                (x, -0.1), 1.58, height + 0.2, boxstyle=style, fc="white", ec=QUIET
            )
        )
        for line, (name, value) in enumerate(kept):
            new = before.get(name) != value
            colour = COLOURS[2] if new and k else INK
            ax.text(x + 0.08, line + 0.3, name, fontsize=8, color=QUIET, va="center")
            ax.text(x + 0.08, line + 0.66, value, fontsize=9, color=colour, va="center")
        before = dict(kept)
    ax.set(xlim=(-0.35, width * len(columns)), ylim=(height + 0.3, -0.6))
    ax.set_axis_off()
    return figure


def _box(ax: Axes, x: float, y: float, words: str) -> None:
    look = {"boxstyle": "round,pad=0.35", "facecolor": "white", "linewidth": 2}
    look |= {"edgecolor": _colour(words)}
    ax.text(x, y, words, ha="center", va="center", fontsize=10, bbox=look)


def _colour(actor: str) -> str:
    """Return the colour of an actor's role, if its name tells one."""
    roles = [ROLES[role] for role in ("server", "client") if role in actor.lower()]
    return roles[0] if roles else INK
