"""One peer: a gossip client that talks to its neighbours, with no server.

    python -m gossiplib.peers module:client module:initial client=3 num_clients=8 ...

It runs any gossip ClientApp and plays the server's part for this one client: it calls
`train`, sends what came out to its neighbours, hands theirs to `train.average`, and
goes on. In rounds it waits for its neighbours, up to a timeout. Without rounds
(`asynchronous.gossip_on_arrival`) a timer sends, and each model that comes is handed to
the client.
"""

import argparse
import inspect
import json
import pkgutil
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp

from gossiplib.core.client import NEIGHBOURS
from gossiplib.core.grid import LocalNode
from gossiplib.core.models import check_initial
from gossiplib.peers.addresses import AddressBook
from gossiplib.peers.bootstrap import Bootstrap
from gossiplib.peers.config import PeerConfig
from gossiplib.peers.log import EventLog
from gossiplib.peers.messages import Mailbox
from gossiplib.peers.transport import (
    Channels,
    Outbox,
    Server,
    client_of,
    name_of,
)
from gossiplib.system import records
from gossiplib.system.certificates import Identity
from gossiplib.system.numbers import rng
from gossiplib.system.records import only_arrays, wholes
from gossiplib.system.runs import due, wait_until

__all__ = ["Peer", "main"]

#: Bytes of the largest handshake: an address and a word.
_HANDSHAKE = 4096

#: Calls of a client whose metrics are logged, and the events' names.
_MEASURED = {"train": "trained", "evaluate": "evaluated"}


