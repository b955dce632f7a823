"""Where peers are: which addresses can be, and who is at which."""

import ipaddress
import re
import socket

_ADDRESS = re.compile(r"([\w.-]{1,100}|\[[0-9a-f:.]{2,45}\]):(\d{1,5})", re.A | re.I)

#: A name: words with dots between them, the last one no number. Where gRPC listens, it
#: takes three names for sockets of another kind.
_OTHERS = r"(?!(unix|unix-abstract|vsock)$)"
_NAME = re.compile(_OTHERS + r"(\w([\w-]*\w)?\.)*(?!\d+\.?$)\w([\w-]*\w)?\.?", re.A)
_ALL = ipaddress.IPv4Address("255.255.255.255")


def check_address(name: str, address: object, *, reachable: bool = True) -> str:
    """Return an address, host:port; raise ValueError if it is none, by its `name`.

    One that is `reachable` is not all addresses of this machine, as 0.0.0.0.
    """
    found = _ADDRESS.fullmatch(address) if isinstance(address, str) else None
    if not found or not 1 <= int(found[2]) <= 65535:
        raise ValueError(
            f"{name} must be host:port, with an IPv6 host in brackets and a port from "
            f"1 to 65535; got {address!r}"
        )
    host = found[1]
    try:
        if host.startswith("["):
            six = ipaddress.IPv6Address(host.strip("[]"))
            where = six.ipv4_mapped or six
        else:  # 0, 0.0, 0x0 and so on are 0.0.0.0 as well
            where = ipaddress.IPv4Address(socket.inet_aton(host))
    except (ipaddress.AddressValueError, OSError) as error:
        if _NAME.fullmatch(host):
            return found[0]
        what = "neither a name nor an address of IPv6, or of four numbers"
        raise ValueError(f"{name}: {host} is {what}, each below 256") from error
    if where.is_multicast or where == _ALL:
        raise ValueError(f"{name}: {address} is not the address of one machine")
    if where.is_unspecified and reachable:
        raise ValueError(
            f"{name} must be where others reach the peer, and nobody is reached at "
            f"{address}; one that listens everywhere has listen={address} beside it"
        )
    return found[0]


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
        try:
            check_address("an address", address)
        except ValueError:
            return False
        return client != self.client and 0 <= client < self.num_clients

    def missed(self, client: int) -> None:
        """Drop what others said of a peer, as it was not found there."""
        self._suggested.pop(client, None)

    def all(self) -> dict[int, str]:
        """Return partition id -> address."""
        return dict(sorted((self._suggested | self._confirmed).items()))
