"""What a peer leaves behind: a log of its events, and its models, in its own folder.

An event is one line of JSON, written at once, so that a peer that is killed leaves all
that it did before. A model is a file that `records.dump` wrote.
"""

import contextlib
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, RecordDict

from gossiplib.system import records


class EventLog:
    """Write the events and models of one peer to its folder, beside what is there."""

    def __init__(self, folder: Path, client: int) -> None:
        self._models, self._client = folder / "models", client
        self._models.mkdir(parents=True, exist_ok=True)
        self._file = (folder / "events.jsonl").open("a", buffering=1)
        if self._file.tell():
            self._file.write("\n")  # after a line that was cut short
        self._lock = threading.Lock()

    def write(self, event: str, server_round: int, **fields: Any) -> None:
        """Write an event with its fields and the time, seconds since 1970."""
        with self._lock:
            if self._file.closed:
                return
            line = {"time": time.time(), "peer": self._client, "event": event}
            line |= {"round": server_round, **fields}
            self._file.write(json.dumps(line) + "\n")

    def lost(self, server_round: int, client: int, call: str, reason: str) -> None:
        """Write that a call of a client, this one or another, came to nothing."""
        self.write("lost", server_round, other=client, call=call, reason=reason)

    def write_model(self, server_round: int, arrays: ArrayRecord) -> None:
        """Write the model that the peer has after a round."""
        path = self._models / f"{server_round:06d}"
        part = path.with_suffix(".part")
        part.write_bytes(records.dump(RecordDict({"arrays": arrays})))
        os.replace(part, path)  # whole, or not there

    def close(self) -> None:
        """Write no more."""
        with self._lock:
            self._file.close()


def read_events(folder: Path) -> list[dict[str, Any]]:
    """Return the events of a peer. A line that was cut short is left out."""
    path = folder / "events.jsonl"
    events = []
    for line in path.read_text().splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):
            events.append(json.loads(line))
    return events


def read_models(folder: Path) -> dict[int, ArrayRecord]:
    """Return round -> model of a peer."""
    return {
        int(path.name): records.load(path.read_bytes()).array_records["arrays"]
        for path in sorted((folder / "models").glob("*[0-9]"))
    }
