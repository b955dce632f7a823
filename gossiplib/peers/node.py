"""One peer: a gossip client that talks to its neighbours, with no server.

It runs any gossip ClientApp and plays the server's part for this one client: it calls
`train`, sends what came out to its neighbours, hands theirs to `train.average`, and
goes on. In rounds it waits for its neighbours, up to a timeout. Without rounds
(`asynchronous.gossip_on_arrival`) a timer sends, and the client gets each model that
comes.
"""

import contextlib
import threading
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import grpc
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp

from gossiplib.core.client import NEIGHBOURS
from gossiplib.core.grid import LocalNode
from gossiplib.core.models import check_initial
from gossiplib.peers.addresses import AddressBook
from gossiplib.peers.bootstrap import NO_ANSWER, Bootstrap
from gossiplib.peers.config import PeerConfig
from gossiplib.peers.log import EventLog, read_models, rounds_in, say
from gossiplib.peers.messages import Grant, Mailbox, Refused, check_usable, note
from gossiplib.peers.transport import Channels, Outbox, Server, client_of, name_of
from gossiplib.system import encoding, records
from gossiplib.system.certificates import Identity
from gossiplib.system.numbers import check_whole, rng
from gossiplib.system.records import only_arrays, wholes
from gossiplib.system.runs import due, wait_until

#: Exit code of a peer that has found nobody: it has learned alone.
ALONE = 3

#: Seconds between two tries to find neighbours that were not there at the start.
_GREETING = 1.0

#: Bytes of the largest handshake: an address and a word.
_HANDSHAKE = 4096

#: Calls of a client whose metrics are logged, and the events' names.
_MEASURED = {"train": "trained", "evaluate": "evaluated"}


