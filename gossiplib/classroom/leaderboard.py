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
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

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
    is_hash,
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
    "rank",
    "table",
    "verify",
]

Row: TypeAlias = dict[str, Any]

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
        "outcomes": [asdict(outcome) for outcome in scored.outcomes],
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
    if row["version"] != VERSION:
        raise ValueError(f"it is of version {row['version']!r}, and this is {VERSION}")
    name = row["name"]
    if not isinstance(name, str) or not 1 <= len(name) <= 40 or name != name.strip():
        raise ValueError(f"a name has 1 to 40 letters, no space at its ends: {name!r}")
    if not is_hash(row["entry"]):
        raise ValueError("its entry is not named by a SHA-256")
    found = [outcome.seed for outcome in outcomes_of(row)]
    if seeds is not None and found != list(seeds):
        raise ValueError(f"its seeds are {found}; those that count are {list(seeds)}")


def outcomes_of(row: Row) -> list[Outcome]:
    """Return what a row says that its entry reached.

    Raises
    ------
    ValueError
        If it says nothing, or what cannot be.
    """
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
        A row, as from `make_row`.
    """
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(row, sort_keys=True) + "\n")


def verify(row: Row, entry: Callable[..., Any] | str) -> Verdict:
    """Return what does not fit in a row, by running its entry again.

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
    claimed = outcomes_of(row)
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
        for name in ("worst", "mean", "bytes", "rounds"):
            was, now = getattr(old, name), getattr(new, name)
            if abs(was - now) > (within if name in ("worst", "mean") else 0):
                text = f"seed {old.seed}: {name} is {now}, and the row says {was}"
                problems.append(text)
    return Verdict(problems, same)


def merge(
    paths: Iterable[str | os.PathLike[str]], seeds: Sequence[int] = FINAL
) -> Board:
    """Return the best valid row for each name in some files, and what is refused.

    Neither the order of files and rows matters, nor how often one comes.

    Parameters
    ----------
    paths : iterable of path
        Files with a row a line, as `append` writes them.
    seeds : sequence of int
        Seeds that a row must have; by default those that count.
    """
    best: dict[str, Row] = {}
    refused = set()
    for path in map(Path, paths):
        text = path.read_text(encoding="utf-8", errors="replace")
        for number, line in enumerate(text.split("\n"), 1):
            if not line.strip():
                continue
            row: Any = None
            try:
                row = _parsed(line)
                check_row(row, seeds)
            except ValueError as error:
                named = isinstance(row, dict) and "name" in row
                whose = f" ({row['name']!s:.40})" if named else ""
                refused.add(f"{path.name}, line {number}{whose}: {error}")
                continue
            rival = best.get(row["name"])
            if rival is None or rank(row) < rank(rival):
                best[row["name"]] = row
    return Board(sorted(best.values(), key=rank), sorted(refused))


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON, or it was cut short") from None


def rank(row: Row) -> tuple[float, int, str]:
    """Return what a board sorts a row by: score, then fewer bytes; never a tie."""
    spent = sum(outcome["bytes"] for outcome in row["outcomes"])
    return -float(_column(row, "worst").mean()), spent, row["checksum"]


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
    """Return a figure of rows: worst client over bytes, mean and range over seeds."""
    fig, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
    for k, row in enumerate(table(rows).to_dict("records")):
        worst = row["worst client"]
        ax.errorbar(
            row["MB"],
            worst,
            [[worst - row["lowest"]], [row["highest"] - worst]],
            capsize=3,
            color=COLOURS[k % len(COLOURS)],
            marker="osD^vPX"[k % 7],
            label=row["name"],
        )
    budget = NETWORK.budget / 1e6
    ax.axvline(budget, color="black", linestyle=":", linewidth=1, label="budget")
    fig.legend(loc="outside right upper", fontsize=8)
    ax.set(xlabel="MB that reached clients", ylabel="accuracy of the worst client")
    ax.set(xlim=(0, 1.05 * budget), ylim=(0, 1))
    ax.grid(alpha=0.3)
    return fig
