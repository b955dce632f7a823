"""Peers over gRPC: with no server, the models are the same; and what fails is borne.

Most peers here are threads of the test, which talk over real gRPC with certificates.
Where a peer must die, it is a process.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import grpc
import networkx as nx
import numpy as np
import psutil
import pytest
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

import digits_peer
import peer_apps
from faults import shows
from gossiplib.core import mixing
from gossiplib.core.averaging import weighted_mean
from gossiplib.core.client import choose, gossip
from gossiplib.core.grid import LocalGrid
from gossiplib.core.server import Gossip
from gossiplib.peers.bootstrap import Bootstrap
from gossiplib.peers.command import PeerConfig, main
from gossiplib.peers.launch import Peers, can_start
from gossiplib.peers.log import EventLog, read_events, read_models
from gossiplib.peers.messages import Mailbox, PeerMessage, encode, note
from gossiplib.peers.node import ALONE, Peer
from gossiplib.peers.transport import AddressBook, Channels
from gossiplib.protocols.codecs import TopK
from gossiplib.protocols.compressed import Choco
from gossiplib.system import encoding
from gossiplib.system.certificates import Authority, Identity
from gossiplib.system.processes import free_ports
from gossiplib.system.records import flat
from gossiplib.system.runs import wait_until
from notebooks import ROOT
from toy_apps import drift, drifting_app, zeros

HERE = ROOT / "tests"
OK = grpc.StatusCode.OK
RING = nx.cycle_graph(4)
PULLING = ("peer_apps:pulling", "peer_apps:zeros")


class Crowd:
    """Peers in threads of this process, on a graph of their own."""

    def __init__(self, folder, app, graph, num_rounds, **options):
        self.folder = folder
        self.authority = Authority(folder)
        self.n = len(graph)
        self.addresses = [f"127.0.0.1:{port}" for port in free_ports(self.n)]
        self.peers = []
        for i in range(self.n):
            self.authority.issue(f"peer-{i}")
            config = {
                "client": i,
                "num_clients": self.n,
                "address": self.addresses[i],
                "folder": folder,
                "known": [self.addresses[j] for j in graph[i]],
                "neighbours": list(graph[i]),
                "num_rounds": num_rounds,
                "timeout": 60.0,  # nobody waits so long, but for one that hangs
            }
            config = PeerConfig(**config | options)
            self.peers.append(Peer(app, zeros(), config))
        self.threads = [
            threading.Thread(target=peer.run, daemon=True) for peer in self.peers
        ]

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for peer in self.peers:
            peer.close()

    def run(self, seconds=50, without=()):
        """Run all peers but some to their end; return their models, one a row."""
        for i in without:
            self.peers[i].close()
        for thread in self.threads:
            thread.start()
        end = time.monotonic() + seconds
        for thread in self.threads:
            thread.join(max(0, end - time.monotonic()))
            assert not thread.is_alive(), "a peer hangs"
        return np.stack([flat(peer.model) for peer in self.peers])

    def events(self, i, event):
        return [
            e for e in read_events(self.folder / f"peer-{i}") if e["event"] == event
        ]

    def losses(self):
        """Return (round, whose fault, call) of all that was lost."""
        lost = [e for i in range(self.n) for e in self.events(i, "lost")]
        return {(e["round"], e["other"], e["call"]) for e in lost}

    def as_stranger(self, name, authority=None, days=1.0):
        """Return connections that show a certificate of this name."""
        folder = self.folder / "others"
        folder.mkdir(exist_ok=True)
        authority = authority or self.authority
        home, authority.folder = authority.folder, folder
        identity = authority.issue(name, days=days)
        authority.folder = home
        return Channels(identity, self.folder / "authority.pem", 10**6)


@pytest.fixture
def crowd(tmp_path):
    with contextlib.ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(
            Crowd(tmp_path, *args, **options)
        )


def push(channels, address, client, data, seconds=20.0):
    """Send bytes to a peer; return the code of its answer, and why."""
    call = channels.call(address, f"peer-{client}", "Push", data, seconds)
    return call.code(), call.details()


# The same models as with a server -----------------------------------------------------


def test_digits_on_four_peers_give_the_models_of_local_grid_to_the_bit():
    names = ("digits_peer:client", "digits_peer:initial")
    with Peers(*names, RING, path=HERE, num_rounds=5, timeout=60) as all_:
        all_.wait(240)
        result, refused = all_.result(), all_.refused()
    grid = LocalGrid(digits_peer.client, 4)
    expected = Gossip(RING).start(grid, digits_peer.initial(), num_rounds=5)
    np.testing.assert_array_equal(result.models(), expected.models())
    assert result.to_pandas().equals(expected.to_pandas())
    by_round, other = result.to_pandas("round"), expected.to_pandas("round")
    assert by_round.drop(columns="server_bytes").equals(
        other.drop(columns="server_bytes")
    )
    assert result.lost == [] and not any(refused.values())


def handshake(**fields):
    """Return the bytes of a handshake, or of an answer to one."""
    return encoding.dump(RecordDict({"gossip": ConfigRecord(fields)}))


def test_a_handshake_breaks_off_calls_to_one_that_was_lost_and_to_nobody_else():
    forgotten = []
    channels = SimpleNamespace(forget=forgotten.append)
    mailbox = Mailbox(num_clients=3, max_bytes=1000, num_rounds=5)
    bootstrap = Bootstrap("127.0.0.1:1", AddressBook(0, 3), mailbox, channels)
    data = handshake(address="127.0.0.1:2", link=True)
    bootstrap.answer(1, data, 0)  # both may call each other at once
    bootstrap.answer(1, data, 0)
    assert forgotten == []
    mailbox.suspect(1)
    bootstrap.answer(1, data, 3)
    assert forgotten == ["peer-1"] and 1 in mailbox.alive


def test_a_graph_with_many_degrees_gives_the_weights_of_metropolis(crowd):
    graph = nx.barbell_graph(4, 2)
    models = crowd(gossip(drifting_app()), graph, 4).run()
    np.testing.assert_allclose(models, drift(graph, 10, 4), rtol=1e-12)


def test_average_functions_with_a_message_of_their_own_work(crowd):
    def app():
        return gossip(drifting_app(), average=Choco(TopK(1), 0.3))

    peers = crowd(app(), RING, 5)
    expected = Gossip(RING).start(LocalGrid(app(), 4), zeros(), num_rounds=5)
    np.testing.assert_array_equal(peers.run(), expected.models())
    assert peers.losses() == set()


# Two die, one comes back --------------------------------------------------------------


@shows("killed", "peers", "counted; neighbours go on without it")
@shows("restarted", "peers", "goes on from its last model, or from a neighbour's newer")
def test_two_of_eight_are_killed_and_one_comes_back(tmp_path):
    """In round 15 they wait until it is back: a process may be slow to start."""
    graph = nx.cycle_graph(8)
    graph.add_edges_from([(0, 4), (2, 6)])
    rng = np.random.default_rng(0)
    first, second = rng.permutation(8)[:2].tolist()
    t, later = sorted(rng.integers(2, 8, size=2).tolist())
    go = tmp_path / "go"
    config = {"nap": 0.2, "last": 15, "go": str(go)}
    options = {"num_rounds": 30, "timeout": 60, "start_timeout": 120, "config": config}
    with Peers(*PULLING, graph, path=HERE, **options) as all_:
        all_.wait_for_round(t, 120)
        all_.kill(first)
        all_.wait_for_round(later, 120)
        all_.kill(second)
        all_.restart(first)
        log = all_.processes.folder / f"peer-{first}"
        assert wait_until(
            lambda: any(e["event"] == "caught up" for e in read_events(log)), 120
        )
        go.touch()
        all_.wait(120)
        result, events = all_.result(), all_.events()
        kept = [read_models(all_.processes.folder / f"peer-{i}") for i in range(8)]
        folder, addresses = all_.processes.folder, all_.addresses

    survivors = [i for i in range(8) if i != second]
    assert sorted(result.node_arrays) == survivors
    (came_back,) = events[events.event == "caught up"].itertuples()
    assert came_back.peer == first and came_back.round >= t
    # The one that comes back has missed what was sent while it was away.
    missed = f"client {first} has received nothing from it"
    at_fault = {loss.client for loss in result.lost if loss.reason != missed}
    assert at_fault == {first, second}

    # Numpy alone, given who received from whom, finds the same models.
    goals = np.stack([peer_apps.goal(i) for i in range(8)])
    averaged = events[events.event == "averaged"]
    heard = {(e.peer, e.round): e.senders for e in averaged.itertuples()}
    W = mixing.metropolis(graph)
    step, X, mixings = peer_apps.STEP, np.zeros((8, 3)), []
    X_by_round = [X]
    for t in range(1, 31):
        if t == came_back.round + 1:
            X[first] = X[int(came_back.other)]
        X = X + step * (goals - X)
        mix = np.zeros((8, 8))
        for i in range(8):
            senders = heard.get((i, t), [])
            mix[i, senders] = W[i, senders]
            mix[i, i] = 1 - mix[i].sum()
        mixings.append(mix)
        X = mix @ X
        X_by_round.append(X)
        for i in range(8):
            if t in kept[i] and not (i == first and (i, t) not in heard):
                np.testing.assert_allclose(flat(kept[i][t]), X[i], atol=1e-12)
    np.testing.assert_allclose(result.models(), X[survivors], atol=1e-12)

    # They agree within the bound of the graph that is left. Training takes a model the
    # part a to its own goal g_i, so D ← λ ((1 - a) D + a D_goals) in a round.
    last = mixings[-1][np.ix_(survivors, survivors)]
    settled = next(k for k in range(30) if np.all(mixings[k:] == mixings[-1]))
    factor = mixing.slem(last) * (1 - step)
    rounds = 30 - settled
    distance = mixing.consensus_distance(X_by_round[settled][survivors])
    apart = mixing.slem(last) * step * mixing.consensus_distance(goals[survivors])
    bound = factor**rounds * distance + apart * (1 - factor**rounds) / (1 - factor)
    assert rounds >= 5 and mixing.slem(last) < 1
    assert 0 < mixing.consensus_distance(result.models()) <= bound

    # Nothing is left.
    assert not processes_of(folder) and not folder.exists()
    for address in addresses:
        with socket.socket() as one:
            host, port = address.split(":")
            assert one.connect_ex((host, int(port))) != 0


def test_peers_end_with_their_owner_even_if_its_guard_is_killed_too(tmp_path):
    script = """
