"""A checkpoint: all that a run needs to go on after its process, or machine, is gone.

It holds the round, what the run is (its *identity*), the result so far, and what the
clients keep. ``Gossip(graph, checkpoint="run.zip")`` writes one after each round, and
``resume`` of such a strategy goes on from it::

    strategy = Gossip(graph, checkpoint="run.zip", checkpoint_every=5)
    strategy.start(grid, initial_arrays, num_rounds=60)  # killed in round 43
    strategy.resume("run.zip", grid, initial_arrays, num_rounds=60)  # rounds 41 to 60

`vectorized.gossip_learning` takes the paths as ``checkpoint=`` and ``resume=``. On
LocalGrid and on arrays the models and the result are those of a run that was never
interrupted, to the bit, if what clients do follows from their state, their data and
the round: a random number generator that lives on from one round to the next is not in
a checkpoint. What the result tells of time goes on to add up; the time that a
checkpoint takes is in it. Each checkpoint holds the whole result so far.

The identity says what decides the models: the number of clients, the first model, the
graph with its weights in the checkpoint's round, what the clients are told. How often
a run is measured, and how many rounds it has, may differ in the run that goes on. The
code of clients and average functions cannot be compared.

How the file is kept from damage is `archive`'s part; `snapshot` says what `Gossip` and
its clients keep. ``checkpoint.json`` in the file can be read by eye.
"""

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

import numpy as np
from flwr.app import ArrayRecord, MetricRecord, RecordDict

from gossiplib import archive
from gossiplib.archive import Member
from gossiplib.records import dump
from gossiplib.result import GossipResult, Loss, check_whole
from gossiplib.stacked import StackedMetrics

__all__ = [
    "Checkpoint",
    "Identity",
    "check_path",
    "fingerprint",
    "reading",
    "save",
]

#: The version of the format; another one is refused.
FORMAT = 1

_HEADER = "checkpoint.json"
#: What comes of a header that somebody has made up.
_WRONG = (KeyError, TypeError, ValueError, AttributeError, RecursionError)
#: Fields of a result that map a round to the metrics of all clients together.
_MEANS = (
    "train_metrics_clientapp",
    "evaluate_metrics_clientapp",
    "evaluate_metrics_serverapp",
)
_BY_CLIENT = ("node_train_metrics", "node_evaluate_metrics", "node_server_metrics")
#: The models are the clients'.
_MODELS = ("arrays", "node_arrays")

Identity = dict[str, int | float | str]

logger = logging.getLogger("gossiplib")


class Checkpoint(NamedTuple):
    """What was read from a checkpoint.

    Attributes
    ----------
    path : path-like
        Where it was read.
    server_round : int
        The last round that it holds.
    identity : dict
        What the run is.
    result : GossipResult
        The result so far, without models.
    more : dict
        What else the engine wrote to the header.
    members : mapping
        Name -> bytes or array, read when looked up.
    """

    path: str | os.PathLike
    server_round: int
    identity: Identity
    result: GossipResult
    more: dict
    members: Mapping[str, Member]

    def check(self, identity: Identity, num_rounds: int) -> None:
        """Raise ValueError unless this run can go on from here; say what differs."""
        differing = []
        for name in {**identity, **self.identity}:
            there, here = self.identity.get(name), identity.get(name)
            if there != here:
                short = all(len(str(value)) < 40 for value in (there, here))
                differing.append(f"{name} ({there}, now {here})" if short else name)
        if differing:
            raise ValueError(
                f"the checkpoint {self.path} is of another run. What differs: "
                f"{'; '.join(differing)}"
            )
        if self.server_round > num_rounds:
            raise ValueError(
                f"the checkpoint {self.path} has {self.server_round} rounds, more than "
                f"num_rounds={num_rounds}"
            )


def check_path(path: str | os.PathLike | None) -> None:
    """Raise ValueError if no checkpoint could be written there, before the run."""
    if path is not None and (Path(path).is_dir() or not Path(path).parent.is_dir()):
        raise ValueError(
            f"checkpoint must name a file in a folder that is there; got {path}"
        )


def fingerprint(*values: np.ndarray | ArrayRecord | Mapping) -> str:
    """Return a SHA-256 of arrays (data type, shape and values) and records."""
    digest = hashlib.sha256()
    for value in values:
        if isinstance(value, np.ndarray):
            digest.update(f"{value.dtype.str} {value.shape} ".encode())
            digest.update(np.ascontiguousarray(value).data)
        else:
            digest.update(dump(RecordDict({"value": value})))
    return digest.hexdigest()


