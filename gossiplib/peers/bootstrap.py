"""How a peer finds its neighbours: by handshakes with the peers that it knows.

A handshake says who is where and whether the caller wants a link, and is answered with
the addresses that the other knows. So one known peer is enough to find all. Links are
mutual.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any, cast

import grpc
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from gossiplib.peers.messages import Mailbox, Refused, check_usable
from gossiplib.peers.transport import AddressBook, Channels, name_of
from gossiplib.system import records
from gossiplib.system.numbers import check_whole
from gossiplib.system.runs import wait_until

__all__ = ["Bootstrap"]

_PAUSE = 0.2  # seconds between two rounds of handshakes
_SETTLED = 1.0  # seconds without a new link, after which all have chosen

#: The name that each certificate holds beside its own; for peers of unknown name.
_ANY = "localhost"

#: What an answer that makes no sense, or none, ends in.
_NO_ANSWER = (grpc.RpcError, Refused, ValueError, KeyError, TypeError)


class Bootstrap:
    """Find neighbours, and be found.

    Parameters
    ----------
    address : str
        Where this peer listens.
    addresses : AddressBook
        Where the others are.
    mailbox : Mailbox
        Gets the neighbours.
    channels : Channels
        How others are called.
    known : sequence of str
        Addresses of peers to ask first.
    neighbours : collection of int, optional
        Partition ids that may be neighbours; by default all.
    """

    def __init__(
        self,
        address: str,
        addresses: AddressBook,
        mailbox: Mailbox,
        channels: Channels,
        known: Sequence[str] = (),
        neighbours: Collection[int] | None = None,
    ) -> None:
        self._address, self._addresses = address, addresses
        self._mailbox, self._channels, self._known = mailbox, channels, known
        own = addresses.client
        self._allowed = None if neighbours is None else sorted({*neighbours} - {own})

    def answer(self, sender: int, data: bytes, server_round: int) -> bytes:
        """Answer a handshake.

        Parameters
        ----------
        sender : int
            Whose certificate it came with.
        data : bytes
            What came.
        server_round : int
            The last round that this peer has finished.

        Returns
        -------
        bytes
            Whether the two are linked, the round, and where other peers are.

        Raises
        ------
        Refused
            If it is no handshake.
        """
        try:
            caller = records.load(data).config_records["gossip"]
            address, link = caller["address"], caller["link"]
        except (ValueError, KeyError):
            self._mailbox.refuse("malformed")
        if not isinstance(address, str) or not isinstance(link, bool):
            self._mailbox.refuse("malformed")
        self._addresses.confirm(sender, address)
        linked = link and (self._allowed is None or sender in self._allowed)
        if linked:
            # One that was lost may have started anew. One that is new may be answering
            # our own handshake now, which to connect anew would break off.
            if sender in self._mailbox.neighbours - self._mailbox.alive:
                self._channels.forget(name_of(sender))
            self._mailbox.link(sender)
        known = self._addresses.all()
        return _record(
            client=self._addresses.client,
            round=server_round,
            linked=linked,
            clients=list(known),
            addresses=list(known.values()),
        )

    def handshake(self, client: int | None, address: str, *, link: bool) -> int | None:
        """Call a peer; learn where others are, and which round it is in.

        Parameters
        ----------
        client : int or None
            Its partition id, if that is known.
        address : str
            Where it is.
        link : bool
            Whether it shall be a neighbour.

        Returns
        -------
        int or None
            Its round. None if it gave no answer of use, or not the link.
        """
        name = _ANY if client is None else name_of(client)
        data = _record(address=self._address, link=link)
        try:
            reply = self._channels.call(address, name, "Handshake", data, 1.0).result()
            other = records.load(reply).config_records["gossip"]
            linked, server_round = other["linked"], _whole(other["round"])
            self._addresses.suggest(_whole(other["client"]), address)
            ids = cast(list[int], other["clients"])
            places = cast(list[str], other["addresses"])
            for j, at in zip(ids, places, strict=True):
                self._addresses.suggest(_whole(j), str(at))
        except _NO_ANSWER:
            if client is not None:
                self._addresses.missed(client)
            return None
        if client is None:
            self._channels.forget(_ANY)  # for the next address
        else:
            self._addresses.confirm(client, address)
            if link and linked:
                self._mailbox.link(client)
        return server_round if linked or not link else None

    def join(
        self,
        discover: Callable[[list[int]], list[int]],
        timeout: float,
        closed: Callable[[], bool],
    ) -> dict[int, int]:
        """Find neighbours.

        Parameters
        ----------
        discover : callable
            candidates -> neighbours: the client's choice.
        timeout : float
            Seconds after which the peer makes do with those that it has found.
        closed : callable
            () -> whether to give up.

        Returns
        -------
        dict
            Neighbour that was found -> its round.
        """
        wanted = None if self._allowed is None else discover(self._allowed)
        found: dict[int, int] = {}
        asked: set[int] = set()

        def search(late: bool = False) -> bool:
            """Call whom it may; return whether all that are wanted are found."""
            nonlocal wanted
            known = self._addresses.all()
            all_known = len(known) == self._addresses.num_clients - 1
            if wanted is None and (late or all_known):
                wanted = discover(list(known))
            for client in sorted(known.keys() & set(wanted or ()) - found.keys()):
                t = self.handshake(client, known[client], link=True)
                if t is not None:
                    found[client] = t
            complete = wanted is not None and set(wanted) <= found.keys()
            if complete or late or closed():
                return True
            for address in self._known:
                if address not in known.values() or wanted is None:
                    self.handshake(None, address, link=False)
            for client in sorted(known.keys() - asked):
                if self.handshake(client, known[client], link=False) is not None:
                    asked.add(client)
            return False

        if not wait_until(search, timeout, every=_PAUSE):
            search(late=True)
        if self._allowed is None and not any(found.values()):
            self._settle(closed)
        return found

    def _settle(self, closed: Callable[[], bool]) -> None:
        """Wait as long as others still choose this peer, before the first round."""
        links = 0

        def new_link() -> bool:
            return len(self._mailbox.neighbours) > links

        while not closed() and wait_until(new_link, _SETTLED):
            links = len(self._mailbox.neighbours)

    def fetch_model(
        self, found: dict[int, int], like: ArrayRecord
    ) -> tuple[int, ArrayRecord, int] | None:
        """Take round and model of a neighbour that has begun, if there is one.

        It is the one in the middle, by rounds: neither the one that says it is far
        ahead, nor the one that is behind. Nobody can say more than one round more than
        the middle one.

        Parameters
        ----------
        found : dict
            Neighbour -> its round.
        like : flwr.app.ArrayRecord
            The model must have its names, shapes and data types.

        Returns
        -------
        tuple or None
            The round, the model, and whose it is.
        """
        rounds = sorted((t, j) for j, t in found.items())
        middle = (len(rounds) - 1) // 2
        for t, j in rounds[middle:] + rounds[:middle][::-1]:
            most = min(t, rounds[middle][0])
            if most == 0:
                continue
            address, name = self._addresses.all()[j], name_of(j)
            try:
                call = self._channels.call(address, name, "Model", b"", 10.0)
                content = records.load(call.result())
                server_round = _whole(content.config_records["gossip"]["round"])
                arrays = check_usable(content["arrays"], like)
                return min(server_round, most + 1), arrays, j
            except _NO_ANSWER:
                continue
        return None


def _whole(value: object) -> int:
    """Return a number that another peer has sent; raise ValueError if it is none."""
    return check_whole("a number of another peer", value, 0)


def _record(**fields: Any) -> bytes:
    return records.dump(RecordDict({"gossip": ConfigRecord(fields)}))
