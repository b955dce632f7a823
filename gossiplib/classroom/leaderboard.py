"""The leaderboard of the project: rows that can be checked, from many students.

A team hands in two files, NAME.py, its entry, and NAME.jsonl, with its *row*. That is
one line of JSON: who, which entry (its SHA-256), which version of the yardstick, what
the entry reached for each seed, and a checksum over all of it. `merge` reads the rows
of all, and runs nothing: the open board, of what teams say. Anyone who can read this
file can make a new checksum, so only `verify`, which runs the entry again, tells
whether a row is true. The last board is made by `judge`, with seeds that no team knew.
Nothing here tells who wrote an entry.

Another processor may round sums otherwise, and the models that come of it read some
images otherwise: on one network, by up to 0.042 for the worst client (measured: four
entries, five networks, three sets of instructions). So no margin tells an honest score
from one that was raised a little, and none is allowed.
"""

import hashlib
import json
import os
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from gossiplib.classroom import project
from gossiplib.classroom.project import OPEN, EntryError, Outcome, Score
from gossiplib.viz.plots import INK, QUIET, ROLES

Row: TypeAlias = dict[str, Any]

#: Cyrillic and Greek letters, as `str.casefold` leaves them, that look like Latin ones
#: in either case; and marks that choose a variant of the character before.
_LOOKS = str.maketrans(
    "авекмнорстухіјѕһӏαβεζηικμνορτυχ", "abekmhopctyxijshlabezhikmnoptyx"
) | dict.fromkeys([*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)])
#: Characters that Unicode has as letters, marks or symbols, and that show nothing.
_BLANK = "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0"


class Verdict(NamedTuple):
    """What does not fit in a row, and what its entry reaches here.

    `same_models` tells whether all final models are the same, bit by bit. `measured` is
    the row of this run, for the board; None where the entry was not run to its end.
    """

    problems: list[str]
    same_models: bool = False
    measured: Row | None = None


class Board(NamedTuple):
    """The best valid row of each name; where one that is not valid stands, and why."""

    rows: list[Row]
    refused: list[str]


