"""One peer: a gossip client that talks to its neighbours, with no server.

    python -m gossiplib.peers module:client --initial module:function --id 3 --of 8 ...

It runs any gossip ClientApp and plays the server's part for this client: it calls
`train`, sends what came out to its neighbours, hands theirs to `train.average`, and
goes on. In rounds it waits for its neighbours, up to a deadline. Without rounds
(`asynchronous.gossip_on_arrival`) a timer sends, and each model that comes is handed
on.

`node` has both loops, `bootstrap` finds neighbours, `transport` sends, `messages`
decides what may be used, `transport` is the network, `log` writes down; `peers` starts
many.

How a peer proceeds: round by round with its neighbours, or by its own clock.

Both loops do for one client what a server does for all (`server.Gossip`,
`asynchronous.Relay`): they call its functions, with a `node.Peer` to send and to
receive.
"""

import argparse
import importlib
import json
import threading
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp

from gossiplib.core import models
from gossiplib.core.client import NEIGHBOURS
from gossiplib.core.grid import LocalNode
from gossiplib.core.models import check_initial, only_arrays
from gossiplib.peers.bootstrap import Joining
from gossiplib.peers.log import Journal
from gossiplib.peers.messages import Letter, Mailbox
from gossiplib.peers.transport import Channels, Outbox, Server, client_of, name_of
from gossiplib.system.certificates import Identity
from gossiplib.system.records import array_bytes

if TYPE_CHECKING:
    pass

__all__ = ["Peer", "run_rounds", "run_sends"]

#: Bytes of the largest hello: an address and a word.
_HELLO = 4096


