"""What peers say to their neighbours: a letter a round, as bytes and back.

Whoever opens one gets what a letter may hold, or `Refused`. Whether it comes at the
right time, and from whom, is for the `messages` to tell.

A peer's mailbox: what has come from its neighbours, and whether it may be used.

Whoever sends is known by a certificate (see `transport`); all else that a letter says
may be wrong. The mailbox keeps a few letters of each neighbour, hands them out round by
round, and counts what it refuses, by reason. It knows nothing of the network.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from typing import NamedTuple

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from gossiplib.core import models
from gossiplib.system.records import unpack

__all__ = [
    "AHEAD",
    "Letter",
    "Mailbox",
    "Refused",
    "close_letter",
    "layout",
    "open_letter",
]

_TOLD = ("round", "degree", "start", "count")


class Refused(Exception):
    """A message that is not used. Its text is the reason, one of a few."""


class Letter(NamedTuple):
    """What one peer says to its neighbours in one round.

    Attributes
    ----------
    round : int
        The sender's round, 1, 2, ...
    degree : int
        To how many neighbours the sender speaks.
    start, count : int
        When the sender's process started, and how many letters it has sent since. They
        grow with each letter, so one that is late or comes twice is noticed.
    arrays : flwr.app.ArrayRecord or None
        The model, or None: the sender could not train in this round.
    """

    round: int
    degree: int
    start: int
    count: int
    arrays: ArrayRecord | None


def close_letter(letter: Letter) -> bytes:
    """Return a letter as bytes."""
    told = {name: getattr(letter, name) for name in _TOLD}
    content = RecordDict({"gossip": ConfigRecord(told)})
    if letter.arrays is not None:
        content["arrays"] = letter.arrays
    return models.dump(content)


def open_letter(data: bytes) -> Letter:
    """Return the letter in these bytes; raise Refused if they are none."""
    try:
        content = models.load(data)
    except ValueError:
        raise Refused("malformed") from None
    told, arrays = content.pop("gossip", None), content.pop("arrays", None)
    if content or not isinstance(told, ConfigRecord) or set(told) != set(_TOLD):
        raise Refused("malformed")
    if any(type(value) is not int or value < 0 for value in told.values()):
        raise Refused("malformed")
    if arrays is not None and not isinstance(arrays, ArrayRecord):
        raise Refused("malformed")
    for array in unpack(arrays or ArrayRecord()):
        if array.dtype.kind not in "biuf":
            raise Refused("another layout")
        if not np.isfinite(array).all():
            raise Refused("not finite")
    return Letter(*(told[name] for name in _TOLD), arrays)


def layout(arrays: ArrayRecord) -> list[tuple]:
    """Return names, shapes and data types of a model's arrays."""
    parts = zip(arrays, unpack(arrays), strict=True)
    return [(name, array.shape, array.dtype) for name, array in parts]


#: Messages kept of each neighbour. One that keeps step is at most a round ahead.
AHEAD = 4


