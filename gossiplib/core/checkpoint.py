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
code of clients cannot be compared; the names of their average functions, with all
parameters, are.

The clients' part is their whole `context.state`, with what average functions and the
wrapped app put there. How the file is kept from damage is `archive`'s part.
``checkpoint.json`` in the file can be read by eye.
"""

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from gossiplib.core.membership import Membership
from gossiplib.core.mixing import Matrix, as_dense
from gossiplib.core.result import GossipResult, Loss
from gossiplib.system import archive
from gossiplib.system.archive import Member
from gossiplib.system.numbers import check_whole
from gossiplib.system.records import StackedMetrics, dump, load, record_of

__all__ = [
    "Checkpoint",
    "Identity",
    "check_path",
    "fingerprint",
    "identity",
    "reading",
    "restore",
    "save",
    "save_clients",
    "take",
]

#: The version of the format; another one is refused.
FORMAT = 3

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

Where: TypeAlias = str | os.PathLike[str]
Identity: TypeAlias = dict[str, int | float | str]
#: The first model, and what clients are told in training and in evaluation.
Records: TypeAlias = tuple[ArrayRecord, ConfigRecord | None, ConfigRecord | None]

logger = logging.getLogger("gossiplib")


class Checkpoint(NamedTuple):
    """What was read from a checkpoint."""

    path: Where
    server_round: int  # the last one that it holds
    identity: Identity
    result: GossipResult  # so far, without models
    more: dict[str, Any]  # what else the engine wrote to the header
    members: Mapping[str, Member]  # read when looked up

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


def check_path(path: Where | None) -> None:
    """Raise ValueError if no checkpoint could be written there, before the run."""
    if path is not None and (Path(path).is_dir() or not Path(path).parent.is_dir()):
        raise ValueError(
            f"checkpoint must name a file in a folder that is there; got {path}"
        )


def fingerprint(*values: np.ndarray | ArrayRecord | ConfigRecord) -> str:
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
    path: Where,
    server_round: int,
    identity: Identity,
    result: GossipResult,
    more: dict[str, Any],
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
def reading(path: Where) -> Iterator[Checkpoint]:
    """Open a checkpoint; raise ValueError if it is none, or cut short, or altered."""
    with archive.reading(path) as members:
        try:
            header = json.loads(cast(bytes, members[_HEADER]))
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


def _of_result(result: GossipResult) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return a result as JSON (which keeps each float to the bit) and arrays."""
    told: dict[str, Any] = {}
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


def _of_clients(clients: Mapping[int, MetricRecord]) -> dict[str, Any]:
    records = list(clients.values())
    if len({id(record) for record in records}) == 1:
        records = records[:1]  # of round 0: one first model, measured once
    return {"clients": list(clients), "metrics": [dict(r) for r in records]}


def _to_result(told: dict[str, Any], members: Mapping[str, Member]) -> GossipResult:
    result = GossipResult()
    known = {f.name for f in fields(result)}.difference(_MODELS)
    for name, value in told.items():
        if name not in known or type(value) is not type(getattr(result, name)):
            raise ValueError(f"{name} is not what a result has")
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
    told: dict[str, Any], at: str, members: Mapping[str, Member]
) -> Mapping[int, MetricRecord]:
    if "columns" in told:
        columns = {k: np.asarray(members[f"{at}/{k}"]) for k in told["columns"]}
        return StackedMetrics(np.asarray(members[f"{at}/clients"]), columns)
    records = [MetricRecord(metrics) for metrics in told["metrics"]]
    if len(records) == 1:
        return dict.fromkeys(told["clients"], records[0])
    return dict(zip(told["clients"], records, strict=True))


def _number(value: object) -> int | float:
    if isinstance(value, np.integer | np.floating):
        return value.item()
    raise TypeError(f"a result cannot hold a {type(value).__name__}")


