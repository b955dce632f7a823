"""What a teacher uses: cards to print, the fault detective, their notebooks, the guide.

Games are compared with W^t x in plain numpy. A detective of a few rules, written here,
reads only what a student sees, and solves sixty cases.
"""

import re
import subprocess
import sys
from functools import partial
from html.parser import HTMLParser

import networkx as nx
import numpy as np
import pytest
from bs4 import BeautifulSoup
from threadpoolctl import threadpool_limits

from gossiplib.classroom.diagnosis import (
    CLIENTS,
    COLUMNS,
    KINDS,
    ROUNDS,
    by_link,
    by_round,
    case,
)
from gossiplib.classroom.unplugged import as_written, game, page
from links import tagged
from notebooks import READING_TIME, ROOT, find, name, question, read, stated, teaching
from test_notebooks import CHECKED, LINES, MACHINE, WARNING, text_of

NOTEBOOKS = teaching(ROOT)
GUIDE = ROOT / "notebooks" / "teachers_guide.md"


# Gossip by hand.


def by_thirds(n):
    W = np.zeros((n, n))
    for i in range(n):
        W[i, [(i - 1) % n, i, (i + 1) % n]] = 1 / 3
    return W


def by_leap(n, hop):
    return (np.eye(n) + np.roll(np.eye(n), -hop, axis=1)) / 2


@pytest.mark.parametrize("n", [4, 5, 12, 30])
def test_the_ring_is_w_to_the_t_x(n):
    played = game("ring", n, rounds=6, seed=2)
    for t in range(7):
        wanted = np.linalg.matrix_power(by_thirds(n), t) @ played.numbers[0]
        np.testing.assert_allclose(played.numbers[t], wanted)


@pytest.mark.parametrize("n", [6, 8, 13])
def test_leaps_take_the_mean_with_one_that_is_1_2_4_places_away(n):
    x, *rounds = game("leaps", n, seed=2).numbers
    for hop, after in zip((1, 2, 4), rounds, strict=True):
        x = by_leap(n, hop) @ x
        np.testing.assert_allclose(after, x)


@pytest.mark.parametrize(("name", "whole"), [("ring", 2), ("leaps", 3)])
@pytest.mark.parametrize("seed", range(5))
def test_the_first_rounds_need_no_fractions(name, whole, seed):
    played = game(name, 12, seed=seed)
    first = played.numbers[: whole + 1]
    np.testing.assert_allclose(first, first.round(), atol=1e-9)
    assert ((played.numbers >= 0) & (played.numbers < 100)).all()


@pytest.mark.parametrize(("n", "rounds"), [(4, 2), (8, 3), (16, 4), (32, 5)])
def test_leaps_are_exact_where_the_number_is_a_power_of_2(n, rounds):
    played = game("leaps", n, rounds=rounds)
    np.testing.assert_allclose(played.numbers[-1], played.numbers[0].mean())


def test_all_believe_the_liar_in_the_end():
    played = game("ring", 8, rounds=2000, seed=1, liar=5)
    assert (played.numbers[:, 5] == played.numbers[0, 5]).all()
    np.testing.assert_allclose(played.numbers[-1], played.numbers[0, 5])
    W = by_thirds(8)
    W[5] = np.eye(8)[5]
    np.testing.assert_allclose(played.numbers[2], W @ W @ played.numbers[0])


def test_a_seed_deals_the_same_numbers_and_another_does_not():
    first, again, other = (game("ring", 20, seed=s).numbers[0] for s in (4, 4, 5))
    assert (first == again).all() and (first != other).any()


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        (("star", 8), {}, "no game 'star'; there are ring, leaps"),
        (("ring", 3), {}, "4 to 40 students; got 3"),
        (("ring", 41), {}, "4 to 40 students; got 41"),
        (("ring", 8), {"liar": 8}, "no student 8: they are 0 to 7"),
    ],
)
def test_what_is_no_game_is_named(arguments, options, said):
    with pytest.raises(ValueError, match=said):
        game(*arguments, **options)


class Tables(HTMLParser):
    """The rows of a page's tables, and its headings."""

    def __init__(self, html):
        super().__init__()
        self.open, self.rows, self.headings, self.into = [], [], [], None
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        if tag != "meta":
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag in ("h1", "h2"):
            self.headings.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data
        if self.open and self.open[-1] in ("h1", "h2"):
            self.headings[-1] += data


@pytest.mark.parametrize("name", ["ring", "leaps"])
def test_the_page_has_all_cards_and_the_table(name):
    played = game(name, 8, seed=3, liar=2)
    html = page(played)
    read_back = Tables(html)
    *titles, _ = read_back.headings
    assert titles == [f"Student {i}: {played.numbers[0, i]:.0f}" for i in range(8)]
    assert html.count("You are the liar") == 1
    table = read_back.rows[-12:]
    assert table[0] == ["student", "start", "1", "2", "3"]
    for i, row in enumerate(table[1:9]):
        assert row == [
            f"{i}, liar" if i == 2 else f"{i}",
            *(as_written(x) for x in played.numbers[:, i]),
        ]
    assert [row[0] for row in table[9:]] == ["smallest", "mean", "largest"]
    assert table[9][1] == as_written(played.numbers[0].min())
    assert html.count("I guess the average") == 8 and html.count("<svg viewBox") == 8


