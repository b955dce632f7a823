"""Connections: slow and far ones serve, silent ones are cut off, errors name causes."""

import contextlib
import queue
import resource
import shutil
import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
from flwr.app import ConfigRecord, RecordDict

from gossiplib.core.client import gossip
from gossiplib.peers.addresses import AddressBook
from gossiplib.peers.bootstrap import Bootstrap
from gossiplib.peers.command import main
from gossiplib.peers.config import PeerConfig
from gossiplib.peers.log import read_events
from gossiplib.peers.messages import Mailbox
from gossiplib.peers.node import Peer
from gossiplib.peers.transport import Channels, Server
from gossiplib.system import encoding
from gossiplib.system.certificates import Authority
from gossiplib.system.processes import free_ports
from gossiplib.system.runs import wait_until
from toy_apps import drifting_app, zeros

OK = grpc.StatusCode.OK
LARGE = 2**20


@pytest.fixture
def wire(tmp_path):
    """Return a server of peer 0, and a way to make connections of peer 1."""
    authority = Authority(tmp_path)
    identity = {i: authority.issue(f"peer-{i}") for i in range(2)}
    with contextlib.ExitStack() as stack:

        def listen(host="127.0.0.1", timeout=60.0, **handlers):
            (port,) = free_ports(1)
            handlers = {"Push": lambda name, data: b"%d" % len(data)} | handlers
            place = f"{host}:{port}", identity[0], authority.certificate
            server = Server(*place, handlers, 2 * LARGE, timeout)
            stack.callback(server.stop)
            return server, f"{host}:{port}"

        def connect(timeout=60.0):
            channels = Channels(identity[1], authority.certificate, LARGE, timeout)
            stack.callback(channels.close)
            return channels

        yield SimpleNamespace(listen=listen, connect=connect, identity=identity)


def push(channels, address, data, seconds=60.0):
    return channels.call(address, "peer-0", "Push", data, seconds)


@contextlib.contextmanager
def forwarded(address, delay=0.0, rate=1e12):
    """Forward connections, `delay` seconds late and so many bytes a second."""
    host, port = address.rsplit(":", 1)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def forward():
            with contextlib.suppress(OSError):
                while True:
                    near, _ = listening.accept()
                    far = socket.create_connection((host, int(port)))
                    for ends in ((near, far), (far, near)):
                        threading.Thread(target=carry, args=ends, daemon=True).start()

        def carry(one, other):
            came = queue.SimpleQueue()
            threading.Thread(target=deliver, args=(came, other), daemon=True).start()
            with contextlib.suppress(OSError):
                while data := one.recv(4096):
                    time.sleep(len(data) / rate)
                    came.put((time.monotonic() + delay, data))
            came.put((time.monotonic() + delay, b""))

        def deliver(came, other):
            with contextlib.suppress(OSError):
                while True:
                    then, data = came.get()
                    time.sleep(max(0.0, then - time.monotonic()))
                    if not data:
                        return other.shutdown(socket.SHUT_WR)
                    other.sendall(data)

        threading.Thread(target=forward, daemon=True).start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)  # `close` alone does not end `accept`


def test_a_message_that_goes_on_coming_arrives_however_slow_the_link(wire):
    server, address = wire.listen(timeout=30.0)
    with forwarded(address, rate=LARGE / 5) as slow:
        call = push(wire.connect(), slow, bytes(LARGE))
        began = time.monotonic()
        assert call.result() == b"%d" % LARGE
        assert time.monotonic() - began > 4  # longer than any silence may last
    assert server.unread == 0


def test_a_message_that_takes_longer_than_the_timeout_is_cut_off(wire):
    server, address = wire.listen(timeout=1.0)
    with forwarded(address, rate=LARGE / 20) as slow:
        assert push(wire.connect(), slow, bytes(LARGE)).code() is not OK
    assert wait_until(lambda: not server._ends and server.unread == 1, 20)


@pytest.mark.parametrize("size", [0, 1, 1023, 16 * 1024 + 1, LARGE - 10])
def test_a_message_is_put_together_as_it_was(wire, size):
    data = bytes(k % 251 for k in range(size))
    _, address = wire.listen(Push=lambda name, data: data + name.encode())
    assert push(wire.connect(), address, data).result() == data + b"peer-1"


