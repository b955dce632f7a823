"""Gossip averaging by hand, on paper: cards for a class, and the table to expect.

Students stand in a ring. Each holds a card with a number, hears some others in each
round, and writes down the mean. The first rounds need no fractions. `page` is what to
print on A4, as HTML:

    python -m gossiplib.classroom.unplugged ring 12 --seed 1 > cards.html
"""

import argparse
from string import Template
from typing import NamedTuple

import networkx as nx
import numpy as np
import pandas as pd

from gossiplib.core import mixing, topology

PAGE = Template("""\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>$title</title>
<style>
@page { size: A4; margin: 12mm }
body { font: 11pt sans-serif; color: black; background: white; margin: 0 }
section { break-after: page }
.cards { display: grid; grid-template-columns: 1fr 1fr; gap: 6mm }
.card { border: 1px dashed black; padding: 4mm; height: 80mm; break-inside: avoid;
        box-sizing: border-box; overflow: hidden }
.card h2 { margin: 0 0 2mm; font-size: 13pt }
.card p { margin: 0 0 2mm }
table { border-collapse: collapse; margin-top: 2mm }
th, td { border: 1px solid black; padding: 1mm 2mm; text-align: right }
.card td { height: 9mm; min-width: 11mm }
</style></head>
<body>
$cards
<section><h1>What to expect after each round</h1>
$table</section>
</body></html>
""")


class Game(NamedTuple):
    """A game for a class: who hears whom, and what they should get.

    `numbers` are what each student should hold at the start and after each round, in
    the shape (rounds + 1, students).
    """

    name: str
    schedule: topology.Schedule
    liar: int | None
    numbers: np.ndarray


#: Name -> its schedule for n students, and the unit of the first numbers, of which two
#: rounds of thirds, or three of halves, leave whole ones.
GAMES = {"ring": (nx.cycle_graph, 9), "leaps": (topology.one_peer_exponential, 8)}


def game(
    name: str, students: int, *, rounds: int = 3, seed: int = 0, liar: int | None = None
) -> Game:
    """Return a game: who hears whom, and the numbers that all should get.

    Parameters
    ----------
    name : {"ring", "leaps"}
        In "ring", all hear the neighbours on both sides, and take the mean of three
        numbers. In "leaps", each hears one student: in round 1 the next to the left, in
        round 2 the one two places to the left, then four, and takes the mean of two.
    students : int
        From 4 to 40. "leaps" ends at the exact mean if it is a power of 2.
    rounds, seed : int
        Rounds to play, and the seed of the numbers, which are from 0 to 99.
    liar : int, optional
        A student, 0 to students - 1, who keeps its number and says it for ever.

    Raises
    ------
    ValueError
        If there is no such game, number of students, or liar.
    """
    if name not in GAMES:
        raise ValueError(f"no game {name!r}; there are {', '.join(GAMES)}")
    if not 4 <= students <= 40:
        raise ValueError(f"a game needs 4 to 40 students; got {students}")
    if liar is not None and liar not in range(students):
        raise ValueError(f"no student {liar}: they are 0 to {students - 1}")
    build, unit = GAMES[name]
    schedule = build(students)
    draw = np.random.default_rng(seed).integers(0, 99 // unit + 1, students)
    numbers = [unit * draw.astype(float)]
    for t in range(1, rounds + 1):
        W = mixing.metropolis(topology.at(schedule, t))
        if liar is not None:
            W[liar] = np.eye(students)[liar]
        numbers.append(W @ numbers[-1])
    return Game(name, schedule, liar, np.array(numbers))


def page(played: Game) -> str:
    """Return a page of HTML that prints a `played` game, and the table to expect.

    By hand one rounds, so from the first fraction on a student may be 0.1 off.
    """
    rounds, students = played.numbers.shape
    cards = [_card(played, student) for student in range(students)]
    sheets = ["".join(cards[k : k + 6]) for k in range(0, students, 6)]
    expected = pd.DataFrame(played.numbers.T, columns=["start", *range(1, rounds)])
    expected.loc["mean"] = expected.mean()
    expected = expected.rename({played.liar: f"{played.liar}, liar"})
    table = expected.rename_axis(columns="student").map(as_written)
    return PAGE.substitute(
        title=f"Gossip by hand: {played.name}, {students} students",
        cards="\n".join(f'<section class="cards">{s}</section>' for s in sheets),
        table=table.to_html(border=0),
    )


def _card(played: Game, student: int) -> str:
    first = as_written(played.numbers[0, student])
    liar = student == played.liar
    rows, count = [], "three" if played.name == "ring" else "two"
    for t in range(1, len(played.numbers)):
        row = {"round": f"{t}", "left": "", "right": ""}
        if played.name == "leaps":
            (other,) = topology.senders(topology.at(played.schedule, t), student)
            row = {"round": f"{t}, from {other}", "heard": ""}
        rows.append(row | {"mine": first if t == 1 or liar else "", "new": ""})
    rule = f"In each round: new = the mean of the {count} numbers."
    if liar:
        rule = "You are the liar: say your first number in each round, and keep it."
    return (
        f'<div class="card"><h2>Student {student}: {first}</h2><p>{rule}</p>\n'
        f"{pd.DataFrame(rows).to_html(index=False, border=0)}</div>\n"
    )


def as_written(number: float) -> str:
    """Return a number as it is written by hand: at most one digit behind the point."""
    rounded = round(float(number), 1)
    return f"{rounded:.0f}" if rounded == int(rounded) else f"{rounded}"


def main() -> None:
    """Print the page of a game."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=GAMES)
    parser.add_argument("students", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--liar", type=int, help="a student who lies")
    print(page(game(**vars(parser.parse_args()))), end="")


if __name__ == "__main__":
    main()