import time
from gossiplib.peers import Peers
names = ("peer_apps:pulling", "peer_apps:zeros")
with Peers(*names, 3, num_rounds=10**6, config={"nap": 0.1}) as peers:
    peers.wait_for_round(1, 120)
    print(peers.processes.folder, flush=True)
    time.sleep(600)
"""
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), str(ROOT)])}
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE) as owner:
        folder = Path(owner.stdout.readline().decode().strip())
        assert folder.name.startswith("gossiplib-")  # else the script has failed
        try:
            assert len(processes_of(folder, "client=")) == 3
            (guard,) = processes_of(folder, "processes.py")
            guard.kill()
            owner.kill()
            assert wait_until(lambda: not processes_of(folder), 60)
            assert wait_until(lambda: not folder.exists(), 20)
        finally:
            owner.kill()
            for process in processes_of(folder, "-m gossiplib.peers"):
                process.kill()


def processes_of(folder, *words):
    """Return the processes with this folder and these words in their command."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            command = " ".join(process.cmdline())
            if all(word in command for word in (str(folder), *words)):
                found.append(process)
    return found


# Faults of a client -------------------------------------------------------------------


@shows("raises", "peers", "counted; neighbours go on without it")
@shows("none", "peers", "counted; neighbours go on without it")
@shows("nan", "peers", "counted; neighbours go on without it")
@shows("shape", "peers", "counted; neighbours go on without it")
@pytest.mark.parametrize("fault", ["raises", "exits", "none", "nan", "shape"])
def test_a_client_that_cannot_train_takes_no_part_in_that_round(crowd, fault):
    app = gossip(drifting_app(fault, client=1, rounds=[1, 3]))
    peers = crowd(app, RING, 4)
    models = peers.run()
    expected = drift(RING, 4, 4, untrained={(1, 1), (3, 1)})
    np.testing.assert_allclose(models, expected, rtol=1e-12)
    assert peers.losses() == {(1, 1, "train"), (3, 1, "train")}