def test_who_opens_calls_and_says_nothing_or_little_is_cut_off(wire):
    server, address = wire.listen(timeout=30.0)
    silent, stop = wire.connect(), threading.Event()
    assert push(silent, address, b"x").result() == b"1"
    channel = silent._open["peer-0"][1]

    def says(*pieces):
        yield from pieces
        stop.wait()

    call = channel.stream_unary("/gossiplib.Peer/Push").future
    size = [("size", "9")]
    calls = [call(says(*pieces), metadata=size) for pieces in ((), (b"x",), (b"",))]
    try:
        # The fourth at once is one too many; when they are cut off, there is room.
        assert wait_until(lambda: len(server._ends) == 3, 20)
        assert push(silent, address, b"x").details() == "too many calls at once"
        assert wait_until(lambda: all(one.done() for one in calls), 40)
        assert {one.code() for one in calls} == {grpc.StatusCode.CANCELLED}
        assert wait_until(lambda: push(silent, address, b"x").code() is OK, 20)
    finally:
        stop.set()


DENIED, EXHAUSTED = (
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)


@pytest.mark.parametrize(
    ("said", "piece", "code"),
    [
        (str(LARGE), b"x", DENIED),  # it is never in so many pieces
        (str(LARGE), b"", DENIED),
        ("1", b"xx", DENIED),
        ("-1", b"x", DENIED),
        ("1e3", b"x", DENIED),
        ("9" * 99, b"x", DENIED),
        (None, b"x", DENIED),
        (str(2 * LARGE + 1), b"x", EXHAUSTED),
        (str(LARGE), bytes(LARGE), EXHAUSTED),
    ],
)
def test_a_message_that_is_not_what_it_says_is_not_read_to_its_end(
    wire, said, piece, code
):
    server, address = wire.listen()
    channels = wire.connect()
    assert push(channels, address, b"x").result() == b"1"
    call = channels._open["peer-0"][1].stream_unary("/gossiplib.Peer/Push")
    metadata = said and [("size", said)]
    answer = call.future((piece for _ in range(10**5)), metadata=metadata)
    assert answer.code() is code and server.unread == 1


def test_a_message_that_breaks_off_is_no_message(wire):
    server, address = wire.listen()
    channels = wire.connect()
    assert push(channels, address, b"x").result() == b"1"
    call = channels._open["peer-0"][1].stream_unary("/gossiplib.Peer/Push")
    answer = call.future(iter([b"x"]), metadata=[("size", "2")])
    assert answer.code() is DENIED and server.unread == 1


