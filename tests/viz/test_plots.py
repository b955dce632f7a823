"""Pictures and widgets are drawn, for all that a reader may choose."""

import base64
import itertools
import json
import re

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex

from gossiplib.core import mixing, topology
from gossiplib.core.client import gossip
from gossiplib.core.grid import LocalGrid
from gossiplib.core.server import Gossip
from gossiplib.viz import (
    diagrams,
    display,
    drawings,
    pictures,
    players,
    plots,
    style,
    timeline,
    widgets,
)
from toy_apps import drifting_app, zeros


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def image(widget):
    return bytes(widget.children[1].value)


def test_the_explorer_shows_each_rule_and_name_or_says_why_not():
    explorer = widgets.explorer()
    name, size, rule, _ = explorer.children[0].children
    name.value = "barbell"  # the rules weigh its bridge differently
    seen, words = set(), []
    for control, values in (rule, widgets.WEIGHTS), (name, topology.NAMES):
        for control.value in values:
            seen.add(image(explorer))
            words.append(explorer.children[2].value)
        size.value = 7  # no power of two and no rectangle: some topologies cannot be
    assert all(one.startswith(b"\x89PNG") for one in seen)
    assert len(seen) == len(topology.NAMES) + len(widgets.WEIGHTS) == len(set(words))
    assert any("hypercube needs" in one for one in words)


@pytest.mark.parametrize(
    ("name", "size", "rule", "words"),
    [
        (
            "ring",
            16,
            "metropolis",
            "2 neighbours each; gap 0.051, 1 % after 89 rounds.",
        ),
        ("complete", 4, "uniform", "3 neighbours each; gap 1.000, 1 % after 1 round."),
        ("path", 4, "max degree", "1 to 2 neighbours; gap 0.293, 1 % after 14 rounds."),
        ("ring", 4, "max degree", "2 neighbours each; gap 0.000, never at 1 %."),
    ],
)
def test_the_explorer_says_what_it_shows_in_plain_words(name, size, rule, words):
    explorer = widgets.explorer()
    for control, value in zip(
        explorer.children[0].children, (name, size, rule, 0), strict=True
    ):
        control.value = value
    assert words in explorer.children[2].value


def test_the_explorer_lights_up_who_is_heard_and_leaves_a_still():
    explorer = widgets.explorer()
    size, lit = explorer.children[0].children[1::2]
    seen = image(explorer)
    lit.value = 3
    assert image(explorer) != seen
    assert explorer.children[2].value.endswith("Client 3 hears 2, 4.")
    lit.value, size.value = 31, 8
    assert explorer.children[2].value.endswith("Client 7 hears 0, 6.")
    data, metadata = explorer._repr_mimebundle_()
    assert base64.b64decode(data["image/png"]) == image(explorer)
    assert metadata["image/png"]["alt"] == data["text/plain"]


def test_accuracy_takes_more_results_than_there_are_colours():
    def evaluate_fn(server_round, arrays):
        return {"accuracy": 0.5}

    result = Gossip(nx.path_graph(3)).start(
        LocalGrid(gossip(drifting_app()), 3), zeros(), 2, evaluate_fn=evaluate_fn
    )
    many = {f"run {k}": result for k in range(len(plots.COLOURS) + 2)}
    (ax,) = plots.accuracy(many, {"line": {0: 0.1}}, value="server_accuracy").axes
    assert len(ax.lines) == len(many) + 1


def test_accuracy_takes_some_rows_of_a_table_and_writes_where_a_line_ends():
    rows = [(t, client, 0.1 * t + client) for t in range(4) for client in range(2)]
    table = pd.DataFrame(rows, columns=["round", "client", "value"])
    others = {"gossip, client 1": table.query("client == 1")}
    options = {"value": "value", "decimals": 3}
    (ax,) = plots.accuracy(others, {"FedAvg, lost": {0: 0.5}}, **options).axes
    assert {t.get_text(): t.get_color() for t in ax.texts} == {
        "gossip, client 1 1.300": plots.ROLES["gossip"],
        "FedAvg, lost 0.500": plots.ROLES["FedAvg"],
    }
    assert np.allclose(ax.lines[0].get_ydata(), [1, 1.1, 1.2, 1.3])