def test_a_client_that_cannot_average_keeps_its_own_model(crowd):
    def average(own, neighbours, weights, turn):
        if turn.server_round == 2 and turn.node_config["partition-id"] == 3:
            raise RuntimeError("no")
        return weighted_mean(own, neighbours, weights)

    peers = crowd(gossip(drifting_app(), average=average), RING, 3)
    expected = drift(RING, 4, 3, unmixed={(2, 3)})
    np.testing.assert_allclose(peers.run(), expected, rtol=1e-12)
    assert peers.losses() == {(2, 3, "train.average")}


@shows("hangs", "peers", "counted; left behind, then skips to its neighbours' round")
def test_a_client_that_hangs_is_left_behind_and_skips_to_its_neighbours(crowd):
    peers = crowd(gossip(drifting_app()), RING, 40, timeout=2.0)
    first = peers.peers[0]

    def far_ahead():  # so that nobody has to be quick
        return first.round >= 6

    for peer in peers.peers:
        hangs = partial(wait_until, far_ahead, 60) if peer.client == 1 else None
        peer.call = _slowed(peer.call, 0.1, hangs, in_round=3)
    peers.run()
    ended = [peers.events(i, "ended")[0]["round"] for i in range(4)]
    assert ended == [40] * 4
    skipped = peers.events(1, "skipped")
    assert skipped and skipped[0]["round"] >= 6
    last = [peers.events(i, "averaged")[-1] for i in range(4)]
    assert [e["round"] for e in last] == [40] * 4
    assert [e["senders"] for e in last] == [[1, 3], [0, 2], [1, 3], [0, 2]]
    assert (3, 1, "Push") in peers.losses()


@pytest.mark.parametrize("how", ["hangs", "slow"])
def test_a_client_that_hangs_at_first_costs_its_neighbours_that_client_only(crowd, how):
    """In a ring of six, those beside it wait, and those beside them wait for these."""
    graph = nx.cycle_graph(6)
    peers = crowd(gossip(drifting_app()), graph, 30, timeout=2.0)

    def over():
        return all(peer.round == 30 for peer in peers.peers if peer.client != 1)

    hangs = {"hangs": partial(wait_until, over, 60), "slow": partial(time.sleep, 8)}
    for peer in peers.peers:
        peer.call = _slowed(peer.call, 0.1, hangs[how] if peer.client == 1 else None)
    peers.run()
    for i in set(graph) - {1}:
        well = set(graph[i]) - {1}
        heard = [well <= set(e["senders"]) for e in peers.events(i, "averaged")]
        assert sum(heard) >= 28
        assert not peers.events(i, "skipped")
    assert peers.losses() >= {(1, 1, "Push"), (2, 1, "Push")}


def test_who_is_always_late_is_waited_for_less_and_less():
    """Each time it says that it waits for others, and is granted all: 0.4 s."""
    box = Mailbox(num_clients=3, max_bytes=1000, num_rounds=100)
    box.link(1)

    def seconds(server_round, most):
        begin = time.monotonic()
        say = {"most": most, "ask": lambda client, grant: grant(0.0)}
        assert box.collect(server_round, [1], 0.1, **say) == {}
        assert box.alive == set()
        box.put(1, message(server_round, server_round))  # late, and alive again
        assert box.alive == {1}
        return time.monotonic() - begin

    assert seconds(1, 0.4) > 0.39
    assert sum(seconds(t, 0.4) for t in range(2, 42)) < 40 * 0.2  # of 40 * 0.4
    for t in range(42, 52):  # in time again
        box.put(1, message(t, t))
        assert set(box.collect(t, [1], 0.1)) == {1}
    assert seconds(52, 0.4) > 0.39  # and waited for as before


@pytest.mark.parametrize(
    ("worked", "least", "most"), [(0.0, 1.0, 5.0), (0.3, 0.3, 0.9), (-1e9, 1.0, 5.0)]
)
def test_a_neighbour_has_its_time_for_its_own_work_and_not_for_ever(
    worked, least, most
):
    """It has 0.3 s without what it has worked already, again and again, up to 1 s."""
    box = Mailbox(num_clients=3, max_bytes=1000, num_rounds=9)
    box.link(1)
    begin = time.monotonic()
    box.collect(1, [1], 0.3, 1.0, lambda client, grant: grant(worked))
    assert least <= time.monotonic() - begin < most


def _slowed(call, seconds, hangs=None, in_round=1):
    """Return a peer's way to call its client, with training that takes a moment.

    In one round it may hang, until `hangs` returns.
    """

    def slow(message_type, server_round=0, **content):
        if message_type == "train":
            time.sleep(seconds)
            if hangs and server_round == in_round:
                hangs()
        return call(message_type, server_round, **content)

    return slow


# Faults of the network ----------------------------------------------------------------


def between(peer, act):
    """Put something between a peer and the network: act(t, to, again, call)."""
    through = peer.channels.call

    def call(address, name, method, data, timeout):
        def again():
            return through(address, name, method, data, timeout)

        if method != "Push":
            return again()
        header = encoding.load(data)["gossip"]
        return act(header["round"], int(name.removeprefix("peer-")), again)

    peer.channels.call = call


def answer(code=grpc.StatusCode.OK):
    """Return what a call comes to that never left."""
    return SimpleNamespace(code=lambda: code, details=lambda: "")


