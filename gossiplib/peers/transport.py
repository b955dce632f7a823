"""How bytes get from peer to peer: gRPC, with certificates on both sides.

Both sides of a connection show a certificate of one authority, and who calls is the
name in it: nothing that a message says.
"""

import re
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import grpc
from flwr.app import ArrayRecord

from gossiplib.peers.log import EventLog
from gossiplib.peers.messages import AHEAD, Mailbox, PeerMessage, Refused, encode
from gossiplib.system.certificates import Identity

__all__ = ["Channels", "Server"]

_PATH = "/gossiplib.Peer/"
_ADDRESS = re.compile(r"[\w.-]{1,100}:\d{1,5}")
#: Seconds in which a caller must send its message, and calls that it may have open.
_SECONDS, _AT_ONCE = 2.0, 3

#: (name of the caller's certificate, bytes of the message) -> bytes of the reply
Handler = Callable[[str, bytes], bytes]


def name_of(client: int) -> str:
    """Return the name in a peer's certificate."""
    return f"peer-{client}"


def client_of(name: str) -> int:
    """Return the partition id in a certificate's name; -1 if there is none."""
    found = re.fullmatch(r"peer-(0|[1-9][0-9]{0,8})", name)
    return int(found[1]) if found else -1


class Server:
    """Listen for calls of other peers.

    Parameters
    ----------
    address, max_bytes : str, int
        Host and port; bytes of the largest message. A larger one is not read whole.
    identity, authority : Identity, Path
        The own certificate and key; and who has signed those of the others. Without
        one that is valid, no caller gets through the handshake.
    handlers : dict
        Name of a call -> handler. One that raises `Refused` answers with an error.

    Attributes
    ----------
    unread : int
        Calls not read: too large, broken off, too many at once, of no known name.

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
        max_bytes: int,
    ) -> None:
        self._handlers = {_PATH + name: handlers[name] for name in handlers}
        self.unread, self._count = 0, threading.Lock()
        self._slots: dict[str, threading.Semaphore] = {}  # of each caller
        self._server = grpc.server(
            ThreadPoolExecutor(16),
            handlers=[self],
            options=[
                ("grpc.max_receive_message_length", max_bytes),
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
        """Return the handler of a `call` that begins: gRPC asks."""
        with self._count:
            self.unread += 1
        if call.method not in self._handlers:
            return None
        # Of a stream, whose first message `_answer` waits for itself: gRPC would wait
        # for ever for a message that never comes.
        answer = partial(self._answer, self._handlers[call.method])
        return grpc.stream_unary_rpc_method_handler(answer)

    def _answer(
        self, handler: Handler, messages: Iterator[bytes], context: grpc.ServicerContext
    ) -> bytes:
        names = context.auth_context().get("x509_common_name", [b""])
        name = names[0].decode(errors="replace")
        # Each name has a few calls at a time, which leaves threads for the others.
        slots = self._slots.setdefault(name, threading.Semaphore(_AT_ONCE))
        if not slots.acquire(blocking=False):
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "too many calls at once")
        # Whoever opens a call and says nothing would keep a thread.
        late = threading.Timer(_SECONDS, context.cancel)
        late.daemon = True
        try:
            late.start()
            data = next(messages, None)
            late.cancel()
            if data is None:
                raise Refused("no message")
            with self._count:
                self.unread -= 1
            return handler(name, data)
        except Refused as refused:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, str(refused))
            raise  # not reached: `abort` raises
        finally:
            slots.release()

    def stop(self) -> None:
        """Stop listening; let calls that are being answered end."""
        self._server.stop(grace=1).wait()


class Channels:
    """Connections to other peers, one for each.

    Parameters
    ----------
    identity, authority : Identity, Path
        The own certificate and key; and who has signed those of the others.
    max_bytes : int
        Bytes of the largest reply.
    """

    def __init__(self, identity: Identity, authority: Path, max_bytes: int) -> None:
        files = (authority, identity.key, identity.certificate)
        read = [file.read_bytes() for file in files]
        self._credentials = grpc.ssl_channel_credentials(*read)
        self._options = [
            ("grpc.max_receive_message_length", max_bytes),
            ("grpc.enable_retries", 0),  # no message is sent twice
            ("grpc.enable_http_proxy", 0),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 1000),  # also the time to connect
            ("grpc.max_reconnect_backoff_ms", 1000),
        ]
        self._lock = threading.RLock()
        self._open: dict[str, tuple[str, grpc.Channel]] = {}

    def call(
        self, address: str, name: str, method: str, data: bytes, timeout: float
    ) -> grpc.Future:
        """Return a call of a peer: `result()` is the reply, `code()` how it ended.

        Parameters
        ----------
        address, name : str
            Where it is, and the name that its certificate must have.
        method, data : str, bytes
            Name of the call, and the message.
        timeout : float
            Seconds after which the call fails. It also fails when nobody listens.
        """
        with self._lock:
            if name not in self._open or self._open[name][0] != address:
                self.forget(name)
                options = [*self._options, ("grpc.ssl_target_name_override", name)]
                channel = grpc.secure_channel(address, self._credentials, options)
                self._open[name] = address, channel
            # Under the lock: `forget` may close the channel as soon as it is open.
            call = self._open[name][1].unary_unary(_PATH + method)
            return call.future(data, timeout=timeout)

    def forget(self, name: str) -> None:
        """Connect anew at the next call of this `name`."""
        with self._lock:
            _, channel = self._open.pop(name, (None, None))
        if channel is not None:
            channel.close()  # it may take long, and holds up nobody

    def close(self) -> None:
        """Break all connections off."""
        for name in list(self._open):
            self.forget(name)


class AddressBook:
    """Where other peers are: at most one address for each partition id.

    A peer's own word about its address, given under its certificate, counts. The word
    of others may add a peer that is not known yet, and is dropped again when nobody
    with the right certificate is found there. The book of client 3 has no client 3.
    """

    def __init__(self, client: int, num_clients: int) -> None:
        self.client, self.num_clients = client, num_clients
        # Threads share these; no two of them can meet within one of the steps below.
        self._confirmed: dict[int, str] = {}
        self._suggested: dict[int, str] = {}

    def suggest(self, client: int, address: str) -> None:
        """Enter what others say of a peer; it changes nothing that is there."""
        if self._possible(client, address):
            self._suggested.setdefault(client, address)

    def confirm(self, client: int, address: str) -> None:
        """Enter what a peer says of itself, or that it was found there."""
        if self._possible(client, address):
            self._confirmed[client] = address

    def _possible(self, client: int, address: str) -> bool:
        other = client != self.client and 0 <= client < self.num_clients
        return other and _ADDRESS.fullmatch(address) is not None

    def missed(self, client: int) -> None:
        """Drop what others said of a peer, as it was not found there."""
        self._suggested.pop(client, None)

    def all(self) -> dict[int, str]:
        """Return partition id -> address."""
        return dict(sorted((self._suggested | self._confirmed).items()))


class Outbox:
    """Send a peer's messages, to each neighbour in order, and log what became of them.

    Each neighbour has a thread of its own, so one that hangs delays no other. One that
    is not reached within `timeout` seconds is no longer waited for in the mailbox.
    """

    def __init__(
        self,
        channels: Channels,
        addresses: AddressBook,
        mailbox: Mailbox,
        log: EventLog,
        timeout: float,
    ) -> None:
        self._channels, self._addresses = channels, addresses
        self._mailbox, self._log, self._timeout = mailbox, log, timeout
        self._start, self._count = time.time_ns(), 0
        self._last: tuple[PeerMessage, bytes] | None = None
        self._lock = threading.Lock()
        self._waiting: Counter[int] = Counter()  # messages for each neighbour
        self._threads: dict[int, ThreadPoolExecutor]
        self._threads = defaultdict(partial(ThreadPoolExecutor, 1))
        self._closed = False
        self._broken: RuntimeError | None = None  # what a thread has met

    def send(
        self, t: int, degree: int, arrays: ArrayRecord | None, to: Collection[int]
    ) -> None:
        """Send the model of round `t` to neighbours, and wait for none of them.

        Raises
        ------
        RuntimeError
            If no thread can be started, now or before. gRPC is of no use then.
        """
        if self._broken is not None:
            raise self._broken
        self._count += 1
        message = PeerMessage(t, degree, self._start, self._count, arrays)
        self._last = replace(message, arrays=None), encode(message)
        for j in to:
            self.repeat(j)

    def repeat(self, client: int) -> None:
        """Send the last message to a neighbour, which may have missed it."""
        with self._lock:
            if self._closed or self._last is None:
                return
            message, data = self._last
            if self._waiting[client] < AHEAD:
                self._waiting[client] += 1
                self._threads[client].submit(self._push, client, message, data)
            else:  # no more for it in memory
                reason = "still owes answers to earlier messages"
                self._log.lost(message.round, client, "Push", reason)

    def _push(self, client: int, message: PeerMessage, data: bytes) -> None:
        """Send a message, and wait for the answer."""
        t, address = message.round, self._addresses.all().get(client)
        fields = {"start": message.start, "count": message.count, "bytes": len(data)}
        try:
            if address is None:  # it never was there
                return
            self._log.write("sent", t, other=client, **fields)
            name = name_of(client)
            push = self._channels.call(address, name, "Push", data, self._timeout)
            code = push.code()
            if code is grpc.StatusCode.PERMISSION_DENIED:
                self._log.lost(t, client, "Push", f"refused: {push.details()}")
            elif code is not grpc.StatusCode.OK:
                self._mailbox.suspect(client)
                self._log.lost(t, client, "Push", f"not reached: {code.name}")
        except Exception as error:  # in a thread, nobody would see it
            self._log.lost(t, client, "Push", f"not sent: {error!r}")
            if isinstance(error, RuntimeError):
                self._broken = error
        finally:
            with self._lock:
                self._waiting[client] -= 1

    def is_empty(self) -> bool:
        """Tell whether all messages were answered, or are lost."""
        with self._lock:
            return not any(self._waiting.values())

    def close(self) -> None:
        """Send nothing more."""
        with self._lock:
            self._closed = True
            for thread in self._threads.values():
                thread.shutdown(wait=False, cancel_futures=True)