class Peer:
    """A client and its connections.

    `app` is what `client.gossip` or `asynchronous.gossip_on_arrival` makes, `initial`
    the first model, the same for all peers; `round` is the last that the peer has
    finished, and `model` what it has after it. Both go on from what its folder has: a
    new run needs a new folder.
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
        self.round, self.initial = _last_of(folder / name, initial)
        self.model, self._sent = self.initial, 0
        self._since: float | None = None  # when its client's work began; now it waits
        self._joined = 0.0  # when it has found its neighbours
        self._lock = threading.Lock()  # of round and model, which belong together
        self._node = LocalNode(app, client, n, node_id=client + 1)
        self.mailbox = Mailbox(n, max_bytes, config.num_rounds, initial=initial)
        self.addresses = AddressBook(client, n)
        seconds = config.timeout
        self.channels = Channels(identity, authority, max_bytes, seconds)
        known, may = config.known, config.neighbours
        self.bootstrap = Bootstrap(
            address, self.addresses, self.mailbox, self.channels, known, may, seconds
        )
        self.log = EventLog(folder / name, client, config.observe_every)
        self.outbox = Outbox(
            self.channels, self.addresses, self.mailbox, self.log, seconds
        )
        handlers = {
            "Handshake": self._on_handshake,
            "Push": self._on_push,
            "Model": self._on_model,
            "Progress": self._on_progress,
        }
        try:
            at = config.listen or address
            self.server = Server(at, identity, authority, handlers, max_bytes, seconds)
        except OSError:
            self.log.close()
            raise
        self.log.write("started", self.round)

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
        self.mailbox.admit(client_of(name), len(data), linked=True)
        with self._lock:
            server_round, arrays = self.round, self.model
        return note(arrays, round=server_round)

    def _on_progress(self, name: str, data: bytes) -> bytes:
        """Tell what was sent last, and how long the client has been at work since."""
        self.mailbox.admit(client_of(name), len(data), linked=True)
        since = self._since
        seconds = 0.0 if since is None else time.monotonic() - since
        return note(sent=self._sent, seconds=seconds)

    # What it does, in one thread.

    def run(self) -> int:
        """Gossip to the end; return 0, or `ALONE` if the peer has found nobody."""
        config, code = self.config, 0
        last = config.num_rounds or config.num_sends or 0
        if self.round >= last:
            say(f"peer {self.client} has ended before; a new run needs a new folder")
        else:
            if config.num_rounds:
                self._run_in_rounds(last)
            else:
                self._run_without_rounds(last)
            wait_until(self.outbox.is_empty, config.timeout, every=0.01)
            code = 0 if self.mailbox.neighbours else ALONE
        self.close()
        return code

    def _run_in_rounds(self, last: int) -> None:
        """Train and average with the neighbours, round by round, to the last one."""
        self._join()
        while self.round < last and not self.mailbox.closed:
            t = self.mailbox.next_round(self.round + 1)
            if t > self.round + 1:
                self.log.write("skipped", t, rounds=t - self.round - 1)
            self._run_round(t)
            if due(t, self.config.evaluate_every):
                self.call("evaluate", t, gossip=ConfigRecord())
            self._end_round(t)

    def _end_round(self, t: int) -> None:
        """Write down what the peer has after a round."""
        self.log.write_model(t, self.model)
        self.log.write("round", t, refused=dict(self.mailbox.refused))

    def _count_lost(self, t: int, clients: Iterable[int]) -> None:
        for j in sorted(clients):
            reason = f"client {self.client} has received nothing from it"
            self.log.lost(t, j, "Push", reason)

    def _run_round(self, t: int) -> None:
        """Train, send, wait, average."""
        config, self._since = self.config, time.monotonic()
        missing = self.bootstrap.missing()
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
        self._sent, self._since = t, None
        # Who waits for others may do so until all have had time to start.
        starting = self._joined + config.start_timeout - time.monotonic()
        most = max(starting, config.timeout) + config.timeout
        ask = partial(self._ask, t)
        came = self.mailbox.collect(t, neighbours, config.timeout, most, ask)
        self._since = time.monotonic()
        self._count_lost(t, {*neighbours, *missing} - came.keys())
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

    def _ask(self, t: int, client: int, grant: Grant) -> None:
        """Ask a late neighbour what it does; what keeps it from round t has time."""

        def told(answer: grpc.Future) -> None:
            with contextlib.suppress(*NO_ANSWER, grpc.FutureCancelledError):
                header: dict[str, Any]
                content = encoding.load(answer.result(), 3)
                header = {**content.config_records["gossip"]}
                if check_whole("sent", header["sent"], 0) < t:
                    grant(float(header["seconds"]))

        # It may be closed meanwhile, or no thread can be started.
        with contextlib.suppress(KeyError, ValueError, RuntimeError):
            address, name = self.addresses.all()[client], name_of(client)
            timeout = self.config.timeout
            call = self.channels.call(address, name, "Progress", b"", timeout)
            call.add_done_callback(told)

    def _run_without_rounds(self, last: int) -> None:
        """Send the newest model to a random neighbour at each tick; learn what comes.

        After the last tick it sends its neighbours word of that, and goes on learning
        until they have sent the same, or nothing has come for `start_timeout` seconds.
        """
        config = self.config
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
                self._count_lost(t, self.bootstrap.missing())
                tick = max(tick + config.send_interval, time.monotonic())
                newest = self.call("query.send", t)
                neighbours = sorted(self.mailbox.neighbours)
                if newest is not None and neighbours:
                    to = [int(stream.choice(neighbours))]
                    self.outbox.send(t, len(neighbours), only_arrays(newest), to)
                self._finish_round(t)
                self._end_round(t)
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
        """Find neighbours; if one is further, take round and model of one of them."""
        config = self.config
        self.call("query.join")
        found = self.bootstrap.join(self._discover, config.start_timeout)
        self._joined = time.monotonic()
        self.log.write("joined", self.round, neighbours=sorted(found))
        if self.bootstrap.missing():
            with contextlib.suppress(RuntimeError):  # no more threads: it is counted
                threading.Thread(target=self._greet, daemon=True).start()
        if not self.mailbox.neighbours:
            alone = f"peer {self.client} has found no neighbour, and goes on alone"
            failed = self.bootstrap.failed.copy().items()  # threads go on writing
            say("\n  ".join([alone, *(f"{at}: {why}" for at, why in failed)]))
        if not config.num_rounds:
            return
        if got := self.bootstrap.fetch_model(self.round, self.initial):
            server_round, self.initial, other = got
            with self._lock:
                self.round, self.model = min(server_round, config.num_rounds), got[1]
            self.log.write("caught up", self.round, other=other)

    def _greet(self) -> None:
        """Go on looking for neighbours that were not there at the start."""
        closed = partial(getattr, self.mailbox, "closed")
        while self.bootstrap.missing() and not wait_until(closed, _GREETING):
            self.bootstrap.search()

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
        """Call the client as a server would; return what it answers, or log a loss."""
        config = ConfigRecord({**self.config.config, "server-round": server_round})
        first = {"arrays": self.initial, "initial": self.initial, "config": config}
        message = Message(RecordDict(first | content), self.client + 1, message_type)
        reply = self._node.receive(message)
        if reply is None or not reply.has_content():
            reason = str(reply.error.reason) if reply else "the client answered nothing"
            if not server_round:  # round 0: what comes before all rounds
                say(f"peer {self.client} has failed in {message_type}: {reason}")
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
        unwritten = dict(self.log.unwritten)
        self.log.write("ended", self.round, refused=counts, unwritten=unwritten)
        if unwritten:
            say(f"peer {self.client} could not write {unwritten}")
        self.log.close()


def _last_of(folder: Path, initial: ArrayRecord) -> tuple[int, ArrayRecord]:
    """Return round and model that a peer's folder has last; by default the initial."""
    why = None
    for t in reversed(rounds_in(folder / "models")):
        try:  # where the power has failed, a file may be empty
            (model,) = read_models(folder, t).values()
            return t, check_usable(model, initial, same=True)
        except (ValueError, KeyError, Refused) as error:
            why = error
    if why is None:
        return 0, initial
    raise OSError(
        f"{folder} has no model from which this peer can go on ({why}): "
        "a new run needs a new folder"
    )