@shows("repeated", "peers", "refused by its number, and counted")
def test_messages_that_come_twice_are_used_once(crowd):
    peers = crowd(gossip(drifting_app()), RING, 5)
    codes = []

    def twice(t, to, again):
        again().result()
        second = again()
        codes.append(second.code())
        return answer()

    for peer in peers.peers:
        between(peer, twice)
    np.testing.assert_allclose(peers.run(), drift(RING, 4, 5), rtol=1e-12)
    assert grpc.StatusCode.OK not in codes
    repeated = sum(peer.mailbox.refused["repeated"] for peer in peers.peers)
    assert repeated == codes.count(grpc.StatusCode.PERMISSION_DENIED)
    assert repeated >= 32  # after its last round a peer may be gone


@shows("delayed", "peers", "waited for up to the timeout; then counted")
def test_messages_that_are_delayed_are_waited_for(crowd):
    peers = crowd(gossip(drifting_app()), RING, 5)
    for peer in peers.peers:
        rng = np.random.default_rng(peer.client)

        def late(t, to, again, rng=rng):
            time.sleep(rng.uniform(0, 0.1))
            return again()

        between(peer, late)
    np.testing.assert_allclose(peers.run(), drift(RING, 4, 5), rtol=1e-12)
    assert peers.losses() == set()


@shows("lost", "peers", "counted; its weight goes to the own model")
def test_what_is_lost_stays_with_the_own_model(crowd):
    # Who hears of the next round instead does not wait for the one that is lost.
    peers = crowd(gossip(drifting_app()), RING, 4)
    lost = {(2, 0, 1), (3, 2, 3)}  # round, from, to
    for i, peer in enumerate(peers.peers):

        def lose(t, to, again, i=i):
            return answer() if (t, i, to) in lost else again()

        between(peer, lose)
    models, X = peers.run(), np.zeros((4, 3))
    for t in range(1, 5):
        W = mixing.metropolis(RING)
        for _, j, i in [one for one in lost if one[0] == t]:
            W[i, i] += W[i, j]
            W[i, j] = 0
        X = W @ (X + np.outer(np.arange(1, 5), [1, 2, 3]))
    np.testing.assert_allclose(models, X, rtol=1e-12)
    assert peers.losses() == {(2, 0, "Push"), (3, 2, "Push")}


@shows("partition", "peers", "each part goes on; they mix again when it heals")
def test_a_graph_that_falls_apart_heals(crowd):
    graph = nx.cycle_graph(6)
    peers = crowd(gossip(drifting_app()), graph, 60)
    sides = [0, 0, 0, 1, 1, 1]
    for i, peer in enumerate(peers.peers):
        peer.call = _slowed(peer.call, 0.04 if sides[i] else 0.05)

        def part(t, to, again, i=i):
            apart = 10 <= t < 30 and sides[i] != sides[to]
            return answer(grpc.StatusCode.UNAVAILABLE) if apart else again()

        between(peer, part)
    peers.run()
    heard = [peers.events(i, "averaged") for i in range(6)]
    for i in range(6):
        across = [sides[i] != sides[j] for j in graph[i]]
        if any(across):
            assert any(len(e["senders"]) < 2 for e in heard[i])
        assert heard[i][-1]["round"] == 60
        assert heard[i][-1]["senders"] == sorted(graph[i])


class Cut:
    """A call that reaches nobody, whatever it is asked."""

    def code(self):
        return grpc.StatusCode.UNAVAILABLE

    def details(self):
        return "cut"

    def result(self):
        raise grpc.RpcError

    def add_done_callback(self, told):
        told(self)


def test_parts_that_never_met_meet_when_the_cut_heals(crowd):
    peers = crowd(gossip(drifting_app()), RING, 100, start_timeout=1.0)
    sides = [0, 0, 1, 1]
    first = peers.peers[0]
    for i, peer in enumerate(peers.peers):
        peer.call = _slowed(peer.call, 0.05)

        def call(address, *args, i=i, through=peer.channels.call):
            apart = sides[i] != sides[peers.addresses.index(address)]
            return Cut() if apart and first.round < 10 else through(address, *args)

        peer.channels.call = call
    peers.run()
    for i, other in enumerate([3, 2, 1, 0]):
        averaged = peers.events(i, "averaged")
        apart = [e["round"] for e in averaged if e["senders"] != sorted(RING[i])]
        lost = [e["round"] for e in peers.events(i, "lost") if e["other"] == other]
        assert len(averaged) == 100 and max(apart) < 90
        assert set(lost) >= set(apart) >= {1, 2, 3}


def test_a_neighbour_that_never_comes_is_lost_in_each_round(crowd):
    peers = crowd(gossip(drifting_app()), RING, 5, start_timeout=1.0)
    models = peers.run(without=[3])
    path = nx.Graph([(0, 1), (1, 2)])
    path.add_node(3)
    np.testing.assert_allclose(models[:3], drift(path, 4, 5)[:3], rtol=1e-12)
    assert peers.losses() == {(t, 3, "Push") for t in range(1, 6)}


def test_a_peer_that_finds_nobody_says_so_and_why(crowd, capsys):
    peers = crowd(gossip(drifting_app()), nx.path_graph(2), 3, start_timeout=0.5)
    peers.peers[1].close()
    assert peers.peers[0].run() == ALONE
    said = capsys.readouterr().err
    assert "peer 0 has found no neighbour, and goes on alone" in said
    assert f"{peers.addresses[1]}: " in said and "refused" in said
    assert peers.losses() == {(t, 1, "Push") for t in (1, 2, 3)}


@pytest.mark.parametrize("where", ["outbox", "gRPC"])
def test_a_peer_that_can_start_no_thread_ends_and_says_so(
    crowd, monkeypatch, capsys, where
):
    (peer, *others) = crowd(gossip(drifting_app()), RING, 9, timeout=0.5).peers

    def exhausted(*args):
        raise RuntimeError("can't start new thread")

    if where == "gRPC":  # it is noticed in the thread that sends, and in the next round
        between(peer, exhausted)
    else:
        no_threads = SimpleNamespace(submit=exhausted, shutdown=lambda **how: None)
        peer.outbox._threads = defaultdict(lambda: no_threads)
    for other in others:
        threading.Thread(target=other.run, daemon=True).start()
    monkeypatch.setattr("gossiplib.peers.command.Peer", lambda *args: peer)
    monkeypatch.setattr("os._exit", sys.exit)
    words = ["-", "peer_apps:drifting", "peer_apps:zeros", *peer.config.arguments()]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1 and peer.round == (where == "gRPC")
    assert "peer 0 has failed in round" in (said := capsys.readouterr().err)
    assert "can't start new thread" in said


