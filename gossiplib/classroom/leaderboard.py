"""The leaderboard of the project: rows that can be checked, from many students.

A *row* is one line of JSON: who, which entry (its SHA-256), which version of the
yardstick, what the entry reached for each seed, and a checksum over all of it.

What this finds: a score or name that was edited, a row that belongs to another entry
or another version, a file that was cut short (`check_row`); and by running the entry
again, scores that it does not reach (`verify`). What it does not: anyone who can read
this file can make a new checksum, so only `verify` proves a score. It does not tell who
wrote an entry, nor that it plays fair, see `project`.

The same entry gives the same models, bit by bit, on the same kind of machine with the
same packages. Elsewhere sums may be rounded otherwise, and after many rounds the models
differ a little. Then `verify` compares accuracies, within `TOLERANCE`.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from gossiplib.classroom.project import (
    FINAL,
    NETWORK,
    VERSION,
    EntryError,
    Outcome,
    Score,
    score,
    source_of,
)
from gossiplib.viz.plots import COLOURS

__all__ = [
    "TOLERANCE",
    "Board",
    "Verdict",
    "append",
    "check_row",
    "figure",
    "make_row",
    "merge",
    "table",
    "verify",
]

Row = dict[str, Any]

#: How far accuracies of the same entry may be apart on two machines.
TOLERANCE = 0.02


class Verdict(NamedTuple):
    """What `verify` found.

    Attributes
    ----------
    problems : list of str
        What does not fit; empty if all does.
    same_models : bool
        Whether all final models are the same, bit by bit.
    """

    problems: list[str]
    same_models: bool


class Board(NamedTuple):
    """What `merge` found.

    Attributes
    ----------
    rows : list of dict
        The best valid row of each name, the best first.
    refused : list of str
        Where a row that is not valid stands, and why.
    """

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
    row = {
        "name": name,
        "version": VERSION,
        "entry": _hash(scored.source),
        "outcomes": [outcome._asdict() for outcome in scored.outcomes],
    }
    row["checksum"] = _checksum(row)
    check_row(row, seeds=None)
    return row


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _checksum(row: Row) -> str:
    said = {key: value for key, value in row.items() if key != "checksum"}
    return _hash(json.dumps(said, sort_keys=True, separators=(",", ":")))


def check_row(row: Row, seeds: Sequence[int] | None = FINAL) -> None:
    """Raise ValueError, which names what is wrong, unless a row is valid.

    This looks at the row alone and runs nothing. With `seeds`, they must be these.
    """
    keys = ["name", "version", "entry", "outcomes", "checksum"]
    if not isinstance(row, dict) or sorted(row) != sorted(keys):
        raise ValueError(f"a row has the fields {', '.join(keys)}, and no others")
    if row["checksum"] != _checksum(row):
        raise ValueError("its checksum is wrong: something in it was changed")
    if row["version"] != VERSION:
        raise ValueError(f"it is of version {row['version']!r}, and this is {VERSION}")
    name = row["name"]
    if not isinstance(name, str) or not 1 <= len(name) <= 40 or name != name.strip():
        raise ValueError(f"a name has 1 to 40 letters, no space at its ends: {name!r}")
    if not _is_hash(row["entry"]):
        raise ValueError("its entry is not named by a SHA-256")
    outcomes = row["outcomes"]
    if not isinstance(outcomes, list) or not outcomes:
        raise ValueError("it has no outcomes")
    for outcome in outcomes:
        _check_outcome(outcome)
    found = [outcome["seed"] for outcome in outcomes]
    if seeds is not None and found != list(seeds):
        raise ValueError(f"its seeds are {found}; those that count are {list(seeds)}")


def _check_outcome(outcome: Row) -> None:
    if not isinstance(outcome, dict) or sorted(outcome) != sorted(Outcome._fields):
        raise ValueError(f"an outcome has the fields {', '.join(Outcome._fields)}")
    o = Outcome(**outcome)
    whole = all(type(value) is int for value in (o.seed, o.bytes, o.rounds))
    shares = all(type(value) is float for value in (o.worst, o.mean))
    if not whole or not shares or not _is_hash(o.digest):
        raise ValueError(f"the outcome of seed {o.seed!r} has a value of another type")
    if not 0 <= o.worst <= o.mean <= 1 or o.rounds < 1:
        raise ValueError(f"the outcome of seed {o.seed} cannot be")
    if not 0 <= o.bytes <= NETWORK.budget:
        raise ValueError(f"seed {o.seed} has {o.bytes} bytes, over the budget")


def _is_hash(value: object) -> bool:
    return (
        isinstance(value, str)
        and len(value) == 64
        and set(value) <= set("0123456789abcdef")
    )


def append(path: str | os.PathLike, row: Row) -> None:
    """Write a row at the end of a file, which is made if it is not there."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(row, sort_keys=True) + "\n")


