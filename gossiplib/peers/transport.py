"""How bytes get from peer to peer: gRPC, with certificates on both sides.

Who calls is the name in a certificate of the one authority: no message says that.
"""

import re
import resource
import secrets
import socket
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

from gossiplib.peers.addresses import AddressBook
from gossiplib.peers.log import EventLog
from gossiplib.peers.messages import AHEAD, Mailbox, PeerMessage, Refused, encode
from gossiplib.system.certificates import Identity, check_identity

_PATH = "/gossiplib.Peer/"
#: Before an address to call: else gRPC takes a host that is named `dns` for a scheme.
_TARGET = "dns:///"
#: The name that each certificate holds beside its own; for peers of unknown name.
ANY = "localhost"
#: Calls at a time: of all callers, and of each.
_CALLS, _AT_ONCE = 256, 3
#: A message comes in so many pieces, which show that it goes on coming; in more, of so
#: many bytes, if it is large.
_PIECES, _PIECE = 16, 2**18

#: (name of the caller's certificate, bytes of the message) -> bytes of the reply
Handler = Callable[[str, bytes], bytes]


def name_of(client: int) -> str:
    """Return the name in a peer's certificate."""
    return f"peer-{client}"


def patience(timeout: float) -> float:
    """Return in how many seconds two peers must be connected, or try anew."""
    return min(4 * timeout, 10.0)  # later the system's own attempts are rare


def client_of(name: str) -> int:
    """Return the partition id in a certificate's name; -1 if there is none."""
    found = re.fullmatch(r"peer-(0|[1-9][0-9]{0,8})", name)
    return int(found[1]) if found else -1


def _why_not(address: str) -> str:
    """Say why nobody can listen on an address."""
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    try:
        socket.create_server((host.strip("[]"), int(port)), family=family).close()
    except OSError as error:
        return str(error.strerror)
    return "gRPC does not say why"


