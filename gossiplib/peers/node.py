"""A peer's configuration and command line.

    python -m gossiplib.peers module:client module:initial client=3 num_clients=8 ...

`PeerConfig` says what the words mean.
"""

import argparse
import inspect
import json
import os
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gossiplib.peers.log import say
from gossiplib.peers.peer import Peer
from gossiplib.system.numbers import check_whole

__all__ = ["PeerConfig"]


@dataclass(frozen=True, kw_only=True)
class PeerConfig:
    """What a peer needs to know; on the command line, `num_clients=8` and so on.

    Parameters
    ----------
    client, num_clients : int
        The peer's partition id, and how many there are.
    address : str
        Where it listens, host:port.
    folder : str or Path
        Has the files `authority.pem`, and for client 3 `peer-3.pem` and `peer-3.key`;
        its events and models go into `peer-3/`.
    known : sequence of str
        Addresses of other peers that it asks first. One is enough.
    neighbours : sequence of int, optional
        Partition ids of those that may be its neighbours; by default all.
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
        If a number is not in its range, or not one of `num_rounds` and `num_sends` is
        given.
    """

    client: int
    num_clients: int
    address: str
    folder: str | Path
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
        """Check the numbers."""
        check_whole("num_clients", self.num_clients, 1)
        check_whole("client", self.client, 0, self.num_clients - 1)
        check_whole("evaluate_every", self.evaluate_every, 0)
        check_whole("observe_every", self.observe_every, 0)
        if (self.num_rounds is None) == (self.num_sends is None):
            raise ValueError("a peer needs either num_rounds or num_sends")
        check_whole("num_rounds or num_sends", self.num_rounds or self.num_sends, 1)

    def arguments(self) -> list[str]:
        """Return the words of the command line that say the same."""
        words = vars(self).items()
        return [f"{k}={json.dumps(v, default=os.fspath)}" for k, v in words]


def main() -> None:
    """Run one peer from the command line."""
    parser = argparse.ArgumentParser(
        "python -m gossiplib.peers",
        description="Run one peer: a gossip client, with no server.",
        epilog=inspect.getdoc(PeerConfig),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("app", help="module:name of a gossip ClientApp")
    parser.add_argument("initial", help="module:name of () -> ArrayRecord")
    parser.add_argument(
        "name=value", nargs="+", type=_option, help="see below; JSON, or a text"
    )
    given = vars(parser.parse_args())
    app, initial = map(pkgutil.resolve_name, (given["app"], given["initial"]))
    try:
        config = PeerConfig(**dict(given["name=value"]))
    except (TypeError, ValueError) as error:  # one is missing, or out of range
        parser.error(str(error))
    try:
        peer = Peer(app, initial(), config)
    except OSError as error:
        parser.exit(1, f"peer {config.client}: {error}\n")
    try:
        code = peer.run()
    except RuntimeError as error:  # gRPC does not end where no thread can be started
        say(f"peer {config.client} has failed in round {peer.round + 1}: {error}")
        os._exit(1)
    if code:
        parser.exit(code)


def _option(word: str) -> tuple[str, Any]:
    """Take "name=value" apart."""
    name, _, value = word.partition("=")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
