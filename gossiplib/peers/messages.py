"""What peers say to each other: messages, their bytes, and which of them may be used.

`encode` and `decode` make bytes of a `PeerMessage` and back. Its sender is known by a
certificate (see `transport`); all else that it says may be wrong. A `Mailbox` has a few
messages of each neighbour, hands them out round by round, and counts by reason what it
refuses. It knows nothing of the network.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import NoReturn, TypeAlias

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from gossiplib.system import records
from gossiplib.system.numbers import check_whole
from gossiplib.system.records import unpack

__all__ = ["Mailbox", "PeerMessage", "Refused", "decode", "encode"]

Layout: TypeAlias = list[tuple[str, tuple[int, ...], np.dtype]]

#: Messages that wait for each neighbour. One in step is at most a round ahead.
AHEAD = 4


class Refused(Exception):
    """A message that is not used. Its text is the reason, one of a few."""


@dataclass(frozen=True)
class PeerMessage:
    """What a peer sends to its neighbours in one round.

    Parameters
    ----------
    round : int
        The sender's round, 1, 2, ...
    degree : int
        How many neighbours the sender has.
    start, count : int
        The sequence number: when the sender's process started, and how many messages
        it has sent since. It grows, so one that is late or comes twice is noticed.
    arrays : flwr.app.ArrayRecord or None
        The model; None if the sender could not train in this round.
    """

    round: int
    degree: int
    start: int
    count: int
    arrays: ArrayRecord | None

    @property
    def header(self) -> dict[str, int]:
        """All but the model."""
        return {name: getattr(self, name) for name in _HEADER}


_HEADER = ("round", "degree", "start", "count")


def encode(message: PeerMessage) -> bytes:
    """Return a message as bytes.

    Parameters
    ----------
    message : PeerMessage
        What to send. Its arrays are of numbers.
    """
    content = RecordDict({"gossip": ConfigRecord({**message.header})})
    if message.arrays is not None:
        content["arrays"] = message.arrays
    return records.dump(content)


def decode(data: bytes) -> PeerMessage:
    """Return the message that `encode` made bytes of.

    Parameters
    ----------
    data : bytes
        What came.

    Raises
    ------
    Refused
        If the bytes are anything else, or the model is not of finite numbers.
    """
    try:
        content = records.load(data)
        header = content.config_records["gossip"]
        numbers = {name: check_whole(name, header[name], 0) for name in _HEADER}
    except (ValueError, KeyError):
        raise Refused("malformed") from None
    arrays = content.get("arrays")
    if set(header) != set(_HEADER) or not set(content) <= {"gossip", "arrays"}:
        raise Refused("malformed")
    usable = None if arrays is None else check_usable(arrays)
    return PeerMessage(**numbers, arrays=usable)


def check_usable(arrays: object, like: ArrayRecord | None = None) -> ArrayRecord:
    """Return a model that another peer has sent, if it can be used.

    Raises
    ------
    Refused
        If it is no model, holds other than finite numbers, or has not the names, shapes
        and data types of `like`.
    """
    if not isinstance(arrays, ArrayRecord):
        raise Refused("malformed")
    for array in unpack(arrays):
        if array.dtype.kind not in "biuf":
            raise Refused("another layout")
        if not np.isfinite(array).all():
            raise Refused("not finite")
    if like is not None and _layout(arrays) != _layout(like):
        raise Refused("another layout")
    return arrays


def _layout(arrays: ArrayRecord) -> Layout:
    """Return names, shapes and data types of a model's arrays."""
    parts = zip(arrays, unpack(arrays), strict=True)
    return [(name, array.shape, array.dtype) for name, array in parts]


