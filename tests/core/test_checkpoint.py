"""Checkpoint and resume: as if nothing had happened, or a refusal that says why.

The oracle is the run that was never interrupted, to the bit; for killed runs also
the numpy computation of `toy_apps.drift`.
"""

import errno
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import fields

import networkx as nx
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord
from flwr.clientapp import ClientApp

from faults import shows
from gossiplib.core import checkpoint, mixing, topology
from gossiplib.core.client import choose, gossip
from gossiplib.core.grid import LocalGrid
from gossiplib.core.server import Gossip, GossipResult
from gossiplib.protocols.codecs import TopK
from gossiplib.protocols.compressed import Choco
from gossiplib.protocols.neighbours import LikeModels
from gossiplib.protocols.push_sum import PushSum
from gossiplib.protocols.robust import ClippedGossip, TrimmedMean
from gossiplib.system import archive
from gossiplib.system.records import StackedMetrics
from gossiplib.tasks.task import Task, digits
from gossiplib.vectorized.engine import gossip_learning
from notebooks import ROOT
from toy_apps import SpyGrid, drift, drifting_app, zeros

N, ROUNDS = 6, 6
RING = nx.cycle_graph(N)
COMPLETE = nx.complete_graph(N)


class Killed(Exception):
    """Ends a run in the middle of something."""


class Dying(LocalGrid):
    """A grid that is lost, with its clients and the server, after some messages."""

    def __init__(self, app, n, messages):
        super().__init__(app, n)
        self.left = messages

    def send_and_receive(self, messages, *, timeout=None):
        messages = list(messages)
        self.left -= len(messages)
        if self.left < 0:
            super().send_and_receive(messages[: self.left], timeout=timeout)
            raise Killed
        return super().send_and_receive(messages, timeout=timeout)


def dying(server_round, then=None):
    """Return an `evaluate_fn` that ends the run in a round, after its averaging."""

    def evaluate_fn(t, arrays):
        if t == server_round:
            raise Killed
        return then(t, arrays) if then else None

    return evaluate_fn


def same(one, other, but=("seconds", "unsaved")):
    """Assert that two results are the same to the bit, but for times."""
    for name in (f.name for f in fields(GossipResult) if f.name not in but):
        a, b = getattr(one, name), getattr(other, name)
        if name == "arrays":
            a, b = {0: a}, {0: b}
        if name.startswith("node_") and name != "node_arrays":
            a, b = ({t: dict(m) for t, m in each.items()} for each in (a, b))
        if name in ("arrays", "node_arrays"):
            a, b = (
                {i: [(k, m.data, m.dtype) for k, m in r.items()] for i, r in x.items()}
                for x in (a, b)
            )
        assert a == b, name
        if isinstance(a, dict):
            assert list(a) == list(b), name
    for by in ("client", "round"):
        assert one.to_pandas(by).equals(other.to_pandas(by))


# On LocalGrid -------------------------------------------------------------------------

DIGITS = digits(N, alpha=1.0)
OWN_START = digits(N, alpha=1.0, same_start=False)
CASES = {
    "plain": (DIGITS, RING, {}, {}),
    "no looks between": (DIGITS, RING, {}, {"observe_every": 0, "evaluate_every": 2}),
    "a start of their own": (OWN_START, RING, {}, {}),
    "choose once": (DIGITS, COMPLETE, {"discover": choose(2)}, {}),
    "choose": (DIGITS, COMPLETE, {"discover": choose(2)}, {"discover_every": 2}),
    "churn": (DIGITS, topology.churn(COMPLETE, 0.5, seed=1), {}, {}),
    "push-sum": (DIGITS, topology.push(COMPLETE), {"average": PushSum()}, {}),
    "CHOCO": (DIGITS, RING, {"average": Choco(TopK(0.1), 0.3)}, {}),
}


def run(strategy, grid, path, arrays, num_rounds=ROUNDS, **options):
    """Start a run, or resume it where there is a checkpoint."""
    go = [strategy.resume, path] if path.exists() else [strategy.start]
    return go[0](*go[1:], grid, arrays, num_rounds, **options)


@pytest.mark.parametrize("name", CASES)
def test_a_run_killed_again_and_again_ends_as_one_that_was_not(name, tmp_path):
    task, schedule, client, options = CASES[name]
    app = gossip(task.client_app(), **client)
    arrays, evaluate_fn = task.initial_arrays(), task.evaluate_fn
    whole = Gossip(schedule, **options).start(
        LocalGrid(app, N), arrays, ROUNDS, evaluate_fn=evaluate_fn
    )
    path, killed = tmp_path / "run.zip", 0
    rng = np.random.default_rng([*name.encode()])
    while True:
        strategy = Gossip(schedule, **options, checkpoint=path)
        grid = Dying(app, N, rng.integers(30, 75))
        try:
            result = run(strategy, grid, path, arrays, evaluate_fn=evaluate_fn)
            break
        except Killed:
            killed += 1
    assert killed >= 3
    same(result, whole)
    assert result.seconds.keys() == {*whole.seconds, "checkpoint"}
    assert whole.models().std(axis=0).max() > 0 and whole.messages[ROUNDS] > 0


