"""A peer's outbox: letters on their way to its neighbours.

They go to all neighbours at once, so one that hangs delays no other, and to each in
order: the next when the last was answered.
"""

import threading
import time
from collections.abc import Sequence
from functools import partial

import grpc
from flwr.app import ArrayRecord

from gossiplib.contacts import Contacts
from gossiplib.journal import Journal
from gossiplib.letters import Letter, close_letter
from gossiplib.mailbox import AHEAD, Mailbox
from gossiplib.wire import Channels, name_of

__all__ = ["Outbox"]


class Outbox:
    """Send letters, and note what became of them.

    Parameters
    ----------
    channels : Channels
        How neighbours are called.
    contacts : Contacts
        Where they are.
    mailbox : Mailbox
        Told of neighbours that are not reached, to wait for them no longer.
    journal : Journal
        Where letters and losses are written down.
    deadline : float
        Seconds after which a letter that is not answered is lost.
    """

    def __init__(
        self,
        channels: Channels,
        contacts: Contacts,
        mailbox: Mailbox,
        journal: Journal,
        deadline: float,
    ) -> None:
        self._channels, self._contacts = channels, contacts
        self._mailbox, self._journal = mailbox, journal
        self._deadline = deadline
        self._start, self._count = time.time_ns(), 0
        self._last: tuple[Letter, bytes] | None = None
        self._lock = threading.Lock()
        self._waiting: dict[int, list[tuple[Letter, bytes]]] = {}

    def send(
        self, t: int, degree: int, arrays: ArrayRecord | None, to: Sequence[int]
    ) -> None:
        """Send a letter of round t to neighbours, and wait for none of them."""
        self._count += 1
        letter = Letter(t, degree, self._start, self._count, arrays)
        self._last = letter._replace(arrays=None), close_letter(letter)
        for j in to:
            self._put(j, *self._last)

    def repeat(self, client: int) -> None:
        """Send the last letter to a neighbour that has just come, and missed it."""
        if self._last is not None:
            self._put(client, *self._last)

    def _put(self, client: int, letter: Letter, data: bytes) -> None:
        with self._lock:
            waiting = self._waiting.setdefault(client, [])
            before = len(waiting)
            if before < AHEAD:
                waiting.append((letter, data))
        if before >= AHEAD:  # it hangs: keep no more for it in memory
            reason = "still owes answers to earlier letters"
            self._journal.lose(letter.round, client, "Push", reason)
        elif not before:
            self._send_first(client)

    def _send_first(self, client: int) -> None:
        letter, data = self._waiting[client][0]
        address = self._contacts.all().get(client)
        if address is None:  # it never was there
            self._waiting[client].clear()
            return
        more = {"start": letter.start, "count": letter.count}
        self._journal.note("sent", letter.round, other=client, bytes=len(data), **more)
        push = self._channels.call(
            address, name_of(client), "Push", data, self._deadline
        )
        push.add_done_callback(partial(self._answered, letter.round, client))

    def _answered(self, t: int, client: int, push: grpc.Future) -> None:
        """Note what became of a letter, and send the next one."""
        code = grpc.StatusCode.CANCELLED if push.cancelled() else push.code()
        if code is grpc.StatusCode.PERMISSION_DENIED:
            self._journal.lose(t, client, "Push", f"refused: {push.details()}")
        elif code is not grpc.StatusCode.OK:
            self._mailbox.mute(client)
            self._journal.lose(t, client, "Push", f"not reached: {code.name}")
        with self._lock:
            del self._waiting[client][0]
            if code is grpc.StatusCode.CANCELLED:  # this peer closes
                self._waiting[client].clear()
            more = bool(self._waiting[client])
        if more:
            self._send_first(client)

    def empty(self) -> bool:
        """Tell whether all letters were answered, or are lost."""
        with self._lock:
            return not any(self._waiting.values())
