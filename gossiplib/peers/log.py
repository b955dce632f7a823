"""What a peer leaves behind: a log of its events, and its models, in its own folder.

An event is one line of JSON, written at once, so that a peer that is killed leaves all
that it did before. A model is a file that `encoding.dump` wrote.
"""

import contextlib
import json
import os
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, RecordDict

from gossiplib.system import encoding
from gossiplib.system.runs import due

#: Models of one peer that stay on its disk, for who looks at the run.
KEPT = 100


class EventLog:
    """Write the events and models of one peer to its folder, beside what is there.

    Models of rounds k, 2k, ... stay, `KEPT` at most: of more, every second goes. The
    newest is always there, for a restart. What the disk has no room for is counted in
    `unwritten`, by kind; the peer goes on.
    """

    def __init__(self, folder: Path, client: int, observe_every: int) -> None:
        self._models, self._client = folder / "models", client
        self._every = observe_every
        self._models.mkdir(parents=True, exist_ok=True)
        self._file = (folder / "events.jsonl").open("ab", buffering=0)
        self._lock = threading.Lock()
        self.unwritten: Counter[str] = Counter()

    def write(self, event: str, server_round: int, **fields: Any) -> None:
        """Write an event with its fields and the time, seconds since 1970."""
        with self._lock:
            if self._file.closed:
                return
            line = {"time": time.time(), "peer": self._client, "event": event}
            line |= {"round": server_round, **fields}
            # It begins with the end of the line before, which may be cut short.
            data = f"\n{json.dumps(line)}".encode()
            try:
                if self._file.write(data) < len(data):
                    raise OSError("there is room for a part of a line only")
            except OSError as error:
                self._failed("events", error)

    def lost(self, server_round: int, client: int, call: str, reason: str) -> None:
        """Write that a call of a client, this one or another, came to nothing."""
        self.write("lost", server_round, other=client, call=call, reason=reason)

    def write_model(self, server_round: int, arrays: ArrayRecord) -> None:
        """Write the model that the peer has after a round; drop what need not stay."""
        path = self._models / f"{server_round:06d}"
        part = path.with_suffix(".part")
        try:
            part.write_bytes(encoding.dump(RecordDict({"arrays": arrays})))
            os.replace(part, path)  # whole, or not there
            *older, _ = rounds_in(self._models)
            if len(older) > KEPT:
                self._every *= 2
            for t in older:
                if not due(t, self._every):
                    (self._models / f"{t:06d}").unlink()
        except OSError as error:
            self._failed("models", error)
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)

    def _failed(self, what: str, error: OSError) -> None:
        """Count what could not be written; say so the first time."""
        if not self.unwritten:
            say(f"peer {self._client} goes on, but cannot write its {what}: {error}")
        self.unwritten[what] += 1

    def close(self) -> None:
        """Write no more."""
        with self._lock:
            self._file.close()


def say(text: str) -> None:
    """Print to stderr, if that can be written."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def read_events(folder: Path) -> list[dict[str, Any]]:
    """Return the events of a peer, without lines that were cut short or are no JSON."""
    path = folder / "events.jsonl"
    events = []
    for line in path.read_bytes().splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):
            events.append(json.loads(line))
    return events


def rounds_in(models: Path) -> list[int]:
    """Return the rounds of which a folder has the model."""
    names = [path.name for path in models.glob("*")]
    return sorted(int(name) for name in names if name.isdecimal())


def read_models(folder: Path, *rounds: int) -> dict[int, ArrayRecord]:
    """Return round -> model of a peer; by default of all rounds that it has kept."""
    models, found = folder / "models", {}
    for t in rounds or rounds_in(models):
        with contextlib.suppress(FileNotFoundError):  # it runs, and has dropped it
            content = encoding.load((models / f"{t:06d}").read_bytes())
            found[t] = content.array_records["arrays"]
    return found