class Peer:
    """A client and its connections.

    `app` is what `client.gossip` or `asynchronous.gossip_on_arrival` makes, `initial`
    the first model, the same for all peers; `round` is the last that the peer has
    finished, and `model` what it has after it.
    """

    def __init__(
        self, app: ClientApp, initial: ArrayRecord, config: PeerConfig
    ) -> None:
        check_initial(initial)
        client, n, address = config.client, config.num_clients, config.address
        name, folder = name_of(client), Path(config.folder)
        identity = Identity(folder / f"{name}.pem", folder / f"{name}.key")
        authority = folder / "authority.pem"
        # A message of float32 may have places beside values, and a copy in float64.
        max_bytes = 4 * records.array_bytes(initial) + 256 * n + 2**16
        self.config, self.client = config, client
        self.round, self.model, self.initial = 0, initial, initial
        self._lock = threading.Lock()  # of round and model, which belong together
        self._node = LocalNode(app, client, n, node_id=client + 1)
        self.mailbox = Mailbox(
            n, max_bytes, config.num_rounds, max_arrays=4 * len(initial) + 16
        )
        self.addresses = AddressBook(client, n)
        seconds = config.timeout
        self.channels = Channels(identity, authority, max_bytes, seconds)
        known, may = config.known, config.neighbours
        self.bootstrap = Bootstrap(
            address, self.addresses, self.mailbox, self.channels, known, may, seconds
        )
        self.log = EventLog(folder / name, client)
        self.outbox = Outbox(
            self.channels, self.addresses, self.mailbox, self.log, seconds
        )
        handlers = {
            "Handshake": self._on_handshake,
            "Push": self._on_push,
            "Model": self._on_model,
        }
        try:
            at = config.listen or address
            self.server = Server(at, identity, authority, handlers, max_bytes, seconds)
        except OSError:
            self.log.close()
            raise
        self.log.write("started", 0)

    # What others ask, in threads of gRPC's.

    def _on_handshake(self, name: str, data: bytes) -> bytes:
        sender = client_of(name)
        self.mailbox.admit(sender, len(data))
        if len(data) > _HANDSHAKE:
            self.mailbox.refuse("too large")
        there = sender in self.mailbox.alive
        answer = self.bootstrap.answer(sender, data, self.round)
        if self.config.num_rounds and not there and sender in self.mailbox.alive:
            self.outbox.repeat(sender)  # it waits for what it has missed
        return answer

    def _on_push(self, name: str, data: bytes) -> bytes:
        sender = client_of(name)
        message = self.mailbox.put(sender, data)
        fields = {"start": message.start, "count": message.count, "bytes": len(data)}
        self.log.write("received", message.round, other=sender, **fields)
        return b""

    def _on_model(self, name: str, data: bytes) -> bytes:
        sender = client_of(name)
        self.mailbox.admit(sender, len(data))
        if sender not in self.mailbox.neighbours:
            self.mailbox.refuse("not a neighbour")
        with self._lock:
            header, arrays = ConfigRecord({"round": self.round}), self.model
        return records.dump(RecordDict({"gossip": header, "arrays": arrays}))

    # What it does, in one thread.

    def run(self) -> None:
        """Gossip in rounds or without, to the end; send all there is; then close."""
        if self.config.num_rounds:
            self._run_in_rounds(self.config.num_rounds)
        else:
            self._run_without_rounds()
        wait_until(self.outbox.is_empty, self.config.timeout, every=0.01)
        self.close()

    def _run_in_rounds(self, last: int) -> None:
        """Train and average with the neighbours, round by round, to the last one."""
        config = self.config
        self._join()
        while self.round < last and not self.mailbox.closed:
            t = self.mailbox.next_round(self.round + 1)
            if t > self.round + 1:
                self.log.write("skipped", t, rounds=t - self.round - 1)
            self._run_round(t)
            if due(t, config.evaluate_every):
                self.call("evaluate", t, gossip=ConfigRecord())
            if t == last or due(t, config.observe_every):
                self.log.write_model(t, self.model)
            self.log.write("round", t, refused=dict(self.mailbox.refused))

    def _run_round(self, t: int) -> None:
        """Train, send, wait, average."""
        neighbours = sorted(self.mailbox.neighbours)
        degree, trained = len(neighbours), None
        # A link that the other side asked for is one of the client's as well.
        self._node.context.state[NEIGHBOURS] = ConfigRecord({"neighbours": neighbours})
        about = ConfigRecord({"server-round": t, "receivers": degree})
        reply = self.call("train", t, gossip=about)
        if reply is not None:
            trained = only_arrays(reply)
            if "gossip" not in reply:  # else it is encoded, in a form that it alone has
                self.mailbox.expect(self.initial)
        self.outbox.send(t, degree, trained, neighbours)
        timeout = self.config.timeout
        if not self.round:  # some may still be starting; later, all have begun
            timeout = max(self.config.start_timeout, timeout)
        came = self.mailbox.collect(t, neighbours, timeout)
        for j in sorted(set(neighbours) - set(came)):
            reason = f"client {self.client} has received nothing from it"
            self.log.lost(t, j, "Push", reason)
        arrays = {j: m.arrays for j, m in sorted(came.items()) if m.arrays is not None}
        if trained is not None and arrays:
            # Metropolis: each end of a link needs both degrees, and no more. One that
            # lies about its own gets at most 1 / (1 + degree). The rest is its own.
            weights = [1 / (1 + max(degree, came[j].degree)) for j in arrays]
            about = ConfigRecord({"server-round": t, "senders": list(arrays)})
            about["weights"] = [1 - sum(weights), *weights]
            named = {str(j): model for j, model in arrays.items()}
            reply = self.call("train.average", t, gossip=about, **named)
            if reply is not None:
                if "unread" in reply:
                    why = f"could not read what came: {reply['unread']}"
                    self.log.lost(t, self.client, "train.average", why)
                size = sum(map(records.array_bytes, arrays.values()))
                self.log.write("averaged", t, senders=list(arrays), bytes=size)
        self._finish_round(t)

    def _run_without_rounds(self) -> None:
        """Send the newest model to a random neighbour at each tick; learn what comes.

        After the last tick it sends its neighbours word of that, and goes on learning
        until they have sent the same, or nothing has come for `start_timeout` seconds.
        """
        config, last = self.config, self.config.num_sends or 0
        first = self.call("query.send")
        if first is None:
            raise RuntimeError("this client is not of asynchronous.gossip_on_arrival")
        self.mailbox.expect(only_arrays(first))
        self._join()
        stream = rng(0, self.client)
        tick = time.monotonic() + config.send_interval * stream.random()
        done: set[int] = set()  # neighbours that send no more
        while self.round < last and not self.mailbox.closed:
            t = self.round + 1
            self._learn(t, tick - time.monotonic(), done)
            if time.monotonic() >= tick:
                tick = max(tick + config.send_interval, time.monotonic())
                newest = self.call("query.send", t)
                neighbours = sorted(self.mailbox.neighbours)
                if newest is not None and neighbours:
                    to = [int(stream.choice(neighbours))]
                    self.outbox.send(t, len(neighbours), only_arrays(newest), to)
                self._finish_round(t)
                if due(t, config.observe_every):
                    self.log.write_model(t, self.model)
                self.log.write("round", t, refused=dict(self.mailbox.refused))
        neighbours = sorted(self.mailbox.neighbours)
        self.outbox.send(last + 1, len(neighbours), None, neighbours)
        end = time.monotonic() + 10 * config.start_timeout  # one may never stop
        quiet = time.monotonic() + config.start_timeout
        while self.mailbox.alive - done and time.monotonic() < min(end, quiet):
            if self.mailbox.closed:
                break
            if self._learn(last, config.send_interval, done):
                quiet = time.monotonic() + config.start_timeout
        self._finish_round(last)
        self.log.write_model(last, self.model)

    def _learn(self, cycle: int, timeout: float, done: set[int]) -> bool:
        """Hand the next model that comes to the client; return whether one came.

        A neighbour whose message has no model sends no more, and is added to `done`.
        """
        came = self.mailbox.get(timeout)
        if came is None:
            return False
        sender, message = came
        if message.arrays is None:
            done.add(sender)
            return True
        about = ConfigRecord({"cycle": cycle})
        reply = self.call("train", cycle, gossip=about, arrays=message.arrays)
        if reply is not None:
            size = records.array_bytes(message.arrays)
            self.log.write("learned", cycle, other=sender, bytes=size)
        return True

    def _join(self) -> None:
        """Find neighbours; if they have begun, take round and model of one of them."""
        self.call("query.join")
        timeout, last = self.config.start_timeout, self.config.num_rounds
        found = self.bootstrap.join(self._discover, timeout)
        self.log.write("joined", 0, neighbours=sorted(found))
        if last and (got := self.bootstrap.fetch_model(found, self.initial)):
            server_round, self.initial, other = got
            with self._lock:
                self.round, self.model = min(server_round, last), self.initial
            self.log.write("caught up", self.round, other=other)

    def _discover(self, candidates: list[int]) -> list[int]:
        """Return the neighbours that the client chooses."""
        if not self.config.num_rounds:  # such a client does not choose
            return candidates
        offer = ConfigRecord({"candidates": candidates, "server-round": 1})
        reply = self.call("query.discover", gossip=offer)
        if reply is None:
            return []
        return wholes(reply.config_records["gossip"], "neighbours")

    def _finish_round(self, server_round: int) -> None:
        """Note what the peer has, for itself and for neighbours that ask."""
        reply = self.call("query.model", server_round)
        with self._lock:
            self.round = server_round
            self.model = self.model if reply is None else only_arrays(reply)

    def call(
        self, message_type: str, server_round: int = 0, **content: Any
    ) -> RecordDict | None:
        """Call the client as a server would, and return what it answers.

        If it fails, that is None, and a loss in the log. The message has `content`
        beside its config and the first model.
        """
        config = ConfigRecord({**self.config.config, "server-round": server_round})
        first = {"arrays": self.initial, "initial": self.initial, "config": config}
        message = Message(RecordDict(first | content), self.client + 1, message_type)
        reply = self._node.receive(message)
        if reply is None or not reply.has_content():
            reason = str(reply.error.reason) if reply else "the client answered nothing"
            self.log.lost(server_round, self.client, message_type, reason)
            return None
        if event := _MEASURED.get(message_type):
            measured = reply.content.metric_records.values()
            metrics = {k: v for record in measured for k, v in record.items()}
            self.log.write(event, server_round, metrics=metrics)
        return reply.content

    def close(self) -> None:
        """Stop listening, and end what waits. Another time it does nothing."""
        if self.mailbox.closed:
            return
        self.mailbox.close()
        self.server.stop()
        self.outbox.close()
        self.channels.close()
        counts = dict(self.mailbox.refused)
        if unread := self.server.unread:
            counts["not read by gRPC"] = unread
        self.log.write("ended", self.round, refused=counts)
        self.log.close()


