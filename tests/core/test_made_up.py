"""Checkpoints that somebody has made up, with a digest that is right.

A ValueError, or a run that is sound, is all that may come of them.
"""

import functools
import json
import tempfile
import tracemalloc

import networkx as nx
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given, settings, strategies as st

from gossiplib.core import checkpoint
from gossiplib.core.client import gossip
from gossiplib.core.grid import LocalGrid
from gossiplib.core.result import GossipResult
from gossiplib.core.server import Gossip
from gossiplib.protocols.push_sum import PushSum
from gossiplib.system import archive
from gossiplib.system.encoding import dump, load
from gossiplib.tasks.task import digits
from gossiplib.vectorized.engine import gossip_learning
from toy_apps import SIZE, SpyGrid, drifting_app, zeros

N, ROUNDS = 3, 2
GRAPH, TASK = nx.path_graph(N), digits(N, alpha=1.0)


def on_flower(file, num_rounds=ROUNDS + 1, how="resume"):
    """Go on with a run on Flower, or start it: client 0 fails once, 2 comes late."""
    app = gossip(drifting_app("raises", client=0, rounds=(2,)))
    grid = LocalGrid(app, N) if how == "resume" else SpyGrid(app, N, hidden=(2,))

    def measure(t, arrays):
        if how == "start" and t == 1:
            grid._hidden = ()
        return MetricRecord({"size": float(np.abs(arrays["0"].numpy()).sum())})

    options = {"evaluate_fn": measure, "num_rounds": num_rounds}
    if how == "resume":
        strategy = Gossip(GRAPH, join_timeout=0)
        return strategy.resume(file, grid, zeros(), **options)
    return Gossip(GRAPH, join_timeout=0, checkpoint=file).start(
        grid, zeros(), **options
    )


def on_arrays(file, num_rounds=ROUNDS + 1, how="resume"):
    """Go on with a run on arrays, or start it, with an average that remembers."""
    options = {"resume": file} if how == "resume" else {"checkpoint": file}
    return gossip_learning(TASK, GRAPH, num_rounds, average=PushSum(), **options)


@functools.cache
def made():
    """Return engine -> (how to resume, header, members) of a checkpoint."""
    found = {}
    for run in (on_flower, on_arrays):
        with tempfile.TemporaryDirectory() as folder:
            run(f"{folder}/run.zip", ROUNDS, "start")
            with archive.reading(f"{folder}/run.zip") as kept:
                members = {name: kept[name] for name in kept}
        header = json.loads(members.pop("checkpoint.json"))
        found[run.__name__] = run, header, members
    return found


@pytest.fixture
def sound():
    return made()


def resume(run, header, members, path):
    """Tell whether a made-up checkpoint is taken; let nothing but ValueError pass."""
    text = header if isinstance(header, str) else json.dumps(header)
    archive.write(path, {"checkpoint.json": text.encode(), **members})
    try:
        result = run(path)
    except ValueError as error:
        assert len(str(error)) < 1000
        return False
    except RuntimeError as error:  # of a function that has another name
        assert "this one does so by" in str(error)
        return False
    assert isinstance(result, GossipResult) and {*vars(result)} == {
        *vars(GossipResult())
    }
    # A client that the header leaves out comes late, and may not get a model.
    assert not result.node_arrays or np.isfinite(result.models()).all()
    for by in ("round", "client"):
        result.to_pandas(by)
    assert repr(result)
    return True


def test_what_is_as_it_was_is_taken(sound, tmp_path):
    header = sound["on_flower"][1]
    assert header["more"]["first"] == [2] and header["result"]["lost"]
    for run, header, members in sound.values():
        assert resume(run, header, members, tmp_path / "run.zip")


# Headers ------------------------------------------------------------------------------