@pytest.mark.parametrize(("at", "side"), [(1, "left"), (9, "right")])
def test_a_guess_is_a_star_where_it_was_asked_for_and_named_within(at, side):
    (ax,) = plots.accuracy({}, {"FedAvg": {0: 0.1, 10: 0.9}}).axes
    plots.guess(ax, 0.5, at=at)
    star, words = ax.lines[-1], ax.texts[-1]
    assert (*star.get_xdata(), *star.get_ydata()) == (at, 0.5)
    assert words.get_ha() == side
    ax.figure.canvas.draw()
    where = words.get_window_extent()
    assert ax.bbox.x0 <= where.x0 and where.x1 <= ax.bbox.x1


@pytest.mark.parametrize("scale", ["linear", "log"])
@pytest.mark.parametrize("at", [None, 5])
def test_a_guess_of_nothing_is_drawn_and_no_guess_is_not(scale, at):
    ax = plt.subplots()[1]
    ax.plot([0, 10], [0.1, 0.9])
    ax.set(yscale=scale, ylim=(0.05, 1))
    plots.guess(ax, None, at=at)
    assert len(ax.lines) == 1 and not ax.texts
    plots.guess(ax, 0, at=at)
    height = ax.lines[-1].get_ydata()[0]
    assert height == (0 if scale == "linear" else 0.05)  # 0 is off a logarithmic scale
    assert ax.get_ylim() == (height, 1)
    assert [text.get_text() for text in ax.texts] == ["your guess"]


def test_the_theory_line_starts_at_the_first_distance():
    (ax,) = plots.consensus_distance({"ring": [2.0, 1.0, 0.4]}, {"ring": 0.5}).axes
    measured, theory = (line.get_ydata() for line in ax.lines)
    assert np.allclose(measured, [2, 1, 0.4]) and np.allclose(theory, [2, 1, 0.5])


def test_unrolled_rounds_run_down_and_zero_is_white():
    numbers = np.array([[2.0, -1.0, 0.0], [0.5, 0.0, 0.0]])
    figure = drawings.unrolled({"left": numbers, "right": numbers / 2})
    (first, second) = (ax.images[0] for ax in figure.axes[:2])
    assert np.array_equal(first.get_array(), numbers) and first.get_clim() == (-2, 2)
    assert second.get_clim() == (-1, 1)  # a scale of its own
    assert figure.axes[0].get_ylim() == (1.5, -0.5)
    assert np.allclose(first.to_rgba(0.0), 1, atol=0.01)


@pytest.mark.parametrize("name", topology.NAMES)
def test_each_topology_has_a_place_for_each_client(name):
    graph = topology.named(name, 16)
    assert sorted(drawings.layout(graph)) == list(range(16))
    display.png(drawings.graph(graph, range(16), label="value"))


@pytest.mark.parametrize("name", topology.NAMES)
def test_a_slow_wave_shrinks_by_the_second_eigenvalue_and_by_no_less(name):
    graph = topology.named(name, 16)
    W = mixing.metropolis(graph)
    wave = drawings.slow_wave(graph, W)
    assert np.allclose(W @ wave, mixing.slem(W) * wave)
    assert abs(wave.sum()) < 1e-9 and np.isclose(abs(wave).max(), 1)


def test_the_doors_of_a_graph_are_outlined_in_w_both_ways():
    W = mixing.metropolis(topology.named("barbell", 16))
    (ax, *_) = drawings.mixing_matrix(W, door=[(7, 8)]).axes
    corners = {box.get_xy() for box in ax.patches}
    assert corners == {(7.5, 6.5), (6.5, 7.5)}  # x is the column


