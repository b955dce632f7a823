"""What a peer writes down: its events and its models, in a folder of its own.

Each event is one line of JSON, written at once, so that a peer that is killed leaves
all that it did before. Models are written by `records`.
"""

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, RecordDict

from gossiplib.core import models

__all__ = ["Journal", "read_events", "read_models"]


class Journal:
    """Events and models of one peer.

    Parameters
    ----------
    folder : Path
        Made if it is not there. What is in it is kept, and added to.
    client : int
        The peer's partition id.
    """

    def __init__(self, folder: Path, client: int) -> None:
        self._folder, self._client = Path(folder), client
        (self._folder / "models").mkdir(parents=True, exist_ok=True)
        self._file = (self._folder / "events.jsonl").open("a", buffering=1)
        if self._file.tell():
            self._file.write("\n")  # after a line that was cut short
        self._lock = threading.Lock()

    def note(self, event: str, server_round: int, **more: Any) -> None:
        """Write an event down, with the time: seconds since 1970."""
        with self._lock:
            if self._file.closed:
                return
            told = {"time": time.time(), "peer": self._client, "event": event}
            line = json.dumps(told | {"round": server_round} | more)
            self._file.write(line + "\n")

    def lose(self, server_round: int, client: int, call: str, reason: str) -> None:
        """Write down that a call of a client, this one or another, came to nothing."""
        more = {"other": client, "call": call, "reason": reason}
        self.note("lost", server_round, **more)

    def keep(self, server_round: int, arrays: ArrayRecord) -> None:
        """Write the model down that the peer has after a round."""
        path = self._folder / "models" / f"{server_round:06d}"
        data = models.dump(RecordDict({"arrays": arrays}))
        part = path.with_suffix(".part")
        part.write_bytes(data)
        os.replace(part, path)  # whole, or not there

    def close(self) -> None:
        """Write no more."""
        with self._lock:
            self._file.close()


def read_events(folder: Path) -> list[dict[str, Any]]:
    """Return the events of a peer. Of a line that was cut short nothing is left."""
    path = Path(folder) / "events.jsonl"
    events = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            events.append(json.loads(line))
        except ValueError:
            continue
    return events


def read_models(folder: Path) -> dict[int, ArrayRecord]:
    """Return round -> model of a peer."""
    return {
        int(path.name): models.load(path.read_bytes())["arrays"]
        for path in sorted((Path(folder) / "models").glob("*[0-9]"))
    }