def test_a_card_of_the_leaps_tells_whom_to_hear():
    rows = Tables(page(game("leaps", 8))).rows
    heard = [row[0] for row in rows if row[0][:3] in ("1, ", "2, ", "3, ")]
    assert heard[:3] == ["1, from 7", "2, from 6", "3, from 4"]  # student 0
    assert heard[-3:] == ["1, from 6", "2, from 5", "3, from 3"]  # student 7


@pytest.mark.parametrize(("name", "words"), [("ring", 2), ("leaps", 3)])
def test_a_card_shows_who_stands_where_seen_from_above(name, words):
    drawn = BeautifulSoup(page(game(name, 8)), "html.parser").select_one(".card svg")
    places = {one.text: (float(one["x"]), float(one["y"])) for one in drawn("text")}
    assert places["0"][1] == max(y for _, y in places.values() if y < 60)  # you
    left, right = places["7"], places.get("1")
    assert left[0] < 0 and left[1] > 0  # who faces up has the left hand there
    if name == "ring":
        assert right[0] > 0 and places["left"][0] < 0 < places["right"][0]
    assert len(drawn("text")) == 1 + 2 * words and len(drawn("circle")) == 8


@pytest.mark.parametrize(
    ("number", "text"), [(54, "54"), (57.333, "57.3"), (57.96, "58"), (0.5, "0.5")]
)
def test_numbers_are_written_with_one_digit(number, text):
    assert as_written(number) == text


def test_the_command_prints_the_page():
    command = [
        sys.executable,
        "-m",
        "gossiplib.classroom.unplugged",
        "ring",
        "9",
        "--seed",
        "4",
    ]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said == page(game("ring", 9, seed=4))


# The fault detective.


def on_the_links(seen):
    """Diagnose a case from what the links show, which is the same on both levels."""
    works = nx.Graph((i, j) for i, j in seen.graph.edges if seen.arrived[i, j])
    works.add_nodes_from(seen.graph)
    if not nx.is_connected(works):
        return "cut", min(min(nx.connected_components(works), key=len))
    both = {e: seen.arrived[e] + seen.arrived[e[::-1]] for e in seen.graph.edges}
    link = min(both, key=both.get)
    if both[link] < ROUNDS:  # half of what both send
        return "lossy link", link[0]
    told = np.nanmin(seen.distance, axis=0)
    if told.max() > 1.5:  # farther away than a model is long
        return "liar", int(told.argmax())
    return None


def solve(seen):
    """Diagnose a case from what a student sees; return a kind and a client."""
    late = seen.table[seen.table["round"] > 10].groupby("client").mean()
    still = late.index[late["step"] == 0]
    if len(still):
        moved = late["shift"][still[0]] > 0
        return ("no training" if moved else "frozen"), int(still[0])
    if diagnosis := on_the_links(seen):
        return diagnosis
    if late["own"].min() < 0.5:
        return "labels", int(late["own"].idxmin())
    assert late["norm"].min() < 0.9 * late["norm"].nsmallest(2).iloc[-1]
    return "weights", int(late["norm"].idxmin())


@pytest.fixture(scope="module")
def cases():
    with threadpool_limits(1):  # threads that share small matrices wait for each other
        return [case(seed) for seed in range(60)]


def test_rules_solve_sixty_cases(cases):
    found = [solve(seen) for seen in cases]
    wrong = [
        (seen.seed, *diagnosis, seen.verdict(*diagnosis))
        for seen, diagnosis in zip(cases, found, strict=True)
        if seen.verdict(*diagnosis) != "right!"
    ]
    assert wrong == []
    assert {kind for kind, _ in found} == set(KINDS)


def solve_from_outside(seen):
    """Diagnose a case from what is seen on level 2, and on the links."""
    late = seen.table[seen.table["round"] > 10].groupby("client")[COLUMNS[2]].mean()
    if diagnosis := on_the_links(seen):
        return diagnosis
    if late["test"].min() < 0.5:
        return "frozen", int(late["test"].idxmin())
    if late["norm"].min() < 0.9 * late["norm"].nsmallest(2).iloc[-1]:
        return "weights", int(late["norm"].idxmin())
    told = np.nanmin(seen.distance, axis=0)
    if told.max() > 1.25 * np.sort(told)[-2]:
        return "labels", int(told.argmax())
    return "no training", int(told.argmin())  # a guess: nothing shows who


def test_from_outside_all_is_found_but_who_does_not_train(cases):
    for seen in cases:
        kind, client = solve_from_outside(seen)
        said = seen.verdict(kind, client)
        hint = "not yet. The kind is right"
        assert said == "right!" or (kind == "no training" and said.startswith(hint))


