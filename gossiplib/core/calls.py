"""Calling the clients: which node is which client, and which calls were lost.

A reply may be an error, come too late, or never. A client that owes a reply gets no new
message, because two calls at once would overwrite each other's changes of its state. A
message holds for twice the timeout: after that a reply is no longer owed. A node may be
killed and come back, with an empty state, or the client come back on another node.
"""

import logging
import re
import secrets
from collections.abc import Callable, Iterable
from typing import TypeAlias, TypeVar

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from gossiplib.core.result import GossipResult, Loss
from gossiplib.system.numbers import check_seconds
from gossiplib.system.records import array_bytes, array_records
from gossiplib.system.runs import wait_until

#: Flower's ClientAppException, which ends what Ray and SuperNodes report of an error.
_RAISED = re.compile(r"Exception ClientAppException occurred\. Message: (.*)'>", re.S)
#: How Flower reports other errors of a worker; Ray adds more lines, with its paths.
_FAILED = re.compile(r"<class '(?:\w+\.)*(\w+)'>:<['\"](.*?)(?:['\"]>)?$", re.M)

T = TypeVar("T")
Record: TypeAlias = ArrayRecord | MetricRecord | ConfigRecord

logger = logging.getLogger("gossiplib")


class Calls:
    """Calls from one server to its clients, in one run.

    `timeout` is in seconds, None is for ever; `result` takes bytes and what is lost.
    Clients keep the number of the `run` when they join: one that does not know it has
    been restarted since, or never joined.
    """

    def __init__(
        self,
        grid: Grid,
        timeout: float | None,
        result: GossipResult,
        run: int | None = None,
    ) -> None:
        if timeout is not None:
            check_seconds("timeout", timeout)
        self.nodes: dict[int, int] = {}  # partition id -> node id, of all that joined
        self.server_round = 0  # that bytes and losses are booked to
        self.run = secrets.randbits(62) if run is None else run
        self.why_missing = "is not on the grid"
        self.result = result
        self._clients: dict[int, int] = {}  # node id -> partition id
        self._grid, self._timeout = grid, timeout
        self._ttl = 2 * timeout if timeout else None  # seconds that a message holds
        self._asked: set[int] = set()  # nodes that were asked to join
        self._owed: dict[str, int] = {}  # id of a message not answered -> node id
        self._warned: set[tuple[int, str]] = set()

    def join(self, n: int, wait: float) -> None:
        """Let the clients 0..n-1 join; wait until for `wait` seconds no other appears.

        Raise ValueError if their partitions are not the n nodes of the graph, and
        RuntimeError if nobody joins.
        """
        failures: list[str] = []

        def settled() -> bool:
            return bool(self._unasked()) or len(self._asked) + len(self._owed) >= n

        # Replies may take long (Ray starts first), and others may have come meanwhile:
        # each wait begins anew after them.
        while wait_until(settled, wait, every=0.1) and (new := self._unasked()):
            for _, reply in self._invite(new):
                if reply.has_error():
                    failures.append(_reason(reply))
                else:
                    self._admit(reply, n)
        if failures and len(self.nodes) < n:
            self.why_missing += f"; a client that did not join says: {failures[0]}"
        if not self.nodes:
            owed = f"none of {len(self._owed)} did answer" if self._owed else ""
            why = [*failures, owed or f"none appeared within {wait:g} s"][0]
            raise RuntimeError(
                f"no client joined: {why}. Is the ClientApp a gossip client, "
                "gossip(app)?"
            )

    def welcome(self, n: int) -> list[int]:
        """Let clients join that have come late, or come back; return them.

        A node may take the place of one that is gone or owes a reply; else it is
        refused, and asked again next time.
        """
        self._collect_late_replies()
        joined = []
        for node, reply in self._invite(self._unasked()):
            try:
                if reply.has_error():
                    raise ValueError(_reason(reply))
                joined.append(self._admit(reply, n))
            except ValueError as error:
                self._asked.discard(node)
                if (node, "query.join") not in self._warned:
                    self._warned.add((node, "query.join"))
                    logger.warning("node %d cannot join: %s", node, error)
        return sorted(joined)

    def lapse(self, client: int, call: str) -> None:
        """Book a call to a client that forgot the run; `welcome` lets it join again."""
        self._asked.discard(self.nodes[client])
        self.lose(client, call, "does not know of this run: it was restarted")

    def _unasked(self) -> list[int]:
        """Return the nodes that were not yet asked to join."""
        known = self._asked.union(self._owed.values())
        return [node for node in self._grid.get_node_ids() if node not in known]

    def _invite(self, nodes: list[int]) -> list[tuple[int, Message]]:
        """Ask nodes to join; return those that answer, each with its reply."""
        told = RecordDict({"gossip": ConfigRecord({"run": self.run})})
        answered, _ = self._ask(
            [Message(told, node, "query.join", ttl=self._ttl) for node in nodes]
        )
        came = [(message.metadata.dst_node_id, reply) for message, reply in answered]
        self._asked.update(node for node, _ in came)
        return came

    def _ask(
        self, messages: list[Message]
    ) -> tuple[list[tuple[Message, Message]], list[Message]]:
        """Return messages with their replies, and those whose nodes now owe one."""
        came = list(self._grid.send_and_receive(messages, timeout=self._timeout))
        # Sending gave the messages their ids. Where a node is gone, the SuperLink
        # answers in its place, so the sender of a reply does not tell whose it is.
        waiting = {message.metadata.message_id: message for message in messages}
        answered = []
        for reply in came:  # some come twice, or answer no call of this round
            if (answers := reply.metadata.reply_to_message_id) in waiting:
                answered.append((waiting.pop(answers), reply))
        self._owed |= {i: m.metadata.dst_node_id for i, m in waiting.items()}
        return answered, list(waiting.values())

    def _admit(self, reply: Message, n: int) -> int:
        node = reply.metadata.src_node_id
        who = reply.content.config_records.get("gossip", ConfigRecord())
        client, partitions = who.get("partition-id"), who.get("num-partitions")
        if not isinstance(client, int) or not isinstance(partitions, int):
            raise ValueError(
                f"a node does not tell which client it is: {dict(who)}. Is the "
                "ClientApp a gossip client, gossip(app)?"
            )
        if partitions != n or not 0 <= client < n:
            raise ValueError(
                f"the graph has {n} nodes, so the clients must be 0..{n - 1}; this is "
                f"client {client} of {partitions}"
            )
        twin = self.nodes.get(client, node)
        if twin != node and twin not in self._owed.values():
            if twin in self._grid.get_node_ids():
                raise ValueError(f"two clients have the partition id {client}")
        self._clients.pop(twin, None)
        self.nodes[client] = node
        self._clients[node] = client
        return client

    def message(self, call: str, client: int, **records: Record) -> Message:
        """Write a message to a client."""
        return Message(RecordDict(records), self.nodes[client], call, ttl=self._ttl)

    def client_of(self, message: Message) -> int:
        """Return the partition id of the client that sent a reply."""
        return self._clients[message.metadata.src_node_id]

    def read(
        self, reply: Message, parse: Callable[[RecordDict], T], what: str = "its model"
    ) -> T | None:
        """Return what `parse` makes of a reply, or book the call as lost."""
        try:
            return parse(reply.content)
        except Exception as error:  # whatever comes of bytes that a client has made up
            reason = f"{what} cannot be used: {error}"
            self.lose(self.client_of(reply), reply.metadata.message_type, reason)
            return None

    def send(
        self, messages: Iterable[Message], *, counted: bool = True
    ) -> list[Message]:
        """Call clients; return the replies, in order; book all that fails as lost.

        With `counted`, the bytes of the models are booked as traffic.
        """
        self._collect_late_replies()
        ready: list[Message] = []
        for message in messages:
            if message.metadata.dst_node_id in self._owed.values():
                self._lose(message, "still owes an earlier reply")
            else:
                ready.append(message)
        answered, silent = self._ask(ready)
        replies = []
        for message, reply in answered:
            if reply.has_error():
                self._lose(message, _reason(reply))
            else:
                replies.append(reply)
        wait = "" if self._timeout is None else f" in {self._timeout:g} s"
        for message in silent:
            self._lose(message, f"no reply{wait}")
        if counted:
            sent = sum(
                array_bytes(arrays)
                for message in ready + replies
                for arrays in array_records(message.content)
            )
            booked = self.result.server_bytes
            booked[self.server_round] = booked.get(self.server_round, 0) + sent
        return sorted(replies, key=self.client_of)

    def book(self, models: list[ArrayRecord]) -> None:
        """Count models that clients receive from neighbours."""
        t, result = self.server_round, self.result
        size = sum(map(array_bytes, models))
        result.messages[t] = result.messages.get(t, 0) + len(models)
        result.bytes[t] = result.bytes.get(t, 0) + size

    def _collect_late_replies(self) -> None:
        """Forget what is owed no longer: it has come, or its message has expired."""
        if self._owed:
            for reply in self._grid.pull_messages(list(self._owed)):
                self._owed.pop(reply.metadata.reply_to_message_id, None)

    def _lose(self, message: Message, reason: str) -> None:
        client = self._clients[message.metadata.dst_node_id]
        self.lose(client, message.metadata.message_type, reason)

    def lose(self, client: int, call: str, reason: str) -> None:
        """Book a call as lost; warn at the first loss of a client in this call."""
        loss = Loss(self.server_round, client, call, reason)
        if (client, call) not in self._warned:
            self._warned.add((client, call))
            logger.warning("round %d: client %d lost in %s: %s", *loss)
        self.result.lost.append(loss)


def _reason(reply: Message) -> str:
    """Return why a call failed, without what Ray and Flower put around it."""
    reason = reply.error.reason or "no reason is given"
    if raised := _RAISED.search(reason):
        return raised[1].strip()
    if failed := _FAILED.search(reason):
        return f"{failed[1]}: {failed[2].strip()}"
    return reason