def save(
    path: str | os.PathLike,
    server_round: int,
    identity: Identity,
    result: GossipResult,
    more: dict,
    members: Mapping[str, Member],
) -> None:
    """Write a checkpoint. If that fails, warn, and note the round as `unsaved`.

    A run is worth more than its checkpoint: it goes on, and the earlier file stays.
    """
    told, columns = _of_result(result)
    header = {
        "format": FORMAT,
        "round": server_round,
        "identity": identity,
        "result": told,
        "more": more,
    }
    text = json.dumps(header, default=_number).encode()
    try:
        archive.write(path, {_HEADER: text, **columns, **members})
    except OSError as error:
        result.unsaved.append(server_round)
        logger.warning("round %d: no checkpoint was written: %s", server_round, error)


@contextlib.contextmanager
def reading(path: str | os.PathLike) -> Iterator[Checkpoint]:
    """Open a checkpoint.

    Raises
    ------
    OSError
        If the file cannot be opened.
    ValueError
        If it was cut short or altered, is of another version, or something else.
    """
    with archive.reading(path) as members:
        try:
            header = json.loads(members[_HEADER])
            version = header["format"]
        except _WRONG as error:
            raise ValueError(f"{path} is no checkpoint: {error!r}") from error
        if version != FORMAT:
            raise ValueError(
                f"the checkpoint {path} has the format {version}; this gossiplib reads "
                f"format {FORMAT}"
            )
        try:
            t, identity, more = (header[key] for key in ("round", "identity", "more"))
            check_whole("round", t, 1)
            if not isinstance(identity, dict) or not isinstance(more, dict):
                raise TypeError("identity and more must be objects")
            result = _to_result(header["result"], members)
        except _WRONG as error:
            raise ValueError(f"{path} is no checkpoint: {error!r}") from error
        yield Checkpoint(path, t, identity, result, more, members)


# The result so far --------------------------------------------------------------------


def _of_result(result: GossipResult) -> tuple[dict, dict[str, np.ndarray]]:
    """Return a result as JSON (which keeps each float to the bit) and arrays."""
    told: dict = {}
    columns: dict[str, np.ndarray] = {}
    for name in (f.name for f in fields(result)):
        value = getattr(result, name)
        if name in _MEANS:
            value = {t: dict(metrics) for t, metrics in value.items()}
        elif name in _BY_CLIENT:
            rounds, value = value, {}
            for t, clients in rounds.items():
                if isinstance(clients, StackedMetrics):
                    at = f"{name}/{t}"
                    value[t] = {"columns": list(clients.columns)}
                    columns[f"{at}/clients"] = clients.clients
                    columns |= {f"{at}/{k}": v for k, v in clients.columns.items()}
                else:
                    value[t] = _of_clients(clients)
        if name not in _MODELS:
            told[name] = value
    return told, columns


def _of_clients(clients: Mapping[int, MetricRecord]) -> dict:
    records = list(clients.values())
    if len({id(record) for record in records}) == 1:
        records = records[:1]  # of round 0: one first model, measured once
    return {"clients": list(clients), "metrics": [dict(r) for r in records]}


def _to_result(told: dict, members: Mapping[str, Member]) -> GossipResult:
    result = GossipResult()
    for name, value in told.items():
        if isinstance(value, dict) and name != "seconds":
            value = {int(t): of_round for t, of_round in value.items()}
        if name in _MEANS:
            value = {t: MetricRecord(metrics) for t, metrics in value.items()}
        elif name in _BY_CLIENT:
            value = {
                t: _to_clients(of_round, f"{name}/{t}", members)
                for t, of_round in value.items()
            }
        elif name == "lost":
            value = [Loss(*loss) for loss in value]
        setattr(result, name, value)
    return result


def _to_clients(
    told: dict, at: str, members: Mapping[str, Member]
) -> Mapping[int, MetricRecord]:
    if "columns" in told:
        columns = {k: members[f"{at}/{k}"] for k in told["columns"]}
        return StackedMetrics(members[f"{at}/clients"], columns)
    records = [MetricRecord(metrics) for metrics in told["metrics"]]
    if len(records) == 1:
        return dict.fromkeys(told["clients"], records[0])
    return dict(zip(told["clients"], records, strict=True))


def _number(value: object) -> int | float:
    if isinstance(value, np.integer | np.floating):
        return value.item()
    raise TypeError(f"a result cannot hold a {type(value).__name__}")