class Mailbox:
    """Messages of a peer's neighbours.

    Parameters
    ----------
    num_clients : int
        Number of partition ids; a sender is one of 0..num_clients-1.
    max_bytes : int
        Bytes that a message may have.
    num_rounds : int, optional
        The last round. None is without rounds: then no message is late.
    rate : float
        Messages a second that a sender may send for long (a token bucket). It may save
        up as many as it could send in one second, and gets one more in each round.
    clock : callable
        () -> seconds.

    Attributes
    ----------
    neighbours : set of int
        Whose messages are taken.
    alive : set of int
        Those of them that are waited for.
    refused : collections.Counter
        Reason -> messages that were not used.
    """

    def __init__(
        self,
        num_clients: int,
        max_bytes: int,
        num_rounds: int | None = None,
        *,
        rate: float = 200.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.neighbours: set[int] = set()
        self.alive: set[int] = set()
        self.refused: Counter[str] = Counter()
        self._num_clients, self._max_bytes = num_clients, max_bytes
        self._num_rounds, self._rate, self._clock = num_rounds, rate, clock
        self._changed = threading.Condition()
        self._round = 1
        self._layout: Layout | None = None
        self._messages: dict[int, dict[int, PeerMessage]] = {}
        self._newest: dict[int, PeerMessage] = {}  # without its arrays
        self._tokens: dict[int, tuple[float, float]] = {}  # how many, and when
        self._closed = False

    def expect(self, like: ArrayRecord) -> None:
        """Take only models of one layout from now on; refuse others that are here.

        Parameters
        ----------
        like : flwr.app.ArrayRecord
            A model with these names, shapes and data types.
        """
        with self._changed:
            self._layout = _layout(like)
            for waiting in self._messages.values():
                for t in [t for t, one in waiting.items() if not self._fits(one)]:
                    del waiting[t]
                    self.refused["another layout"] += 1

    def _fits(self, message: PeerMessage) -> bool:
        if self._layout is None or message.arrays is None:
            return True
        return _layout(message.arrays) == self._layout

    def link(self, client: int) -> None:
        """Take messages of a neighbour, and wait for them.

        Parameters
        ----------
        client : int
            Its partition id.
        """
        with self._changed:
            self.neighbours.add(client)
            self.alive.add(client)
            self._messages.setdefault(client, {})

    def suspect(self, client: int) -> None:
        """Wait no longer for a neighbour that was not reached, until it sends again.

        Parameters
        ----------
        client : int
            Its partition id.
        """
        with self._changed:
            self.alive.discard(client)
            self._changed.notify_all()

    def close(self) -> None:
        """Let nobody wait any longer."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def admit(self, sender: int, size: int = 0) -> None:
        """Count a message against what its sender may send.

        Parameters
        ----------
        sender : int
            Whose certificate it came with; -1 if that names no client.
        size : int
            Bytes of the message.

        Raises
        ------
        Refused
            If it is too large, or one too many.
        """
        with self._changed:
            if not 0 <= sender < self._num_clients:
                self.refuse("unknown name")
            if size > self._max_bytes:
                self.refuse("too large")
            now = self._clock()
            tokens, then = self._tokens.get(sender, (self._rate, now))
            tokens = min(self._rate, tokens + (now - then) * self._rate)
            self._tokens[sender] = (max(tokens - 1, 0.0), now)
            if tokens < 1:
                self.refuse("too many")

    def refuse(self, reason: str) -> NoReturn:
        """Count a message that is not used.

        Parameters
        ----------
        reason : str
            Why; one of a few.

        Raises
        ------
        Refused
            Always.
        """
        with self._changed:
            self.refused[reason] += 1
        raise Refused(reason)

    def put(self, sender: int, data: bytes) -> PeerMessage:
        """Take a message. A late one is counted, and dropped.

        Parameters
        ----------
        sender : int
            Whose certificate it came with; -1 if that names no client.
        data : bytes
            What came.

        Returns
        -------
        PeerMessage
            What it says.

        Raises
        ------
        Refused
            If it may not be used.
        """
        self.admit(sender, len(data))
        if sender not in self.neighbours:
            self.refuse("not a neighbour")
        try:
            message = decode(data)
        except Refused as refused:
            self.refuse(str(refused))
        t, last = message.round, self._num_rounds
        sequence = (message.start, message.count)
        with self._changed:
            newest = self._newest.get(sender)
            if newest and sequence <= (newest.start, newest.count):
                self.refuse("repeated")
            if not self._fits(message):
                self.refuse("another layout")
            if not 1 <= message.degree < self._num_clients:
                self.refuse("degree")
            if t < 1 or (last is not None and t > last):
                self.refuse("round")
            self._newest[sender] = replace(message, arrays=None)
            self.alive.add(sender)
            waiting = self._messages[sender]
            if last is not None and t < self._round:
                self.refused["late"] += 1
            elif t in waiting:
                self.refuse("repeated")
            else:
                waiting[t] = message
                if len(waiting) > AHEAD:
                    del waiting[min(waiting)]
                    self.refused["no room"] += 1
            self._changed.notify_all()
        return message

    def collect(
        self, server_round: int, neighbours: Collection[int], timeout: float
    ) -> dict[int, PeerMessage]:
        """Return the messages of a round, when all that are alive have sent theirs.

        A neighbour that is a round ahead already owes nothing any more.

        Parameters
        ----------
        server_round : int
            The round. Messages of earlier ones are late from now on.
        neighbours : collection of int
            Whose messages are asked for.
        timeout : float
            Seconds after which it returns what is there. Who was silent is waited for
            no longer, until it sends again.

        Returns
        -------
        dict
            Neighbour -> its message.
        """
        with self._changed:
            self._begin(server_round)
            self._changed.wait_for(
                lambda: self._closed or not self._owing(server_round, neighbours),
                timeout,
            )
            self.alive -= self._owing(server_round, neighbours)
            came = {
                j: self._messages[j].pop(server_round)
                for j in neighbours
                if server_round in self._messages.get(j, {})
            }
            self._begin(server_round + 1)
            for sender, (tokens, then) in self._tokens.items():
                self._tokens[sender] = (tokens + 1, then)
            return came

    def _owing(self, server_round: int, neighbours: Collection[int]) -> set[int]:
        """Return the neighbours that are alive and still owe their message."""
        return {
            j
            for j in self.alive.intersection(neighbours)
            if server_round not in self._messages[j]
            and (j not in self._newest or self._newest[j].round < server_round)
        }

    def _begin(self, server_round: int) -> None:
        """Drop what is late in this round."""
        self._round = server_round
        for waiting in self._messages.values():
            for t in [t for t in waiting if t < server_round]:
                del waiting[t]
                self.refused["late"] += 1

    def next_round(self, server_round: int) -> int:
        """Return this round, or a later one if all that are alive are far ahead of it.

        Two rounds or more is far. The slowest of them decides, so that one neighbour
        that lies about its round cannot drag a peer that has others.

        Parameters
        ----------
        server_round : int
            The round that would be next.
        """
        with self._changed:
            rounds = [
                self._newest[j].round if j in self._newest else 0 for j in self.alive
            ]
            slowest = min(rounds, default=0)
            return slowest if slowest >= server_round + 2 else server_round

    def get(self, timeout: float) -> tuple[int, PeerMessage] | None:
        """Return a sender and its oldest message, each sender in turn.

        Parameters
        ----------
        timeout : float
            Seconds to wait. If nothing comes in time, it returns None.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or any(self._messages.values()), max(timeout, 0)
            )
            for sender, waiting in self._messages.items():
                if waiting:
                    # A sender's turn comes again when the others have had theirs.
                    self._messages[sender] = self._messages.pop(sender)
                    return sender, waiting.pop(min(waiting))
        return None
