"""Who sent what to whom and when: the space-time diagram of peers and their messages.

A line for each peer, time to the right, and an arrow for each message. It draws the
table of events that `gossiplib.peers.Peers.events` returns, and models that walk.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gossiplib.viz.style import COLOURS, INK, QUIET

__all__ = ["families", "messages", "processes", "space_time"]

#: What only one message has, at its sender and at its receiver.
_STAMP = ["sender", "receiver", "start", "count"]

_LOST: dict[str, Any] = {"label": "a message that is lost", "color": INK}
_LOST |= {"ls": ":", "lw": 1.2, "marker": "x", "markersize": 6, "markevery": [1]}
_MARK: dict[str, Any] = {"ls": "", "markersize": 10, "markeredgecolor": "white"}
_KILLED = _MARK | {"color": INK, "marker": "X", "label": "killed"}
_LATE = _MARK | {"color": COLOURS[2]}
#: Of rounds and of peers: colours that no role has (see `style.ROLES`) but gossip's.
_CYCLE = [COLOURS[k] for k in (0, 5, 2, 4)]
#: Event -> how it is marked.
_MARKED = {
    "caught up": _LATE | {"marker": ">", "label": "takes a neighbour's model"},
    "skipped": _LATE | {"marker": "D", "label": "skips rounds"},
}


def messages(events: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each message among the events of `Peers.events`.

    Columns are sender, receiver, round, bytes, sent, received (seconds). A message that
    was refused, or did not get there, has no `received`.
    """
    ends = {}
    for event, names in {
        "sent": {"peer": "sender", "other": "receiver", "time": "sent"},
        "received": {"peer": "receiver", "other": "sender", "time": "received"},
    }.items():
        rows = events[events["event"] == event].rename(columns=names)
        rows = rows.reindex(columns=[*_STAMP, "round", "bytes", event])
        ends[event] = rows.astype(dict.fromkeys(_STAMP, "int64"))
    came = ends["received"][[*_STAMP, "received"]]
    table = ends["sent"].merge(came, on=_STAMP, how="left")
    # One that was sent again, to a peer that has just come, came the last time.
    again = table.duplicated(_STAMP, keep="last")
    table.loc[again, "received"] = np.nan
    columns = ["sender", "receiver", "round", "bytes", "sent", "received"]
    return table.sort_values("sent", ignore_index=True)[columns]


def space_time(
    events: pd.DataFrame,
    begin: float = 0.0,
    end: float | None = None,
    *,
    peers: Sequence[int] | None = None,
) -> Figure:
    """Return a figure of peers as lines and messages as arrows, in a part of the time.

    In rounds, a colour is a round: of a block, in which a peer trains; of the thin line
    after it, in which it waits; and of the messages. Without rounds, a colour is a
    sender, and a bar a moment at which it sends. A legend names what else there is in
    this part.

    Parameters
    ----------
    events : pandas.DataFrame
        One row an event, see `Peers.events`.
    begin, end : float
        From when to when, in seconds; by default from the first event to the last.
    peers : sequence of int, optional
        Who is drawn, from top to bottom, with the messages among them; by default all.
    """
    end = events["time"].max() if end is None else end
    peers = sorted(events["peer"].unique()) if peers is None else peers
    rows = {peer: y for y, peer in enumerate(peers)}
    size = (9, 0.55 * len(peers) + 1.3)
    figure, ax = plt.subplots(figsize=size, layout="constrained")
    ax.set(xlim=(begin, end), ylim=(len(peers) - 0.5, -0.7))
    by = "sender" if "learned" in set(events["event"]) else "round"
    table = messages(events)
    known = table["sender"].isin(rows) & table["receiver"].isin(rows)
    _messages(ax, table[known & table["sent"].between(begin, end)], rows, by)
    for peer, y in rows.items():
        own = events[events["peer"] == peer]
        _life(ax, y, own, begin, end)
        if by == "round":
            _rounds(ax, y, own, begin, end)
        else:
            sent = own.loc[own["event"] == "sent", "time"]
            bar: dict[str, Any] = {"color": _colour(peer), "markersize": 16}
            ax.plot(sent, [y] * len(sent), "|", markeredgewidth=3.5, **bar)
    part = events[events["time"].between(begin, end) & events["peer"].isin(rows)]
    for event, at in part.groupby("event"):
        if event in _MARKED:
            ax.plot(at["time"], at["peer"].map(rows), **_MARKED[event], zorder=5)
    ax.set(xlabel="seconds", yticks=range(len(peers)))
    ax.set_yticklabels([f"peer {peer}" for peer in peers])
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    _legend(ax)
    return figure


