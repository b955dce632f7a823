"""What peers say to each other: messages, their bytes, and which of them may be used.

The sender of a message is known by a certificate; all else that it says may be wrong.
"""

import math
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn, TypeAlias

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from gossiplib.system import encoding, records
from gossiplib.system.numbers import check_whole

Layout: TypeAlias = list[tuple[str, tuple[int, ...], np.dtype]]

#: Messages that wait for each neighbour. One in step is at most a round ahead.
AHEAD = 4

#: Asks for more time: how many seconds a neighbour has been at work.
Grant: TypeAlias = Callable[[float], None]

#: The part of the timeout that a neighbour regains in each round. One that is always
#: late comes to twice this part: what is halved and gains 0.1 each time goes to 0.2.
_REGAINED = 0.1

_HEADER = ("round", "degree", "start", "count")

#: Earlier starts of a sender that are remembered, as what they sent may still come.
_STARTS = 16


class Refused(Exception):
    """A message that is not used. Its text is the reason, one of a few."""


@dataclass(frozen=True)
class PeerMessage:
    """What a peer sends to its neighbours in one round.

    Parameters
    ----------
    round, degree : int
        The sender's round, 1, 2, ..., and how many neighbours it has.
    start, count : int
        A number that the sender drew when its process started, and how many messages
        it has sent since. The second grows, so one that is late or comes twice is
        noticed; and who starts anew counts anew, whatever its clock says.
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


def note(arrays: ArrayRecord | None = None, **fields: Any) -> bytes:
    """Return what one peer tells another as bytes: fields, and maybe a model."""
    content = RecordDict({"gossip": ConfigRecord(fields)})
    if arrays is not None:
        content["arrays"] = arrays
    return encoding.dump(content)


def encode(message: PeerMessage) -> bytes:
    """Return a `message` as bytes."""
    return note(message.arrays, **message.header)


def decode(data: bytes, initial: ArrayRecord | None = None) -> PeerMessage:
    """Return the message that `encode` made the bytes `data` of.

    With an `initial` model, its own has no more than some arrays for each of those, and
    may be infinite where that is, as masks are.

    Raises
    ------
    Refused
        If they are anything else, or the model is not of finite numbers.
    """
    try:
        heads = len(_HEADER) + 2  # and those of the two records
        most = None if initial is None else 4 * len(initial) + 16 + heads
        content = encoding.load(data, most)
        header = content.config_records["gossip"]
        numbers = {name: check_whole(name, header[name], 0) for name in _HEADER}
        if len(header) > len(numbers) or not {*content} <= {"gossip", "arrays"}:
            raise Refused("malformed")
    except (ValueError, KeyError):
        raise Refused("malformed") from None
    usable = check_usable(content["arrays"], initial) if "arrays" in content else None
    return PeerMessage(**numbers, arrays=usable)


def check_usable(
    arrays: object, initial: ArrayRecord | None, *, same: bool = False
) -> ArrayRecord:
    """Return a model that another peer has sent, or raise `Refused`.

    It must be of finite numbers, but where `initial` is infinite; and have its names,
    shapes and data types, if it is to be the `same`.
    """
    if not isinstance(arrays, ArrayRecord):
        raise Refused("malformed")
    if same and (initial is None or _layout(arrays) != _layout(initial)):
        raise Refused("another layout")
    initial = initial or ArrayRecord()
    first = dict(zip(initial, records.unpack(initial), strict=True))
    for name, array in zip(arrays, records.unpack(arrays), strict=True):
        if array.dtype.kind not in "biufc":
            raise Refused("another layout")
        if not (usable := np.isfinite(array)).all():
            mask = first.get(name, np.zeros(()))
            if mask.shape == array.shape:
                usable = usable | np.isinf(mask) & (mask == array)
            if not usable.all():
                raise Refused("not finite")
    return arrays


def _layout(arrays: ArrayRecord) -> Layout:
    """Return names, shapes and data types of a model's arrays."""
    parts = zip(arrays, records.unpack(arrays), strict=True)
    return [(name, array.shape, array.dtype) for name, array in parts]