DEEP = 5000 * "[" + 5000 * "]"
ANYWHERE = ["x", -1, [], {}, None, True, 0.5, 2**63, [[[]]], {"a": {}}, float("nan")]
#: Where, as keys in order, and what stands there in place of what a run has written.
HEADERS = [
    *[((key,), lie) for key in ("format", "round", "identity") for lie in ANYWHERE],
    *[((key,), lie) for key in ("result", "more") for lie in ANYWHERE if lie != {}],
    (("round",), 0),
    (("round",), 10**30),
    (("round",), 99),  # more than the run
    (("more",), {}),
    *[(("result", "messages"), lie) for lie in ANYWHERE if lie != {}],
    *[(("result", "seconds", "train"), lie) for lie in ANYWHERE if lie != 0.5],
    *[(("result", "consensus_distance", "1"), lie) for lie in ANYWHERE if lie != 0.5],
    *[(("result", "unsaved"), lie) for lie in (3, [-1], [True], [1.5], [[1]], "12")],
    *[(("result", "bytes"), {k: 1}) for k in ("-1", "01", "1.0", "x", "1e3", "")],
    *[
        (("result", "lost"), [lie])
        for lie in ([], [1, 0, "train"], [1, 0, 1, "x"], "abcd")
    ],
    (("result", "lost"), [[1, -1, "train", "x"]]),
    *[(("result", key), 5) for key in ("to_pandas", "models", "arrays", "node_arrays")],
    *[(("result", key), {}) for key in ("__class__", "node_arrays", "unknown")],
    *[
        (("result", "train_metrics_clientapp", "1"), lie)
        for lie in (None, [], 3, {"a": None})
    ],
    *[
        (("result", "train_metrics_clientapp", "1"), {"loss": lie})
        for lie in ("x", True, {}, [1, "x"], [1, 2.0], [[]])
    ],
    *[(("result", "node_train_metrics", "1"), lie) for lie in (None, [], {}, 3)],
    *[
        (("result", "node_train_metrics", "1"), {"clients": ids, "metrics": metrics})
        for ids, metrics in (
            ([0, 0], [{}, {}]),
            ([0, 1, 2], [{}, {}]),
            ([-1], [{}]),
            (["0"], [{}]),
            ([0], [None]),
            (None, [{}]),
            ([0], None),
        )
    ],
    *[
        (("result", "node_train_metrics", "1"), {"columns": names})
        for names in ("loss", ["loss", "no"], [1], None)
    ],
]
ON_FLOWER = [
    *[(("more", "run"), lie) for lie in (*ANYWHERE, 2**70, 5)],
    *[
        (("more", key), lie)
        for key in ("states", "have_model", "late", "first")
        for lie in (None, 1, "01", [99], [-1], [True], ["0"], [0.0], [[0]], {"0": 1})
    ],
    (("more", "states"), [0, 1, 2, 2**62]),
    (("more", "first"), [0]),  # whose model is not there
    *[
        (("more", "chosen"), lie)
        for lie in (None, [0], [[0]], [[0, 1]], [[0, [99]]], [[0, [True]]], {"0": [1]})
    ],
]
ON_ARRAYS = [
    (("more", "states"), lie)
    for lie in (
        None,
        1,
        "ab",
        [1],
        [["key"]],
        [[1, []]],
        [["key", "ab"]],
        [["k", ["a"] * 9]],
    )
]
LIES = [("on_flower", *lie) for lie in HEADERS + ON_FLOWER]
LIES += [("on_arrays", *lie) for lie in HEADERS + ON_ARRAYS]


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: f"{lie[0]}/{'/'.join(lie[1])}")
def test_a_header_that_lies_is_refused(lie, sound, tmp_path):
    engine, (*way, last), value = lie
    run, header, members = sound[engine]
    header = place = json.loads(json.dumps(header))
    for key in way:
        place = place[key]
    place[last] = value
    assert not resume(run, header, members, tmp_path / "run.zip")


