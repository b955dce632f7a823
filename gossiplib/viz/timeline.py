"""Who sent what to whom and when: a picture of peers and their messages.

A line for each peer, time to the right, and an arrow for each message. It draws the
table of events that `peers.Peers.events` returns.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gossiplib.viz.plots import COLOURS

__all__ = ["draw", "messages"]

_STAMP = ["sender", "receiver", "start", "count"]


def messages(events: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each letter: who sent it to whom, in which round, and when.

    Parameters
    ----------
    events : pandas.DataFrame
        See `peers.Peers.events`.

    Returns
    -------
    pandas.DataFrame
        Columns sender, receiver, round, bytes, sent, received (seconds). A letter that
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


def draw(events: pd.DataFrame, begin: float = 0.0, end: float | None = None) -> Figure:
    """Draw peers as lines and messages as arrows, in a part of the time.

    Parameters
    ----------
    events : pandas.DataFrame
        See `peers.Peers.events`.
    begin, end : float
        From when to when, in seconds.
    """
    end = events["time"].max() if end is None else end
    peers = sorted(events["peer"].unique())
    figure, ax = plt.subplots(
        figsize=(8, 0.45 * len(peers) + 1.4), layout="constrained"
    )
    for peer in peers:
        own = events[events["peer"] == peer]
        # A round ends where its average is made.
        ends = own[own["event"] == "round"]
        ax.plot(ends["time"], ends["peer"], "|", color="black", markersize=11)
    letters = messages(events)
    shown = letters[(letters["sent"] >= begin) & (letters["sent"] <= end)]
    for one in shown.itertuples():
        if pd.isna(one.received):
            lost = {"marker": "x", "color": COLOURS[1], "markersize": 5}
            towards = one.sender + 0.3 * (1 if one.receiver > one.sender else -1)
            ax.plot([one.sent] * 2, [one.sender, towards], ":", color=COLOURS[1], lw=1)
            ax.plot(one.sent, towards, **lost)
            continue
        ax.annotate(
            "",
            (one.received, one.receiver),
            (one.sent, one.sender),
            arrowprops={"arrowstyle": "->", "color": COLOURS[0], "lw": 0.7},
        )
    ax.set(xlim=(begin, end), xlabel="seconds", ylabel="peer", yticks=peers)
    ax.set_ylim(max(peers) + 0.6, min(peers) - 0.6)
    ax.spines[["top", "right"]].set_visible(False)
    died = [_life(ax, i, events[events["peer"] == i], begin, end) for i in peers]
    # Without rounds a peer writes down the ticks of its timer.
    tick = "tick of a timer" if "learned" in set(events["event"]) else "end of a round"
    part = events[events["time"].between(begin, end)]
    handles = _legend(part, shown, any(died), tick)
    figure.legend(handles=handles, fontsize=8, loc="outside lower center", ncols=3)
    return figure


def _life(ax: plt.Axes, peer: int, own: pd.DataFrame, begin: float, end: float) -> bool:
    """Draw when a peer was there; tell whether it dies in this part of the time."""
    starts = own.loc[own["event"] == "started", "time"].tolist()
    dies = False
    for start, after in zip(starts, [*starts[1:], np.inf], strict=True):
        part = own[(own["time"] >= start) & (own["time"] < after)]
        last = part["time"].max()
        ax.plot([start, last], [peer, peer], color="#888888", lw=2)
        if "ended" not in set(part["event"]) and begin <= last <= end:
            style = {"marker": "X", "color": COLOURS[1], "markersize": 9}
            ax.plot(last, peer, markeredgecolor="black", **style)
            dies = True
    for event, marker in {"caught up": ">", "skipped": "D"}.items():
        at = own.loc[own["event"] == event, "time"]
        style = {"color": COLOURS[2], "markersize": 9, "markeredgecolor": "black"}
        ax.plot(at, [peer] * len(at), marker, **style)
    return dies


def _legend(
    events: pd.DataFrame, shown: pd.DataFrame, dies: bool, tick: str
) -> list[Line2D]:
    """Return what the legend tells: only what the picture has."""
    kinds = set(events["event"])
    handles = [
        Line2D([], [], color=COLOURS[0], lw=0.7, label="a message, sent and received"),
        Line2D([], [], color="black", marker="|", ls="", label=tick),
    ]
    style = {"ls": "", "markeredgecolor": "black"}
    if shown["received"].isna().any():
        lost = {"color": COLOURS[1], "marker": "x", "ls": ":"}
        handles.append(Line2D([], [], label="a message that is lost", **lost))
    if dies:
        killed = {"color": COLOURS[1], "marker": "X"}
        handles.append(Line2D([], [], label="killed", **killed, **style))
    for event, marker in {"caught up": ">", "skipped": "D"}.items():
        if event in kinds:
            caught = {"color": COLOURS[2], "marker": marker}
            text = "takes a neighbour's model" if marker == ">" else "skips rounds"
            handles.append(Line2D([], [], label=text, **caught, **style))
    return handles
