"""Peers over gRPC: with no server, the models are the same; and what fails is borne.

Most peers here are threads of the test, which talk over real gRPC with certificates.
Where a peer must die, it is a process.
"""

import contextlib
import json
import socket
import threading
import time
from collections import Counter
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
from gossiplib.core import mixing, models
from gossiplib.core.averaging import weighted_mean
from gossiplib.core.client import choose, gossip
from gossiplib.core.grid import LocalGrid
from gossiplib.core.models import flat
from gossiplib.core.server import Gossip
from gossiplib.peers.bootstrap import Joining
from gossiplib.peers.launch import Peers
from gossiplib.peers.log import read_events, read_models
from gossiplib.peers.messages import Letter, Mailbox, close_letter
from gossiplib.peers.node import Peer, run_rounds
from gossiplib.peers.transport import Channels
from gossiplib.protocols.codecs import TopK
from gossiplib.protocols.compressed import Choco
from gossiplib.system.certificates import Authority, Identity
from gossiplib.system.processes import free_ports
from notebooks import ROOT
from toy_apps import drift, drifting_app, zeros

HERE = ROOT / "tests"
RING = nx.cycle_graph(4)


class Crowd:
    """Peers in threads of this process, on a graph of their own."""

    def __init__(self, folder, app, graph, rounds, **options):
        self.folder = folder
        self.authority = Authority(folder)
        self.n = len(graph)
        self.addresses = [f"127.0.0.1:{port}" for port in free_ports(self.n)]
        options = {"rounds": rounds, "deadline": 5.0, "patience": 10.0} | options
        self.peers = []
        for i in range(self.n):
            self.authority.issue(f"peer-{i}")
            know = [self.addresses[j] for j in graph[i]]
            places = {"know": know, "neighbours": list(graph[i])}
            self.peers.append(
                Peer(
                    app,
                    zeros(),
                    i,
                    self.n,
                    self.addresses[i],
                    folder,
                    **places | options,
                )
            )
        self.threads = [
            threading.Thread(target=run_rounds, args=(peer,), daemon=True)
            for peer in self.peers
        ]

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for peer in self.peers:
            peer.close()

    def run(self, seconds=30):
        """Run all peers to their end; return their models, one a row."""
        for thread in self.threads:
            thread.start()
        for thread in self.threads:
            thread.join(seconds)
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


def local(app, graph, rounds):
    return Gossip(graph).start(LocalGrid(app, len(graph)), zeros(), num_rounds=rounds)


@pytest.fixture
def crowd(tmp_path):
    with contextlib.ExitStack() as stack:
        yield lambda *told, **options: stack.enter_context(
            Crowd(tmp_path, *told, **options)
        )


def push(channels, address, client, data, seconds=5.0):
    """Send bytes to a peer; return the code of its answer, and why."""
    call = channels.call(address, f"peer-{client}", "Push", data, seconds)
    return call.code(), call.details()


# The same models as with a server -----------------------------------------------------


def test_digits_on_four_peers_give_the_models_of_local_grid_to_the_bit():
    with Peers(
        "digits_peer:client", "digits_peer:initial", RING, path=HERE, rounds=5
    ) as all_:
        all_.wait(120)
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


def test_a_hello_breaks_off_calls_to_one_that_was_lost_and_to_nobody_else():
    forgotten = []
    channels = SimpleNamespace(forget=forgotten.append)
    mailbox = Mailbox(clients=3, largest=1000, rounds=5)
    joining = Joining(0, 3, "127.0.0.1:1", [], None, mailbox, channels)
    told = ConfigRecord({"address": "127.0.0.1:2", "link": True})
    hello = models.dump(RecordDict({"gossip": told}))
    joining.answer(1, hello, 0)  # both may greet each other at once
    joining.answer(1, hello, 0)
    assert forgotten == []
    mailbox.mute(1)
    joining.answer(1, hello, 3)
    assert forgotten == ["peer-1"] and 1 in mailbox.alive


def test_a_graph_with_many_degrees_gives_the_weights_of_metropolis(crowd):
    graph = nx.barbell_graph(4, 2)
    models = crowd(gossip(drifting_app()), graph, 4).run()
    np.testing.assert_allclose(models, drift(graph, 10, 4), rtol=1e-12)


