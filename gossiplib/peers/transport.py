"""How peers reach each other: gRPC with certificates on both sides, bytes in and out.

`Server` answers calls, `Channels` makes them. Both sides show a certificate of one
authority, and who calls is the name in it: nothing that a message says. What the
bytes mean is the peer's business.

A peer's outbox: letters on their way to its neighbours.

They go to all neighbours at once, so one that hangs delays no other, and to each in
order: the next when the last was answered.

Which peer is where: what a peer has heard, and from whom.

A peer's own word about its address, given under its certificate, counts. The word of
others may add a peer that is not known yet, and is dropped again when nobody with the
right certificate is found there.
"""

import contextlib
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import grpc
from flwr.app import ArrayRecord

from gossiplib.peers.log import Journal
from gossiplib.peers.messages import AHEAD, Letter, Mailbox, Refused, close_letter
from gossiplib.system.certificates import Identity

__all__ = ["Channels", "Contacts", "Outbox", "Server", "client_of", "name_of"]

_ADDRESS = re.compile(r"[\w.-]{1,100}:\d{1,5}")


class Contacts:
    """Addresses of other peers, at most one for each partition id.

    Parameters
    ----------
    client : int
        The own partition id, which is not kept.
    clients : int
        Number of partition ids.
    """

    def __init__(self, client: int, clients: int) -> None:
        self._client, self._clients = client, clients
        self._at: dict[int, str] = {}
        self._sure: set[int] = set()
        self._lock = threading.Lock()

    def hear(self, client: int, address: str) -> None:
        """Note what another peer says: it adds a peer, and changes none."""
        if self._possible(client, address):
            with self._lock:
                self._at.setdefault(client, address)

    def confirm(self, client: int, address: str) -> None:
        """Note what a peer says of itself, or that it was found there."""
        if self._possible(client, address):
            with self._lock:
                self._at[client] = address
                self._sure.add(client)

    def _possible(self, client: int, address: str) -> bool:
        mine = client == self._client or not 0 <= client < self._clients
        return not mine and _ADDRESS.fullmatch(address) is not None

    def missed(self, client: int) -> None:
        """Note that a peer was not found. If others told its address, forget that."""
        with self._lock:
            if client not in self._sure:
                self._at.pop(client, None)

    def all(self) -> dict[int, str]:
        """Return partition id -> address."""
        with self._lock:
            return dict(sorted(self._at.items()))


_PATH = "/gossiplib.Peer/"
#: Seconds in which a caller must send its message, and calls that it may have open.
_SECONDS, _AT_ONCE = 2.0, 3

#: Name of the caller's certificate, bytes of the message -> bytes of the reply.
Handler = Callable[[str, bytes], bytes]


def name_of(client: int) -> str:
    """Return the name in a peer's certificate."""
    return f"peer-{client}"


def client_of(name: str) -> int:
    """Return the partition id in a certificate's name; -1 if there is none."""
    id_ = name.removeprefix("peer-")
    canonical = id_.isascii() and id_.isdigit() and len(id_) < 10
    return int(id_) if canonical and name == f"peer-{int(id_)}" else -1


