"""How a peer finds its neighbours: by handshakes with the peers that it knows.

A handshake says who is where and whether the caller wants a link, and is answered with
the addresses that the other knows. So one known peer is enough to find all. Links are
mutual.
"""

import concurrent.futures
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import grpc
from flwr.app import ArrayRecord

from gossiplib.peers.addresses import AddressBook, check_address
from gossiplib.peers.messages import Mailbox, Refused, check_usable, note
from gossiplib.peers.transport import ANY, Channels, name_of, patience
from gossiplib.system import encoding
from gossiplib.system.kinds import as_kind
from gossiplib.system.numbers import check_whole
from gossiplib.system.runs import wait_until

_PAUSE = 0.2  # seconds between two rounds of handshakes
_AT_ONCE = 64  # handshakes
_SETTLED = 1.0  # seconds without a new link, after which all have chosen

#: What a call ends in whose answer makes no sense, or never comes.
NO_ANSWER = (grpc.RpcError, Refused, ValueError, KeyError, TypeError)

#: A number that another peer has sent, or a ValueError if it is none.
_whole = partial(check_whole, "a number of another peer", least=0)


@dataclass
class Bootstrap:
    """Find neighbours for a mailbox, and be found at an address.

    `known` are addresses of peers to ask first; all may be `neighbours` by default. In
    `timeout` seconds a message should have come. Kept are the round of each neighbour
    that was `found`, and why the last handshake at an address `failed`.
    """

    address: str
    addresses: AddressBook
    mailbox: Mailbox
    channels: Channels
    known: Sequence[str] = ()
    neighbours: Collection[int] | None = None
    timeout: float = 5.0
    found: dict[int, int] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    _wanted: list[int] | None = None  # None until the client has chosen
    _asked: set[int] = field(default_factory=set)
    _pool: ThreadPoolExecutor = field(
        default_factory=partial(ThreadPoolExecutor, _AT_ONCE)
    )
    #: With whom, where, and whether a link is asked for -> the round that comes of it.
    _under_way: dict[tuple[int | None, str, bool], Future[int | None]] = field(
        default_factory=dict
    )

    def answer(self, sender: int, data: bytes, server_round: int) -> bytes:
        """Answer a handshake: whether there is a link, the own round, who is where."""
        try:
            caller = encoding.load(data).config_records["gossip"]
            address = check_address("the caller's", caller["address"])
            link: bool = as_kind(bool, caller["link"], "link")
        except (ValueError, KeyError):
            self.mailbox.refuse("malformed")
        self.addresses.confirm(sender, address)
        linked = link and (self.neighbours is None or sender in self.neighbours)
        if linked:
            # One that was lost may have started anew. One that is new may be answering
            # our own handshake now, which to connect anew would break off.
            if sender in self.mailbox.neighbours - self.mailbox.alive:
                self.channels.forget(name_of(sender))
            self.mailbox.link(sender)
        known = self.addresses.all()
        return note(
            client=self.addresses.client,
            round=server_round,
            linked=linked,
            clients=[*known],
            addresses=[*known.values()],
        )

    def handshake(self, client: int | None, address: str, *, link: bool) -> int | None:
        """Call a peer, learn where others are; return its round, if it is of use."""
        name = ANY if client is None else name_of(client)
        data = note(address=self.address, link=link)
        try:
            reply = self.channels.call(
                address, name, "Handshake", data, patience(self.timeout)
            ).result()
            most = 6 + 3 * self.addresses.num_clients  # an address is shorter than 128
            content = encoding.load(reply, most)
            other: dict[str, Any] = {**content.config_records["gossip"]}
            linked, server_round = other["linked"], _whole(other["round"])
            self.addresses.suggest(_whole(other["client"]), address)
            for j, at in zip(other["clients"], other["addresses"], strict=True):
                self.addresses.suggest(_whole(j), str(at))
        except NO_ANSWER as error:
            details = getattr(error, "details", lambda: None)
            self.failed[address] = details() or repr(error)
            if client is not None:
                self.addresses.missed(client)
            return None
        if client is None:
            self.channels.forget(address)
        else:
            self.addresses.confirm(client, address)
            if link and linked:
                self.mailbox.link(client)
            elif link:
                self.failed[address] = "it wants no link to this peer"
        return server_round if linked or not link else None

    def greet(
        self, calls: Iterable[tuple[int | None, str]], link: bool, seconds: float
    ) -> dict[int, int]:
        """Shake hands side by side; return the rounds of those that answer in time.

        Each is called once at a time, and its answer counts whenever it comes.
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
        self, discover: Callable[[list[int]], list[int]], start_timeout: float
    ) -> dict[int, int]:
        """Find the neighbours that the client discovers, and return each one's round.

        After `start_timeout` seconds the peer makes do with those that it has found. If
        one of them has begun, the others have had this time: then it is `timeout`.
        """
        begun = None
        if self.neighbours is not None:
            self._wanted = discover(sorted({*self.neighbours}))

        def ready() -> bool:
            """Search; return whether it is over."""
            nonlocal begun
            if self.mailbox.closed:
                return True
            known = self.addresses.all()
            if self._wanted is None and len(known) == self.addresses.num_clients - 1:
                self._wanted = discover(list(known))
            self.search()
            if begun is None and any(self.found.values()):
                begun = time.monotonic()
            late = begun is not None and time.monotonic() - begun >= self.timeout
            complete = self._wanted is not None and not self._unfound()
            return complete or late

        if not wait_until(ready, start_timeout, every=_PAUSE):
            if self._wanted is None:  # not all are known, and it takes what there is
                self._wanted = discover(list(self.addresses.all()))
            self.search(patience(self.timeout))
        if self.neighbours is None and not any(self.found.values()):
            self._settle()
        return self.found

    def search(self, seconds: float = _PAUSE) -> None:
        """Call the neighbours not found yet, and who may know of them; wait a while."""
        known = self.addresses.all()
        chosen = known.keys() & self._unfound()
        self.found |= self.greet([(i, known[i]) for i in chosen], True, seconds)
        if self._wanted is not None and not self._unfound():
            return
        named = known.keys() - self._asked - chosen
        calls: list[tuple[int | None, str]] = [(i, known[i]) for i in named]
        for address in self.known:
            if address not in known.values() or self._wanted is None:
                calls.append((None, address))
        self._asked |= self.greet(calls, False, seconds).keys()

    def _unfound(self) -> set[int]:
        return set(self._wanted or ()) - self.found.keys()

    def missing(self) -> list[int]:
        """Return the wanted neighbours that there is no link to."""
        return sorted(self._unfound() - self.mailbox.neighbours)

    def _settle(self) -> None:
        """Wait as long as others still choose this peer, before the first round."""
        links = 0

        def new_link() -> bool:
            return len(self.mailbox.neighbours) > links

        while not self.mailbox.closed and wait_until(new_link, _SETTLED):
            links = len(self.mailbox.neighbours)

    def fetch_model(
        self, own: int, like: ArrayRecord
    ) -> tuple[int, ArrayRecord, int] | None:
        """Return round and model of a neighbour that is further, and whose they are.

        It is the one in the middle, by rounds: neither the one that says it is far
        ahead, nor the one that is behind. Nobody can say more than one round more than
        the middle one; and if there is only one, `Mailbox.believe` bounds what it says.
        """
        rounds = sorted((t, j) for j, t in self.found.items())
        middle = (len(rounds) - 1) // 2
        for t, j in rounds[middle:] + rounds[:middle][::-1]:
            most = min(t, rounds[middle][0])
            if most <= own:
                continue
            address, name = self.addresses.all()[j], name_of(j)
            try:
                call = self.channels.call(address, name, "Model", b"", self.timeout)
                content = encoding.load(call.result(), len(like) + 3)
                server_round = _whole(content.config_records["gossip"]["round"])
                arrays = check_usable(content["arrays"], like, same=True)
                claim = min(server_round, most + 1)
                t = self.mailbox.believe(own, claim, len(rounds))
            except NO_ANSWER:
                continue
            if t > own:
                return t, arrays, j
        return None