def test_average_functions_with_a_message_of_their_own_work(crowd):
    def app():
        return gossip(drifting_app(), average=Choco(TopK(1), 0.3))

    peers = crowd(app(), RING, 5)
    np.testing.assert_array_equal(peers.run(), local(app(), RING, 5).models())
    assert peers.losses() == set()


# Two die, one comes back --------------------------------------------------------------


@shows("killed", "peers", "counted; neighbours go on without it")
@shows("restarted", "peers", "finds its neighbours again, takes round and model of one")
def test_two_of_eight_are_killed_and_one_comes_back():
    graph = nx.cycle_graph(8)
    graph.add_edges_from([(0, 4), (2, 6)])
    rng = np.random.default_rng(0)
    first, second = rng.permutation(8)[:2].tolist()
    t, later = sorted(rng.integers(2, 8, size=2).tolist())
    told = {"rounds": 30, "deadline": 10, "patience": 120, "config": '{"nap": 0.2}'}
    with Peers(
        "peer_apps:pulling", "peer_apps:zeros", graph, path=HERE, **told
    ) as all_:
        all_.wait_for_round(t, 120)
        all_.kill(first)
        all_.wait_for_round(later, 120)
        all_.kill(second)
        all_.restart(first)
        all_.wait(120)
        result, events = all_.result(), all_.events()
        kept = [read_models(all_.processes.folder / f"peer-{i}") for i in range(8)]
        folder, addresses = all_.processes.folder, all_.addresses

    survivors = [i for i in range(8) if i != second]
    assert sorted(result.node_arrays) == survivors
    (came_back,) = events[events.event == "caught up"].itertuples()
    assert came_back.peer == first and came_back.round >= t
    # The one that comes back has missed what was sent while it was away.
    missed = f"client {first} has heard nothing of it"
    at_fault = {loss.client for loss in result.lost if loss.reason != missed}
    assert at_fault == {first, second}

    # Numpy alone, told who heard whom, finds the same models.
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
@pytest.mark.parametrize("fault", ["raises", "none", "nan", "shape"])
def test_a_client_that_cannot_train_takes_no_part_in_that_round(crowd, fault):
    app = gossip(drifting_app(fault, client=1, rounds=[1, 3]))
    peers = crowd(app, RING, 4)
    models = peers.run(seconds=4)  # nobody waits for the deadline
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
    slow = gossip(drifting_app("late", client=1, rounds=[3], nap=2.5))
    peers = crowd(slow, RING, 40, deadline=0.4)
    for peer in peers.peers:
        peer.call = _slowed(peer.call, 0.1)
    peers.run()
    ended = [peers.events(i, "ended")[0]["round"] for i in range(4)]
    assert ended == [40] * 4
    skipped = peers.events(1, "skipped")
    assert skipped and skipped[0]["round"] >= 6
    last = [peers.events(i, "averaged")[-1] for i in range(4)]
    assert [e["round"] for e in last] == [40] * 4
    assert [e["senders"] for e in last] == [[1, 3], [0, 2], [1, 3], [0, 2]]
    assert (3, 1, "Push") in peers.losses()


def _slowed(call, seconds):
    """Return a peer's way to call its client, with training that takes a moment."""

    def slow(kind, *args, **records_):
        if kind == "train":
            time.sleep(seconds)
        return call(kind, *args, **records_)

    return slow


# Faults of the network ----------------------------------------------------------------


def between(peer, act):
    """Put something between a peer and the network: act(t, to, again, call)."""
    through = peer.channels.call

    def call(address, name, method, data, seconds):
        def again():
            return through(address, name, method, data, seconds)

        if method != "Push":
            return again()
        told = models.load(data)["gossip"]
        return act(told["round"], int(name.removeprefix("peer-")), again)

    peer.channels.call = call


def answer(code=grpc.StatusCode.OK):
    """Return what a call comes to that never left."""
    done = SimpleNamespace(
        cancelled=lambda: False, code=lambda: code, details=lambda: ""
    )
    done.add_done_callback = lambda callback: callback(done)
    return done


