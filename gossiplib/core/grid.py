"""Where a server reaches its clients: in this process, one after the other.

A Strategy and a ClientApp run unchanged here and on Flower's runtimes.
"""

import itertools
import random
import time
from collections.abc import Iterable
from typing import Any

from flwr.app import ArrayRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from gossiplib.system.numbers import check_whole

#: flwr's code for "the ClientApp raised an exception".
_RAISED = 2


class LocalNode:
    """One client in this process: a ClientApp and its `context`, what it keeps.

    Parameters
    ----------
    client_app : flwr.clientapp.ClientApp
        The app that the client runs.
    partition_id, num_partitions, node_id : int
        Which client this is, of how many, and Flower's number of the node.
    run_config : dict, optional
        `context.run_config`.
    """

    def __init__(
        self,
        client_app: ClientApp,
        partition_id: int,
        num_partitions: int,
        node_id: int,
        run_config: dict[str, Any] | None = None,
    ) -> None:
        _set_task_identity()
        self._app = client_app
        self.context = Context(
            run_id=TaskIdentity.run_id,
            node_id=node_id,
            node_config={
                "partition-id": partition_id,
                "num-partitions": num_partitions,
            },
            state=RecordDict(),
            run_config=dict(run_config or {}),
        )

    def receive(self, message: Message) -> Message | None:
        """Return what the app replies to a `message`; an error if it raises.

        Then its state is as before. Only KeyboardInterrupt is raised: it ends the run.
        """
        # A client shares nothing with the server or with others, as in a process of
        # its own: it gets copies, and what it changes later counts no more.
        before = {name: _copied_record(r) for name, r in self.context.state.items()}
        context = _context(self.context, self.context.state.copy())
        try:
            reply = _reply(self._app, _copied_message(message), context)
        except BaseException as exception:  # sys.exit would end a process, not the run
            self.context.state.update(before)
            if isinstance(exception, KeyboardInterrupt):
                raise
            reason = f"{type(exception).__name__}: {exception}"
            return Message(Error(code=_RAISED, reason=reason), reply_to=message)
        self.context = _context(context, _copied(context.state))
        return None if reply is None else _copied_message(reply)


class LocalGrid(Grid):
    """A Flower Grid whose clients live in this process.

    As in Flower's simulation, node ids are random numbers, not partition ids; a client
    that raises answers with an error and its state is rolled back; one that returns
    None never answers; and one that takes longer than the timeout answers too late,
    though its state has changed.

    Parameters
    ----------
    client_app : flwr.clientapp.ClientApp
        The app that each client runs.
    num_nodes : int
        Number of clients; their partition ids are 0..num_nodes-1.
    run_config : dict, optional
        `context.run_config` of each client.

    Raises
    ------
    ValueError
        If there is not at least one node.

    Examples
    --------
    >>> grid = LocalGrid(client_app, num_nodes=16)  # doctest: +SKIP
    >>> FedAvg().start(grid, initial_arrays)  # doctest: +SKIP
    """

    def __init__(
        self,
        client_app: ClientApp,
        num_nodes: int,
        *,
        run_config: dict[str, Any] | None = None,
    ) -> None:
        num_nodes = check_whole("num_nodes", num_nodes, 1)
        node_ids = random.Random(num_nodes).sample(range(1, 2**63), num_nodes)
        self._nodes = {
            node_id: LocalNode(client_app, i, num_nodes, node_id, run_config)
            for i, node_id in enumerate(node_ids)
        }
        self._message_ids = map(str, itertools.count(1))
        self._replies: dict[str, Message] = {}

    def set_run(self, run: Any) -> None:
        """Do nothing: a LocalGrid belongs to no run of a SuperLink."""

    @property
    def run(self) -> Any:
        """Not available: a LocalGrid belongs to no run of a SuperLink."""
        raise RuntimeError("a LocalGrid belongs to no run of a SuperLink")

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Create a message (Flower deprecates this in favour of `Message`)."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        """Return the node ids; the one at index i has the partition id i."""
        return list(self._nodes)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Run the clients that the messages go to; return the messages' ids."""
        return [self._push(message)[0] for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return the replies to the messages with these ids, each of them once."""
        found = [i for i in message_ids if i in self._replies]
        return [self._replies.pop(i) for i in found]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Run the clients, and return the replies that came within the timeout.

        The timeout (seconds) holds for each client on its own, as if they ran side by
        side. A reply that comes too late waits for `pull_messages`.
        """
        pushed = [self._push(message) for message in messages]
        in_time = [i for i, took in pushed if timeout is None or took <= timeout]
        return self.pull_messages(in_time)

    def _push(self, message: Message) -> tuple[str, float]:
        """Run one client; return the message's id and how long the client took."""
        message_id = next(self._message_ids)
        message.metadata.__dict__["_message_id"] = message_id  # as Flower's grids do
        node_id = message.metadata.dst_node_id
        if node_id not in self._nodes:
            return message_id, 0.0
        started = time.perf_counter()
        reply = self._nodes[node_id].receive(message)
        if reply is not None:
            self._replies[message_id] = reply
        return message_id, time.perf_counter() - started


def _reply(app: ClientApp, message: Message, context: Context) -> Message | None:
    reply = app(message, context)
    if not isinstance(reply, Message | None):
        raise TypeError(f"the ClientApp returned {reply!r} instead of a Message")
    return reply


def _context(like: Context, state: RecordDict) -> Context:
    node_config, run_config = {**like.node_config}, {**like.run_config}
    return Context(like.run_id, like.node_id, node_config, state, run_config)


def _copied_message(message: Message) -> Message:
    copied = object.__new__(type(message))  # as copy.copy does, at a tenth of its time
    vars(copied).update(vars(message))
    if message.has_content():
        copied.content = _copied(message.content)
    return copied


def _copied(records: RecordDict) -> RecordDict:
    return RecordDict({name: _copied_record(r) for name, r in records.items()})


def _copied_record(record: Any) -> Any:
    """Copy a record and its lists. Arrays do not change in place."""
    copied = record.copy()
    if not isinstance(record, ArrayRecord):
        for key, value in record.items():
            if isinstance(value, list):
                copied[key] = value.copy()
    return copied


def _set_task_identity() -> None:
    """Let `Message(...)` be called outside a run of Flower's.

    Flower 1.41 and 1.42 stamp each new message with the identity of the task that
    runs in the process, and raise if there is none. There is no public way to set it.
    """
    try:
        _ = TaskIdentity.run_id
    except RuntimeError:
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