def finished(path, num_rounds=4, schedule=RING, **options):
    """Write the checkpoint of a run that has ended; return its result."""
    strategy = Gossip(schedule, checkpoint=path, **options)
    return strategy.start(LocalGrid(gossip(drifting_app()), N), zeros(), num_rounds)


def test_more_rounds_than_at_first(tmp_path):
    options = {"observe_every": 3, "checkpoint_every": 0}
    finished(tmp_path / "run.zip", 4, **options)
    grid = LocalGrid(gossip(drifting_app()), N)
    strategy = Gossip(RING, **options)
    same(
        strategy.resume(tmp_path / "run.zip", grid, zeros(), 8),
        strategy.start(LocalGrid(gossip(drifting_app()), N), zeros(), 8),
    )


def test_a_run_that_had_ended_is_not_run_again(tmp_path):
    whole = finished(tmp_path / "run.zip")
    before = (tmp_path / "run.zip").read_bytes()
    grid = SpyGrid(gossip(drifting_app()), N)
    strategy = Gossip(RING, checkpoint=tmp_path / "run.zip")
    same(strategy.resume(tmp_path / "run.zip", grid, zeros(), 4), whole)
    asked = {m.metadata.message_type for m in grid.sent}
    assert asked == {"query.join", "query.restore", "query.model"}
    assert (tmp_path / "run.zip").read_bytes() == before


def test_checkpoints_are_written_every_few_rounds_and_after_the_last(
    tmp_path, monkeypatch
):
    save = checkpoint.save_clients

    def spy(path, server_round, *more):
        saved.append(server_round)
        save(path, server_round, *more)

    monkeypatch.setattr(checkpoint, "save_clients", spy)
    for every, rounds in {1: [*range(1, 8)], 3: [3, 6, 7], 0: [7]}.items():
        saved = []
        path = tmp_path / f"{every}.zip"
        strategy = Gossip(RING, checkpoint=path, checkpoint_every=every)
        strategy.start(LocalGrid(gossip(drifting_app()), N), zeros(), 7)
        assert saved == rounds
        with checkpoint.reading(path) as kept:
            assert kept.server_round == 7


def test_a_checkpoint_changes_nothing_in_the_run(tmp_path):
    plain = Gossip(RING).start(LocalGrid(gossip(drifting_app()), N), zeros(), 4)
    same(finished(tmp_path / "run.zip"), plain)