def main() -> None:
    """Run one peer from the command line."""
    parser = argparse.ArgumentParser(
        "python -m gossiplib.peers",
        description="Run one peer: a gossip client, with no server.",
        epilog=inspect.getdoc(PeerConfig),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("app", help="module:name of a gossip ClientApp")
    parser.add_argument("initial", help="module:name of () -> ArrayRecord")
    parser.add_argument(
        "name=value", nargs="+", type=_option, help="see below; JSON, or a text"
    )
    given = vars(parser.parse_args())
    words = given["name=value"]
    for name, times in Counter(name for name, _ in words).items():
        if times > 1:
            parser.error(f"{name} is given {times} times")
    try:
        config = PeerConfig(**dict(words))
        app, initial = map(pkgutil.resolve_name, (given["app"], given["initial"]))
        if not isinstance(app, ClientApp) or not callable(initial):
            raise TypeError("app must be a ClientApp, and initial a function")
    except (AttributeError, ImportError, TypeError, ValueError) as error:
        parser.error(str(error))
    first = initial()
    try:
        peer = Peer(app, first, config)
    except (OSError, TypeError, ValueError) as error:
        parser.exit(1, f"peer {config.client}: {error}\n")
    peer.run()


def _option(word: str) -> tuple[str, Any]:
    """Take "name=value" apart."""
    name, equals, value = word.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{word!r} has no value: write {word}=...")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