def test_a_peer_that_is_interrupted_ends_at_once_and_says_so(
    crowd, monkeypatch, capsys
):
    peer, _ = crowd(gossip(drifting_app()), nx.path_graph(2), 9).peers

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(peer, "run", interrupted)
    monkeypatch.setattr("gossiplib.peers.command.Peer", lambda *args: peer)
    monkeypatch.setattr("os._exit", sys.exit)  # else calls to others would go on
    words = ["-", "peer_apps:drifting", "peer_apps:zeros", *peer.config.arguments()]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    assert capsys.readouterr().err == "peer 0 has failed in round 1: interrupted\n"


def test_a_client_that_does_not_gossip_is_named(crowd, capsys):
    """It chooses nobody, in a run in rounds; and every peer says why it is alone."""
    peers = crowd(drifting_app(), nx.path_graph(2), 1)
    peers.run()
    said = capsys.readouterr().err
    for i in (0, 1):
        assert f"peer {i} has failed in query.discover: ValueError: No query" in said


# Who may speak, and what --------------------------------------------------------------


@pytest.fixture
def idle(crowd):
    """Return a peer, number 0, that has a neighbour, number 1, and does nothing."""
    peers = crowd(gossip(drifting_app()), nx.Graph([(0, 1), (1, 2)]), 9)
    peer = peers.peers[0]
    peer.mailbox.link(1)
    peer.mailbox.expect(zeros())
    return SimpleNamespace(
        peer=peer,
        crowd=peers,
        address=peers.addresses[0],
        neighbour=peers.peers[1].channels,
        refused=peer.mailbox.refused,
    )


def message(t=1, count=1, value=1.0, start=1):
    arrays = ArrayRecord([np.full(3, value)])
    return encode(PeerMessage(t, 2, start, count, arrays))


def test_a_neighbour_s_message_is_taken_and_repetition_nan_and_other_shapes_are_not(
    idle,
):
    def send(data):
        return push(idle.neighbour, idle.address, 0, data)

    assert send(message())[0] is OK
    no = grpc.StatusCode.PERMISSION_DENIED
    assert send(message()) == (no, "repeated")
    assert send(message(2, 2, value=np.nan)) == (no, "not finite")
    other = encode(PeerMessage(2, 2, 1, 2, ArrayRecord([np.zeros(4)])))
    assert send(other) == (no, "another layout")
    assert send(b"x") == (no, "malformed")
    assert set(idle.peer.mailbox.collect(1, [1], 9)) == {1}
    assert idle.refused.total() == 4


@shows("unknown", "peers", "refused, and counted")
def test_a_peer_that_is_no_neighbour_is_refused(idle):
    known = idle.crowd.peers[2].channels
    assert push(known, idle.address, 0, message())[1] == "not a neighbour"
    for name in ("peer-9", "peer-01", "peer-x", "nobody", "peer--1"):
        stranger = idle.crowd.as_stranger(name)
        assert push(stranger, idle.address, 0, message())[1] == "unknown name"
        answer = stranger.call(idle.address, "peer-0", "Handshake", b"", 20)
        assert answer.details() == "unknown name"
    model = known.call(idle.address, "peer-0", "Model", b"", 20)
    assert model.details() == "not a neighbour"
    assert idle.refused == {"not a neighbour": 2, "unknown name": 10}


def test_who_sends_is_told_by_the_certificate_not_by_the_message(idle):
    content = encoding.load(message())
    content["gossip"]["sender"] = 1
    known = idle.crowd.peers[2].channels
    answered = push(known, idle.address, 0, encoding.dump(content))
    assert answered[1] == "not a neighbour"


@shows("expired", "peers", "refused in the handshake, unread")
@pytest.mark.parametrize("fault", ["expired", "another authority", "no certificate"])
def test_without_a_certificate_nobody_gets_through_the_handshake(idle, tmp_path, fault):
    if fault == "expired":
        stranger = idle.crowd.as_stranger("peer-1", days=-1)
        code, _ = push(stranger, idle.address, 0, message())
    elif fault == "another authority":
        (tmp_path / "b").mkdir()
        other = Authority(tmp_path / "b")
        stranger = idle.crowd.as_stranger("peer-1", authority=other)
        code, _ = push(stranger, idle.address, 0, message())
    else:
        with grpc.insecure_channel(idle.address) as channel:
            call = channel.unary_unary("/gossiplib.Peer/Push")
            code = call.future(message(), timeout=2).code()
    assert code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    assert idle.peer.mailbox.collect(1, [1], 0) == {}
    assert push(idle.neighbour, idle.address, 0, message())[0] is grpc.StatusCode.OK


def test_a_peer_talks_to_nobody_who_shows_another_name(idle):
    code, _ = push(idle.neighbour, idle.crowd.addresses[2], 0, message())
    assert code is grpc.StatusCode.UNAVAILABLE


def test_a_message_too_large_is_not_read_and_counted(idle):
    code, _ = push(idle.neighbour, idle.address, 0, bytes(10**6))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert idle.peer.server.unread == 1


def test_others_cannot_say_where_a_peer_is(idle):
    idle.peer.addresses.confirm(2, "127.0.0.1:2")
    claim = handshake(address="127.0.0.1:1", link=False)
    call = idle.neighbour.call(idle.address, "peer-0", "Handshake", claim, 20)
    answer = encoding.load(call.result())["gossip"]
    assert dict(zip(answer["clients"], answer["addresses"], strict=True)) == {
        1: "127.0.0.1:1",
        2: "127.0.0.1:2",
    }
    assert answer["client"] == 0