class Mailbox:
    """Letters of a peer's neighbours.

    Parameters
    ----------
    clients : int
        Number of partition ids; a sender is one of 0..clients-1.
    largest : int
        Bytes that a message may have.
    rounds : int, optional
        The last round. None is without rounds: then no letter is late.
    rate : float
        Messages a second that a sender may send for long. It may save up as many as it
        could send in one second, and gets one more in each round.
    clock : callable
        () -> seconds.

    Attributes
    ----------
    neighbours : set of int
        Whose letters are taken.
    alive : set of int
        Those of them that are waited for.
    refused : collections.Counter
        Reason -> messages that were not used.
    """

    def __init__(
        self,
        clients: int,
        largest: int,
        rounds: int | None = None,
        *,
        rate: float = 200.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.neighbours: set[int] = set()
        self.alive: set[int] = set()
        self.refused: Counter[str] = Counter()
        self._clients, self._largest, self._rounds = clients, largest, rounds
        self._rate, self._clock = rate, clock
        self._changed = threading.Condition()
        self._now = 1
        self._layout: list[tuple] | None = None
        self._letters: dict[int, dict[int, Letter]] = {}
        self._newest: dict[int, Letter] = {}  # without its arrays
        self._tokens: dict[int, tuple[float, float]] = {}  # how many, and when
        self._closed = False

    def expect(self, like: ArrayRecord) -> None:
        """Take only models of this layout from now on; refuse others that are here."""
        with self._changed:
            self._layout = layout(like)
            for letters in self._letters.values():
                for t in [t for t, one in letters.items() if not self._fits(one)]:
                    del letters[t]
                    self.refused["another layout"] += 1

    def _fits(self, letter: Letter) -> bool:
        known = self._layout is not None and letter.arrays is not None
        return not known or layout(letter.arrays) == self._layout

    def link(self, client: int) -> None:
        """Take letters of this neighbour, and wait for them."""
        with self._changed:
            self.neighbours.add(client)
            self.alive.add(client)
            self._letters.setdefault(client, {})

    def mute(self, client: int) -> None:
        """Wait no longer for this neighbour, until it is heard again."""
        with self._changed:
            self.alive.discard(client)
            self._changed.notify_all()

    def close(self) -> None:
        """Let nobody wait any longer."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def admit(self, sender: int, size: int = 0) -> None:
        """Count a message against what its sender may send; raise Refused beyond."""
        with self._changed:
            if not 0 <= sender < self._clients:
                self.refuse("unknown name")
            if size > self._largest:
                self.refuse("too large")
            tokens, then = self._tokens.get(sender, (self._rate, self._clock()))
            now = self._clock()
            tokens = min(self._rate, tokens + (now - then) * self._rate)
            self._tokens[sender] = (max(tokens - 1, 0.0), now)
            if tokens < 1:
                self.refuse("too many")

    def refuse(self, reason: str) -> None:
        """Count a message that is not used, and raise Refused."""
        with self._changed:
            self.refused[reason] += 1
        raise Refused(reason)

    def put(self, sender: int, data: bytes) -> Letter:
        """Take a letter, or raise Refused. A late one is counted, and not kept."""
        self.admit(sender, len(data))
        if sender not in self.neighbours:
            self.refuse("not a neighbour")
        try:
            letter = open_letter(data)
        except Refused as refused:
            self.refuse(str(refused))
        with self._changed:
            last = self._newest.get(sender)
            if last and (letter.start, letter.count) <= (last.start, last.count):
                self.refuse("repeated")
            if not self._fits(letter):
                self.refuse("another layout")
            if not 1 <= letter.degree < self._clients:
                self.refuse("degree")
            if letter.round < 1 or (self._rounds and letter.round > self._rounds):
                self.refuse("round")
            self._newest[sender] = letter._replace(arrays=None)
            self.alive.add(sender)
            letters = self._letters[sender]
            if self._rounds and letter.round < self._now:
                self.refused["late"] += 1
            elif letter.round in letters:
                self.refuse("repeated")
            else:
                letters[letter.round] = letter
                if len(letters) > AHEAD:
                    del letters[min(letters)]
                    self.refused["no room"] += 1
            self._changed.notify_all()
        return letter

    def collect(
        self, server_round: int, neighbours: Collection[int], seconds: float
    ) -> dict[int, Letter]:
        """Return the letters of a round, when all that are alive have sent theirs.

        After so many seconds it returns what is there, and mutes who was silent. A
        neighbour that is a round ahead already owes nothing any more.
        """
        with self._changed:
            self._now = server_round
            self._drop_late()
            self._changed.wait_for(
                lambda: self._closed or not self._owing(server_round, neighbours),
                seconds,
            )
            self.alive -= self._owing(server_round, neighbours)
            came = {
                j: self._letters[j].pop(server_round)
                for j in neighbours
                if server_round in self._letters.get(j, {})
            }
            self._now = server_round + 1
            self._drop_late()
            for sender, (tokens, then) in self._tokens.items():
                self._tokens[sender] = (tokens + 1, then)
            return came

    def _owing(self, server_round: int, neighbours: Collection[int]) -> set[int]:
        """Return the neighbours that are alive and still owe their letter."""
        return {
            j
            for j in self.alive.intersection(neighbours)
            if server_round not in self._letters[j]
            and (j not in self._newest or self._newest[j].round < server_round)
        }

    def _drop_late(self) -> None:
        for letters in self._letters.values():
            for t in [t for t in letters if t < self._now]:
                del letters[t]
                self.refused["late"] += 1

    def next_round(self, server_round: int) -> int:
        """Return this round, or a later one if all that are alive are far ahead of it.

        Two rounds or more is far. The slowest of them decides, so that one neighbour
        that lies about its round cannot drag a peer that hears others.
        """
        with self._changed:
            newest = [self._newest.get(j) for j in self.alive]
            if newest and all(n and n.round >= server_round + 2 for n in newest):
                return min(n.round for n in newest)
            return server_round

    def take(self, seconds: float) -> tuple[int, Letter] | None:
        """Return a letter that has come, and its sender; None if none comes in time."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or any(self._letters.values()), max(seconds, 0)
            )
            for sender, letters in self._letters.items():
                if letters:
                    # A sender's turn comes again when the others have had theirs.
                    self._letters[sender] = self._letters.pop(sender)
                    return sender, letters.pop(min(letters))
        return None
