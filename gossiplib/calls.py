"""Calling the clients: which node is which client, and which calls were lost.

The server's algorithm is in `server`; this module knows how messages fail. A reply may
be an error, come too late, or never. A client that owes a reply gets no new message,
because two calls at once would overwrite each other's changes of its state.
"""

import logging
import re
import time
from collections.abc import Iterable

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from gossiplib.arrays import array_bytes, array_records
from gossiplib.result import GossipResult, Loss

__all__ = ["Calls"]

#: Flower's ClientAppException, which ends what Ray and SuperNodes report of an error.
_RAISED = re.compile(r"Exception ClientAppException occurred\. Message: (.*)'>", re.S)

logger = logging.getLogger("gossiplib")


class Calls:
    """Calls from one server to its clients, in one run.

    Parameters
    ----------
    grid : flwr.serverapp.Grid
        Where the clients are.
    timeout : float
        Seconds to wait for the replies to a set of calls.
    result : GossipResult
        Takes the bytes and what is lost.

    Attributes
    ----------
    nodes : dict[int, int]
        Partition id -> Flower's node id, of all clients that joined.
    server_round : int
        The round that bytes and losses are booked to.
    why_missing : str
        Why a client that did not join cannot be called.
    """

    def __init__(self, grid: Grid, timeout: float, result: GossipResult) -> None:
        self.nodes: dict[int, int] = {}
        self.server_round = 0
        self.why_missing = "is not on the grid"
        self._clients: dict[int, int] = {}
        self._grid = grid
        self._timeout = timeout
        self._result = result
        self._owed: dict[str, int] = {}  # id of a message not answered -> node id
        self._warned: set[tuple[int, str]] = set()

    def join(self, n: int, wait: float) -> None:
        """Let the clients 0..n-1 join; wait until for `wait` seconds no other appears.

        Raises
        ------
        ValueError
            If the clients' partitions are not the n nodes of the graph.
        RuntimeError
            If nobody joins.
        """
        asked: set[int] = set()
        failures: list[str] = []
        deadline = time.monotonic() + wait
        while True:
            new = [node for node in self._grid.get_node_ids() if node not in asked]
            if new:
                asked.update(new)
                calls = [Message(RecordDict(), node, "query.join") for node in new]
                for reply in self._grid.send_and_receive(calls, timeout=self._timeout):
                    if reply.has_error():
                        failures.append(_reason(reply))
                    else:
                        self._admit(reply, n)
                # Replies may take long (Ray starts first); others may have come by now.
                deadline = time.monotonic() + wait
            elif len(asked) >= n or time.monotonic() >= deadline:
                break
            else:
                time.sleep(0.1)
        if failures and len(self.nodes) < n:
            self.why_missing += f"; a client that did not join says: {failures[0]}"
        if not self.nodes:
            why = f"none appeared within {wait:g} s"
            if asked:
                why = f"none of {len(asked)} did answer"
            if failures:
                why = failures[0]
            raise RuntimeError(
                f"no client joined: {why}. Is the ClientApp a gossip client, "
                "gossip(app)?"
            )

    def _admit(self, reply: Message, n: int) -> None:
        who = reply.content["gossip"]
        client, partitions = who["partition-id"], who["num-partitions"]
        if partitions != n or not 0 <= client < n:
            raise ValueError(
                f"the graph has {n} nodes, so the clients must be 0..{n - 1}; this is "
                f"client {client} of {partitions}"
            )
        if client in self.nodes:
            raise ValueError(f"two clients have the partition id {client}")
        self.nodes[client] = reply.metadata.src_node_id
        self._clients[reply.metadata.src_node_id] = client

    def client_of(self, message: Message) -> int:
        """Return the partition id of the client that sent a reply."""
        return self._clients[message.metadata.src_node_id]

    def send(
        self, messages: Iterable[Message], *, counted: bool = True
    ) -> list[Message]:
        """Call clients; return the replies that came and are no errors.

        Replies are in the order of the partition ids. All that fails is booked as lost.
        With `counted`, the bytes of the models are booked as traffic.
        """
        if self._owed:
            for reply in self._grid.pull_messages(list(self._owed)):
                self._owed.pop(reply.metadata.reply_to_message_id, None)
        ready: list[Message] = []
        for message in messages:
            if message.metadata.dst_node_id in self._owed.values():
                self._lose(message, "still owes an earlier reply")
            else:
                ready.append(message)
        came = list(self._grid.send_and_receive(ready, timeout=self._timeout))
        # Sending gave the messages their ids. Where a node is gone, the SuperLink
        # answers in its place, so the sender of a reply does not tell whose it is.
        waiting = {message.metadata.message_id: message for message in ready}
        replies = []
        for reply in came:
            message = waiting.pop(reply.metadata.reply_to_message_id)
            if reply.has_error():
                self._lose(message, _reason(reply))
            else:
                replies.append(reply)
        wait = "" if self._timeout is None else f" in {self._timeout:g} s"
        for message_id, message in waiting.items():
            self._lose(message, f"no reply{wait}")
            self._owed[message_id] = message.metadata.dst_node_id
        if counted:
            sent = sum(
                array_bytes(arrays)
                for message in ready + replies
                for arrays in array_records(message.content)
            )
            booked = self._result.server_bytes
            booked[self.server_round] = booked.get(self.server_round, 0) + sent
        return sorted(replies, key=self.client_of)

    def _lose(self, message: Message, reason: str) -> None:
        client = self._clients[message.metadata.dst_node_id]
        self.lose(client, message.metadata.message_type, reason)

    def lose(self, client: int, call: str, reason: str) -> None:
        """Book a call as lost; warn at the first loss of a client in this call."""
        loss = Loss(self.server_round, client, call, reason)
        if (client, call) not in self._warned:
            self._warned.add((client, call))
            logger.warning("round %d: client %d lost in %s: %s", *loss)
        self._result.lost.append(loss)


def _reason(reply: Message) -> str:
    """Return why a call failed, without the traceback that Ray puts around it."""
    raised = _RAISED.search(reply.error.reason)
    return raised[1].strip() if raised else reply.error.reason
