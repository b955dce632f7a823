"""Which peer is where: what a peer has heard, and from whom.

A peer's own word about its address, given under its certificate, counts. The word of
others may add a peer that is not known yet, and is dropped again when nobody with the
right certificate is found there.
"""

import re
import threading

__all__ = ["Contacts"]

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