@pytest.mark.parametrize(
    ("name", "days", "fault"),
    [
        ("peer-1", -1, "holds from .* issued"),
        ("peer-2", 1, "is of CN=peer-2.*, and not of peer-1"),
        ("", 0, "holds no certificate"),
    ],
)
def test_a_certificate_of_no_use_is_said_at_the_start(crowd, name, days, fault):
    peers = crowd(gossip(drifting_app()), RING, 1)
    mine = peers.folder / "peer-1.pem"
    if name:
        peers.as_stranger(name, days=days)
        shutil.copy(peers.folder / "others" / f"{name}.pem", mine)
    else:
        mine.write_text("none")
    with pytest.raises(OSError, match=fault):
        Peer(gossip(drifting_app()), zeros(), peers.peers[1].config)


@shows("port", "peers", "the peer ends, and says so")
def test_a_port_that_is_taken_is_a_clear_error(crowd):
    peers = crowd(gossip(drifting_app()), RING, 1)
    taken = replace(peers.peers[1].config, address=peers.addresses[0])
    with pytest.raises(OSError, match="cannot listen on 127.0.0.1:.*in use"):
        Peer(gossip(drifting_app()), zeros(), taken)


# The disk -----------------------------------------------------------------------------


def test_a_peer_goes_on_from_its_own_last_model_and_writes_over_none(crowd, capsys):
    """It was killed after round 8 of 12, and the others have ended meanwhile."""
    peers = crowd(gossip(drifting_app()), RING, 12, start_timeout=0.5)
    peers.run()
    models = peers.folder / "peer-3" / "models"
    for t in range(9, 13):
        (models / f"{t:06d}").unlink()
    before = {path.name: path.read_bytes() for path in models.iterdir()}
    kept = flat(read_models(models.parent)[8])

    other = ArrayRecord([np.zeros(4)])

    def again():
        peer = Peer(gossip(drifting_app()), zeros(), peers.peers[3].config)
        return peer.run(), flat(peer.model)

    code, model = again()
    assert code == ALONE
    np.testing.assert_allclose(model, kept + 4 * 4 * np.array([1, 2, 3]), rtol=1e-12)
    assert {name: (models / name).read_bytes() for name in before} == before
    assert sorted(read_models(models.parent)) == list(range(1, 13))
    assert [e["round"] for e in peers.events(3, "started")] == [0, 8]
    code, model_12 = again()
    assert code == 0 and np.array_equal(model_12, model)
    assert "peer 3 has ended before" in capsys.readouterr().err
    (models / "000011").unlink()
    (models / "000012").write_bytes(b"")  # the power has failed
    assert again()[0] == ALONE  # it ran rounds 11 and 12 again
    assert sorted(read_models(models.parent)) == list(range(1, 13))
    for path in models.iterdir():
        path.write_bytes(encoding.dump(RecordDict({"arrays": other})))
    with pytest.raises(OSError, match="another layout.* a new run needs a new folder"):
        again()


@shows("disk", "peers", "said and counted; it goes on")
def test_a_full_disk_is_counted_and_the_peer_goes_on(tmp_path, crowd, capsys):
    models = tmp_path / "peer-1" / "models"
    models.mkdir(parents=True)
    (models.parent / "events.jsonl").symlink_to("/dev/full")
    for t in range(1, 5):
        (models / f"{t:06d}.part").symlink_to("/dev/full")
    peers = crowd(gossip(drifting_app()), RING, 5)
    np.testing.assert_allclose(peers.run(), drift(RING, 4, 5), rtol=1e-12)
    assert not any(peers.events(i, "lost") for i in (0, 2, 3))  # /dev/full has no end
    unwritten = peers.peers[1].log.unwritten
    assert unwritten["models"] == 4 and unwritten["events"] >= 5
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and "No space left" in said[0]
    assert said[1].startswith("peer 1 could not write {'events': ")
    assert sorted(read_models(models.parent)) == [5]


def test_models_on_disk_are_few_and_the_newest_is_there(tmp_path):
    for every, least, most in [(0, 1, 1), (10, 50, 101), (1, 50, 101)]:
        log = EventLog(tmp_path / str(every), 0, every)
        for t in range(1, 1206):
            log.write_model(t, zeros())
            if t in (7, 10, 25, 1205):
                assert t in read_models(tmp_path / str(every))
        kept = sorted(read_models(tmp_path / str(every)))
        assert least <= len(kept) <= most
        assert len(set(np.diff(kept[:-1]))) <= 1  # as far apart, to the last but one
        log.close()


def test_what_others_left_in_its_folder_harms_no_peer(tmp_path):
    models = tmp_path / "models"
    models.mkdir()
    (models / "notes 1").touch()
    (tmp_path / "events.jsonl").write_bytes(b'\xff\n\0\0\n{"event": "round", "rou')
    log = EventLog(tmp_path, 0, 1)
    log.write("round", 1)
    log.write_model(1, zeros())
    log.close()
    (event,) = read_events(tmp_path)
    assert event["event"] == "round" and event["round"] == 1
    assert [*read_models(tmp_path)] == [1]


# Ten thousand messages ----------------------------------------------------------------


@shows("malformed", "peers", "refused before it is used, and counted")
def test_ten_thousand_bad_messages_change_nothing(tmp_path):
    """Client 3 is a liar: it has a certificate and a link, and no good message.

    All go over gRPC to a process that trains and averages meanwhile. In its last round
    it waits until the last of them was sent.
    """
    graph, go = nx.complete_graph(4), tmp_path / "go"
    config = {"nap": 0.1, "last": 20, "go": str(go)}
    options = {"num_rounds": 20, "timeout": 60, "start_timeout": 120, "config": config}
    with Peers(*PULLING, graph, path=HERE, **options) as all_:
        all_.wait_for_round(1, 120)
        all_.kill(3)
        folder, address = all_.processes.folder, all_.addresses[0]
        identity = Identity(folder / "peer-3.pem", folder / "peer-3.key")
        liar = Channels(identity, folder / "authority.pem", 10**6)
        (process,) = processes_of(folder, "client=0 ")
        codes, held = Counter(), []
        for k in range(200):
            calls = [
                liar.call(address, "peer-0", "Push", data, 60)
                for data in bad_messages(k, 48)
            ]
            for call in ("Handshake", "No"):
                calls.append(liar.call(address, "peer-0", call, b"?", 60))
            codes.update(call.code() for call in calls)
            held.append(process.memory_info().rss)
        for _ in range(50):
            with socket.create_connection(address.split(":")) as stranger:
                stranger.sendall(b"no handshake")
        go.touch()
        all_.wait(120)
        refused, result, events = all_.refused()[0], all_.result(), all_.events()
    assert codes.total() == 10_000
    assert codes[grpc.StatusCode.OK] == codes[grpc.StatusCode.UNAVAILABLE] == 0
    assert sum(refused.values()) >= 10_000
    reasons = {"malformed", "not finite", "another layout", "round", "too many"}
    assert reasons <= set(refused)
    assert refused["not read by gRPC"] >= 200
    assert max(held) - held[40] < 4 * 2**20
    averaged = events[(events.event == "averaged") & (events.peer == 0)]
    assert averaged["round"].tolist() == list(range(1, 21))
    assert averaged.senders.tolist()[-1] == [1, 2]
    assert sorted(result.node_arrays) == [0, 1, 2]


