"""How a peer finds its neighbours: by handshakes with the peers that it knows.

A handshake says who is where and whether the caller wants a link, and is answered with
the addresses that the other knows. So one known peer is enough to find all. Links are
mutual.
"""

import concurrent.futures
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import grpc
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from gossiplib.peers.addresses import AddressBook, check_address
from gossiplib.peers.messages import Mailbox, Refused, check_usable
from gossiplib.peers.transport import ANY, Channels, name_of, patience
from gossiplib.system import records
from gossiplib.system.numbers import check_whole
from gossiplib.system.runs import wait_until

_PAUSE = 0.2  # seconds between two rounds of handshakes
_AT_ONCE = 64  # handshakes
_SETTLED = 1.0  # seconds without a new link, after which all have chosen

#: What a call ends in whose answer makes no sense, or never comes.
_NO_ANSWER = (grpc.RpcError, Refused, ValueError, KeyError, TypeError)

#: A number that another peer has sent, or a ValueError if it is none.
_whole = partial(check_whole, "a number of another peer", least=0)


@dataclass
class Bootstrap:
    """Find neighbours for a mailbox, and be found at an address.

    `known` are addresses of peers to ask first; all may be `neighbours` by default. In
    `timeout` seconds a message should have come.
    """

    address: str
    addresses: AddressBook
    mailbox: Mailbox
    channels: Channels
    known: Sequence[str] = ()
    neighbours: Collection[int] | None = None
    timeout: float = 5.0
    _pool: ThreadPoolExecutor = field(
        default_factory=partial(ThreadPoolExecutor, _AT_ONCE)
    )
    _under_way: dict[tuple[int | None, str, bool], Future[int | None]] = field(
        default_factory=dict
    )

    def answer(self, sender: int, data: bytes, server_round: int) -> bytes:
        """Answer a handshake: tell whether the two are linked, and who is where.

        The round is the last that this peer has finished.
        """
        try:
            caller = records.load(data).config_records["gossip"]
            address = check_address("the caller's", caller["address"])
            link = caller["link"]
        except (ValueError, KeyError):
            self.mailbox.refuse("malformed")
        if not isinstance(link, bool):
            self.mailbox.refuse("malformed")
        self.addresses.confirm(sender, address)
        linked = link and (self.neighbours is None or sender in self.neighbours)
        if linked:
            # One that was lost may have started anew. One that is new may be answering
            # our own handshake now, which to connect anew would break off.
            if sender in self.mailbox.neighbours - self.mailbox.alive:
                self.channels.forget(name_of(sender))
            self.mailbox.link(sender)
        known, own = self.addresses.all(), self.addresses.client
        where = {"clients": list(known), "addresses": list(known.values())}
        return _record(client=own, round=server_round, linked=linked, **where)

    def handshake(self, client: int | None, address: str, *, link: bool) -> int | None:
        """Call a peer, learn where others are, and return which round it is in.

        It returns None without an answer of use, or if the peer refuses the link.
        """
        name = ANY if client is None else name_of(client)
        data = _record(address=self.address, link=link)
        try:
            reply = self.channels.call(
                address, name, "Handshake", data, patience(self.timeout)
            ).result()
            most = 6 + 3 * self.addresses.num_clients  # an address is shorter than 128
            content = records.load(reply, most)
            other: dict[str, Any] = {**content.config_records["gossip"]}
            linked, server_round = other["linked"], _whole(other["round"])
            self.addresses.suggest(_whole(other["client"]), address)
            for j, at in zip(other["clients"], other["addresses"], strict=True):
                self.addresses.suggest(_whole(j), str(at))
        except _NO_ANSWER:
            if client is not None:
                self.addresses.missed(client)
            return None
        if client is None:
            self.channels.forget(address)
        else:
            self.addresses.confirm(client, address)
            if link and linked:
                self.mailbox.link(client)
        return server_round if linked or not link else None

    def greet(
        self, calls: Iterable[tuple[int | None, str]], link: bool, seconds: float
    ) -> dict[int, int]:
        """Shake hands side by side; return the rounds of those that have answered.

        An address where nobody answers holds up no other. It is called once at a time,
        and its answer is returned whenever it comes.

        Parameters
        ----------
        calls : iterable of (int or None, str)
            Clients, None if it is not known which, and their addresses.
        link : bool
            Whether a link is asked for.
        seconds : float
            How long to wait at most.
        """
        for at in calls:
            if (*at, link) not in self._under_way:
                call = self._pool.submit(self.handshake, *at, link=link)
                self._under_way[*at, link] = call
        ours = {key: call for key, call in self._under_way.items() if key[2] == link}
        ended, _ = concurrent.futures.wait(ours.values(), seconds)
        came = {key: self._under_way.pop(key) for key in ours if ours[key] in ended}
        rounds = [(client, call.result()) for (client, *_), call in came.items()]
        return {i: t for i, t in rounds if i is not None and t is not None}

    def join(
        self, discover: Callable[[list[int]], list[int]], timeout: float
    ) -> dict[int, int]:
        """Find the neighbours that the client discovers, and return each one's round.

        After `timeout` seconds the peer makes do with those that it has found.
        """
        wanted = None
        if self.neighbours is not None:
            wanted = discover(sorted({*self.neighbours} - {self.addresses.client}))
        found: dict[int, int] = {}
        asked: set[int] = set()

        def search(late: bool = False) -> bool:
            """Call whom it may; return whether all that are wanted are found."""
            nonlocal wanted
            known = self.addresses.all()
            all_known = len(known) == self.addresses.num_clients - 1
            if wanted is None and (late or all_known):
                wanted = discover(list(known))
            chosen = known.keys() & set(wanted or ()) - found.keys()
            calls: list[tuple[int | None, str]]
            calls = [(client, known[client]) for client in sorted(chosen)]
            seconds = patience(self.timeout) if late else _PAUSE
            found.update(self.greet(calls, True, seconds))
            complete = wanted is not None and set(wanted) <= found.keys()
            if complete or late or self.mailbox.closed:
                return True
            others = known.keys() - asked - chosen
            unnamed = [
                (None, address)
                for address in self.known
                if address not in known.values() or wanted is None
            ]
            calls = [*unnamed, *((client, known[client]) for client in sorted(others))]
            asked.update(self.greet(calls, False, _PAUSE))
            return False

        if not wait_until(search, timeout, every=_PAUSE):
            search(late=True)
        if self.neighbours is None and not any(found.values()):
            self._settle()
        return found

    def _settle(self) -> None:
        """Wait as long as others still choose this peer, before the first round."""
        links = 0

        def new_link() -> bool:
            return len(self.mailbox.neighbours) > links

        while not self.mailbox.closed and wait_until(new_link, _SETTLED):
            links = len(self.mailbox.neighbours)

    def fetch_model(
        self, found: dict[int, int], like: ArrayRecord
    ) -> tuple[int, ArrayRecord, int] | None:
        """Return round and model of a neighbour that has begun, and whose they are.

        It is the one in the middle, by rounds: neither the one that says it is far
        ahead, nor the one that is behind. Nobody can say more than one round more than
        the middle one.
        """
        rounds = sorted((t, j) for j, t in found.items())
        middle = (len(rounds) - 1) // 2
        for t, j in rounds[middle:] + rounds[:middle][::-1]:
            most = min(t, rounds[middle][0])
            if most == 0:
                continue
            address, name = self.addresses.all()[j], name_of(j)
            try:
                call = self.channels.call(address, name, "Model", b"", self.timeout)
                content = records.load(call.result(), len(like) + 3)
                server_round = _whole(content.config_records["gossip"]["round"])
                arrays = check_usable(content["arrays"], like)
                return min(server_round, most + 1), arrays, j
            except _NO_ANSWER:
                continue
        return None


def _record(**fields: Any) -> bytes:
    return records.dump(RecordDict({"gossip": ConfigRecord(fields)}))