def _legend(ax: Axes) -> None:
    """Name below a picture what has a name in it, each kind once."""
    handles, labels = ax.get_legend_handles_labels()
    once: Any = dict(zip(labels, handles, strict=True))
    look: Any = {"loc": "outside lower center", "ncols": 4, "fontsize": 10}
    if once:
        ax.figure.legend(once.values(), once, **look)


def _colour(number: int) -> str:
    """Return the colour of a round or of a peer."""
    return _CYCLE[int(number) % len(_CYCLE)]


def _messages(ax: Axes, table: pd.DataFrame, rows: dict[int, int], by: str) -> None:
    """Draw messages, in the colour of their round or of their sender."""
    for one in table.itertuples():
        a, b = rows[one.sender], rows[one.receiver]
        if pd.isna(one.received):
            ax.plot([one.sent] * 2, [a, a + 0.55 * np.sign(b - a)], **_LOST, zorder=4)
        else:
            look = {"arrowstyle": "-|>", "lw": 1, "color": _colour(getattr(one, by))}
            look |= {"shrinkA": 0, "shrinkB": 2, "zorder": 3.5}  # above the blocks
            ax.annotate("", (one.received, b), (one.sent, a), arrowprops=look)


def _rounds(ax: Axes, y: int, own: pd.DataFrame, begin: float, end: float) -> None:
    """Draw the rounds of a peer: a block while it trains, a line while it waits."""
    begun = trained = None
    for one in own.sort_values("time").itertuples():
        if one.event == "trained" and begun is not None:
            trained = one.time
            a, b = max(begun, begin), min(trained, end)
            if b > a:
                ax.barh(y, b - a, 0.34, a, color=_colour(one.round), zorder=3)
                if b - a > 0.04 * (end - begin):
                    words: dict[str, Any] = {"ha": "center", "va": "center"}
                    words |= {"fontsize": 8, "color": "white", "zorder": 4}
                    ax.text((a + b) / 2, y, f"{one.round:.0f}", weight="bold", **words)
        elif one.event == "round" and trained is not None:
            colour = _colour(one.round)
            ax.hlines(y, max(trained, begin), min(one.time, end), color=colour, lw=3)
        if one.event in ("joined", "caught up", "round"):
            begun = one.time


def _life(ax: Axes, y: int, own: pd.DataFrame, begin: float, end: float) -> None:
    """Draw when a peer was there, and where it was killed."""
    starts = own.loc[own["event"] == "started", "time"].tolist()
    for start, after in zip(starts, [*starts[1:], np.inf], strict=True):
        part = own[(own["time"] >= start) & (own["time"] < after)]
        last = part["time"].max()
        ax.plot([start, last], [y, y], color=QUIET, lw=1.5, zorder=1)
        if "ended" not in set(part["event"]) and begin <= last <= end:
            ax.plot(last, y, **_KILLED, zorder=5)


