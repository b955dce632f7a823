"""One peer: a gossip client that talks to its neighbours, with no server.

    python -m gossiplib.peer module:client --initial module:function --id 3 --of 8 ...

It runs any gossip ClientApp and plays the server's part for this client: it calls
`train`, sends what came out to its neighbours, hands theirs to `train.average`, and
goes on. In rounds it waits for its neighbours, up to a deadline. Without rounds
(`arrivals.gossip_on_arrival`) a timer sends, and each model that comes is handed on.

`paces` has both loops, `joining` finds neighbours, `outbox` sends, `mailbox` decides
what may be used, `wire` is the network, `journal` writes down; `peers` starts many.
"""

import argparse
import importlib
import json
import threading
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp

from gossiplib import records
from gossiplib.arrays import array_bytes, check_initial
from gossiplib.certificates import Identity
from gossiplib.grid import LocalNode
from gossiplib.joining import Joining
from gossiplib.journal import Journal
from gossiplib.mailbox import Mailbox
from gossiplib.outbox import Outbox
from gossiplib.paces import run_rounds, run_sends
from gossiplib.wire import Channels, Server, client_of, name_of

__all__ = ["Peer"]

#: Bytes of the largest hello: an address and a word.
_HELLO = 4096


class Peer:
    """A client and its connections.

    Parameters
    ----------
    app : flwr.clientapp.ClientApp
        What `client.gossip` or `arrivals.gossip_on_arrival` makes.
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
        return records.dump(RecordDict({"gossip": told, "arrays": model}))

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
    parser = argparse.ArgumentParser("python -m gossiplib.peer")
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