class Peer:
    """A client and its connections.

    Parameters
    ----------
    app : flwr.clientapp.ClientApp
        What `client.gossip` or `asynchronous.gossip_on_arrival` makes.
    initial : flwr.app.ArrayRecord
        The first model, the same for all peers.
    client, clients : int
        Partition id, and how many there are.
    listen : str
        Address to listen on, host and port.
    folder : Path
        Holds `authority.pem`, and `peer-3.pem` and `peer-3.key` of client 3; its
        results go into `peer-3/`.
    know : sequence of str
        Addresses of peers that are known before, at least one.
    neighbours : collection of int, optional
        Who may be a neighbour; by default all.
    rounds : int, optional
        Number of rounds; None is without rounds.
    deadline : float
        Seconds to wait for the neighbours in a round.
    patience : float
        Seconds that the neighbours have to start.
    config : dict, optional
        Passed on to the client, with `server-round` added.

    Attributes
    ----------
    round : int
        The last round that it has finished.
    model : flwr.app.ArrayRecord
        What it has after that round.

    Raises
    ------
    OSError
        If the address cannot be listened on.
    """

    def __init__(
        self,
        app: ClientApp,
        initial: ArrayRecord,
        client: int,
        clients: int,
        listen: str,
        folder: Path,
        *,
        know: Sequence[str] = (),
        neighbours: Collection[int] | None = None,
        rounds: int | None = None,
        deadline: float = 5.0,
        patience: float = 60.0,
        config: dict[str, Any] | None = None,
    ) -> None:
        check_initial(initial)
        name, folder = name_of(client), Path(folder)
        identity = Identity(folder / f"{name}.pem", folder / f"{name}.key")
        authority = folder / "authority.pem"
        largest = 2 * array_bytes(initial) + 128 * clients + 2**16
        self.client, self.clients, self.round = client, clients, 0
        self.mailbox = Mailbox(clients, largest, rounds)
        self.channels = Channels(identity, authority, largest)
        self._node = LocalNode(app, client, clients, node_id=client + 1)
        self.initial = self.model = initial
        self.rounds, self.deadline, self.patience = rounds, deadline, patience
        self._config = dict(config or {})
        self._lock = threading.Lock()
        self.closed = False
        self.joining = Joining(
            client, clients, listen, know, neighbours, self.mailbox, self.channels
        )
        self.journal = Journal(folder / name, client)
        self.outbox = Outbox(
            self.channels, self.joining.contacts, self.mailbox, self.journal, deadline
        )
        handlers = {"Hello": self._hello, "Push": self._take, "Model": self._show}
        try:
            self.server = Server(listen, identity, authority, handlers, largest)
        except OSError:
            self.journal.close()
            raise
        self.journal.note("started", 0)

    # What others ask, in threads of gRPC's ------------------------------------------

    def _hello(self, name: str, data: bytes) -> bytes:
        sender = client_of(name)
        self.mailbox.admit(sender, len(data))
        if len(data) > _HELLO:
            self.mailbox.refuse("too large")
        there = sender in self.mailbox.alive
        answer = self.joining.answer(sender, data, self.round)
        if self.rounds and not there and sender in self.mailbox.alive:
            self.outbox.repeat(sender)  # it waits for what it has missed
        return answer

    def _take(self, name: str, data: bytes) -> bytes:
        sender = client_of(name)
        letter = self.mailbox.put(sender, data)
        more = {"other": sender, "start": letter.start, "count": letter.count}
        self.journal.note("received", letter.round, bytes=len(data), **more)
        return b""

    def _show(self, name: str, data: bytes) -> bytes:
        sender = client_of(name)
        self.mailbox.admit(sender, len(data))
        if sender not in self.mailbox.neighbours:
            self.mailbox.refuse("not a neighbour")
        with self._lock:
            server_round, model = self.round, self.model
        told = ConfigRecord({"round": server_round})
        return models.dump(RecordDict({"gossip": told, "arrays": model}))

    # What it does, in one thread ----------------------------------------------------

    def join(self) -> None:
        """Find neighbours; if they have begun, take round and model of one of them."""
        self.call("query.join")
        found = self.joining.join(self._discover, self.patience, lambda: self.closed)
        self.journal.note("joined", 0, neighbours=sorted(found))
        got = self.rounds and self.joining.fetch_model(found, self.initial)
        if got:
            server_round, self.initial, other = got
            self.finish_round(min(server_round, self.rounds), self.initial)
            self.journal.note("caught up", self.round, other=other)

    def _discover(self, candidates: list[int]) -> list[int]:
        if self.rounds is None:  # such a client does not choose
            return candidates
        offer = ConfigRecord({"candidates": candidates, "server-round": 1})
        reply = self.call("query.discover", gossip=offer)
        return [] if reply is None else list(reply["gossip"]["neighbours"])

    def finish_round(self, server_round: int, model: ArrayRecord | None) -> None:
        """Note what the peer has, for itself and for neighbours that ask."""
        with self._lock:
            self.round = server_round
            self.model = model or self.model

    @property
    def state(self) -> RecordDict:
        """What the client keeps: its `context.state`."""
        return self._node.context.state

    def call(self, call: str, t: int = 0, **content: Any) -> RecordDict | None:
        """Call the client as a server would; None, and a loss, if it fails.

        Parameters
        ----------
        call : str
            Flower's message type, such as "train.average".
        t : int
            The round.
        **content
            Records that the call has beside `config` and the first model.
        """
        config = ConfigRecord({**self._config, "server-round": t})
        first = {"arrays": self.initial, "initial": self.initial, "config": config}
        message = Message(RecordDict(first | content), self.client + 1, call)
        reply = self._node.receive(message)
        if reply is None:
            self.journal.lose(t, self.client, call, "the client answered nothing")
        elif reply.has_error():
            self.journal.lose(t, self.client, call, reply.error.reason)
        else:
            return reply.content
        return None

    def refused(self) -> dict[str, int]:
        """Return how many messages were refused, by reason."""
        return dict(self.mailbox.refused)

    def finish(self) -> None:
        """Wait until the last letters are there, then close."""
        end = time.monotonic() + self.deadline
        while time.monotonic() < end and not self.outbox.empty():
            time.sleep(0.01)
        self.close()

    def close(self) -> None:
        """Stop listening, and end what waits. Another time it does nothing."""
        if self.closed:
            return
        self.closed = True
        self.mailbox.close()
        self.server.stop()
        self.channels.close()
        counts = self.refused()
        if unread := self.server.unread:
            counts["not read by gRPC"] = unread
        self.journal.note("ended", self.round, refused=counts)
        self.journal.close()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one peer from the command line."""
    parser = argparse.ArgumentParser("python -m gossiplib.peers")
    add = parser.add_argument
    add("client", help="module:name of a gossip ClientApp")
    add("--initial", required=True, help="module:name of () -> ArrayRecord")
    add("--id", type=int, required=True, help="partition id")
    add("--of", type=int, required=True, help="number of partition ids")
    add("--listen", required=True, help="HOST:PORT of this peer")
    add("--know", nargs="+", default=[], metavar="HOST:PORT", help="other peers")
    add("--neighbours", nargs="*", type=int, help="ids of those that may be neighbours")
    add("--folder", type=Path, required=True, help="certificates, and results")
    pace = parser.add_mutually_exclusive_group(required=True)
    pace.add_argument("--rounds", type=int, help="in rounds: how many")
    pace.add_argument("--sends", type=int, help="without rounds: how many sends")
    add("--every", type=float, default=0.1, help="without rounds: seconds between two")
    add("--deadline", type=float, default=5.0, help="seconds to wait in a round")
    add("--patience", type=float, default=60.0, help="seconds for others to start")
    add("--evaluate-every", type=int, default=1, help="rounds; 0 is never")
    add("--observe-every", type=int, default=1, help="rounds between models kept")
    add("--config", type=json.loads, default={}, help="JSON: told to the client")
    told = parser.parse_args(arguments)
    try:
        peer = Peer(
            _named(told.client),
            _named(told.initial)(),
            told.id,
            told.of,
            told.listen,
            told.folder,
            know=told.know,
            neighbours=told.neighbours,
            rounds=told.rounds,
            deadline=told.deadline,
            patience=told.patience,
            config=told.config,
        )
    except OSError as error:
        parser.exit(1, f"peer {told.id}: {error}\n")
    if told.rounds:
        run_rounds(peer, told.evaluate_every, told.observe_every)
    else:
        run_sends(peer, told.sends, told.every)


def _named(name: str) -> Any:
    """Return what "module:name" names."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