def make_row(name: str, scored: Score) -> Row:
    """Return the row that says what an entry reached, `scored` by `project.score`.

    The `name` of the student or team has 1 to 40 characters, and all can be seen.
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
    try:
        return _hash(json.dumps(rest, sort_keys=True, separators=(",", ":")))
    except (TypeError, ValueError, RecursionError):
        raise ValueError("it has a value that no row has") from None


def check_row(row: Row, seeds: Sequence[int] | None = OPEN) -> None:
    """Raise ValueError, which names what is wrong, unless a `row` is valid.

    Its `seeds` must be these, by default those of the open board; None admits any.
    """
    keys = ["name", "version", "entry", "outcomes", "checksum"]
    if not isinstance(row, dict) or row.keys() != {*keys}:
        raise ValueError(f"a row has the fields {', '.join(keys)}, and no others")
    if row["checksum"] != _checksum(row):
        raise ValueError("its checksum is wrong: something in it was changed")
    if row["version"] != (ours := project.VERSION):
        raise ValueError(f"it is of version {row['version']!r:.9}, and this is {ours}")
    _check_name(row["name"])
    if not project.is_hash(row["entry"]):
        raise ValueError("its entry is not named by a SHA-256")
    found = [outcome.seed for outcome in _outcomes_of(row)]
    if seeds is not None and found != list(seeds):
        text = f"its seeds are {found!s:.80}; those of the board are {list(seeds)}"
        raise ValueError(text)


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not 1 <= len(name) <= 40 or name != name.strip():
        text = "a name has 1 to 40 characters, no space at its ends"
        raise ValueError(f"{text}: {name!r:.60}" if isinstance(name, str) else text)
    for one in name:
        space = unicodedata.category(one) == "Zs"
        if one in _BLANK or not (space or one.isprintable()):
            raise ValueError(f"a name is what all can see, and U+{ord(one):04X} is not")
    if not _looks(name):
        raise ValueError(f"a name has characters, and not only marks: {name!r}")


def _looks(name: str) -> str:
    """Return the same for names that look alike: "Ada", "ada", "Аdа" (Cyrillic А)."""
    plain = unicodedata.normalize("NFKC", name).casefold()
    plain = unicodedata.normalize("NFKC", plain).translate(_LOOKS)
    return " ".join(plain.split())


def _outcomes_of(row: Row) -> list[Outcome]:
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
    """Write a `row` at the end of the file at `path`, which is read, if it is there."""
    with open(path, "ab+") as file:
        file.seek(-min(1, file.tell()), os.SEEK_END)
        lead = "" if file.read() in (b"", b"\n") else "\n"  # it was edited by hand
        file.write(f"{lead}{json.dumps(row, sort_keys=True)}\n".encode())


def verify(row: Row, entry: Callable[..., Any] | str) -> Verdict:
    """Return the problems of a `row`, and the row that its `entry` reaches here.

    An entry is the program of somebody else: look at it before you run it. Any number
    that is another here is a problem. Where the final models differ as well, it may be
    an honest one of another processor; take the row that was measured.
    """
    try:
        check_row(row, seeds=None)
    except ValueError as error:
        return Verdict([f"the row: {error}"])
    claimed = _outcomes_of(row)
    try:
        if row["entry"] != _hash(project.source_of(entry)):
            return Verdict(["the row belongs to another entry, or it was changed"])
        again = project.score(entry, [o.seed for o in claimed])
    except EntryError as error:
        return Verdict([f"the entry does not run: {error}"])
    problems, same_models = [], True
    for old, new in zip(claimed, again.outcomes, strict=True):
        same_models = same_models and old.digest == new.digest
        for name in ("worst", "mean", "bytes", "rounds"):
            was, now = getattr(old, name), getattr(new, name)
            if was != now:
                text = f"seed {old.seed}: {name} is {now}, and the row says {was}"
                problems.append(text)
    return Verdict(problems, same_models, make_row(row["name"], again))


def merge(
    paths: Iterable[str | os.PathLike[str]], seeds: Sequence[int] | None = OPEN
) -> Board:
    """Return the best valid row for each name in some files, and what was refused.

    Neither the order of the `paths` and rows matters, nor how often one comes. Of names
    that look alike, the one with the best row stays, and the others are named. By
    default, rows must have the `seeds` of the open board.
    """
    valid, refused = [], set()
    if isinstance(paths, str | os.PathLike):  # a text has characters, not paths
        paths = [paths]
    for path in map(Path, paths):
        try:
            text = path.read_text(encoding="utf-8-sig", errors="replace")
        except OSError as error:
            refused.add(f"{_shown(path.name)}: {error.strerror}")
            continue
        for number, line in enumerate(text.split("\n"), 1):
            if not line.strip():
                continue
            row: Any = None
            where = f"{_shown(path.name)}, line {number}"
            try:
                row = _parsed(line)
                check_row(row, seeds)
                valid.append((row, where))
            except ValueError as error:
                name = row.get("name") if isinstance(row, dict) else None
                whose = f" ({_shown(name):.40})" if isinstance(name, str) else ""
                refused.add(f"{where}{whose}: {error}")
    return _board(valid, refused)


def judge(folder: str | os.PathLike[str], seeds: Sequence[int]) -> Board:
    """Return the last board: what each entry in a `folder` reaches on `seeds`.

    Each NAME.py needs a NAME.jsonl beside it, with a valid row of that entry, of any
    seeds; the row's name is taken. What cannot be run is named, and the others go on.
    The entries are programs of others: look at them before, and run them where they can
    do no harm.
    """
    valid, refused = [], set()
    for path in sorted(Path(folder).iterdir()):
        if path.suffix != ".py":
            continue
        claims = merge([path.with_suffix(".jsonl")], seeds=None)
        refused |= {*claims.refused}
        try:
            source = project.source_of(path.read_text(encoding="utf-8-sig"))
            entries = {row["entry"]: row["name"] for row in claims.rows}
            if name := entries.get(_hash(source)):
                row = make_row(name, project.score(source, seeds))
                valid.append((row, _shown(path.name)))
            else:
                text = "no valid row beside it is of this entry"
                refused.add(f"{_shown(path.name)}: {text}")
        except (ValueError, OSError) as error:
            refused.add(f"{_shown(path.name)}: {_shown(str(error)):.300}")
    return _board(valid, refused)


def _board(valid: list[tuple[Row, str]], refused: set[str]) -> Board:
    """Return a board of valid rows, each with where it stands."""
    best: dict[str, Row] = {}
    for row, where in sorted(valid, key=lambda one: rank(one[0])):
        name, first = row["name"], best.setdefault(_looks(row["name"]), row)["name"]
        if name != first:
            text = f"it looks like {first!r}, whose row is better: take another name"
            refused.add(f"{where} ({name}): {text}")
    return Board(list(best.values()), sorted(refused))


def _shown(text: str) -> str:
    """Return a text as it is, or with escapes for what would not be seen in it."""
    return text if text.isprintable() else ascii(text)


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


def figure(rows: Sequence[Row], mine: str = "", *, names: bool = True) -> Figure:
    """Return a figure of `rows` in their order: a dot a network, a bar at the mean.

    The team called `mine` is picked out. Without `names` it alone is named.
    """
    size = (7.2, 0.27 * len(rows) + 0.9)
    fig, ax = plt.subplots(figsize=size, layout="constrained")
    beside: dict[str, Any] = {"transform": ax.get_yaxis_transform(), "va": "center"}
    for k, row in enumerate(rows, 1):
        worst, own = [one["worst"] for one in row["outcomes"]], row["name"] == mine
        look: Any = {"color": ROLES["gossip"] if own else INK}
        words = beside | look | {"weight": "bold" if own else "normal"}
        ax.axhspan(k - 0.5, k + 0.5, color="#f4f4f4", lw=0, zorder=0, alpha=k % 2)
        ax.plot(worst, [k] * len(worst), "o", alpha=0.45, ms=5, mew=0, **look)
        ax.plot([np.mean(worst)] * 2, [k - 0.36, k + 0.36], lw=3, **look)
        # A name is no formula ("$").
        name = f"{row['name']}  {k}" if names or own else str(k)
        ax.text(-0.015, k, name, ha="right", parse_math=False, **words)
        ax.text(1.015, k, f"{np.mean(worst):.2f}", **words)
    ax.set(yticks=[], ylim=(max(len(rows), 1) + 0.5, 0.5))
    ax.spines["left"].set_visible(False)
    ax.set_xlabel("accuracy of the worst client: a dot a network, a bar at the mean")
    ax.grid(True, axis="x", color=QUIET, alpha=0.35)
    return fig
