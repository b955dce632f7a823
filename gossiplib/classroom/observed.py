"""What was observed here, or on another machine where nothing can be started here."""

import gzip
import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd

__all__ = ["Observed"]


class Observed:
    """Call functions that need processes, or return what they have returned elsewhere.

    What they return is JSON, which may hold tables of pandas; so what was stored is as
    what happens here.

    Parameters
    ----------
    file : str
        Of stored results, in gossiplib/data; `tests/store_deployment.py` makes it.
    live : bool
        Whether processes can be started here.

    Examples
    --------
    >>> seen = Observed("peers.json.gz", live=True)
    >>> def answer():
    ...     return {"rounds": [1, 2]}
    >>> seen(answer)
    {'rounds': [1, 2]}
    """

    def __init__(self, file: str, live: bool) -> None:
        self.live = live
        self._texts: dict[str, str] = {}
        if not live:
            stored = resources.files("gossiplib") / "data" / file
            self._texts = json.loads(gzip.decompress(stored.read_bytes()))

    def __call__(self, function: Callable[[], Any]) -> Any:
        """Return what a function, known by its name, has observed."""
        name = function.__name__
        if self.live:
            self._texts[name] = json.dumps(function(), default=_written)
        return json.loads(self._texts[name], object_hook=_read)

    def store(self, path: Path) -> None:
        """Write all that was observed here to the file `path`."""
        path.write_bytes(gzip.compress(json.dumps(self._texts).encode(), mtime=0))


def _written(value: Any) -> Any:
    """Return a table, or a number of numpy's, as JSON has it."""
    if isinstance(value, pd.DataFrame):
        table = value.to_json(orient="split", double_precision=4)
        return {"table": json.loads(table)}
    return value.tolist()


def _read(value: dict[str, Any]) -> Any:
    return pd.DataFrame(**value["table"]) if "table" in value else value