@pytest.mark.parametrize("engine", ["on_flower", "on_arrays"])
def test_text_that_is_no_header_is_refused(engine, sound, tmp_path):
    run, header, members = sound[engine]
    text = json.dumps(header)
    assert resume(run, text, members, tmp_path / "run.zip")
    for lie in (
        "",
        "[]",
        "null",
        DEEP,
        text[:-1],
        text.replace('"round": ', '"round": 1, "round": ', 1),  # twice
        text.replace('"messages": {', '"messages": {"1": 1, ', 1),
        text.replace('"more": {', f'"more": {{"deep": {DEEP}, ', 1),
        text.replace('"identity": {', '"identity": {"a": ' + "9" * 5000 + ", ", 1),
        *(
            text.replace(f'"{key}": ', '"x": ', 1)
            for key in ("format", "result", "more")
        ),
    ):
        assert not resume(run, lie, members, tmp_path / "run.zip"), lie[:80]


# Members ------------------------------------------------------------------------------


def state(sound, **changes):
    """Return the state of client 0, with other records."""
    kept = load(sound["on_flower"][2]["state/0"])
    for name, record in changes.items():
        kept[f"gossip.{name}"] = record
    return dump(kept)


STATES = {
    "rule": [
        ConfigRecord(),
        ConfigRecord({"average": 1}),
        MetricRecord(),
        ArrayRecord(),
    ],
    "run": [MetricRecord(), ArrayRecord()],
    "model": [
        ConfigRecord(),
        ArrayRecord(),
        ArrayRecord([np.zeros(SIZE + 1)]),
        ArrayRecord([np.full(SIZE, np.nan)]),
        ArrayRecord([np.zeros(SIZE, dtype=complex)]),
        ArrayRecord({"other": Array(np.zeros(SIZE))}),
    ],
}


@pytest.mark.parametrize("name", STATES)
def test_a_state_that_is_not_a_client_s_is_refused(name, sound, tmp_path):
    run, header, members = sound["on_flower"]
    for record in STATES[name]:
        lie = members | {"state/0": state(sound, **{name: record})}
        assert not resume(run, header, lie, tmp_path / "run.zip")


WRONG = [
    None,
    b"",
    b"\x80",
    b"\xc1",
    np.zeros(4),
    np.float32(1),
    np.zeros((3, 1), dtype=bool),
]


@pytest.mark.parametrize("engine", ["on_flower", "on_arrays"])
def test_members_that_are_missing_or_others_are_refused(engine, sound, tmp_path):
    run, header, members = sound[engine]
    for name in members:
        for lie in WRONG:
            others = {k: v for k, v in members.items() if k != name}
            if lie is not None:
                others[name] = np.asarray(lie) if not isinstance(lie, bytes) else lie
            what = np.shape(members[name]), np.asarray(members[name]).dtype
            if what == (np.shape(lie), np.asarray(lie).dtype):
                continue
            taken = resume(run, header, others, tmp_path / "run.zip")
            # What an average function keeps is its own: only the first axis is known.
            assert not taken or (name[:7] == "state/0" and np.shape(lie)[:1] == (N,))
    assert resume(run, header, {**members, "more": b"1"}, tmp_path / "run.zip")


def test_models_that_are_not_finite_are_refused_on_arrays(sound, tmp_path):
    run, header, members = sound["on_arrays"]
    for lie in (np.nan, np.inf):
        models = members["models"].copy()
        models[1, 5] = lie
        assert not resume(run, header, members | {"models": models}, tmp_path / "a.zip")


# Memory -------------------------------------------------------------------------------

#: Text whose objects take much memory, and no number of it is as it should be.
SWARMS = {
    "lists": ("unsaved", "[{}]", "[]"),
    "objects": ("unsaved", "[{}]", "{}"),
    "names": ("messages", "{{{}}}", '"{}":[]'),
    "metrics": (
        "node_train_metrics",
        '{{"1":{{"clients":[0],"metrics":[{}]}}}}',
        "{{}}",
    ),
    "all metrics": ("train_metrics_clientapp", "{{{}}}", '"{}":{{}}'),
    "clients": (
        "node_train_metrics",
        '{{"1":{{"clients":[{}],"metrics":[{{}}]}}}}',
        "{}",
    ),
    "lost": ("lost", "[{}]", '[1,1,"",""]'),
}