def identity(W: Matrix, discover_every: int, records: Records) -> Identity:
    """Return what decides the models of a run of `Gossip`; W is the round's."""
    names = ("initial_arrays", "train_config", "evaluate_config")
    prints = (fingerprint(record or ConfigRecord()) for record in records)
    return {
        "engine": "Gossip",
        "clients": W.shape[0],
        "discover_every": discover_every,
        "graph or weights": fingerprint(as_dense(W)),
        **dict(zip(names, prints, strict=True)),
    }


def save_clients(
    path: Where,
    server_round: int,
    identity: Identity,
    clients: Membership,
) -> None:
    """Write a checkpoint of a run on Flower, with all that its clients keep."""
    result = clients.calls.result
    with result.timed("checkpoint"):
        more, members = take(clients)
        save(path, server_round, identity, result, more, members)


def take(clients: Membership) -> tuple[dict[str, Any], dict[str, Member]]:
    """Ask all clients for what they keep; put what the server knows of them beside it.

    A client that fails is booked as lost, and the checkpoint is without it. What is
    returned are `more` and `members` of a checkpoint.
    """
    calls = clients.calls
    asked = [calls.message("query.state", i) for i in sorted(calls.nodes)]
    kept: dict[str, Member] = {}
    states = set()
    for reply in calls.send(asked, counted=False):
        i = calls.client_of(reply)
        if (state := calls.read(reply, dump, "its state")) is not None:
            kept[f"state/{i}"] = state
            states.add(i)
    for i, arrays in clients.first.items():
        kept[f"first/{i}"] = dump(RecordDict({"arrays": arrays}))
    more = {
        "run": calls.run,
        "states": sorted(states),
        "have_model": sorted(clients.have_model & states),
        "late": sorted(clients.late & states),
        "first": sorted(clients.first),
        "chosen": [[i, near] for i, near in clients.chosen.items() if i in states],
    }
    return more, kept


def restore(kept: Checkpoint, clients: Membership) -> None:
    """Give clients back what they kept, and fill in what the server knew of them.

    Clients that are not in the checkpoint count as late. One of its own that is not
    there, or fails, is a RuntimeError.
    """
    _check(kept)
    calls, states = clients.calls, kept.more["states"]
    if missing := sorted(set(states) - set(calls.nodes)):
        raise RuntimeError(
            f"the checkpoint {kept.path} has the clients {missing}, which did not join "
            f"this run: client {missing[0]} {calls.why_missing}"
        )
    calls.server_round = kept.server_round
    stored = {i: load(cast(bytes, kept.members[f"state/{i}"])) for i in states}
    told = [calls.message("query.restore", i, **stored[i]) for i in states]
    back = {calls.client_of(reply) for reply in calls.send(told, counted=False)}
    if back != set(states):
        loss = kept.result.lost[-1]
        raise RuntimeError(
            f"client {loss.client} did not take its state back: {loss.reason}"
        )
    clients.have_model.update(kept.more["have_model"])
    clients.late.update(kept.more["late"], set(calls.nodes).difference(states))
    for i in kept.more["first"]:
        first = load(cast(bytes, kept.members[f"first/{i}"]))
        clients.first[i] = record_of(first, "arrays", ArrayRecord)
    clients.chosen.update(kept.more["chosen"])


def _check(kept: Checkpoint) -> None:
    """Raise ValueError unless a checkpoint holds what `take` has put there."""
    more, members = kept.more, kept.members
    try:
        clients = range(int(kept.identity["clients"]))
        lists = [more[name] for name in ("states", "have_model", "late", "first")]
        for some in [*lists, [i for i, _ in more["chosen"]]]:
            if len(set(some)) < len(some) or not all(i in clients for i in some):
                raise ValueError(f"{some} are not clients")
        for _, chosen in more["chosen"]:
            if not all(j in clients for j in chosen):
                raise ValueError(f"{chosen} are not clients")
        if not isinstance(more["run"], int):
            raise ValueError("the run has no number")
        needed = [f"state/{i}" for i in lists[0]] + [f"first/{i}" for i in lists[3]]
        if missing := [name for name in needed if name not in members]:
            raise ValueError(f"{missing} are missing")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{kept.path} is no checkpoint: {error}") from error