def bad_messages(k, n):
    """Return messages that cannot be used, each in its way, and their own good ones."""
    rng, future = np.random.default_rng(k), time.time_ns() + 10**12
    good = message(10**6, 1 + k, start=future)
    for m in range(n):
        yield [
            rng.bytes(rng.integers(300)),
            good[: rng.integers(len(good))],
            good,  # for a round that never comes
            message(0, 1, start=1),
            message(5, 2 + k, value=np.nan, start=future),
            encode(PeerMessage(5, 3, future, k, ArrayRecord([np.ones(4)]))),
            bytes(10**5) if k % 4 == 0 and m == 6 else b"",
        ][m % 7]


# Joining, and no rounds ---------------------------------------------------------------


def test_all_join_through_one_and_the_graph_they_find_is_as_good_as_a_given_one():
    options = {"num_rounds": 5, "timeout": 60, "start_timeout": 120}
    names = ("peer_apps:chosen", "peer_apps:zeros")
    with Peers(*names, 6, path=HERE, **options) as all_:
        all_.wait(240)
        result, events = all_.result(), all_.events()
    (graph,) = {
        frozenset(
            (i, j) for i, others in zip(e.peer, e.senders, strict=True) for j in others
        )
        for _, e in events[events.event == "averaged"].groupby("round")
    }
    assert all((j, i) in graph for i, j in graph)
    found = nx.Graph(graph)
    assert nx.is_connected(found) and min(d for _, d in found.degree) >= 2
    seen = SimpleNamespace(node_config={"partition-id": 2})
    assert set(choose(2, seed=0)([0, 1, 3, 4, 5], 1, seen)) <= set(found[2])
    np.testing.assert_allclose(result.models(), drift(found, 6, 5), rtol=1e-12)


def test_without_rounds_models_learn_and_all_have_joined_through_one():
    options = {"num_sends": 25, "send_interval": 0.2, "timeout": 60}
    options |= {"start_timeout": 120, "observe_every": 10}
    names = ("arriving_apps:client", "arriving_apps:initial")
    with Peers(*names, 3, path=HERE, **options) as all_:
        all_.wait(240)
        result, events, refused = all_.result(), all_.events(), all_.refused()
    import arriving_apps

    def accuracy(arrays):
        return arriving_apps.task.evaluate_fn(0, arrays)["accuracy"]

    joined = events[events.event == "joined"]
    assert sorted(map(len, joined.neighbours)) == [2, 2, 2]
    sent = events[(events.event == "sent") & (events["round"] <= 25)]
    assert sent.groupby("peer").size().tolist() == [25] * 3
    no_room = sum(counts.get("no room", 0) for counts in refused.values())
    assert sum(result.messages.values()) + no_room == 75
    assert result.lost == []
    assert sorted(result.consensus_distance) == [10, 20, 25]
    assert all(accuracy(arrays) > 0.8 for arrays in result.node_arrays.values())
    assert accuracy(arriving_apps.initial()) < 0.6


# What a liar tells, and what says nothing -------------------------------------------


def test_calls_that_say_nothing_keep_nobody_out(idle):
    folder, stop = idle.crowd.folder, threading.Event()
    files = ("authority.pem", "peer-2.key", "peer-2.pem")
    credentials = grpc.ssl_channel_credentials(
        *((folder / name).read_bytes() for name in files)
    )
    name = [("grpc.ssl_target_name_override", "peer-0")]

    def never():
        stop.wait()
        yield from ()

    with grpc.secure_channel(idle.address, credentials, name) as silent:
        open_call = silent.stream_unary("/gossiplib.Peer/Handshake").future
        size = [("size", "9")]
        calls = [open_call(never(), metadata=size) for _ in range(20)]
        try:
            time.sleep(0.5)
            assert push(idle.neighbour, idle.address, 0, message())[0] is OK
            assert wait_until(lambda: all(call.done() for call in calls), 20)
        finally:
            stop.set()


def answered(data):
    """Return a Bootstrap of client 0 to whose calls all answer the same."""
    call = SimpleNamespace(result=lambda: data)
    channels = SimpleNamespace(call=lambda *_: call)
    addresses = AddressBook(0, 3)
    addresses.confirm(1, "127.0.0.1:1")
    addresses.confirm(2, "127.0.0.1:2")
    mailbox = Mailbox(num_clients=3, max_bytes=1000, num_rounds=9)
    return Bootstrap("127.0.0.1:0", addresses, mailbox, channels)


ANSWER = {"client": 1, "round": 4, "linked": True, "clients": [], "addresses": []}


@pytest.mark.parametrize(
    "lie",
    [
        {"round": float("inf")},
        {"round": -5},
        {"client": float("inf")},
        {"clients": [float("inf")], "addresses": ["a:1"]},
        {"addresses": 3},
        {"clients": [1] * 20, "addresses": ["a:1"] * 20},  # more than there are peers
    ],
    ids=str,
)
def test_an_answer_that_makes_no_sense_is_no_answer(lie):
    def shake(**fields):
        return answered(handshake(**fields)).handshake(1, "127.0.0.1:1", link=True)

    assert shake(**ANSWER) == 4
    assert shake(**ANSWER | lie) is None