@pytest.mark.parametrize("swarm", SWARMS)
def test_memory_stays_within_a_hundred_times_the_file(swarm, tmp_path):
    name, whole, one = SWARMS[swarm]
    many = whole.format(",".join(one.format(k) for k in range(30_000)))
    start = '{"format":3,"round":1,"identity":{},"more":{},'
    text = f'{start}"result":{{"{name}":{many}}}}}'
    path = tmp_path / "run.zip"
    archive.write(path, {"checkpoint.json": text.encode()})
    tracemalloc.start()
    try:
        with checkpoint.reading(path):
            pass
    except ValueError:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 100 * path.stat().st_size


# Anything at all ----------------------------------------------------------------------

JUNK = st.one_of(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    st.sampled_from([0, 1, 2, 3, -1, 2**31, 2**62, 2**63, 2**64, 10**400]),
    st.sampled_from([[], {}, [0], [0, 1], [[0, [1]]], {"1": {}}, {"clients": [0]}]),
)
ARRAYS = st.sampled_from(
    [np.zeros(shape, kind) for shape in ((), 0, 3, (3, 1)) for kind in "?bqfdD"]
    + [np.full((3, 2), np.nan), np.arange(3)[::-1], np.array([-1, 0, 1])]
)


def places(told):
    """Yield all pairs of an object or list in JSON, and a key in it."""
    for key in told if isinstance(told, dict) else range(len(told)):
        yield told, key
        if isinstance(told[key], dict | list):
            yield from places(told[key])


def change_header(header, draw):
    """Put something else to a place, or leave it away, or add to it."""
    told, key = draw(st.sampled_from([*places(header)]))
    act = draw(st.sampled_from(["put", "delete", "add"]))
    if act == "delete":
        del told[key]
    elif act == "put" or isinstance(told, list):
        told[key] = draw(JUNK)
    else:
        names = ["1", "2", "-1", "columns", "clients", "arrays", "models"]
        told[draw(st.sampled_from(names) | st.text(max_size=2))] = draw(JUNK)


def change_member(members, draw):
    """Put something else in place of a member, or of a record in it."""
    name = draw(st.sampled_from([*members]))
    act = draw(st.sampled_from(["bytes", "array", "delete", "cut", "record"]))
    if act == "delete":
        del members[name]
    elif act == "bytes":
        members[name] = draw(st.binary(max_size=9))
    elif act == "array":
        members[name] = draw(ARRAYS)
    elif act == "cut":
        whole, length = members[name], draw(st.integers(0, 60))
        bytes_ = isinstance(whole, bytes)
        members[name] = whole[:length] if bytes_ else np.ravel(whole)[:length]
    elif name in made()["on_flower"][2]:
        kept = load(made()["on_flower"][2][name])
        key = draw(st.sampled_from([*kept]))
        numbers = st.integers(-1, 2**62) | st.text(max_size=2) | st.just([0, 99])
        other = st.one_of(
            ARRAYS.map(lambda array: ArrayRecord([np.asarray(array)])),
            st.builds(
                lambda k, v: ConfigRecord({k: v}),
                st.just("run") | st.just("x"),
                numbers,
            ),
            st.just(MetricRecord({"x": 1})),
        )
        kept[key] = draw(other)
        members[name] = dump(RecordDict(kept))


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_whatever_is_changed_a_run_is_sound_or_refused(data):
    run, header, members = made()[data.draw(st.sampled_from([*made()]))]
    header, members = json.loads(json.dumps(header)), dict(members)
    for _ in range(data.draw(st.integers(1, 3))):
        if members and data.draw(st.booleans()):
            change_member(members, data.draw)
        else:
            change_header(header, data.draw)
    with tempfile.TemporaryDirectory() as folder:
        resume(run, header, members, f"{folder}/run.zip")


#: bytes -> None: what `tests/fuzz.py` calls with bytes of its own.
fuzz = test_whatever_is_changed_a_run_is_sound_or_refused.hypothesis.fuzz_one_input