def test_each_case_has_one_kind_and_few_clients(cases):
    for seen in cases[:20]:
        right = [
            (kind, i)
            for kind in KINDS
            for i in range(CLIENTS)
            if seen.verdict(kind, i) == "right!"
        ]
        assert len({kind for kind, _ in right}) == 1
        most = {"cut": 5, "lossy link": 2}.get(right[0][0], 1)
        assert 1 <= len(right) <= most


def test_the_answer_is_not_in_plain_sight(cases):
    for seen in cases[:20]:
        everything = repr(vars(seen)) + repr(seen)
        kind, _ = solve(seen)
        assert f"'{kind}'" not in everything


def test_a_seed_is_the_same_case_and_another_is_not(cases):
    again = case(7)
    assert again.table.equals(cases[7].table)
    assert not again.table.equals(cases[8].table)


def test_a_diagnosis_gets_a_hint_and_nonsense_an_error(cases, capsys):
    seen = next(c for c in cases if solve(c)[0] == "liar")
    kind, client = solve(seen)
    other = (client + 1) % CLIENTS
    assert seen.verdict(None, None) == "no diagnosis yet."
    assert seen.verdict(kind, other).startswith("not yet. The kind is right")
    assert seen.verdict("cut", client).startswith("not yet. Something else")
    with pytest.raises(ValueError, match="no kind 'spy'; there are liar, labels"):
        seen.verdict("spy", 0)
    with pytest.raises(ValueError, match="no client 12; there are 0 to 11"):
        seen.verdict("liar", 12)
    seen.check(kind, client)
    assert capsys.readouterr().out == f"Case {seen.seed}: right!\n"


def test_figures_have_a_map_for_each_thing_that_is_seen(cases):
    import matplotlib.pyplot as plt

    outside = partial(by_round, level=2)
    for draw, maps in ((by_round, 6), (outside, 3), (by_link, 3)):
        figure = draw(cases[0])
        assert (
            sum(bool(ax.get_title("left") or ax.get_title()) for ax in figure.axes)
            == maps
        )
        plt.close(figure)


# Their notebooks and the guide.


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[p.stem for p in NOTEBOOKS])
def test_state_of_the_notebooks(path):
    notebook = read(path)
    code = [c for c in notebook.cells if c.cell_type == "code"]
    outputs = [o for c in code for o in c.outputs]
    texts = [text_of(o) for o in outputs]
    pictures = [o for o in outputs if "image/png" in o.get("data", {})]
    assert notebook.cells[0].source.startswith(f"# {path.stem[:2]} - ")
    assert stated(notebook, READING_TIME)
    assert [c.execution_count for c in code] == list(range(1, len(code) + 1))
    assert [o for o in outputs if o.get("name") == "stderr"] == []
    assert [o for o in outputs if o.output_type == "error"] == []
    assert [t for t in texts if MACHINE.search(t) or WARNING.search(t)] == []
    assert all(o.metadata["image/png"]["alt"] for o in pictures) and pictures
    checked = [c for c in tagged(notebook, "nbval-check-output") if c.outputs]
    assert len(checked) >= CHECKED
    assert max(len(c.source.splitlines()) for c in code) <= LINES
    assert path.stat().st_size < 1_000_000


def test_the_guides_links_lead_somewhere():
    text = GUIDE.read_text("utf-8")
    targets = re.findall(r"\]\(([^)]+)\)", text)
    headings = re.findall(r"(?m)^##+ (.+)$", text)
    anchors = {
        "#" + re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-"): h
        for h in headings
    }
    files = {t for t in targets if not t.startswith(("#", "https://"))}
    assert {t for t in targets if t.startswith("#")} <= set(anchors)
    assert {t for t in files if not (GUIDE.parent / t).exists()} == set()
    notebooks = {p.relative_to(GUIDE.parent).as_posix() for p in find(ROOT) + NOTEBOOKS}
    assert notebooks - files == set(), "the guide tells nothing of them"


def test_the_guides_table_has_each_notebooks_question_and_minutes():
    rows = [line.split(" | ") for line in GUIDE.read_text("utf-8").splitlines()]
    rows = {row[0]: row for row in rows if len(row) == 5 and "](" in row[0]}
    for path in NOTEBOOKS + find(ROOT):
        notebook, where = read(path), path.relative_to(GUIDE.parent).as_posix()
        asked = question(notebook).removeprefix(f"{path.stem[:2]} - ")
        first = f"| [{name(path)}]({where}): {asked}"
        assert first in rows, f"the guide's table lacks: {first}"
        (minutes,) = stated(notebook, READING_TIME)
        assert rows[first][1] == f"{minutes}", f"{path.name} takes {minutes} minutes"


def test_the_first_part_of_the_guide_is_read_in_a_quarter_of_an_hour():
    text = GUIDE.read_text("utf-8").split("## To look up")[0]
    assert len(re.sub(r"(?s)```.*?```", "", text).split()) < 15 * 200