if __name__ == "__main__":
    main()


def run_rounds(peer: "Peer", evaluate_every: int = 1, observe_every: int = 1) -> None:
    """Train and average with the neighbours, round by round, to the last one.

    Parameters
    ----------
    peer : Peer
        Made with a number of rounds. It is closed at the end.
    evaluate_every, observe_every : int
        Rounds between two calls of `evaluate`, and between two models written down; 0
        is never, and after the last round only.
    """
    peer.join()
    # Some may still be starting; later, all have begun.
    seconds = peer.deadline if peer.round else max(peer.patience, peer.deadline)
    while peer.round < peer.rounds and not peer.closed:
        t = peer.mailbox.next_round(peer.round + 1)
        if t > peer.round + 1:
            peer.journal.note("skipped", t, rounds=t - peer.round - 1)
        _turn(peer, t, seconds)
        seconds = peer.deadline
        if evaluate_every and t % evaluate_every == 0:
            reply = peer.call("evaluate", t, gossip=ConfigRecord())
            if reply is not None:
                peer.journal.note("evaluated", t, metrics=_metrics(reply))
        if t == peer.rounds or (observe_every and t % observe_every == 0):
            peer.journal.keep(t, peer.model)
        peer.journal.note("round", t, refused=peer.refused())
    peer.finish()


def _turn(peer: "Peer", t: int, seconds: float) -> None:
    """Train, send, wait, average: one round."""
    neighbours = sorted(peer.mailbox.neighbours)
    degree = len(neighbours)
    # A link that the other side asked for is one of the client's as well.
    peer.state[NEIGHBOURS] = ConfigRecord({"neighbours": neighbours})
    told = ConfigRecord({"server-round": t, "receivers": degree})
    reply = peer.call("train", t, gossip=told)
    trained = None
    if reply is not None:
        trained = only_arrays(reply)
        peer.journal.note("trained", t, metrics=_metrics(reply))
        if "gossip" not in reply:  # else it is encoded, in a form that only it knows
            peer.mailbox.expect(peer.initial)
    peer.outbox.send(t, degree, trained, neighbours)
    came = peer.mailbox.collect(t, neighbours, seconds)
    for j in sorted(set(neighbours) - set(came)):
        peer.journal.lose(t, j, "Push", f"client {peer.client} has heard nothing of it")
    heard = {j: came[j] for j in sorted(came) if came[j].arrays is not None}
    if trained is not None and heard:
        _average(peer, t, degree, heard)
    shown = peer.call("query.model", t)
    peer.finish_round(t, None if shown is None else only_arrays(shown))