@pytest.mark.parametrize(("idle", "waits"), [(20, False), (80, True)])
def test_strangers_that_hold_connections_are_cut_off(wire, monkeypatch, idle, waits):
    """Half of the files, here 64, may be connections; the rest are for the peer."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    _, address = wire.listen(timeout=5.0)
    host, port = address.split(":")
    with contextlib.ExitStack() as stack:
        for _ in range(idle):
            stack.enter_context(socket.create_connection((host, int(port))))
        channels = wire.connect(5.0)
        assert (push(channels, address, b"x").code() is OK) is not waits
        assert wait_until(lambda: push(channels, address, b"x").code() is OK, 40)


def two_peers(folder, places):
    """Run two peers, at (address, where it listens); return who heard whom, when."""
    authority = Authority(folder)
    peers = []
    for i, (address, listen) in enumerate(places):
        authority.issue(f"peer-{i}")
        others = {"known": [places[1 - i][0]], "neighbours": [1 - i]}
        config = {"client": i, "num_clients": 2, "folder": folder, "num_rounds": 3}
        config = PeerConfig(address=address, listen=listen, **config | others)
        peers.append(Peer(gossip(drifting_app()), zeros(), config))
    threads = [threading.Thread(target=peer.run, daemon=True) for peer in peers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    events = [e for i in range(2) for e in read_events(folder / f"peer-{i}")]
    averaged = [e for e in events if e["event"] == "averaged"]
    return sorted((e["round"], e["peer"], *e["senders"]) for e in averaged)


BOTH = [(t, i, 1 - i) for t in (1, 2, 3) for i in (0, 1)]


def test_peers_meet_over_a_link_as_long_as_to_a_satellite(tmp_path):
    listens = [f"127.0.0.1:{port}" for port in free_ports(2)]
    with forwarded(listens[0], 0.4) as one, forwarded(listens[1], 0.4) as other:
        places = zip((one, other), listens, strict=True)
        assert two_peers(tmp_path, [*places]) == BOTH


def has_ipv6():
    family = {"family": socket.AF_INET6}
    with contextlib.suppress(OSError), socket.create_server(("::1", 0), **family):
        return True
    return False


def test_peers_meet_at_addresses_of_ipv6(tmp_path):
    host, all_ = ("[::1]", "[::]") if has_ipv6() else ("127.0.0.1", "0.0.0.0")
    ports = free_ports(2)
    listens = [None, f"{all_}:{ports[1]}"]
    places = zip([f"{host}:{port}" for port in ports], listens, strict=True)
    assert two_peers(tmp_path, [*places]) == BOTH


def answer(**fields):
    return encoding.dump(RecordDict({"gossip": ConfigRecord(fields)}))


@pytest.mark.parametrize("n", [3, 50])
def test_an_answer_with_long_addresses_of_all_is_read(n):
    where = {j: f"h{j:099}:65535" for j in range(1, n)}
    book = AddressBook(0, n)
    for j in where:
        book.confirm(j, where[j])
    there = Bootstrap("a:1", book, Mailbox(n, 1000, 5), None)

    def call(address, name, method, data, timeout):
        return SimpleNamespace(result=lambda: there.answer(1, data, 3))

    here = AddressBook(1, n)
    channels = SimpleNamespace(call=call)
    one = Bootstrap(where[1], here, Mailbox(n, 1000, 5), channels)
    assert one.handshake(0, "a:1", link=True) == 3
    assert here.all() == {0: "a:1"} | {j: where[j] for j in range(2, n)}


def test_made_up_addresses_hold_nobody_up():
    """Client 1 names 37 places where nobody ever answers; client 2 is found at once."""
    never = threading.Event()
    says = {"round": 4, "linked": True, "clients": [], "addresses": []}
    holes = {"clients": [*range(2, 40)]}
    holes["addresses"] = ["two:1", *(f"hole:{j}" for j in range(3, 40))]
    answers = {
        "one:1": answer(client=1, **says | holes),
        "two:1": answer(client=2, **says),
    }

    def call(address, *_):
        def result():
            if address not in answers:
                never.wait()
                raise grpc.RpcError
            return answers[address]

        return SimpleNamespace(result=result)

    channels = SimpleNamespace(call=call, forget=lambda key: None)
    mailbox = Mailbox(num_clients=40, max_bytes=1000, num_rounds=9)
    place = "own:1", AddressBook(0, 40), mailbox, channels
    try:
        joined = Bootstrap(*place, ["hole:1", "one:1"], [1, 2], timeout=60.0)
        assert joined.join(lambda known: known, 60.0) == {1: 4, 2: 4}
        joined = Bootstrap(*place, ["hole:1", "one:1"], [1, 2, 3], timeout=0.1)
        assert joined.join(lambda known: known, 1.0) == {1: 4, 2: 4}
    finally:
        never.set()


# What is wrong is named at the start --------------------------------------------------


@pytest.mark.parametrize(
    ("file", "becomes", "named"),
    [
        ("peer-0.pem", b"garbage", "peer-0.pem holds no certificate"),
        ("peer-0.pem", b"", "peer-0.pem holds no certificate"),
        ("peer-0.pem", "peer-0.key", "peer-0.pem holds no certificate"),
        ("authority.pem", b"garbage", "authority.pem holds no certificate"),
        ("authority.pem", "peer-1.pem", "peer-0.pem was not signed by .*authority.pem"),
        ("peer-0.key", b"", "peer-0.key holds no private key"),
        ("peer-0.key", "peer-0.pem", "peer-0.key holds no private key"),
        ("peer-0.key", "peer-1.key", "peer-0.key is not the key of .*peer-0.pem"),
        ("peer-0.key", None, "peer-0.key"),
    ],
)
def test_a_certificate_that_cannot_be_used_is_named(
    wire, tmp_path, file, becomes, named
):
    if becomes is None:
        (tmp_path / file).unlink()
    elif isinstance(becomes, bytes):
        (tmp_path / file).write_bytes(becomes)
    else:
        shutil.copy(tmp_path / becomes, tmp_path / file)
    with pytest.raises(OSError, match=named):
        wire.listen()


def test_a_host_may_have_the_name_of_a_scheme_of_grpc(tmp_path):
    identity = Authority(tmp_path).issue("peer-0")
    channels = Channels(identity, tmp_path / "authority.pem", 1000)
    call = push(channels, "ipv4:1", b"", 3)
    channels.close()
    assert "target uri is not valid" not in call.details()


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("192.0.2.1", "assign requested address"),  # of no machine
        ("nobody.invalid", "not known|name resolution|nodename"),
    ],
)
def test_why_an_address_cannot_be_listened_on_is_told(wire, host, why):
    with pytest.raises(OSError, match=f"cannot listen on {host}:.*({why})"):
        wire.listen(host)


SOUND = {"client": 0, "num_clients": 3, "address": "a:1", "folder": "f"}
SOUND |= {"num_rounds": 3}


@pytest.mark.parametrize(
    "wrong",
    [
        *({"num_clients": n} for n in (1, 0, -3, 2.0, "3", None, True, 10**12)),
        *({"client": i} for i in (-1, 3, "0", 0.0, None)),
        *({"address": a} for a in ("nonsense", "a:0", "a:99999", "a:b", ":1", 5000)),
        *(
            {"address": a}
            for a in ("0.0.0.0:1", "[::]:1", "0:1", "::1:1", "[1]:1", None)
        ),
        *(
            {"address": f"{host}:1"}
            for host in ("999.1.1.1", "1.2.3.4.5", ".", "-a", "unix")
        ),
        *(
            {"address": f"{host}:1"}
            for host in ("a..b", "224.0.0.1", "255.255.255.255")
        ),
        *({"listen": a} for a in ("nonsense", "0.0.0.0:0", 5000)),
        *({"known": k} for k in ("b:1", ["b"], [1], 3, {"b:1": 0}, None)),
        *({"neighbours": k} for k in ("1,2", "", 1, [0], [3], [-1], [1.0], [[1]])),
        *({"num_rounds": n} for n in (0, -5, 2.5, "3", True, 10**12)),
        *({"num_rounds": None, "num_sends": n} for n in (0, -5, 0.5, None)),
        {"num_sends": 3},
        *({"timeout": s} for s in (0, -1, float("nan"), float("inf"), "5", None, True)),
        *({"start_timeout": s} for s in (0.0, float("nan"), float("inf"), 1e300)),
        *({"send_interval": s} for s in (0, -0.1, float("nan"), float("inf"), [1])),
        *({name: -1} for name in ("evaluate_every", "observe_every")),
        *({"config": c} for c in (None, [], "x", 3, {"x": None}, {"x": {}}, {1: 2})),
        {"folder": 3},
        {"folder": None},
    ],
    ids=str,
)
def test_a_config_that_cannot_be_is_a_value_error_that_names_it(wrong):
    assert PeerConfig(**SOUND)
    with pytest.raises(ValueError, match="|".join(wrong)):
        PeerConfig(**SOUND | wrong)


def test_what_a_config_takes_its_words_say_or_they_say_that_they_cannot():
    near = {"num_rounds": np.int64(3), "timeout": np.float32(2), "known": ("b:1",)}
    near |= {"neighbours": range(1, 3), "folder": Path("f"), "address": "a-b.c_d:1"}
    words = PeerConfig(**SOUND | near).arguments()
    assert {"num_rounds=3", "timeout=2.0", "neighbours=[1, 2]"} <= {*words}
    assert {'known=["b:1"]', 'folder="f"', 'address="a-b.c_d:1"'} <= {*words}
    with pytest.raises(ValueError, match="can say the bytes in config: b'x'"):
        PeerConfig(**SOUND, config={"key": b"x"}).arguments()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["num_rounds=-5"], "num_rounds must be a whole number"),
        (["num_rounds="], "num_rounds must be a whole number"),
        (["timeout=NaN"], "timeout must be seconds"),
        (["timeout=1e999"], "timeout must be seconds"),
        (["known=b:1"], "known must be a list"),
        (["config=[]"], "config must be a dict"),
        (['config={"lr":1,"lr":2}'], "config must be a dict"),
        (["rounds=3"], "rounds"),
        (["client=1"], "client is given 2 times"),
        (["client"], "'client' has no value"),
        (["--rounds", "3"], "--rounds"),
        ("peer_apps:no", "no"),
        ("no_module:app", "no_module"),
        ("peer_apps:zeros", "ClientApp"),
    ],
    ids=str,
)
def test_the_command_line_names_what_is_wrong_in_a_line(
    monkeypatch, capsys, words, named
):
    app = words if isinstance(words, str) else "peer_apps:pulling"
    more = words if isinstance(words, list) else []
    given = {name: f"{name}={value}" for name, value in SOUND.items()}
    if len(more) == 1 and "2 times" not in named:
        given.pop(more[0].partition("=")[0], None)
    words = ["-", app, "peer_apps:zeros", *given.values(), *more]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as end:
        main()
    usage, error = capsys.readouterr().err.split("error: ")
    assert end.value.code == 2 and named in error and error.count("\n") == 1