class Mailbox:
    """A few messages of each neighbour, handed out round by round.

    Messages of its `neighbours` are taken; those of them that are `alive` are waited
    for, until it is `closed`. `refused` counts, by reason, what was not used.

    Parameters
    ----------
    num_clients, max_bytes : int
        Senders have the partition ids 0..num_clients-1; bytes that a message may have.
    num_rounds : int, optional
        The last round. None is without rounds: then no message is late.
    initial : flwr.app.ArrayRecord, optional
        The first model, see `decode`.
    rate : float
        Messages a second that a sender may send for long (a token bucket). It may save
        up as many as it could send in one second, and gets one more in each round.
    clock : callable
        () -> seconds.
    """

    def __init__(
        self,
        num_clients: int,
        max_bytes: int,
        num_rounds: int | None = None,
        *,
        initial: ArrayRecord | None = None,
        rate: float = 200.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.neighbours: set[int] = set()
        self.alive: set[int] = set()
        self.refused: Counter[str] = Counter()
        self.closed = False
        self._num_clients, self._max_bytes = num_clients, max_bytes
        self._initial = initial
        self._last = math.inf if num_rounds is None else num_rounds
        self._rate, self._clock = rate, clock
        self._changed = threading.Condition()
        self._round = 1
        self._layout: Layout | None = None
        self._messages: dict[int, dict[int, PeerMessage]] = {}
        self._newest: dict[int, tuple[int, int]] = {}  # start and count of each sender
        # And the starts before.
        self._earlier = defaultdict[int, deque[int]](partial(deque, maxlen=_STARTS))
        self._reached: Counter[int] = Counter()  # the round in which it was sent
        self._tokens: dict[int, tuple[float, float]] = {}  # how many, and when
        self._patience: dict[int, float] = {}  # with each neighbour: 1 is all of it
        self._credit: float | None = None  # rounds to skip on the word of one

    def expect(self, like: ArrayRecord) -> None:
        """Take only models of the layout of `like` from now on; refuse others here."""
        with self._changed:
            self._layout = _layout(like)
            self._drop("another layout", lambda one: not self._fits(one))

    def _fits(self, message: PeerMessage) -> bool:
        if self._layout is None or message.arrays is None:
            return True
        return _layout(message.arrays) == self._layout

    def _drop(self, reason: str, is_useless: Callable[[PeerMessage], bool]) -> None:
        for waiting in self._messages.values():
            for t in [t for t, one in waiting.items() if is_useless(one)]:
                del waiting[t]
                self.refused[reason] += 1

    def link(self, client: int) -> None:
        """Take messages of a neighbour, this `client`, and wait for them."""
        with self._changed:
            self.neighbours.add(client)
            self.alive.add(client)
            self._messages.setdefault(client, {})

    def suspect(self, client: int) -> None:
        """Wait no longer for a `client` that was not reached, until it sends again."""
        with self._changed:
            self.alive.discard(client)
            self._changed.notify_all()

    def close(self) -> None:
        """Let nobody wait any longer."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    def admit(self, sender: int, size: int, *, linked: bool = False) -> None:
        """Count a message, or refuse it: its `sender`, `size`, or if not `linked`."""
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
        if linked and sender not in self.neighbours:
            self.refuse("not a neighbour")

    def refuse(self, reason: str) -> NoReturn:
        """Raise `Refused`, for this `reason`, and count it."""
        with self._changed:
            self.refused[reason] += 1
        raise Refused(reason)

    def put(self, sender: int, data: bytes) -> PeerMessage:
        """Return and keep the message in `data` of a `sender`, or raise `Refused`."""
        self.admit(sender, len(data), linked=True)
        try:
            message = decode(data, self._initial)
        except Refused as refused:
            self.refuse(str(refused))
        t, start, count = message.round, message.start, message.count
        with self._changed:
            current, newest = self._newest.get(sender, (start, -1))
            if start in self._earlier[sender] or (start == current and count <= newest):
                self.refuse("repeated")
            if not self._fits(message):
                self.refuse("another layout")
            if not 1 <= message.degree < self._num_clients:
                self.refuse("degree")
            if not 1 <= t <= self._last:
                self.refuse("round")
            if start != current:
                self._earlier[sender].append(current)
            self._newest[sender], self._reached[sender] = (start, count), t
            self.alive.add(sender)
            waiting = self._messages[sender]
            if t < self._round:
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
        self,
        server_round: int,
        neighbours: Collection[int],
        timeout: float,
        most: float = 0.0,
        ask: Callable[[int, Grant], None] = lambda client, grant: None,
    ) -> dict[int, PeerMessage]:
        """Return neighbour -> message of a round, when all that are alive have sent it.

        Who is silent for `timeout` seconds is waited for no longer, until it sends
        again; and then half as long. Each round gives a tenth of the timeout back.

        The time is meant for a neighbour's own work, not for its waiting for a third:
        whoever outran it then would lose both. So it is asked what it does before its
        time is over, and may be granted more.

        Parameters
        ----------
        server_round, neighbours : int, collection of int
            The round, and whose messages are asked for. Earlier ones are late now.
        timeout, most : float
            Seconds to wait for each; and in all, whatever is granted.
        ask : callable
            (client, grant) -> None. It asks a neighbour, and waits for no answer. When
            this comes, `grant(seconds)` says for how long the neighbour is at work now.
        """

        def owing() -> set[int]:
            return {
                j
                for j in self.alive.intersection(neighbours)
                if server_round not in self._messages[j]
                and self._reached[j] < server_round
            }

        def over() -> bool:
            return self.closed or not owing()

        begin = time.monotonic()
        shares = {j: self._patience.get(j, 1.0) for j in neighbours}
        until = {j: begin + timeout * share for j, share in shares.items()}

        def grant(client: int, seconds: float) -> None:
            share = shares[client]
            longer = time.monotonic() + timeout * share - seconds
            until[client] = max(until[client], min(longer, begin + most * share))

        with self._changed:
            self._begin(server_round)
            while not over():
                late = owing()
                now = time.monotonic()
                if silent := {j for j in late if until[j] <= now}:
                    self.alive -= silent
                    shares |= {j: self._patience.get(j, 1.0) / 2 for j in silent}
                    continue
                wait = min(min(until[j] - now, timeout * shares[j] / 2) for j in late)
                if not self._changed.wait_for(over, wait):
                    for j in owing():
                        ask(j, partial(grant, j))
            came = {
                j: self._messages[j].pop(server_round)
                for j in neighbours
                if server_round in self._messages.get(j, {})
            }
            self._patience |= {j: min(shares[j] + _REGAINED, 1.0) for j in shares}
            self._begin(server_round + 1)
            self._tokens |= {j: (n + 1, then) for j, (n, then) in self._tokens.items()}
            return came

    def _begin(self, server_round: int) -> None:
        self._round = server_round
        self._drop("late", lambda one: one.round < server_round)

    def next_round(self, server_round: int) -> int:
        """Return this `server_round`, or a later one if all alive are far ahead of it.

        The slowest of them decides, so that one that lies about its round cannot drag a
        peer that hears others; for one that hears no other, see `believe`.
        """
        with self._changed:
            claims = [self._reached[j] for j in self.alive]
            slowest = min(claims, default=0)
            if slowest < server_round + 2:
                return server_round
            return self.believe(server_round - 1, slowest - 1, len(claims)) + 1

    def believe(self, own: int, claim: int, witnesses: int) -> int:
        """Return the round, `own` to `claim`, that so many `witnesses` may take one to.

        What two or more say is believed. One alone can make a peer skip half of the
        rounds that were left when it first did so, in all.
        """
        if witnesses > 1:
            return claim
        if self._credit is None:
            self._credit = (self._last - own) // 2
        skipped = int(min(claim - own, self._credit))
        self._credit -= skipped
        return own + skipped

    def get(self, timeout: float) -> tuple[int, PeerMessage] | None:
        """Return a sender and its oldest message, in turn; None after the `timeout`."""
        with self._changed:
            self._changed.wait_for(
                lambda: self.closed or any(self._messages.values()), max(timeout, 0)
            )
            for sender, waiting in self._messages.items():
                if waiting:
                    # A sender's turn comes again when the others have had theirs.
                    self._messages[sender] = self._messages.pop(sender)
                    return sender, waiting.pop(min(waiting))
        return None