def _average(peer: "Peer", t: int, degree: int, heard: dict[int, Letter]) -> None:
    """Let the client average, with the weights of `mixing.metropolis`.

    Each end of a link knows both degrees. What is missing stays with the own model.
    A neighbour that lies about its degree gets at most 1 / (1 + the own degree).
    """
    weights = [1 / (1 + max(degree, letter.degree)) for letter in heard.values()]
    told = {
        "server-round": t,
        "senders": list(heard),
        "weights": [1 - sum(weights), *weights],
    }
    models = {str(j): letter.arrays for j, letter in heard.items()}
    reply = peer.call("train.average", t, gossip=ConfigRecord(told), **models)
    if reply is not None:
        size = sum(map(array_bytes, models.values()))
        peer.journal.note("averaged", t, senders=list(heard), bytes=size)


def run_sends(peer: "Peer", sends: int, every: float = 0.1, seed: int = 0) -> None:
    """Send the newest model to a random neighbour at each tick; learn what comes.

    Parameters
    ----------
    peer : Peer
        Made without a number of rounds. It is closed at the end.
    sends : int
        Number of ticks. After the last one it tells its neighbours so, and goes on
        learning until they have said the same, or nothing has come for as long as its
        patience lasts.
    every : float
        Seconds between two ticks.
    seed : int
        Decides who gets a model. What comes when, the network decides.
    """
    first = peer.call("query.send")
    if first is None:
        raise RuntimeError("the client is none of arrivals.gossip_on_arrival")
    peer.mailbox.expect(only_arrays(first))
    peer.join()
    rng = np.random.default_rng([seed, peer.client])
    due, quiet = time.monotonic() + every * rng.random(), 0.0
    done: set[int] = set()  # neighbours that send no more
    while peer.round < sends and not peer.closed:
        done |= _learn(peer, peer.round + 1, due - time.monotonic())[1]
        if time.monotonic() >= due:
            due = max(due + every, time.monotonic())
            _tick(peer, peer.round + 1, rng)
    neighbours = sorted(peer.mailbox.neighbours)
    peer.outbox.send(sends + 1, len(neighbours), None, neighbours)
    end = time.monotonic() + 10 * peer.patience  # one that never stops does not count
    while peer.mailbox.alive - done and quiet < peer.patience and not peer.closed:
        if time.monotonic() > end:
            break
        came, last = _learn(peer, sends, every)
        quiet = 0.0 if came else quiet + every
        done |= last
    _keep(peer, sends)
    peer.finish()


def _tick(peer: "Peer", cycle: int, rng: np.random.Generator) -> None:
    """Send once, and write the model down."""
    neighbours = sorted(peer.mailbox.neighbours)
    said = peer.call("query.send", cycle)
    if said is not None and neighbours:
        to = [int(rng.choice(neighbours))]
        peer.outbox.send(cycle, len(neighbours), only_arrays(said), to)
    _keep(peer, cycle)
    peer.journal.note("round", cycle, refused=peer.refused())


def _keep(peer: "Peer", cycle: int) -> None:
    """Write the newest model down."""
    shown = peer.call("query.model", cycle)
    peer.finish_round(cycle, None if shown is None else only_arrays(shown))
    peer.journal.keep(cycle, peer.model)


def _learn(peer: "Peer", cycle: int, seconds: float) -> tuple[bool, set[int]]:
    """Hand the next model that comes to the client.

    Returns whether a letter came, and whose last it was: one that brings no model.
    """
    came = peer.mailbox.take(seconds)
    if came is None:
        return False, set()
    sender, letter = came
    if letter.arrays is None:
        return True, {sender}
    told = ConfigRecord({"cycle": cycle})
    reply = peer.call("train", cycle, gossip=told, arrays=letter.arrays)
    if reply is not None:
        peer.journal.note("trained", cycle, metrics=_metrics(reply))
        size = array_bytes(letter.arrays)
        peer.journal.note("learned", cycle, other=sender, bytes=size)
    return True, set()


def _metrics(reply: RecordDict) -> dict[str, Any]:
    """Return the metrics of a reply."""
    return {k: v for record in reply.metric_records.values() for k, v in record.items()}