@shows("repeated", "peers", "refused by its number, and counted")
def test_letters_that_come_twice_are_used_once(crowd):
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
    repeated = sum(peer.refused()["repeated"] for peer in peers.peers)
    assert repeated == codes.count(grpc.StatusCode.PERMISSION_DENIED)
    assert repeated >= 32  # after its last round a peer may be gone


@shows("delayed", "peers", "waited for up to the deadline; then counted")
def test_letters_that_are_delayed_are_waited_for(crowd):
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
    peers = crowd(gossip(drifting_app()), RING, 3, deadline=0.7)
    lost = {(2, 0, 1), (3, 2, 3)}  # round, from, to
    for i, peer in enumerate(peers.peers):

        def lose(t, to, again, i=i):
            return answer() if (t, i, to) in lost else again()

        between(peer, lose)
    models, X = peers.run(), np.zeros((4, 3))
    for t in range(1, 4):
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
    peers = crowd(gossip(drifting_app()), graph, 60, deadline=1.0)
    sides = [0, 0, 0, 1, 1, 1]
    cut = threading.Event()
    for i, peer in enumerate(peers.peers):
        peer.call = _slowed(peer.call, 0.04 if sides[i] else 0.05)

        def part(t, to, again, i=i):
            apart = cut.is_set() and sides[i] != sides[to]
            return answer(grpc.StatusCode.UNAVAILABLE) if apart else again()

        between(peer, part)
    threading.Timer(1.0, cut.set).start()
    threading.Timer(2.5, cut.clear).start()
    peers.run(60)
    heard = [peers.events(i, "averaged") for i in range(6)]
    for i in range(6):
        across = [sides[i] != sides[j] for j in graph[i]]
        if any(across):
            assert any(len(e["senders"]) < 2 for e in heard[i])
        assert heard[i][-1]["round"] == 60
        assert heard[i][-1]["senders"] == sorted(graph[i])


# Who may speak, and what --------------------------------------------------------------


@pytest.fixture
def idle(crowd):
    """Return a peer, number 0, that has a neighbour, number 1, and does nothing."""
    peers = crowd(gossip(drifting_app()), nx.Graph([(0, 1), (1, 2)]), 9, deadline=0.3)
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


def letter(t=1, count=1, value=1.0, start=1):
    arrays = ArrayRecord([np.full(3, value)])
    return close_letter(Letter(t, 2, start, count, arrays))


def test_a_neighbour_s_letter_is_taken_and_repetition_nan_and_other_shapes_are_not(
    idle,
):
    def send(data):
        return push(idle.neighbour, idle.address, 0, data)

    assert send(letter())[0] is grpc.StatusCode.OK
    no = grpc.StatusCode.PERMISSION_DENIED
    assert send(letter()) == (no, "repeated")
    assert send(letter(2, 2, value=np.nan)) == (no, "not finite")
    other = close_letter(Letter(2, 2, 1, 2, ArrayRecord([np.zeros(4)])))
    assert send(other) == (no, "another layout")
    assert send(b"x") == (no, "malformed")
    assert set(idle.peer.mailbox.collect(1, [1], 9)) == {1}
    assert idle.refused.total() == 4


@shows("unknown", "peers", "refused, and counted")
def test_a_peer_that_is_no_neighbour_is_refused(idle):
    known = idle.crowd.peers[2].channels
    assert push(known, idle.address, 0, letter())[1] == "not a neighbour"
    for name in ("peer-9", "peer-01", "peer-x", "nobody", "peer--1"):
        stranger = idle.crowd.as_stranger(name)
        assert push(stranger, idle.address, 0, letter())[1] == "unknown name"
        hello = stranger.call(idle.address, "peer-0", "Hello", b"", 5)
        assert hello.details() == "unknown name"
    model = known.call(idle.address, "peer-0", "Model", b"", 5)
    assert model.details() == "not a neighbour"
    assert idle.refused == {"not a neighbour": 2, "unknown name": 10}


def test_who_sends_is_told_by_the_certificate_not_by_the_letter(idle):
    content = models.load(letter())
    content["gossip"]["sender"] = 1
    known = idle.crowd.peers[2].channels
    answered = push(known, idle.address, 0, models.dump(content))
    assert answered[1] == "not a neighbour"