class Server:
    """Listen for calls of other peers.

    A caller that says nothing for 3 seconds, or a tenth of `timeout` if that is more,
    is cut off, with or without a certificate; a message that goes on coming is not,
    within `timeout`. Connections may take half of the files that the process may open,
    and be 4096 at most: strangers that hold all keep new callers out.

    Parameters
    ----------
    address, max_bytes : str, int
        Host and port; bytes of the largest message. A larger one is not read whole.
    identity, authority : Identity, Path
        The own certificate and key; and who has signed those of the others. Without
        one that is valid, no caller gets through the handshake.
    handlers : dict
        Name of a call -> handler. One that raises `Refused` answers with an error.
    timeout : float
        Seconds in which a message must have come.

    Attributes
    ----------
    unread : int
        Calls not read: too large, broken off, too many at once, of no known name.

    Raises
    ------
    OSError
        If the address cannot be listened on, or the certificate cannot be used; why.
    """

    def __init__(
        self,
        address: str,
        identity: Identity,
        authority: Path,
        handlers: Mapping[str, Handler],
        max_bytes: int,
        timeout: float = 5.0,
    ) -> None:
        check_identity(identity, authority)
        self._handlers = {_PATH + name: handlers[name] for name in handlers}
        self._max_bytes, self._timeout = max_bytes, timeout
        self._silence = max(3.0, timeout / 10)
        self.unread, self._count = 0, threading.Lock()
        self._slots: dict[str, threading.Semaphore] = {}  # of each caller
        self._ends: dict[grpc.ServicerContext, float] = {}  # when a call is cut off
        self._stopped = threading.Event()
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        handshake = min(self._silence, 10)
        self._server = grpc.server(
            ThreadPoolExecutor(_CALLS),
            handlers=[self],
            options=[
                ("grpc.max_receive_message_length", _PIECE),
                ("grpc.so_reuseport", 0),  # two peers on one port is an error
                ("grpc.max_allowed_incoming_connections", min(files // 2, 4096)),
                ("grpc.server_handshake_timeout_ms", int(1000 * handshake)),
            ],
            maximum_concurrent_rpcs=_CALLS,
        )
        credentials = grpc.ssl_server_credentials(
            [(identity.key.read_bytes(), identity.certificate.read_bytes())],
            root_certificates=authority.read_bytes(),
            require_client_auth=True,
        )
        try:
            self._server.add_secure_port(address, credentials)
        except RuntimeError:
            why = _why_not(address)
            raise OSError(f"cannot listen on {address}: {why}") from None
        self._server.start()
        threading.Thread(target=self._cut_off, daemon=True).start()

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
        try:
            data = self._read(messages, context)
            with self._count:
                self.unread -= 1
            return handler(name, data)
        except Refused as refused:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, str(refused))
            raise  # not reached: `abort` raises
        finally:
            slots.release()

    def _read(self, pieces: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        """Put a message together, of the length that its caller has said."""
        # Else its end could not be told from that of a broken call.
        said = str(dict(context.invocation_metadata()).get("size"))
        if not re.fullmatch("[0-9]{1,15}", said):
            raise Refused("malformed")
        size, data, began = int(said), bytearray(), time.monotonic()
        if size > self._max_bytes:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too large")
        left = size // _PIECE + _PIECES + 1  # pieces that it may have
        try:
            while len(data) < size:
                silent = time.monotonic() + self._silence
                self._ends[context] = min(silent, began + self._timeout)
                data += next(pieces, b"")
                left -= 1
                if left < 0 or len(data) > size:
                    raise Refused("malformed")
        finally:
            self._ends.pop(context, None)
        return bytes(data)

    def _cut_off(self) -> None:
        """End calls whose time is over: each would keep a thread."""
        while not self._stopped.wait(0.2):
            now = time.monotonic()
            for context, end in list(self._ends.items()):
                if now > end:
                    context.cancel()

    def stop(self) -> None:
        """Stop listening; let calls that are being answered end."""
        self._server.stop(grace=1).wait()
        self._stopped.set()


class Channels:
    """Connections to other peers, one for each.

    Parameters
    ----------
    identity, authority : Identity, Path
        The own certificate and key; and who has signed those of the others.
    max_bytes, timeout : int, float
        Bytes of the largest reply, and seconds that a message may take.
    """

    def __init__(
        self, identity: Identity, authority: Path, max_bytes: int, timeout: float = 5.0
    ) -> None:
        files = (authority, identity.key, identity.certificate)
        read = [file.read_bytes() for file in files]
        self._credentials = grpc.ssl_channel_credentials(*read)
        self._options = [
            ("grpc.max_receive_message_length", min(max_bytes, 2**31 - 1)),
            ("grpc.enable_retries", 0),  # no message is sent twice
            ("grpc.enable_http_proxy", 0),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.initial_reconnect_backoff_ms", 100),
            # The time to connect, whatever its name says.
            ("grpc.min_reconnect_backoff_ms", int(1000 * patience(timeout))),
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
            key = address if name == ANY else name
            if key not in self._open or self._open[key][0] != address:
                self.forget(key)
                options = [*self._options, ("grpc.ssl_target_name_override", name)]
                target = _TARGET + address
                channel = grpc.secure_channel(target, self._credentials, options)
                self._open[key] = address, channel
            # Under the lock: `forget` may close the channel as soon as it is open.
            call = self._open[key][1].stream_unary(_PATH + method)
            size = min(max(len(data) // _PIECES, 2**10), _PIECE)
            pieces = (data[k : k + size] for k in range(0, len(data), size))
            said = (("size", str(len(data))),)
            return call.future(pieces, timeout=timeout, metadata=said)

    def forget(self, key: str) -> None:
        """Connect anew at the next call of `key`, a name, or for `ANY` an address."""
        with self._lock:
            _, channel = self._open.pop(key, (None, None))
        if channel is not None:
            channel.close()  # it may take long, and holds up nobody

    def close(self) -> None:
        """Break all connections off."""
        for name in list(self._open):
            self.forget(name)


class Outbox:
    """Send a peer's messages, to each neighbour in order, and log what became of them.

    Each neighbour has a thread of its own, so one that hangs delays no other. One where
    nobody listens is no longer waited for in the mailbox; one that a message does not
    reach within `timeout` seconds may have sent its own.
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
        # No clock, which may be set back. A table of floats has 53 bits.
        self._start, self._count = secrets.randbits(53), 0
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

        Raise RuntimeError if no thread can be started, now or before: gRPC needs them.
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
                if code is grpc.StatusCode.UNAVAILABLE:
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
