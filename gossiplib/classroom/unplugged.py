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
.card { border: 1px dashed black; padding: 4mm; height: 86mm; break-inside: avoid;
        box-sizing: border-box; overflow: hidden; font-size: 10pt }
.card h2 { margin: 0 0 2mm; font-size: 13pt }
.card p { margin: 0 0 2mm }
.card svg { float: right; width: 38mm; height: 35mm; margin: -3mm -3mm 0 0 }
svg line { marker-end: url(#tip) }
svg { fill: white; stroke: black; font: 11px sans-serif; text-anchor: middle }
svg text { fill: black; stroke: none; dominant-baseline: central }
table { border-collapse: collapse; margin-top: 2mm }
th, td { border: 1px solid black; padding: 1mm 2mm; text-align: right }
.card table { clear: both; width: 100%; table-layout: fixed }
.card th, .card td { padding: 1mm }
.card td { height: 7mm }
</style></head>
<body>
<svg width="0" height="0" style="position: absolute" aria-hidden="true"><defs>
<marker id="tip" viewBox="0 0 9 8" refX="9" refY="4" markerWidth="9" markerHeight="8"
 orient="auto"><path d="M0 0 L9 4 L0 8 z" fill="black" stroke="none"/></marker>
</defs></svg>
$cards
<section><h1>For the teacher</h1>
<p>All <em>say</em> their number, and only then all write. This is what to expect after
each round; by hand one rounds, so from the first fraction on 0.1 more or less is
right.</p>
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

    Six cards go on a sheet of A4, and the teacher's table on the last sheet.
    """
    rounds, students = played.numbers.shape
    cards = [_card(played, student) for student in range(students)]
    sheets = ["".join(cards[k : k + 6]) for k in range(0, students, 6)]
    expected = pd.DataFrame(played.numbers.T, columns=["start", *range(1, rounds)])
    spread = [expected.min(), expected.mean(), expected.max()]
    for name, row in zip(("smallest", "mean", "largest"), spread, strict=True):
        expected.loc[name] = row
    expected = expected.rename({played.liar: f"{played.liar}, liar"})
    table = expected.rename_axis(columns="student").map(as_written)
    return PAGE.substitute(
        title=f"Gossip by hand: {played.name}, {students} students",
        cards="\n".join(f'<section class="cards">{s}</section>' for s in sheets),
        table=table.to_html(border=0),
    )


def _card(played: Game, student: int) -> str:
    rounds, n = played.numbers.shape
    first, liar = as_written(played.numbers[0, student]), student == played.liar
    if played.name == "ring":
        near = (student - 1) % n, (student + 1) % n
        arrows = {near[0]: "left", near[1]: "right"}
        hear = f"On your left is student {near[0]}, on your right student {near[1]}."
        heard, count = ["left", "right"], 3
    else:
        order = range(1, rounds)
        at = [topology.at(played.schedule, t) for t in order]
        others = [topology.senders(links, student)[0] for links in at]
        arrows = {
            i: ", ".join(f"{t}" for t, j in zip(order, others, strict=True) if j == i)
            for i in others
        }
        hear = "You hear one student a round; its arrow has the number of the round."
        heard, count = ["heard"], 2
    rows = []
    for t in range(1, rounds):
        row = {"round": f"{t}" if count == 3 else f"{t}, from {others[t - 1]}"}
        row |= dict.fromkeys(heard, "")
        row |= {"mine": first if t == 1 or liar else "", "sum": ""}
        rows.append(row | {"new": first if liar else ""})
    rule = f"Face the middle. {hear} In each round: new = sum / {count}."
    if liar:
        rule = "You are the liar. Say your first number in each round, and look honest."
    return (
        f'<div class="card">{_from_above(n, student, arrows)}'
        f"<h2>Student {student}: {first}</h2><p>{rule}</p>"
        "<p>I guess the average: ____</p>\n"
        f"{pd.DataFrame(rows).to_html(index=False, border=0)}"
        "<p>At the end I say _____ . Can I be sure? _____</p></div>\n"
    )


def _from_above(n: int, student: int, arrows: dict[int, str]) -> str:
    """Return a drawing of the circle, with this student at the bottom, facing in."""
    turn = 2 * np.pi * (np.arange(n) - student) / n - np.pi / 2
    out = np.stack([np.cos(turn), -np.sin(turn)], axis=1)
    size, drawn = min(9, 150 / n), []
    for i, words in arrows.items():
        way = 52 * (out[student] - out[i])
        if (far := np.linalg.norm(way)) > 30:  # else there is no room for an arrow
            points = [*52 * out[i], *(52 * out[student] - 11 * way / far)]
            ends = zip(["x1", "y1", "x2", "y2"], points, strict=True)
            drawn.append(
                "<line {}/>".format(" ".join(f'{k}="{v:.0f}"' for k, v in ends))
            )
        x, y = 70 * out[i]
        drawn.append(f'<text x="{x:.0f}" y="{y:.0f}">{words}</text>')
    for i, (x, y) in enumerate(52 * out):
        seen = i == student or i in arrows
        radius = max(size, 6) if seen else size / 2
        drawn.append(f'<circle cx="{x:.0f}" cy="{y:.0f}" r="{radius:.1f}"/>')
        if seen:
            drawn.append(f'<text x="{x:.0f}" y="{y:.0f}">{i}</text>')
    return f'<svg viewBox="-88 -78 176 158" aria-hidden="true">{"".join(drawn)}</svg>'


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