def families(
    walks: Iterable[tuple[float, int, float, int, int]],
    num_clients: int,
    now: float,
    end: float,
) -> Figure:
    """Return a figure of models that walk from client to client, up to a time.

    Each client begins a family, A, B, ..., with a colour of its own. A thick line is
    what a client holds, a thin one a message; a dot is one that is still on its way.

    Parameters
    ----------
    walks : iterable of tuples
        For each message: when it was sent, by whom; when it was received, by whom; and
        of which family it is.
    num_clients : int
        Number of clients, at most 7.
    now, end : float
        Up to when, and how much room there is, in cycles.
    """
    size = (7.2, 0.48 * num_clients + 0.7)
    figure, ax = plt.subplots(figsize=size, layout="constrained")
    holds = {i: (0.0, i) for i in range(num_clients)}
    thick: dict[str, Any] = {"linewidth": 7, "zorder": 2}
    for sent, sender, received, receiver, family in sorted(walks, key=lambda w: w[2]):
        colour, part = COLOURS[family], min(1, (now - sent) / (received - sent))
        if part > 0:
            front = sent + part * (received - sent), sender + part * (receiver - sender)
            ax.plot(*zip((sent, sender), front, strict=True), color=colour, lw=1.4)
            ax.plot(*front, "o", color=colour, markersize=0 if part == 1 else 6)
        if part == 1:
            since, old = holds[receiver]
            ax.hlines(receiver, since, received, color=COLOURS[old], **thick)
            holds[receiver] = received, family
    for i, (since, family) in holds.items():
        ax.hlines(i, since, now, color=COLOURS[family], **thick)
        place: dict[str, Any] = {"va": "center", "color": COLOURS[family]}
        ax.text(now + 0.06, i, f"family {'ABCDEFG'[family]}", weight="bold", **place)
    names = [f"client {'ABCDEFG'[i]}" for i in range(num_clients)]
    ax.hlines(range(num_clients), 0, now, color=QUIET, linewidth=0.5, zorder=0)
    ax.set(xlim=(0, end + 0.9), xlabel="time in cycles", xticks=np.arange(end + 1))
    ax.set_yticks(range(num_clients), names)
    ax.set_ylim(num_clients - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.spines["bottom"].set_bounds(0, end)
    return figure


def processes(
    lives: pd.DataFrame,
    begin: float,
    end: float,
    *,
    bands: Sequence[tuple[str, tuple[float, float]]],
    marks: Mapping[str, Sequence[tuple[float, str]]],
    notes: Sequence[tuple[float, str, str]] = (),
) -> Figure:
    """Return a figure of which processes live when, in a part of the time.

    A legend names what is drawn in this part.

    Parameters
    ----------
    lives : pandas.DataFrame
        One row a process: `row`, the name of the line on which it is drawn, from top to
        bottom as they come first; `start` and `end` in seconds; and `short`, whether it
        is one of the short ones, which are drawn as blocks, in a colour of their own.
    begin, end : float
        From when to when, in seconds.
    bands : sequence of tuples
        What goes on, and from when to when, in seconds. Every second one is shaded.
    marks : dict
        "heartbeat" or "killed" -> when, and on which row.
    notes : sequence of tuples
        When, on which row, and words to write beside it.
    """
    rows = {name: y for y, name in enumerate(dict.fromkeys(lives["row"]))}
    size = (10, 0.42 * len(rows) + 1.4)
    figure, ax = plt.subplots(figsize=size, layout="constrained")
    for k, (name, (a, b)) in enumerate(bands):
        a, b = max(a, begin), min(b, end)
        if b > a:
            ax.axvspan(a, b, color="#f1f1f1" if k % 2 else "white", lw=0, zorder=0)
            ax.axvline(a, color="#d8d8d8", linewidth=0.8, zorder=0)
            words: dict[str, Any] = {"ha": "center", "va": "bottom"}
            ax.text((a + b) / 2, -0.75, name, color=INK, **words)
    for one in lives.itertuples():
        a, b = max(one.start, begin), min(one.end, end)
        if b > a:
            height, colour = (0.56, COLOURS[5]) if one.short else (0.16, COLOURS[4])
            edge: dict[str, Any] = {"edgecolor": "white", "linewidth": 0.4}
            edge["label"] = "a client process" if one.short else "a process that stays"
            y = rows[one.row]
            ax.barh(y, b - a, height, a, color=colour, zorder=2 + one.short, **edge)
    looks: dict[str, dict[str, Any]] = {
        "heartbeat": {"marker": "o", "color": COLOURS[2], "markersize": 6},
        "killed": _KILLED | {"markersize": 12},
    }
    for name, at in marks.items():
        here = [(t, rows[row]) for t, row in at if begin <= t <= end]
        if here:
            look = looks[name] | {"label": name, "ls": "", "zorder": 5}
            ax.plot(*zip(*here, strict=True), **look)
    for t, row, words_ in notes:
        ax.text(t, rows[row] - 0.34, words_, color=INK, zorder=6)
    ax.set(xlim=(begin, end), xlabel="seconds", ylim=(len(rows) - 0.4, -0.7))
    ax.set_yticks(range(len(rows)), list(rows))
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    _legend(ax)
    return figure