def test_small_graphs_stand_apart_beside_their_dots():
    named = {name: topology.named(name, 16) for name in topology.NAMES}
    points = {name: (k // 3, k // 3) for k, name in enumerate(named)}  # three at each
    figure, ax = plt.subplots(figsize=(8, 6))
    ax.set(xlim=(-1, 4), ylim=(-1, 4))
    drawings.at_points(ax, points, named)
    figure.canvas.draw()
    boxes = [inset.bbox for inset in ax.child_axes]
    assert len(boxes) == 12
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    dots = [line.get_xydata()[0].tolist() for line in ax.lines[1::2]]
    assert np.allclose(dots, [*points.values()])


def test_clients_are_as_large_and_called_as_one_says():
    drawing = drawings.graph(nx.path_graph(3), sizes=[9, 1, 4], labels={0: "server"})
    (ax,) = drawing.axes
    (clients,) = (c for c in ax.collections if len(c.get_offsets()) == 3)
    assert clients.get_sizes().tolist() == [9, 1, 4]
    assert [text.get_text() for text in ax.texts] == ["server"]


def test_an_answer_is_bold_only_if_it_is_right():
    said = {"alone": [1, 2], "gossip": [7, 2]}
    figure = pictures.answers(np.ones((2, 8, 8)), [7, 2], said, ["a", "b"])
    bold = [
        [text.get_text()[0] for text in ax.texts if text.get_weight() == "bold"]
        for ax in figure.axes
    ]
    assert bold == [["7"], ["2", "2"]]
    assert [ax.get_title() for ax in figure.axes] == ["a", "b"]


def test_what_a_client_lacks_is_an_empty_cell():
    digits = np.arange(3.0).reshape(3, 1, 1) * np.ones((1, 8, 8))
    held = [(digits, np.array([2, 0, 2])), (digits[:1], np.array([1]))]
    (ax,) = pictures.holdings(held, 3, mark=(1, 2)).axes
    counts = {(round(x - 0.1), y): text for x, y, text in _written(ax)}
    assert counts == {(0, 0): "1", (2, 0): "2", (1, 1): "1"}
    first = {round(i.get_extent()[0] + 0.45): i.get_array().max() for i in ax.images}
    assert first == {0: 1, 2: 0, 1: 0}  # the first example of each


def _written(ax):
    return [(*text.get_position(), text.get_text()) for text in ax.texts]


def test_pictures_beside_others_have_a_scale_of_their_own():
    rows = {"alone": np.full((2, 8, 8), 0.1), "gossip": np.full((2, 8, 8), -0.5)}
    figure = pictures.images(rows, signed=True, beside={"mean": np.full((8, 8), 9.0)})
    limits = {ax.get_title(): ax.images[0].get_clim() for ax in figure.axes}
    assert limits == {"": (-0.5, 0.5), "mean": (0, 9.0)}


def test_the_diagram_has_a_legend_of_what_happened_in_its_part_of_the_time():
    def event(time, peer, what, **more):
        return {"time": time, "peer": peer, "event": what, **more}

    letter = {"start": 0, "round": 1, "bytes": 8}
    events = pd.DataFrame(
        [event(0.0, peer, "started") for peer in (0, 1)]
        + [event(1.0, 0, "sent", other=1, count=1, **letter)]
        + [event(1.5, 1, "received", other=0, count=1, **letter)]
        + [event(2.0, 0, "sent", other=1, count=2, **letter)]
        + [event(3.0, 0, "round", round=1), event(4.0, 1, "skipped")]
        + [event(5.0, 1, "ended")]  # peer 0 has none: it was killed at 3
    )
    table = timeline.messages(events)
    assert table["received"].isna().tolist() == [False, True]

    def legend(*part):
        legends = timeline.space_time(events, *part).legends
        return {text.get_text() for one in legends for text in one.get_texts()}

    assert legend() == {"a message that is lost", "killed", "skips rounds"}
    assert legend(0.5, 1.7) == set()
    assert legend(3.5, 4.5) == {"skips rounds"}


def test_a_timeline_of_processes_shows_a_part_of_the_time():
    rows = [("SuperLink", 0.0, 9.0, False), ("SuperNode 0", 1.0, 5.0, False)]
    rows += [("SuperNode 0", 2.0, 3.0, True), ("SuperNode 0", 7.0, 8.0, True)]
    lives = pd.DataFrame(rows, columns=["row", "start", "end", "short"])
    bands = [("train", (1.5, 4.0)), ("average", (4.0, 9.0)), ("later", (9.0, 10.0))]
    marks = {"killed": [(5.0, "SuperNode 0"), (9.0, "SuperLink")], "heartbeat": []}
    figure = timeline.processes(lives, 0, 6, bands=bands, marks=marks)
    (ax,) = figure.axes
    blocks = [box for box in ax.patches if box.get_height() == 0.56]
    assert [(box.get_x(), box.get_width()) for box in blocks] == [(2.0, 1.0)]
    assert [text.get_text() for text in ax.texts] == ["train", "average"]
    (legend,) = figure.legends
    named = {text.get_text() for text in legend.get_texts()}
    assert named == {"a process that stays", "a client process", "killed"}
    assert [
        line.get_xdata().tolist() for line in ax.lines if line.get_marker() == "X"
    ] == [[5.0]]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == [
        "SuperLink",
        "SuperNode 0",
    ]


def test_names_at_the_ends_of_lines_do_not_cover_each_other():
    figure = plots.accuracy(
        {}, {f"run {k}": {0: 0, 9: 0.5 + k / 999} for k in range(6)}
    )
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    tops = sorted((box.y0, box.y1) for box in boxes)
    assert len(boxes) == 6
    assert all(low[1] <= high[0] + 1 for low, high in zip(tops, tops[1:], strict=False))


@pytest.fixture
def shown(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda *a, **k: shown.append((a, k)))
    return shown


def test_a_player_has_all_frames_a_still_and_words(shown):
    frames = {f"round {t}": [0.0, t, float("nan")] for t in range(3)}
    players.spread(nx.path_graph(3), frames, 'it "moves"', label="value")
    ((data,), more) = shown[0]
    assert (
        data["image/png"].startswith(b"\x89PNG") and data["text/plain"] == 'it "moves"'
    )
    assert more["metadata"]["image/png"]["alt"] == 'it "moves"'
    page = data["text/html"]
    assert page.count("iVBOR") == 4 and "it &quot;moves&quot;" in page
    assert all(json.dumps(title) in page for title in frames) and "http" not in page
    assert "display:none" in page  # of what does nothing where scripts do not run


def test_a_player_that_recolours_is_one_drawing_with_a_colour_for_each_client(shown):
    graphs = {"path": nx.path_graph(3), "ring": nx.cycle_graph(4)}
    low = {"path": [0, 0, 0], "ring": [-1, 0, 0, 1]}
    high = {"path": [1, 1, 9], "ring": [0, 0, 0, 0]}  # beyond the scale is at its end
    frames = {"round 0": low, "round 1": high}
    players.recolour(graphs, frames, 'it "moves"', limits=(-1, 1))
    ((data,), more) = shown[0]
    page = data["text/html"]
    assert data["image/png"].startswith(b"\x89PNG") and "it &quot;moves&quot;" in page
    assert more["metadata"]["image/png"]["alt"] == 'it "moves"'
    assert "[[32,32,32,0,32,32,64],[64,64,64,32,32,32,32]]" in page
    colours = re.findall(r"<use [^>]*fill: (#\w+)", page)
    low, middle, high = map(to_hex, style.WAVE([0.0, 0.5, 1.0]))
    assert colours == [middle] * 3 + [low, middle, middle, high]


def test_diagrams_say_each_step():
    steps = ["a round", ("server", "client", "train"), ("client", "client", "trains")]
    words = diagrams.sequence(["server", "client"], steps).axes[0].texts
    assert {"server", "client", "a round", "train", "trains"} <= {
        text.get_text() for text in words
    }
    edges = {text.get_text(): text.get_bbox_patch() for text in words}
    for role in ("server", "client"):
        assert to_hex(edges[role].get_edgecolor()) == plots.ROLES[role].lower()
    kept = [("", [("model", "-")]), ("train", [("model", "13")])]
    (ax,) = diagrams.states(kept).axes
    colours = {text.get_text(): text.get_color() for text in ax.texts}
    assert colours["13"] != colours["-"]


def test_what_was_never_measured_has_no_line_and_no_number():
    table = pd.DataFrame({"round": [1, 1, 2, 2], "evaluate_accuracy": [np.nan] * 4})
    figure = plots.accuracy({"gossip": table})
    assert [line.get_label() for line in figure.axes[0].lines] == ["gossip"]
