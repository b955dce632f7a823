"""How a peer finds its neighbours: it says hello, and asks those that it meets.

A hello tells who is where and whether the caller wants a link, and is answered with
whom the other knows. So one known peer is enough to find all. Links are mutual.
"""

import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

import grpc
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from gossiplib.core import models
from gossiplib.core.models import check_arrays
from gossiplib.peers.messages import Mailbox
from gossiplib.peers.transport import Channels, Contacts, name_of
from gossiplib.system.records import unpack

__all__ = ["Joining"]

_PAUSE = 0.2  # seconds between two looks around
_SETTLED = 1.0  # seconds without a new link, after which all have chosen

#: The name that each certificate holds beside its own; for peers of unknown name.
_ANY = "localhost"


class Joining:
    """Find neighbours, and be found.

    Parameters
    ----------
    client, clients : int
        The own partition id, and how many there are.
    address : str
        Where this peer listens.
    know : sequence of str
        Addresses of peers to ask first.
    among : collection of int, optional
        Partition ids that may be neighbours; by default all.
    mailbox : Mailbox
        Takes the neighbours.
    channels : Channels
        How others are called.

    Attributes
    ----------
    contacts : Contacts
        Who is where.
    """

    def __init__(
        self,
        client: int,
        clients: int,
        address: str,
        know: Sequence[str],
        among: Collection[int] | None,
        mailbox: Mailbox,
        channels: Channels,
    ) -> None:
        self._client, self._clients = client, clients
        self._address, self._know = address, know
        self._among = None if among is None else set(among) - {client}
        self._mailbox, self._channels = mailbox, channels
        self.contacts = Contacts(client, clients)

    def answer(self, sender: int, data: bytes, server_round: int) -> bytes:
        """Answer a hello; raise Refused if it is none."""
        try:
            told = models.load(data)["gossip"]
            address, wants = told["address"], told["link"]
            if not isinstance(address, str) or not isinstance(wants, bool):
                raise ValueError("not a hello")
        except (ValueError, KeyError, TypeError):
            self._mailbox.refuse("malformed")
        self.contacts.confirm(sender, address)
        linked = wants and (self._among is None or sender in self._among)
        if linked:
            # One that was lost may have started anew. One that is new may be answering
            # our own hello just now, which to connect anew would break off.
            if sender in self._mailbox.neighbours - self._mailbox.alive:
                self._channels.forget(name_of(sender))
            self._mailbox.link(sender)
        known = self.contacts.all()
        return _record(
            client=self._client,
            round=server_round,
            linked=linked,
            neighbours=sorted(self._mailbox.neighbours),
            clients=list(known),
            addresses=list(known.values()),
        )

    def greet(
        self, client: int | None, address: str, *, link: bool
    ) -> dict[str, Any] | None:
        """Say hello; return the answer, or None if there is none of use."""
        name = _ANY if client is None else name_of(client)
        data = _record(address=self._address, link=link)
        try:
            reply = self._channels.call(address, name, "Hello", data, 1.0).result()
            told = dict(models.load(reply)["gossip"])
            known = list(zip(told["clients"], told["addresses"], strict=True))
            linked, server_round = bool(told["linked"]), _whole(told["round"])
            for other, at in [(told["client"], address), *known]:
                self.contacts.hear(_whole(other), str(at))
        except (grpc.RpcError, ValueError, KeyError, TypeError):
            if client is not None:
                self.contacts.missed(client)
            return None
        if client is None:
            self._channels.forget(_ANY)  # for the next address
        else:
            self.contacts.confirm(client, address)
            if link and linked:
                self._mailbox.link(client)
        return {"linked": linked, "round": server_round}

    def join(
        self,
        discover: Callable[[list[int]], list[int]],
        patience: float,
        closed: Callable[[], bool],
    ) -> dict[int, int]:
        """Find neighbours; return those that were found, and in which round they are.

        Parameters
        ----------
        discover : callable
            candidates -> neighbours: the client's choice.
        patience : float
            Seconds after which the peer makes do with those that it has found.
        closed : callable
            () -> whether to give up.
        """
        deadline = time.monotonic() + patience
        wanted = None if self._among is None else discover(sorted(self._among))
        found: dict[int, int] = {}
        asked: set[int] = set()
        while not closed():
            late = time.monotonic() > deadline
            known = self.contacts.all()
            if wanted is None and (late or len(known) == self._clients - 1):
                wanted = discover(list(known))
            for client in wanted or ():
                if client in known and client not in found:
                    told = self.greet(client, known[client], link=True)
                    if told and told["linked"]:
                        found[client] = told["round"]
            if wanted is not None and (late or set(wanted) <= set(found)):
                break
            for address in self._know:
                if address not in known.values() or wanted is None:
                    self.greet(None, address, link=False)
            for client, address in known.items():
                if client not in asked and self.greet(client, address, link=False):
                    asked.add(client)
            time.sleep(_PAUSE)
        if self._among is None and not any(found.values()):
            self._settle(closed)
        return found

    def _settle(self, closed: Callable[[], bool]) -> None:
        """Wait as long as others still choose this peer, before the first round."""
        links, since = 0, time.monotonic()
        while time.monotonic() < since + _SETTLED and not closed():
            if len(self._mailbox.neighbours) > links:
                links, since = len(self._mailbox.neighbours), time.monotonic()
            time.sleep(_PAUSE / 4)

    def fetch_model(
        self, found: dict[int, int], like: ArrayRecord
    ) -> tuple[int, ArrayRecord, int] | None:
        """Take round and model of a neighbour that has begun, if there is one.

        It is the one in the middle, by rounds: neither the one that says it is far
        ahead, nor the one that is behind. Nobody can say more than one round more than
        the middle one. Returns the round, the model, and whose.
        """
        rounds = sorted((t, j) for j, t in found.items())
        middle = (len(rounds) - 1) // 2
        for most, j in rounds[middle:] + rounds[:middle][::-1]:
            most = min(most, rounds[middle][0])
            if most == 0:
                continue
            address = self.contacts.all()[j]
            try:
                call = self._channels.call(address, name_of(j), "Model", b"", 10.0)
                content = models.load(call.result())
                server_round, arrays = content["gossip"]["round"], content["arrays"]
                _check_layout(arrays, like)
                return min(_whole(server_round), most + 1), arrays, j
            except (grpc.RpcError, ValueError, KeyError, TypeError):
                continue
        return None


def _whole(value: Any) -> int:
    """Return a number that another peer has told; raise ValueError if it is none."""
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no whole number")
    return value


def _check_layout(arrays: Any, like: ArrayRecord) -> None:
    """Raise ValueError unless a model can take the place of another."""
    if not isinstance(arrays, ArrayRecord):
        raise ValueError("not a model")
    check_arrays(arrays, like)
    if [a.dtype for a in unpack(arrays)] != [a.dtype for a in unpack(like)]:
        raise ValueError("its arrays have other data types")


def _record(**told: Any) -> bytes:
    return models.dump(RecordDict({"gossip": ConfigRecord(told)}))
