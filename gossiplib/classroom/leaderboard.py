"""The leaderboard of the project: rows that can be checked, from many students.

A *row* is one line of JSON: who, which entry (its SHA-256), which version of the
yardstick, what the entry reached for each seed, and a checksum over all of it.
`check_row` finds a score or name that was edited, a row of another entry or version, a
file that was cut short. But anyone who can read this file can make a new checksum: only
`verify`, which runs the entry again, proves a score. Nothing here tells who wrote an
entry, nor that it plays fair, see `project`.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from gossiplib.classroom import project
from gossiplib.classroom.project import FINAL, EntryError, Outcome, Score
from gossiplib.viz.plots import COLOURS

__all__ = ["append", "check_row", "figure", "make_row", "merge", "table", "verify"]

Row: TypeAlias = dict[str, Any]

#: How far accuracies of the same entry may be apart on two machines, where sums may be
#: rounded otherwise, so that after many rounds the models differ a little.
TOLERANCE = 0.02


class Verdict(NamedTuple):
    """What does not fit in a row, and whether all final models are the same."""

    problems: list[str]
    same_models: bool


class Board(NamedTuple):
    """The best valid row of each name; where one that is not valid stands, and why."""

    rows: list[Row]
    refused: list[str]


def make_row(name: str, scored: Score) -> Row:
    """Return the row that says what an entry reached.

    Parameters
    ----------
    name : str
        Of the student or the team, 1 to 40 letters. The board has one row for each.
    scored : Score
        What `project.score` returned.
    """
    row: Row = {"name": name, "version": project.VERSION}
    row |= {"entry": _hash(scored.source), "outcomes": [*map(asdict, scored.outcomes)]}
    row["checksum"] = _checksum(row)
    check_row(row, seeds=None)
    return row


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _checksum(row: Row) -> str:
    rest = {key: value for key, value in row.items() if key != "checksum"}
    return _hash(json.dumps(rest, sort_keys=True, separators=(",", ":")))


def check_row(row: Row, seeds: Sequence[int] | None = FINAL) -> None:
    """Raise ValueError unless a row is valid; this runs nothing.

    Parameters
    ----------
    row : dict
        A row, as from `make_row` or a line of a file.
    seeds : sequence of int, optional
        Its seeds must be these, by default those that count; None admits any.

    Raises
    ------
    ValueError
        The message names what is wrong.
    """
    keys = ["name", "version", "entry", "outcomes", "checksum"]
    if not isinstance(row, dict) or sorted(row) != sorted(keys):
        raise ValueError(f"a row has the fields {', '.join(keys)}, and no others")
    if row["checksum"] != _checksum(row):
        raise ValueError("its checksum is wrong: something in it was changed")
    if row["version"] != (ours := project.VERSION):
        raise ValueError(f"it is of version {row['version']!r}, and this is {ours}")
    name = row["name"]
    if not isinstance(name, str) or not 1 <= len(name) <= 40 or name != name.strip():
        raise ValueError(f"a name has 1 to 40 letters, no space at its ends: {name!r}")
    if not project.is_hash(row["entry"]):
        raise ValueError("its entry is not named by a SHA-256")
    found = [outcome.seed for outcome in outcomes_of(row)]
    if seeds is not None and found != list(seeds):
        raise ValueError(f"its seeds are {found}; those that count are {list(seeds)}")


def outcomes_of(row: Row) -> list[Outcome]:
    """Return what a row says that its entry reached, if that is valid."""
    outcomes = row["outcomes"]
    if not isinstance(outcomes, list) or not outcomes:
        raise ValueError("it has no outcomes")
    try:
        return [Outcome(**outcome) for outcome in outcomes]
    except TypeError:
        names = ", ".join(field.name for field in fields(Outcome))
        raise ValueError(f"an outcome has the fields {names}") from None


def append(path: str | os.PathLike[str], row: Row) -> None:
    """Write a row at the end of a file, which is made if it is not there.

    Parameters
    ----------
    path : str or path-like
        The file.
    row : dict
        What `make_row` returned.
    """
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(row, sort_keys=True) + "\n")


def verify(row: Row, entry: Callable[..., Any] | str) -> Verdict:
    """Return the problems of a row, and whether its entry has the same models again.

    An entry is the program of somebody else: look at it before you run it. If its final
    models are not the same, bit by bit, accuracies may differ by 0.02.

    Parameters
    ----------
    row : dict
        What `make_row` returned, or one of the rows that `merge` did.
    entry : callable or str
        The entry or its source, see `project.score`.
    """
    try:
        check_row(row, seeds=None)
    except ValueError as error:
        return Verdict([f"the row: {error}"], False)
    if row["entry"] != _hash(project.source_of(entry)):
        return Verdict(["the row belongs to another entry, or it was changed"], False)
    claimed = outcomes_of(row)
    try:
        again = project.score(entry, [o.seed for o in claimed]).outcomes
    except EntryError as error:
        return Verdict([f"the entry does not run: {error}"], False)
    problems, all_same = [], True
    for old, new in zip(claimed, again, strict=True):
        same = old.digest == new.digest  # then all the rest is, too
        all_same = all_same and same
        within = {} if same else {"worst": TOLERANCE, "mean": TOLERANCE}
        for name in ("worst", "mean", "bytes", "rounds"):
            was, now = getattr(old, name), getattr(new, name)
            if abs(was - now) > within.get(name, 0):
                text = f"seed {old.seed}: {name} is {now}, and the row says {was}"
                problems.append(text)
    return Verdict(problems, all_same)


def merge(
    paths: Iterable[str | os.PathLike[str]], seeds: Sequence[int] = FINAL
) -> Board:
    """Return the best valid row for each name in some files, and what was refused.

    Neither the order of files and rows matters, nor how often one comes.

    Parameters
    ----------
    paths : iterable of path
        Files with a row a line, as `append` writes them.
    seeds : sequence of int
        Seeds that a row must have; by default those that count.
    """
    valid, refused = [], set()
    for path in map(Path, paths):
        text = path.read_text(encoding="utf-8", errors="replace")
        for number, line in enumerate(text.split("\n"), 1):
            if not line.strip():
                continue
            row: Any = None
            try:
                row = _parsed(line)
                check_row(row, seeds)
                valid.append(row)
            except ValueError as error:
                named = isinstance(row, dict) and "name" in row
                whose = f" ({row['name']!s:.40})" if named else ""
                refused.add(f"{path.name}, line {number}{whose}: {error}")
    best: dict[str, Row] = {}
    for row in sorted(valid, key=rank):
        best.setdefault(row["name"], row)
    return Board(list(best.values()), sorted(refused))


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON, or it was cut short") from None


def rank(row: Row) -> tuple[float, int, str]:
    """Return what a board sorts a row by: score, then fewer bytes; never a tie."""
    spent = sum(outcome["bytes"] for outcome in row["outcomes"])
    worst = np.mean([outcome["worst"] for outcome in row["outcomes"]])
    return -float(worst), spent, row["checksum"]


def table(rows: Sequence[Row]) -> pd.DataFrame:
    """Return rows as a table, in their order.

    Its columns: the score (accuracy of the worst client, mean over the seeds), the
    lowest and highest of the seeds, the mean client's accuracy, and MB.
    """
    lines = []
    for row in rows:
        reached = pd.DataFrame(row["outcomes"])
        line = {"name": row["name"], "worst client": reached["worst"].mean()}
        line |= {"lowest": reached["worst"].min(), "highest": reached["worst"].max()}
        line |= {"mean client": reached["mean"].mean()}
        line |= {"MB": reached["bytes"].mean() / 1e6, "entry": row["entry"][:8]}
        lines.append(line)
    return pd.DataFrame(lines, index=pd.RangeIndex(1, len(lines) + 1))


def figure(rows: Sequence[Row]) -> Figure:
    """Return a figure of rows: worst client over bytes, mean and range over seeds."""
    fig, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
    for k, row in enumerate(table(rows).to_dict("records")):
        worst = row["worst client"]
        below_above = [[worst - row["lowest"]], [row["highest"] - worst]]
        style: dict[str, Any] = {"marker": "osD^vPX"[k % 7], "label": row["name"]}
        style |= {"color": COLOURS[k % len(COLOURS)], "capsize": 3}
        ax.errorbar(row["MB"], worst, below_above, **style)
    budget = project.NETWORK.budget / 1e6
    ax.axvline(budget, color="black", linestyle=":", linewidth=1, label="budget")
    fig.legend(loc="outside right upper", fontsize=8)
    ax.set(xlabel="MB that reached clients", ylabel="accuracy of the worst client")
    ax.set(xlim=(0, 1.05 * budget), ylim=(0, 1))
    ax.grid(alpha=0.3)
    return fig