@pytest.mark.parametrize(
    ("server_round", "arrays", "takes"),
    [
        (7, ArrayRecord([np.ones(3)]), 7),
        (10**9, ArrayRecord([np.ones(3)]), 8),
        (-(10**9), ArrayRecord([np.ones(3)]), None),
        (float("inf"), ArrayRecord([np.ones(3)]), None),
        (7, ArrayRecord([np.ones(3, np.int8)]), None),
        (7, ArrayRecord([np.full(3, np.nan)]), None),
        (7, ConfigRecord({"0": 1}), None),
    ],
)
def test_a_model_that_makes_no_sense_is_not_taken(server_round, arrays, takes):
    content = {"gossip": ConfigRecord({"round": server_round}), "arrays": arrays}
    bootstrap = answered(encoding.dump(RecordDict(content)))
    bootstrap.found = {1: 7, 2: 7}
    got = bootstrap.fetch_model(0, zeros())
    assert (got and got[0]) == takes
    assert bootstrap.fetch_model(8, zeros()) is None  # this peer is further
    # Among others that have not begun, one cannot say that all is over.
    bootstrap.found = {1: 10**9, 2: 0}
    assert bootstrap.fetch_model(0, zeros()) is None


def test_an_answer_of_more_than_is_asked_for_is_not_read(idle):
    """Else one that is late could send as much as a model, all in small values."""
    granted, sound = [], {"sent": 0, "seconds": 0.0}
    for content, times in [(sound, 1), (sound | {"more": 1}, 1), ({"sent": 0}, 1)]:
        answer = Future()
        answer.set_result(note(**content))
        idle.peer.channels.call = lambda *args, answer=answer: answer
        idle.peer.addresses.confirm(1, "one:1")
        idle.peer._ask(1, 1, granted.append)
        assert len(granted) == times


def test_one_neighbour_alone_takes_nobody_to_the_end():
    """A peer always runs half of its rounds, whatever one liar says, and how often."""
    content = {"gossip": ConfigRecord({"round": 9}), "arrays": zeros()}
    bootstrap = answered(encoding.dump(RecordDict(content)))
    bootstrap.found = {1: 9}
    assert bootstrap.fetch_model(0, zeros())[0] == 4
    assert bootstrap.fetch_model(4, zeros()) is None
    assert answered(b"").fetch_model(8, zeros()) is None

    box = Mailbox(num_clients=3, max_bytes=1000, num_rounds=100)
    box.link(1)
    box.put(1, message(100))
    ran = t = 0
    while t < 100:
        t = box.next_round(t + 1)
        box.collect(t, [1], 0)
        ran += 1
    assert ran == 50


def test_a_handshake_as_large_as_a_model_is_refused(idle):
    data = handshake(address="a" * 5000, link=False)
    call = idle.neighbour.call(idle.address, "peer-0", "Handshake", data, 20)
    assert call.code() is grpc.StatusCode.PERMISSION_DENIED
    assert idle.refused["too large"] == 1


# The command line ---------------------------------------------------------------------


def test_a_config_says_the_same_in_python_and_on_the_command_line(monkeypatch):
    made = []

    class Recorded:
        def __init__(self, app, initial, config):
            made.append((app, initial, config))

        def run(self):
            made.append("ran")

    config = PeerConfig(
        client=1,
        num_clients=3,
        address="127.0.0.1:7000",
        folder="some folder",
        known=["127.0.0.1:7001", "[::1]:7002"],
        neighbours=[0, 2],
        num_sends=7,
        send_interval=0.25,
        config={"nap": 0.1, "name": "a b"},
    )
    words = ["-", "peer_apps:chosen", "peer_apps:zeros", *config.arguments()]
    monkeypatch.setattr("sys.argv", words)
    monkeypatch.setattr("gossiplib.peers.command.Peer", Recorded)
    main()
    (app, initial, came), ran = made
    assert app is peer_apps.chosen and list(initial) == list(zeros())
    assert came == config and ran == "ran"


def test_no_peers_can_start_where_none_would_be_heard(monkeypatch):
    def unreachable(*address):
        raise OSError("Network is unreachable")

    assert can_start()
    monkeypatch.setattr(socket, "create_connection", unreachable)
    assert not can_start()


def test_what_peers_leave_is_there_from_the_start_of_their_block_to_its_end(
    monkeypatch,
):
    monkeypatch.setattr(Peers, "_start", lambda self, i: None)
    with Peers(*PULLING, RING, num_rounds=3) as peers:
        assert peers.events().empty and peers.refused() == {i: {} for i in RING}
    for left in (peers.events, peers.refused, peers.result):
        with pytest.raises(RuntimeError, match="only inside the `with` block"):
            left()


def test_a_config_that_cannot_be_is_refused_before_a_process_starts(
    capsys, monkeypatch
):
    names = ("peer_apps:chosen", "peer_apps:zeros", RING)
    with pytest.raises(TypeError, match="rounds"):
        Peers(*names, rounds=3)
    with pytest.raises(ValueError, match="either num_rounds or num_sends"):
        Peers(*names)
    with pytest.raises(ValueError, match="evaluate_every must be a whole number"):
        Peers(*names, num_rounds=3, evaluate_every="0")
    with pytest.raises(ValueError, match="the bytes in config"):
        Peers(*names, num_rounds=3, config={"key": b"x"})
    with pytest.raises(ValueError, match="the graph is directed"):
        Peers(*names[:2], nx.DiGraph(RING), num_rounds=3)
    for graph in (nx.Graph(), nx.empty_graph(1), 0, -1, 2.0, "3", None):
        with pytest.raises(ValueError, match="number of peers, must be a whole"):
            Peers(*names[:2], graph, num_rounds=3)
    monkeypatch.setattr("sys.argv", ["-", *names[:2], "client=1"])
    with pytest.raises(SystemExit):
        main()
    assert "num_clients" in capsys.readouterr().err