@shows("expired", "peers", "refused in the handshake, unread")
@pytest.mark.parametrize("fault", ["expired", "another authority", "no certificate"])
def test_without_a_certificate_nobody_gets_through_the_handshake(idle, tmp_path, fault):
    if fault == "expired":
        stranger = idle.crowd.as_stranger("peer-1", days=-1)
        code, _ = push(stranger, idle.address, 0, letter())
    elif fault == "another authority":
        (tmp_path / "b").mkdir()
        other = Authority(tmp_path / "b")
        stranger = idle.crowd.as_stranger("peer-1", authority=other)
        code, _ = push(stranger, idle.address, 0, letter())
    else:
        with grpc.insecure_channel(idle.address) as channel:
            call = channel.unary_unary("/gossiplib.Peer/Push")
            code = call.future(letter(), timeout=2).code()
    assert code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    assert idle.peer.mailbox.collect(1, [1], 0) == {}
    assert push(idle.neighbour, idle.address, 0, letter())[0] is grpc.StatusCode.OK


def test_a_peer_talks_to_nobody_who_shows_another_name(idle):
    code, _ = push(idle.neighbour, idle.crowd.addresses[2], 0, letter())
    assert code is grpc.StatusCode.UNAVAILABLE


def test_a_message_too_large_is_not_read_and_counted(idle):
    code, _ = push(idle.neighbour, idle.address, 0, bytes(10**6))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert idle.peer.server.unread == 1


def test_others_cannot_say_where_a_peer_is(idle):
    idle.peer.joining.contacts.confirm(2, "127.0.0.1:2")
    claim = {"address": "127.0.0.1:1", "link": False}
    hello = models.dump(RecordDict({"gossip": ConfigRecord(claim)}))
    reply = idle.neighbour.call(idle.address, "peer-0", "Hello", hello, 5).result()
    told = models.load(reply)["gossip"]
    assert dict(zip(told["clients"], told["addresses"], strict=True)) == {
        1: "127.0.0.1:1",
        2: "127.0.0.1:2",
    }
    assert told["neighbours"] == [1] and told["client"] == 0


@shows("port", "peers", "the peer ends, and says so")
def test_a_port_that_is_taken_is_a_clear_error(crowd):
    peers = crowd(gossip(drifting_app()), RING, 1)
    options = (gossip(drifting_app()), zeros(), 1, 4, peers.addresses[0], peers.folder)
    with pytest.raises(OSError, match="cannot listen on 127.0.0.1:.*use this port"):
        Peer(*options)


# Ten thousand messages ----------------------------------------------------------------


@shows("malformed", "peers", "refused before it is used, and counted")
def test_ten_thousand_bad_messages_change_nothing(tmp_path):
    """Client 3 is a liar: it has a certificate and a link, and no good letter.

    All go over gRPC to a process that trains and averages meanwhile. In its last round
    it waits until the last of them was sent.
    """
    graph, go = nx.complete_graph(4), tmp_path / "go"
    config = json.dumps({"nap": 0.1, "last": 20, "go": str(go)})
    told = {"rounds": 20, "deadline": 1, "patience": 120, "config": config}
    with Peers(
        "peer_apps:pulling", "peer_apps:zeros", graph, path=HERE, **told
    ) as all_:
        all_.wait_for_round(1, 120)
        all_.kill(3)
        folder, address = all_.processes.folder, all_.addresses[0]
        identity = Identity(folder / "peer-3.pem", folder / "peer-3.key")
        liar = Channels(identity, folder / "authority.pem", 10**6)
        (process,) = processes_of(folder, "--id 0")
        codes, held = Counter(), []
        for k in range(200):
            calls = [
                liar.call(address, "peer-0", "Push", data, 60)
                for data in bad_letters(k, 48)
            ]
            calls += [
                liar.call(address, "peer-0", call, b"?", 60) for call in ("Hello", "No")
            ]
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
    assert set(refused) >= {
        "malformed",
        "not finite",
        "another layout",
        "round",
        "too many",
    }
    assert refused["not read by gRPC"] >= 200
    assert max(held) - held[40] < 4 * 2**20
    averaged = events[(events.event == "averaged") & (events.peer == 0)]
    assert averaged["round"].tolist() == list(range(1, 21))
    assert averaged.senders.tolist()[-1] == [1, 2]
    assert sorted(result.node_arrays) == [0, 1, 2]