class Server(grpc.GenericRpcHandler):
    """Listen for calls of other peers.

    Parameters
    ----------
    address : str
        Host and port.
    identity : Identity
        The own certificate and key.
    authority : Path
        Whose certificates are known. A caller without one does not get through the
        handshake, nor one whose certificate has expired.
    handlers : dict
        Name of a call -> handler. One that raises `Refused` answers with an error.
    largest : int
        Bytes of the largest message. A larger one is refused before it is read whole.

    Raises
    ------
    OSError
        If the address cannot be listened on.
    """

    def __init__(
        self,
        address: str,
        identity: Identity,
        authority: Path,
        handlers: Mapping[str, Handler],
        largest: int,
    ) -> None:
        self._methods = {
            # Of a stream, whose first message `_answer` waits for itself: gRPC would
            # wait for ever for a message that never comes.
            _PATH + name: grpc.stream_unary_rpc_method_handler(
                partial(self._answer, handler)
            )
            for name, handler in handlers.items()
        }
        self._lock = threading.Lock()
        self._calls = self._read = 0
        self._open: Counter[str] = Counter()  # calls that are not answered yet
        self._server = grpc.server(
            ThreadPoolExecutor(16),
            handlers=[self],
            options=[
                ("grpc.max_receive_message_length", largest),
                ("grpc.so_reuseport", 0),  # two peers on one port is an error
                ("grpc.max_allowed_incoming_connections", 256),
                ("grpc.server_handshake_timeout_ms", 3000),
            ],
            maximum_concurrent_rpcs=64,
        )
        credentials = grpc.ssl_server_credentials(
            [(identity.key.read_bytes(), identity.certificate.read_bytes())],
            root_certificates=authority.read_bytes(),
            require_client_auth=True,
        )
        try:
            self._server.add_secure_port(address, credentials)
        except RuntimeError:
            raise OSError(
                f"cannot listen on {address}: another program may use this port"
            ) from None
        self._server.start()

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """Find the handler of a call that begins."""
        with self._lock:
            self._calls += 1
        return self._methods.get(call.method)

    def _answer(
        self,
        handler: Handler,
        messages: Iterator[bytes],
        context: grpc.ServicerContext,
    ) -> bytes:
        names = context.auth_context().get("x509_common_name", [b""])
        name = names[0].decode(errors="replace")
        with self._one_of_few(name, context):
            # Whoever opens a call and says nothing would keep a thread.
            late = threading.Timer(_SECONDS, context.cancel)
            late.daemon = True
            late.start()
            data = next(messages, None)
            late.cancel()
            if data is None:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no message")
            with self._lock:
                self._read += 1
            try:
                return handler(name, data)
            except Refused as refused:
                context.abort(grpc.StatusCode.PERMISSION_DENIED, str(refused))

    @contextlib.contextmanager
    def _one_of_few(self, name: str, context: grpc.ServicerContext) -> Iterator[None]:
        """Let each name have a few calls at a time, and so keep threads for others."""
        with self._lock:
            busy = self._open[name] >= _AT_ONCE
            self._open[name] += not busy
        if busy:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "too many calls at once")
        try:
            yield
        finally:
            with self._lock:
                self._open[name] -= 1

    @property
    def unread(self) -> int:
        """Calls not read: too large, broken off, too many at once, of no known name."""
        with self._lock:
            return self._calls - self._read

    def stop(self) -> None:
        """Stop listening; let calls that are being answered end."""
        self._server.stop(grace=1).wait()


class Channels:
    """Connections to other peers, one for each.

    Parameters
    ----------
    identity, authority
        As in `Server`.
    largest : int
        Bytes of the largest reply.
    """

    def __init__(self, identity: Identity, authority: Path, largest: int) -> None:
        self._credentials = grpc.ssl_channel_credentials(
            authority.read_bytes(),
            identity.key.read_bytes(),
            identity.certificate.read_bytes(),
        )
        self._largest = largest
        self._lock = threading.Lock()
        self._open: dict[str, tuple[str, grpc.Channel]] = {}

    def call(
        self, address: str, name: str, method: str, data: bytes, seconds: float
    ) -> grpc.Future:
        """Call a peer; return a future of the reply's bytes.

        Parameters
        ----------
        address : str
            Where it is.
        name : str
            The name that its certificate must have.
        method : str
            Name of the call.
        data : bytes
            The message.
        seconds : float
            After these the call fails. It also fails when nobody listens.
        """
        with self._lock:
            at, channel = self._open.get(name, ("", None))
            if at != address:
                if channel is not None:
                    channel.close()
                channel = self._channel(address, name)
                self._open[name] = (address, channel)
            # Under the lock: `forget` may close the channel as soon as it is open.
            return channel.unary_unary(_PATH + method).future(data, timeout=seconds)

    def _channel(self, address: str, name: str) -> grpc.Channel:
        options = [
            ("grpc.ssl_target_name_override", name),
            ("grpc.max_receive_message_length", self._largest),
            ("grpc.enable_retries", 0),  # no message is sent twice
            ("grpc.enable_http_proxy", 0),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 1000),  # also the time to connect
            ("grpc.max_reconnect_backoff_ms", 1000),
        ]
        return grpc.secure_channel(address, self._credentials, options)

    def forget(self, name: str) -> None:
        """Connect anew at the next call."""
        with self._lock:
            _, channel = self._open.pop(name, ("", None))
        if channel is not None:
            channel.close()

    def close(self) -> None:
        """Break all connections off."""
        for name in list(self._open):
            self.forget(name)


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