def verify(row: Row, entry: Callable | str) -> Verdict:
    """Run the entry of a row again, and name what does not fit.

    An entry is the program of somebody else: look at it before you run it.

    Parameters
    ----------
    row : dict
        A row, as from `make_row` or `Board.rows`.
    entry : callable or str
        The entry or its source, see `project.score`.
    """
    try:
        check_row(row, seeds=None)
    except ValueError as error:
        return Verdict([f"the row: {error}"], False)
    if row["entry"] != _hash(source_of(entry)):
        return Verdict(["the row belongs to another entry, or it was changed"], False)
    claimed = [Outcome(**outcome) for outcome in row["outcomes"]]
    try:
        again = score(entry, [o.seed for o in claimed]).outcomes
    except EntryError as error:
        return Verdict([f"the entry does not run: {error}"], False)
    problems, same = [], True
    for old, new in zip(claimed, again, strict=True):
        if old == new:
            continue
        same = same and old.digest == new.digest
        # With the same models, all the rest is the same too.
        within = 0 if old.digest == new.digest else TOLERANCE
        for field in Outcome._fields[:-1]:
            was, now = getattr(old, field), getattr(new, field)
            far = within if field in ("worst", "mean") else 0
            if abs(was - now) > far:
                text = f"seed {old.seed}: {field} is {now}, and the row says {was}"
                problems.append(text)
    return Verdict(problems, same)


def merge(paths: Iterable[str | os.PathLike], seeds: Sequence[int] = FINAL) -> Board:
    """Read files of rows, and keep the best valid row for each name.

    Neither the order of files and rows matters, nor how often one comes.
    """
    best: dict[str, Row] = {}
    refused = set()
    for path in map(Path, paths):
        text = path.read_text(encoding="utf-8", errors="replace")
        for number, line in enumerate(text.split("\n"), 1):
            if not line.strip():
                continue
            try:
                row = _parsed(line)
                check_row(row, seeds)
            except ValueError as error:
                refused.add(f"{path.name}, line {number}{_of(line)}: {error}")
                continue
            rival = best.get(row["name"])
            if rival is None or _rank(row) < _rank(rival):
                best[row["name"]] = row
    return Board(sorted(best.values(), key=_rank), sorted(refused))


def _parsed(line: str) -> Row:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON, or it was cut short") from None


def _of(line: str) -> str:
    """Return whose a row is, as far as it tells."""
    try:
        return f" ({json.loads(line)['name']!s:.40})"
    except (ValueError, TypeError, KeyError, RecursionError):
        return ""


def _rank(row: Row) -> tuple:
    """Return what rows are sorted by: score, then fewer bytes; never a tie."""
    spent = sum(outcome["bytes"] for outcome in row["outcomes"])
    return -_column(row, "worst").mean(), spent, row["checksum"]


def _column(row: Row, field: str) -> np.ndarray:
    return np.array([outcome[field] for outcome in row["outcomes"]])


def table(rows: Sequence[Row]) -> pd.DataFrame:
    """Return rows as a table, in their order.

    Its columns: the score (accuracy of the worst client, mean over the seeds), the
    lowest and highest of the seeds, the mean client's accuracy, and MB.
    """
    lines = []
    for row in rows:
        worst = _column(row, "worst")
        lines.append(
            {
                "name": row["name"],
                "worst client": worst.mean(),
                "lowest": worst.min(),
                "highest": worst.max(),
                "mean client": _column(row, "mean").mean(),
                "MB": _column(row, "bytes").mean() / 1e6,
                "entry": row["entry"][:8],
            }
        )
    found = pd.DataFrame(lines)
    found.index = pd.RangeIndex(1, len(found) + 1)
    return found


def figure(rows: Sequence[Row]) -> Figure:
    """Draw the worst client's accuracy over the bytes: mean, and range over seeds."""
    fig, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
    for k, row in enumerate(rows):
        worst = _column(row, "worst")
        x, y = _column(row, "bytes").mean() / 1e6, worst.mean()
        span = [[y - worst.min()], [worst.max() - y]]
        style = {"color": COLOURS[k % len(COLOURS)], "marker": "osD^vPX"[k % 7]}
        ax.errorbar(x, y, span, capsize=3, label=row["name"], **style)
    budget = {"color": "black", "linestyle": ":", "linewidth": 1, "label": "budget"}
    ax.axvline(NETWORK.budget / 1e6, **budget)
    fig.legend(loc="outside right upper", fontsize=8)
    ax.set(xlabel="MB that reached clients", ylabel="accuracy of the worst client")
    ax.set(xlim=(0, 1.05 * NETWORK.budget / 1e6), ylim=(0, 1))
    ax.grid(alpha=0.3)
    return fig
