"""What a peer is told at its start, checked before anything else is done."""

import json
import numbers
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord

from gossiplib.peers.addresses import check_address
from gossiplib.system.numbers import check_whole

#: No number of a config is larger, be it of clients, rounds or seconds.
_MOST = 10**9


@dataclass(frozen=True, kw_only=True)
class PeerConfig:
    """What a peer needs to know; on the command line, `num_clients=8` and so on.

    Parameters
    ----------
    client, num_clients : int
        The peer's partition id, and how many there are.
    address : str
        Where others reach it, host:port. An IPv6 host is in brackets.
    listen : str, optional
        Where it listens, if that is not the same, as 0.0.0.0:5000.
    folder : str or Path
        Has the files `authority.pem`, and for client 3 `peer-3.pem` and `peer-3.key`;
        its events and models go into `peer-3/`.
    known : sequence of str
        Addresses of other peers that it asks first. One is enough.
    neighbours : sequence of int, optional
        Partition ids of those that may be its neighbours; by default all others.
    num_rounds, num_sends : int, optional
        How many rounds; or, without rounds, how many times it sends. One is given.
    send_interval : float
        Without rounds: seconds between two sends.
    timeout, start_timeout : float
        Seconds to wait for an answer, and for a neighbour's work in a round; and for
        others to start, or for a neighbour that itself waits for others.
    evaluate_every, observe_every : int
        Evaluate, and keep the model, in rounds k, 2k, ...; 0 is never. Of models to
        keep, 100 are on disk at most: where it would be more, every second goes. The
        newest is always there. Without rounds, k counts sends, and nothing is
        evaluated.
    config : dict
        For the client, with `server-round` added.

    Raises
    ------
    ValueError
        If a value is of another kind or not in its range, no peer could be reached
        where this one says that it is, or not one of `num_rounds` and `num_sends` is
        given.
    """

    client: int
    num_clients: int
    address: str
    folder: str | Path
    listen: str | None = None
    known: Sequence[str] = ()
    neighbours: Sequence[int] | None = None
    num_rounds: int | None = None
    num_sends: int | None = None
    send_interval: float = 0.1
    timeout: float = 5.0
    start_timeout: float = 60.0
    evaluate_every: int = 1
    observe_every: int = 1
    config: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check all values: from the command line, they may be anything."""
        n = check_whole("num_clients", self.num_clients, 2, _MOST)
        check_whole("client", self.client, 0, n - 1)
        check_address("address", self.address)
        if self.listen is not None:
            check_address("listen", self.listen, reachable=False)
        for address in _list("known", self.known):
            check_address("known", address)
        may = () if self.neighbours is None else self.neighbours
        for j in _list("neighbours", may):
            if check_whole("neighbours", j, 0, n - 1) == self.client:
                raise ValueError(f"neighbours name client {j}, the peer itself")
        if not isinstance(self.folder, str | os.PathLike):
            raise ValueError(f"folder must be a path; got {self.folder!r}")
        for name in ("evaluate_every", "observe_every"):
            check_whole(name, getattr(self, name), 0, _MOST)
        for name in ("send_interval", "timeout", "start_timeout"):
            seconds = getattr(self, name)
            real = isinstance(seconds, numbers.Real) and not isinstance(seconds, bool)
            if not real or not 0 < seconds <= _MOST:  # nor NaN
                raise ValueError(f"{name} must be seconds, above 0; got {seconds!r}")
        if (self.num_rounds is None) == (self.num_sends is None):
            raise ValueError("a peer needs either num_rounds or num_sends")
        for name in ("num_rounds", "num_sends"):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), 1, _MOST)
        if not isinstance(self.config, dict):
            raise ValueError(f"config must be a dict; got {self.config!r}")
        try:
            ConfigRecord(self.config)
        except TypeError as error:
            raise ValueError(
                f"config must be what a ConfigRecord holds: {error}"
            ) from None

    def arguments(self) -> list[str]:
        """Return this as words of the command line; raise ValueError for bytes."""
        words = vars(self).items()
        return [f"{k}={json.dumps(v, default=_plain)}" for k, v in words]


def _plain(value: Any) -> Any:
    """Return as JSON can say it what `PeerConfig` takes, and JSON does not know."""
    if isinstance(value, bytes):
        raise ValueError(f"no command line can say the bytes in config: {value!r}")
    if isinstance(value, numbers.Number):  # numpy's
        return value.item()  # type: ignore[attr-defined]
    return list(value) if isinstance(value, Sequence) else os.fspath(value)


def _list(name: str, value: object) -> list[Any]:
    """Return a sequence as a list; a text is none."""
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise ValueError(f"{name} must be a list, as [1, 2]; got {value!r}")
    return list(value)