@pytest.mark.parametrize("server_round", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("fault", ["raises", "nan", "none", "shape"])
def test_losses_before_and_after_are_all_in_the_result(fault, server_round, tmp_path):
    path = tmp_path / "run.zip"

    def grid():
        return LocalGrid(gossip(drifting_app(fault, client=2, rounds=(2, 5))), N)

    whole = Gossip(RING).start(grid(), zeros(), ROUNDS)
    assert [loss[:3] for loss in whole.lost] == [(2, 2, "train"), (5, 2, "train")]
    with pytest.raises(Killed):
        Gossip(RING, checkpoint=path).start(
            grid(), zeros(), ROUNDS, evaluate_fn=dying(server_round + 1)
        )
    result = Gossip(RING).resume(path, grid(), zeros(), ROUNDS)
    same(result, whole)
    expected = drift(RING, N, ROUNDS, untrained={(2, 2), (5, 2)})
    assert np.allclose(result.models(), expected)


class Coming(SpyGrid):
    """A grid on which client 1 appears in round 3."""

    def send_and_receive(self, messages, *, timeout=None):
        messages = list(messages)
        for message in messages:
            if message.content.get("config", {}).get("server-round") == 2:
                self._hidden = ()
        return super().send_and_receive(messages, timeout=timeout)


def test_a_client_that_came_late_is_known_after_a_resume(tmp_path):
    # Round 3: it joins, and is offline until round 5. So at checkpoint 4 it has
    # neighbours, but no model.
    def schedule(t):
        graph = nx.cycle_graph(N)
        graph.nodes[1]["online"] = t not in (3, 4)
        return graph

    options = {"join_timeout": 0}
    whole = Gossip(schedule, **options).start(
        Coming(gossip(drifting_app()), N, hidden=(1,)), zeros(), ROUNDS
    )
    assert {loss[:2] for loss in whole.lost} == {(1, 1), (2, 1)}
    for server_round in range(3, ROUNDS):
        path = tmp_path / f"{server_round}.zip"
        with pytest.raises(Killed):
            Gossip(schedule, **options, checkpoint=path).start(
                Coming(gossip(drifting_app()), N, hidden=(1,)),
                zeros(),
                ROUNDS,
                evaluate_fn=dying(server_round + 1),
            )
        grid = LocalGrid(gossip(drifting_app()), N)
        same(Gossip(schedule, **options).resume(path, grid, zeros(), ROUNDS), whole)


class Mute(LocalGrid):
    """A grid on which client 2 does not answer when it is asked for its state."""

    said = False

    def send_and_receive(self, messages, *, timeout=None):
        messages = list(messages)
        replies = super().send_and_receive(messages, timeout=timeout)
        if messages and messages[0].metadata.message_type == "query.state":
            if not self.said:
                del replies[2]
            self.said = True
        return replies


def test_a_client_that_did_not_tell_its_state_starts_anew(tmp_path):
    path = tmp_path / "run.zip"
    with pytest.raises(Killed):
        Gossip(RING, checkpoint=path).start(
            Mute(gossip(drifting_app()), N), zeros(), ROUNDS, evaluate_fn=dying(3)
        )
    grid = LocalGrid(gossip(drifting_app()), N)
    result = Gossip(RING).resume(path, grid, zeros(), ROUNDS)
    # It owes a reply after round 1, and is not called in round 2.
    assert {loss.client for loss in result.lost} == {2}
    assert (1, 2, "query.state", "no reply in 3600 s") in result.lost
    X = drift(RING, N, 2, untrained={(2, 2)})
    X[2] = X[1]  # the first model is a neighbour's
    for _ in range(3, ROUNDS + 1):
        X = mixing.metropolis(RING) @ (X + np.outer(range(1, N + 1), [1.0, 2.0, 3.0]))
    assert np.allclose(result.models(), X)


STATES = {
    "words": (ArrayRecord([np.array(["a", "b"])]), "arrays of <U1 are not accepted"),
    "zip": (ArrayRecord({"0": Array("f8", (1,), "numpy.ndarray", b"PK\3\4junk")}), ""),
}


@pytest.mark.parametrize("kept", STATES)
def test_a_state_that_cannot_be_kept_is_lost_and_said(kept, tmp_path, caplog):
    inner, app = drifting_app(), ClientApp()
    state, says = STATES[kept]

    @app.train()
    def train(message, context):
        if context.node_config["partition-id"] == 1:
            context.state["kept"] = state
        return inner(message, context)

    app.evaluate()(inner)
    strategy = Gossip(RING, checkpoint=tmp_path / "run.zip")
    result = strategy.start(LocalGrid(gossip(app), N), zeros(), 2)
    assert [loss[:3] for loss in result.lost] == [(t, 1, "query.state") for t in (1, 2)]
    reason = result.lost[0].reason
    assert reason.startswith("its state cannot be used: " + says)
    assert reason in caplog.text


# Other runs ---------------------------------------------------------------------------


OTHERS = {
    "clients": ({"schedule": nx.cycle_graph(5)}, {}),
    "graph": ({"schedule": nx.path_graph(N)}, {}),
    "weights": ({"weights": mixing.uniform}, {"schedule": nx.path_graph(N)}),
    "discover_every": ({"discover_every": 1}, {}),
    "initial_arrays": ({"arrays": ArrayRecord([np.ones(3)])}, {}),
    "train_config": ({"train_config": ConfigRecord({"lr": 0.1})}, {}),
    "evaluate_config": ({"evaluate_config": ConfigRecord({"k": 1})}, {}),
}


@pytest.mark.parametrize("what", OTHERS)
def test_a_checkpoint_of_another_run_is_refused_by_name(what, tmp_path):
    other, usual = OTHERS[what]
    usual = {"schedule": RING} | usual

    def go(how, *path, schedule, arrays=None, train_config=None, **options):
        told = {"evaluate_config": options.pop("evaluate_config", None)}
        strategy = Gossip(schedule, checkpoint=tmp_path / "run.zip", **options)
        grid = LocalGrid(gossip(drifting_app()), len(schedule))
        start = zeros() if arrays is None else arrays
        told["train_config"] = train_config
        return getattr(strategy, how)(*path, grid, start, 3, **told)

    go("start", **usual)
    before = (tmp_path / "run.zip").read_bytes()
    with pytest.raises(ValueError, match=f"of another run.*{what}"):
        go("resume", tmp_path / "run.zip", **usual | other)
    assert (tmp_path / "run.zip").read_bytes() == before
    same(go("resume", tmp_path / "run.zip", **usual), go("start", **usual))


DISCOVERS = {
    "how many": (choose(2), choose(3)),
    "the seed": (choose(2), choose(2, seed=1)),
    "what it hears": (LikeModels(2), choose(2)),
}


@pytest.mark.parametrize("what", DISCOVERS)
def test_who_chooses_neighbours_another_way_does_not_go_on(what, tmp_path):
    usual, other = DISCOVERS[what]

    def go(how, discover, *path):
        strategy = Gossip(COMPLETE, discover_every=1, checkpoint=tmp_path / "run.zip")
        grid = LocalGrid(gossip(drifting_app(), discover=discover), N)
        return getattr(strategy, how)(*path, grid, zeros(), 3)

    go("start", usual)
    with pytest.raises(RuntimeError, match="clients that discover by"):
        go("resume", other, tmp_path / "run.zip")
    go("resume", usual, tmp_path / "run.zip")


def test_a_schedule_that_differs_in_the_round_of_the_checkpoint_is_refused(tmp_path):
    schedules = [
        lambda t, k=k: nx.cycle_graph(N) if t < 4 or k else COMPLETE for k in (0, 1)
    ]
    for rounds in (3, 4):
        finished(tmp_path / "run.zip", rounds, schedules[0])
        grid = LocalGrid(gossip(drifting_app()), N)
        args = (tmp_path / "run.zip", grid, zeros(), 4)
        if rounds == 3:
            Gossip(schedules[1]).resume(*args)
            continue
        with pytest.raises(ValueError, match="graph or weights"):
            Gossip(schedules[1]).resume(*args)


def test_fewer_rounds_than_the_checkpoint_has_are_refused(tmp_path):
    finished(tmp_path / "run.zip", 4)
    grid = LocalGrid(gossip(drifting_app()), N)
    with pytest.raises(ValueError, match="has 4 rounds, more than num_rounds=3"):
        Gossip(RING).resume(tmp_path / "run.zip", grid, zeros(), 3)


def test_a_client_that_is_missing_on_the_grid_is_named(tmp_path):
    finished(tmp_path / "run.zip", 4)
    grid = SpyGrid(gossip(drifting_app()), N, hidden=(3,))
    with pytest.raises(RuntimeError, match=r"\[3\].*client 3 is not on the grid"):
        Gossip(RING, join_timeout=0).resume(tmp_path / "run.zip", grid, zeros(), 6)


def test_a_client_that_does_not_take_its_state_back_is_named(tmp_path):
    finished(tmp_path / "run.zip", 4)

    class Deaf(LocalGrid):
        def send_and_receive(self, messages, *, timeout=None):
            messages = list(messages)
            replies = super().send_and_receive(messages, timeout=timeout)
            told = messages[0].metadata.message_type == "query.restore"
            return replies[:-1] if told else replies

    grid = Deaf(gossip(drifting_app()), N)
    with pytest.raises(RuntimeError, match="client 5 did not take its state back: no "):
        Gossip(RING).resume(tmp_path / "run.zip", grid, zeros(), 6)


def test_the_engines_do_not_take_each_other_s(tmp_path):
    gossip_learning(DIGITS, RING, 1, checkpoint=tmp_path / "arrays.zip")
    with pytest.raises(ValueError, match=r"engine \(gossip_learning, now Gossip\)"):
        Gossip(RING).resume(
            tmp_path / "arrays.zip", LocalGrid(gossip(drifting_app()), N), zeros(), 2
        )
    finished(tmp_path / "server.zip", 1)
    with pytest.raises(ValueError, match=r"engine \(Gossip, now gossip_learning\)"):
        gossip_learning(DIGITS, RING, 2, resume=tmp_path / "server.zip")


def test_a_checkpoint_that_is_not_there(tmp_path):
    grid = LocalGrid(gossip(drifting_app()), N)
    with pytest.raises(FileNotFoundError):
        Gossip(RING).resume(tmp_path / "none.zip", grid, zeros(), 6)
    for path in (tmp_path, tmp_path / "no" / "folder.zip"):
        with pytest.raises(ValueError, match="a file in a folder that is there"):
            Gossip(RING, checkpoint=path)
        with pytest.raises(ValueError, match="a file in a folder that is there"):
            gossip_learning(DIGITS, RING, 2, checkpoint=path)
    with pytest.raises(ValueError, match="checkpoint_every"):
        Gossip(RING, checkpoint_every=-1)


# Damage -------------------------------------------------------------------------------


def refused(path, data, match="cut short or altered"):
    path.write_bytes(data)
    with pytest.raises(ValueError, match=match), checkpoint.reading(path):
        raise AssertionError("it was read")


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """Return the bytes of a small checkpoint."""
    path = tmp_path_factory.mktemp("sound") / "run.zip"
    graph = nx.path_graph(2)
    strategy = Gossip(graph, checkpoint=path, evaluate_every=0)
    strategy.start(LocalGrid(gossip(drifting_app()), 2), zeros(), 1)
    return path.read_bytes()


def test_a_checkpoint_cut_short_anywhere_is_refused(sound, tmp_path):
    for length in range(len(sound)):
        refused(tmp_path / "run.zip", sound[:length])


def test_a_bit_flipped_anywhere_is_refused(sound, tmp_path):
    rng = np.random.default_rng(0)
    for place in range(len(sound)):
        data = bytearray(sound)
        data[place] ^= 1 << rng.integers(8)
        refused(tmp_path / "run.zip", data)


def test_other_damage_is_refused(sound, tmp_path):
    rng = np.random.default_rng(0)
    for _ in range(300):
        data = bytearray(sound)
        start, stop = np.sort(rng.integers(0, len(data) + 1, 2))
        kind = rng.integers(4)
        if kind == 0:  # a block of zeros, as a file system may leave it
            data[start:stop] = bytes(stop - start)
        elif kind == 1:  # a piece is missing
            del data[start:stop]
        elif kind == 2:  # a piece is there twice
            data[start:start] = data[start:stop]
        else:
            data[start:stop] = rng.bytes(stop - start)
        if bytes(data) != sound:
            refused(tmp_path / "run.zip", data)
    for more in (b"\0", sound, b"\n"):
        refused(tmp_path / "run.zip", sound + more)
        refused(tmp_path / "run.zip", more + sound)


def test_something_else_is_refused(tmp_path):
    path = tmp_path / "run.zip"
    for data in (b"", b"{}", pickle.dumps({"round": 1}), b"PK\x03\x04" * 50):
        refused(path, data)
    archive.write(path, {"other.json": b"{}"})
    refused(path, path.read_bytes(), "is no checkpoint")
    archive.write(path, {"checkpoint.json": pickle.dumps({"format": 2})})
    refused(path, path.read_bytes(), "is no checkpoint")


def rewrite(path, change):
    """Change the members of a checkpoint, with a digest that is right."""
    with archive.reading(path) as members:
        kept = {name: members[name] for name in members}
    header = json.loads(kept["checkpoint.json"])
    change(header, kept)
    archive.write(path, {**kept, "checkpoint.json": json.dumps(header).encode()})


def test_another_version_is_refused_by_name(sound, tmp_path):
    path = tmp_path / "run.zip"
    path.write_bytes(sound)
    rewrite(path, lambda header, kept: header.update(format=1))
    refused(path, path.read_bytes(), "has the format 1; this gossiplib reads format 4")


def test_pickles_are_neither_written_nor_read(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (exploded.append, (1,))

    exploded = []
    path = tmp_path / "run.zip"
    with pytest.raises(ValueError, match="allow_pickle"):
        archive.write(path, {"bomb": np.array([Bomb()], dtype=object)})
    assert list(tmp_path.iterdir()) == []

    gossip_learning(DIGITS, RING, 1, checkpoint=path)
    with archive.reading(path) as members:
        kept = {name: members[name] for name in members}
    with open(tmp_path / "bomb.npy", "wb") as file:
        np.save(file, np.array([Bomb()], dtype=object), allow_pickle=True)
    bomb = (tmp_path / "bomb.npy").read_bytes()
    del kept["models"]
    archive.write(path, {**kept, "models.npy": bomb})
    with pytest.raises(ValueError, match="allow_pickle"):
        gossip_learning(DIGITS, RING, 2, resume=path)

    finished(path, 1)
    rewrite(path, lambda header, kept: kept.update({"state/0": bomb}))
    with pytest.raises(ValueError, match="allow_pickle|not records"):
        Gossip(RING).resume(path, LocalGrid(gossip(drifting_app()), N), zeros(), 2)
    assert exploded == []


# Writing that fails -------------------------------------------------------------------


class Full:
    """A file on a disk that is full after some bytes."""

    def __init__(self, file, room):
        self._file, self._room = file, room

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        self._file.__enter__()
        return self

    def __exit__(self, *exception):
        return self._file.__exit__(*exception)

    def write(self, data):
        self._room -= len(data)
        if self._room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._file.write(data)


def test_a_disk_that_is_full_at_any_byte_leaves_the_old_archive(tmp_path, monkeypatch):
    path = tmp_path / "a.zip"
    members = {"text": b"abc" * 100, "numbers": np.arange(50.0), "last": b""}
    archive.write(path, {"old": b"1"})
    old = path.read_bytes()
    real = tempfile.NamedTemporaryFile
    for room in range(2000):
        with monkeypatch.context() as patch:
            patch.setattr(
                archive.tempfile,
                "NamedTemporaryFile",
                lambda room=room, **kw: Full(real(**kw), room),
            )
            try:
                archive.write(path, members)
                break
            except OSError as error:
                assert error.errno == errno.ENOSPC
        assert os.listdir(tmp_path) == ["a.zip"]
        assert path.read_bytes() == old
    assert room > 1000
    with archive.reading(path) as kept:
        assert kept["text"] == members["text"] and len(kept) == 3


@shows("disk", "LocalGrid", "warned and counted; the old checkpoint stays")
@pytest.mark.parametrize("engine", ["server", "arrays"])
def test_a_run_goes_on_where_a_checkpoint_cannot_be_written(
    engine, tmp_path, monkeypatch, caplog
):
    path = tmp_path / "run.zip"
    real = archive.write

    def write(path, members):
        server_round = json.loads(members["checkpoint.json"])["round"]
        if server_round in (2, 4):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if server_round == 3:
            with checkpoint.reading(path) as kept:
                assert kept.server_round == 1
        real(path, members)

    monkeypatch.setattr(archive, "write", write)
    if engine == "server":
        result = finished(path, 4)
        plain = Gossip(RING).start(LocalGrid(gossip(drifting_app()), N), zeros(), 4)
        resumed = Gossip(RING).resume(
            path, LocalGrid(gossip(drifting_app()), N), zeros(), 4
        )
    else:
        plain = gossip_learning(DIGITS, RING, 4)
        result = gossip_learning(DIGITS, RING, 4, checkpoint=path)
        resumed = gossip_learning(DIGITS, RING, 4, resume=path)
    same(result, plain)
    same(resumed, plain)
    assert result.unsaved == [2, 4] and resumed.unsaved == [2]
    texts = [record.message for record in caplog.records]
    assert [text for text in texts if "No space left" in text] == [
        f"round {t}: no checkpoint was written: [Errno 28] No space left on device"
        for t in (2, 4)
    ]


def test_an_archive_is_an_ordinary_file_for_numpy_and_zip(tmp_path):
    path = tmp_path / "a.zip"
    arrays = {
        "empty": np.zeros((0, 3)),
        "one": np.array(3, dtype=np.int8),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "strided": np.arange(12)[::3],
        "truth/yes": np.array([True, False]),
    }
    archive.write(path, {**arrays, "text": b"abc"})
    assert path.stat().st_mode & 0o777 == 0o600
    with zipfile.ZipFile(path) as file:
        assert file.testzip() is None and len(file.comment) == 64
    with np.load(path, allow_pickle=False) as file, archive.reading(path) as kept:
        for name, array in arrays.items():
            for read in (file[name], kept[name]):
                assert read.dtype == array.dtype and np.array_equal(read, array)
        assert kept["text"] == b"abc"
    before = path.read_bytes()
    archive.write(path, {**arrays, "text": b"abc"})
    assert path.read_bytes() == before


# The result ---------------------------------------------------------------------------


def test_all_numbers_of_a_result_come_back_to_the_bit(tmp_path):
    odd = [0.1 + 0.2, 5e-324, -0.0, 1e308, float("inf"), 2**63, -7]
    record = MetricRecord(
        {"many": [0.1, 1e-17], **{str(k): v for k, v in enumerate(odd)}}
    )
    result = GossipResult(
        train_metrics_clientapp={1: record, 12: MetricRecord()},
        node_train_metrics={
            1: {3: record, 0: MetricRecord({"loss": 1.0})},
            2: {},
            3: {5: record},
            4: dict.fromkeys([2, 0, 1], record),
            5: StackedMetrics(np.array([1, 4]), {"loss": np.array([0.1, np.pi])}),
        },
        consensus_distance={1: np.float64(1 / 3)},
        messages={1: 3},
        bytes={1: np.int64(2**40)},
        seconds={"train": 1.5},
        unsaved=[2],
    )
    checkpoint.save(tmp_path / "a.zip", 12, {"engine": "x"}, result, {}, {})
    with checkpoint.reading(tmp_path / "a.zip") as kept:
        read = kept.result
    same(read, result, but=())
    assert isinstance(read.node_train_metrics[5], StackedMetrics)
    kinds = [type(v) for v in read.node_train_metrics[1][3].values()]
    assert kinds == [type(v) for v in record.values()]
    assert np.signbit(read.train_metrics_clientapp[1]["2"])


# Arrays -------------------------------------------------------------------------------

ARRAYS = {
    "plain": (DIGITS, RING, {}),
    "no looks between": (DIGITS, RING, {"observe_every": 0, "evaluate_every": 2}),
    "a start of their own": (OWN_START, RING, {}),
    "churn": (DIGITS, topology.churn(COMPLETE, 0.5, seed=1), {}),
    "push-sum": (DIGITS, topology.push(COMPLETE), {"average": PushSum()}),
    "CHOCO": (DIGITS, RING, {"average": Choco(TopK(0.1), 0.3)}),
    "sample": (DIGITS, RING, {"sample": 3}),
    "momentum": (DIGITS, RING, {"momentum": 0.9, "epochs": 2}),
    "a metric of one's own": (DIGITS, RING, {}),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_on_arrays_as_well(name, tmp_path):
    task, schedule, options = ARRAYS[name]
    path = tmp_path / "run.zip"

    def measure(t, arrays):
        if t and name != "a metric of one's own":
            return task.evaluate_fn(t, arrays)
        return MetricRecord({"t": t, "list": [t, 1]})

    own = name == "a metric of one's own"
    evaluate_fn = measure if own else task.evaluate_fn
    whole = gossip_learning(task, schedule, ROUNDS, evaluate_fn=evaluate_fn, **options)
    options["checkpoint"] = path
    gossip_learning(task, schedule, 1, evaluate_fn=evaluate_fn, **options)
    for rounds in (3, 4, ROUNDS, ROUNDS):
        result = gossip_learning(
            task, schedule, rounds, evaluate_fn=evaluate_fn, **options, resume=path
        )
    same(result, whole)
    with checkpoint.reading(path) as kept:
        assert kept.server_round == ROUNDS


def test_arrays_killed_in_a_round(tmp_path):
    path = tmp_path / "run.zip"
    whole = gossip_learning(DIGITS, RING, ROUNDS)
    for t in (2, 4, 5):
        with pytest.raises(Killed):
            gossip_learning(
                DIGITS,
                RING,
                ROUNDS,
                evaluate_fn=dying(t),
                checkpoint=path,
                resume=path if path.exists() else None,
            )
    same(gossip_learning(DIGITS, RING, ROUNDS, resume=path), whole)


def test_ctrl_c_on_arrays_leaves_a_checkpoint(tmp_path):
    path = tmp_path / "run.zip"

    def interrupt(t, arrays):
        if t == 2:
            signal.raise_signal(signal.SIGINT)

    with pytest.warns(UserWarning, match="interrupted: the result is that of 2 of 6"):
        gossip_learning(
            DIGITS,
            RING,
            ROUNDS,
            checkpoint=path,
            checkpoint_every=0,
            evaluate_fn=interrupt,
            sample=1,
        )
    whole = gossip_learning(DIGITS, RING, ROUNDS, sample=1)
    same(gossip_learning(DIGITS, RING, ROUNDS, sample=1, resume=path), whole)


def test_losses_on_arrays_are_kept(tmp_path):
    path = tmp_path / "run.zip"
    x = np.random.default_rng(0).normal(size=(80, 4))
    y = (x[:, 0] > 0).astype(int)
    task = Task(x, y, 4, partition="iid")
    first, count = task.parts.span(1, "train")
    task.x[task.parts.index[first : first + count]] = float("nan")
    ring = nx.cycle_graph(4)
    whole = gossip_learning(task, ring, 4)
    assert [loss[:3] for loss in whole.lost] == [(t, 1, "train") for t in range(1, 5)]
    gossip_learning(task, ring, 2, checkpoint=path)
    same(gossip_learning(task, ring, 4, resume=path), whole)


ARRAY_OTHERS = {
    "clients": {"task": digits(5, alpha=1.0), "schedule": nx.cycle_graph(5)},
    "data or first model": {"task": digits(N, alpha=0.9)},
    "seed": {"task": digits(N, alpha=1.0, seed=1)},
    "same_start": {"task": OWN_START},
    "graph or weights": {"schedule": nx.path_graph(N)},
    "epochs": {"epochs": 2},
    "batch_size": {"batch_size": 8},
    "lr": {"lr": 0.1},
    "momentum": {"momentum": 0.1},
    "weight_decay": {"weight_decay": 0.1},
    "average": {"average": PushSum()},
}


@pytest.mark.parametrize("what", ARRAY_OTHERS)
def test_a_checkpoint_of_another_run_on_arrays_is_refused_by_name(what, tmp_path):
    path = tmp_path / "run.zip"
    usual = {"task": DIGITS, "schedule": RING}
    gossip_learning(**usual, num_rounds=1, checkpoint=path)
    with pytest.raises(ValueError, match=f"of another run.*{what}"):
        gossip_learning(**usual | ARRAY_OTHERS[what], num_rounds=2, resume=path)


def test_fewer_rounds_on_arrays_are_refused(tmp_path):
    gossip_learning(DIGITS, RING, 2, checkpoint=tmp_path / "run.zip")
    with pytest.raises(ValueError, match="has 2 rounds, more than num_rounds=1"):
        gossip_learning(DIGITS, RING, 1, resume=tmp_path / "run.zip")


# Kill -9 ------------------------------------------------------------------------------

#: Runs in a process of its own, without torch, and forks those that are killed: so each
#: of them starts in no time. It prints what it saw.
CHAIN = """
import json, logging, os, random, resource, shutil, signal, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import networkx as nx
import numpy as np
from gossiplib import Gossip, LocalGrid, gossip, mixing
from gossiplib.core import checkpoint
from gossiplib.system import archive
from toy_apps import drifting_app, zeros

assert "torch" not in sys.modules
N, ROUNDS = 4, 120
path, out = Path("run.zip"), Path("models.npy")

def go(where, keep):
    strategy = Gossip(nx.cycle_graph(N), evaluate_every=0, checkpoint=keep)
    grid = LocalGrid(gossip(drifting_app()), N)
    resume = [strategy.resume, where] if where.exists() else [strategy.start]
    return resume[0](*resume[1:], grid, zeros(), ROUNDS)

def forked(work):
    pid = os.fork()
    if not pid:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return pid

def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def finish(where):
    def work():
        result = go(where, None)
        np.save(out, result.models())
        assert list(result.messages) == list(range(1, ROUNDS + 1)) and not result.lost
    out.unlink(missing_ok=True)
    assert ended(forked(work)) == 0
    return np.load(out)
"""

KILLS = """
whole = go(Path("none.zip"), None).models()
rng = random.Random(0)
kills, rounds, leftovers, equal, first = 0, [], 0, [], 0
while kills < 20:
    pid = forked(lambda: go(path, path))
    time.sleep(rng.uniform(0.0, 0.12))
    os.kill(pid, signal.SIGKILL)
    if ended(pid) == 0:  # it was too late: begin again
        path.unlink()
        continue
    kills += 1
    leftovers += len(list(Path(".").glob("*.part")))
    if path.exists():
        with checkpoint.reading(path) as kept:
            rounds.append(kept.server_round)
        shutil.copy(path, "copy.zip")
        equal.append(np.array_equal(finish(Path("copy.zip")), whole))
equal.append(np.array_equal(finish(path), whole))
print(json.dumps([kills, rounds, leftovers, equal]))
"""

POINTS = """
# Killed before and after a system call: there is the old checkpoint or the new one.
whole = go(Path("none.zip"), None).models()

def dying(real, calls, after):
    calls = iter(range(calls - 1, -1, -1))
    def call(*args):
        last = next(calls) == 0
        if not last or after:
            real(*args)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
    return call

seen = []
for name, calls in (("fsync", 9), ("fsync", 10), ("replace", 10)):
    for after in (False, True):
        path.unlink(missing_ok=True)
        def work():
            setattr(os, name, dying(getattr(os, name), calls, after))
            go(path, path)
        assert ended(forked(work)) == -signal.SIGKILL
        with checkpoint.reading(path) as kept:
            seen.append(kept.server_round)
        assert np.array_equal(finish(path), whole)
print(json.dumps(seen))
"""

QUOTA = """
# No file may be longer than those of the first rounds: as on a disk that is full.
logging.disable()
def work():
    go_on = archive.write
    def write(where, members):
        go_on(where, members)
        if json.loads(members["checkpoint.json"])["round"] == 3:
            size = os.path.getsize(where) + 100
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    archive.write = write
    result = go(path, path)
    print(json.dumps([result.unsaved, os.listdir(".")]), flush=True)
    os._exit(0 if len(result.messages) == ROUNDS else 3)
assert ended(forked(work)) == 0
whole = go(Path("none.zip"), None).models()
assert np.array_equal(finish(path), whole)
"""


def in_a_process(script, folder):
    done = subprocess.run(
        [sys.executable, "-c", CHAIN + script, str(ROOT / "tests")],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@shows("server", "LocalGrid", "resumes with the same models, to the bit")
def test_killed_at_20_random_moments_each_resume_ends_with_the_same_models(tmp_path):
    ((kills, rounds, leftovers, equal),) = in_a_process(KILLS, tmp_path)
    assert kills == 20
    assert len(rounds) >= 10 and len({*rounds}) >= 8  # spread over the run
    assert all(equal) and len(equal) == len(rounds) + 1
    print(f"checkpoints of rounds {rounds}, {leftovers} killed while writing")


def test_killed_at_each_step_of_a_write(tmp_path):
    (seen,) = in_a_process(POINTS, tmp_path)
    # The 9th and 10th fsync are of round 5: of the file, and of the folder that has it.
    # The 10th replace is of round 10.
    assert seen == [4, 4, 5, 5, 9, 10]


def test_a_real_limit_on_the_length_of_files(tmp_path):
    ((unsaved, left),) = in_a_process(QUOTA, tmp_path)
    assert len(unsaved) > 50 and left == ["run.zip"]


def test_a_run_of_one_average_function_does_not_go_on_with_another(tmp_path):
    """Not even with the same one and another parameter."""
    path = tmp_path / "run.zip"
    strategy = Gossip(RING, checkpoint=path)

    def grid(average):
        return LocalGrid(gossip(drifting_app(), average=average), N)

    strategy.start(grid(TrimmedMean(1)), zeros(), 2)
    for other in (TrimmedMean(0), ClippedGossip(1)):
        with pytest.raises(RuntimeError, match=r"TrimmedMean\(f=1\).*this one does so"):
            strategy.resume(path, grid(other), zeros(), 3)
    assert len(strategy.resume(path, grid(TrimmedMean(1)), zeros(), 3).messages) == 3


@pytest.mark.parametrize("path", ["", None])
def test_a_checkpoint_that_has_no_name_begins_no_new_run(path):
    grid = LocalGrid(gossip(drifting_app()), N)
    with pytest.raises((FileNotFoundError, TypeError)):
        Gossip(RING).resume(path, grid, zeros(), 3)
