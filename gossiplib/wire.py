"""How peers reach each other: gRPC with certificates on both sides, bytes in and out.

`Server` answers calls, `Channels` makes them. Both sides show a certificate of one
authority, and who calls is the name in it: nothing that a message says. What the
bytes mean is the peer's business.
"""

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import grpc

from gossiplib.certificates import Identity
from gossiplib.letters import Refused

__all__ = ["Channels", "Server", "client_of", "name_of"]

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
