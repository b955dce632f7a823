"""The command line of a peer.

    python -m gossiplib.peers module:client module:initial client=3 num_clients=8 ...

`PeerConfig` says what the words mean.
"""

import argparse
import contextlib
import inspect
import os
import pkgutil
import shutil
import sys
import threading
import time
from collections import Counter
from typing import Any

from flwr.clientapp import ClientApp

from gossiplib.peers.config import PeerConfig
from gossiplib.peers.log import say
from gossiplib.peers.node import Peer
from gossiplib.system.kinds import parse


def main() -> None:
    """Run one peer from the command line."""
    if "GOSSIPLIB_OWNER" in os.environ:
        threading.Thread(target=_end_with_owner, daemon=True).start()
    parser = argparse.ArgumentParser(
        "python -m gossiplib.peers",
        description="Run one peer: a gossip client, with no server.",
        epilog=inspect.getdoc(PeerConfig),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("app", help="module:name of a gossip ClientApp")
    parser.add_argument("initial", help="module:name of () -> ArrayRecord")
    words, text = "name=value", "see below; JSON, or a text"
    parser.add_argument("words", metavar=words, nargs="+", type=_option, help=text)
    given = parser.parse_args()
    for name, times in Counter(name for name, _ in given.words).items():
        if times > 1:
            parser.error(f"{name} is given {times} times")
    try:
        config = PeerConfig(**dict(given.words))
        app, initial = map(pkgutil.resolve_name, (given.app, given.initial))
        if not isinstance(app, ClientApp) or not callable(initial):
            raise TypeError("app must be a ClientApp, and initial a function")
    except (AttributeError, ImportError, TypeError, ValueError) as error:
        parser.error(str(error))
    first = initial()
    try:
        peer = Peer(app, first, config)
    except (OSError, TypeError, ValueError) as error:
        parser.exit(1, f"peer {config.client}: {error}\n")
    try:
        code = peer.run()
    # gRPC does not end where no thread can be started, nor before calls to others end.
    except (RuntimeError, KeyboardInterrupt) as error:
        why = str(error) or "interrupted"
        say(f"peer {config.client} has failed in round {peer.round + 1}: {why}")
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(1)
    if code:
        parser.exit(code)


def _end_with_owner() -> None:
    """Leave nothing behind, keys included, when `Peers` and its guard were killed."""
    owner, _, folder = os.environ["GOSSIPLIB_OWNER"].partition(" ")
    while os.getppid() == int(owner):
        time.sleep(1)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def _option(word: str) -> tuple[str, Any]:
    """Take "name=value" apart."""
    name, equals, value = word.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{word!r} has no value: write {word}=...")
    try:
        return name, parse(value)
    except ValueError:
        return name, value