def bad_letters(k, n):
    """Return letters that cannot be used, each in its way, and their own good ones."""
    rng, future = np.random.default_rng(k), time.time_ns() + 10**12
    good = letter(10**6, 1 + k, start=future)
    for m in range(n):
        yield [
            rng.bytes(rng.integers(300)),
            good[: rng.integers(len(good))],
            good,  # for a round that never comes
            letter(5, 1, start=1),  # sent before the process started
            letter(5, 2 + k, value=np.nan, start=future),
            close_letter(Letter(5, 3, future, k, ArrayRecord([np.ones(4)]))),
            bytes(10**5) if k % 4 == 0 and m == 6 else b"",
        ][m % 7]


# Joining, and no rounds ---------------------------------------------------------------


def test_all_join_through_one_and_the_graph_they_find_is_as_good_as_a_given_one():
    told = {"path": HERE, "rounds": 5, "patience": 120}
    with Peers("peer_apps:chosen", "peer_apps:zeros", 6, **told) as all_:
        all_.wait(120)
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
    told = {"path": HERE, "sends": 25, "every": 0.2, "patience": 120}
    with Peers("arriving_apps:client", "arriving_apps:initial", 3, **told) as all_:
        all_.wait(150)
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
    assert all(accuracy(arrays) > 0.8 for arrays in result.node_arrays.values())
    assert accuracy(arriving_apps.initial()) < 0.6


# What a liar tells, and what says nothing -------------------------------------------


def test_calls_that_say_nothing_keep_nobody_out(idle):
    silent = idle.crowd.peers[2].channels._channel(idle.address, "peer-0")
    stop = threading.Event()

    def never():
        stop.wait()
        yield from ()

    calls = [
        silent.stream_unary("/gossiplib.Peer/Hello").future(never()) for _ in range(20)
    ]
    try:
        time.sleep(0.5)
        push = idle.neighbour.call(idle.address, "peer-0", "Push", letter(), 5)
        assert push.code() is grpc.StatusCode.OK
        deadline = time.monotonic() + 20
        while not all(c.done() for c in calls) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert all(c.done() for c in calls)
    finally:
        stop.set()
        silent.close()


TOLD = {"client": 1, "round": 0, "linked": True, "neighbours": []}
TOLD |= {"clients": [], "addresses": []}


@pytest.mark.parametrize(
    "lie",
    [
        {"round": float("inf")},
        {"round": -5},
        {"client": float("inf")},
        {"clients": [float("inf")], "addresses": ["a:1"]},
        {"addresses": 3},
    ],
    ids=str,
)
def test_a_greeting_that_makes_no_sense_is_no_greeting(idle, lie):
    answer = models.dump(RecordDict({"gossip": ConfigRecord(TOLD | lie)}))
    joining = idle.peer.joining
    joining._channels = SimpleNamespace(
        call=lambda *_: SimpleNamespace(result=lambda: answer)
    )
    assert joining.greet(1, idle.crowd.addresses[1], link=True) is None


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
def test_a_model_that_makes_no_sense_is_not_taken(idle, server_round, arrays, takes):
    told = {"gossip": ConfigRecord({"round": server_round}), "arrays": arrays}
    answer = models.dump(RecordDict(told))
    joining = idle.peer.joining
    joining._channels = SimpleNamespace(
        call=lambda *_: SimpleNamespace(result=lambda: answer)
    )
    joining.contacts.confirm(1, idle.crowd.addresses[1])
    got = joining.fetch_model({1: 7}, zeros())
    assert (got and got[0]) == takes
    # Among others that have not begun, one cannot say that all is over.
    assert joining.fetch_model({1: 10**9, 2: 0}, zeros()) is None


def test_a_hello_as_large_as_a_model_is_refused(idle):
    hello = models.dump(
        RecordDict({"gossip": ConfigRecord({"address": "a" * 5000, "link": False})})
    )
    call = idle.neighbour.call(idle.address, "peer-0", "Hello", hello, 5)
    assert call.code() is grpc.StatusCode.PERMISSION_DENIED
    assert idle.refused["too large"] == 1
