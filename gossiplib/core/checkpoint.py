"""A checkpoint: all that a run needs to go on after its process, or machine, is gone.

It holds the round, what the run is (its *identity*), the result so far, and what the
clients keep, their whole `context.state`::

    strategy = Gossip(graph, checkpoint="run.zip", checkpoint_every=5)
    strategy.start(grid, initial_arrays, num_rounds=60)  # killed in round 43
    strategy.resume("run.zip", grid, initial_arrays, num_rounds=60)  # rounds 41 to 60

On LocalGrid and on arrays the models and the result are those of a run that was never
interrupted, to the bit, if what clients do follows from their state, their data and
the round: a random number generator that lives on from one round to the next is not in
a checkpoint. The code of clients cannot be compared; the names of their average
functions, with all parameters, are.

Whoever can write the file can make one up. What is not as a run would have written it
is a ValueError, and reading takes memory of a hundred times the file's length at most.
Only what average functions and apps keep for themselves goes back to them unseen.
"""

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, cast, get_args

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from gossiplib.core.client import MODEL, RULE, RUN
from gossiplib.core.membership import Membership
from gossiplib.core.mixing import Matrix, as_dense
from gossiplib.core.models import check_arrays
from gossiplib.core.result import GossipResult, NodeMetrics
from gossiplib.system import archive
from gossiplib.system.archive import Member, Members
from gossiplib.system.encoding import dump, load
from gossiplib.system.kinds import Special, as_kind, fields_of, parse
from gossiplib.system.records import StackedMetrics, record_of

#: The version of the format; another one is refused.
FORMAT = 4

_HEADER = "checkpoint.json"
#: What comes of a header, or of records, that somebody has made up.
_WRONG = (KeyError, TypeError, ValueError)
#: What a result has for each round: metrics by client.
_CLIENTS = get_args(NodeMetrics)[1]
#: The data types of columns of metrics, by numpy's codes.
_NUMBERS = "bhilqBHILQefd"

Where: TypeAlias = str | os.PathLike[str]
Identity: TypeAlias = dict[str, bool | int | float | str]
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
    members: Members  # read when looked up

    def check(self, identity: Identity) -> None:
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


class Known(NamedTuple):
    """The clients of a run on Flower: `more`, and the members that it names."""

    run: int
    states: dict[int, RecordDict]  # what clients keep themselves
    have_model: set[int]
    late: set[int]
    first: dict[int, ArrayRecord]
    chosen: list[tuple[int, list[int]]]


class _Header(NamedTuple):
    format: int
    round: int
    identity: Identity
    result: dict[str, Any]
    more: dict[str, Any]


def check_path(path: Where | None) -> Where | None:
    """Return a path as an absolute one; raise ValueError if nothing can go there."""
    if path is None:
        return None
    path = Path(path)
    # What is there is replaced: it must be no folder, and no device.
    if not path.parent.is_dir() or path.exists() and not path.is_file():
        raise ValueError(
            f"checkpoint must name a file in a folder that is there; got {path}"
        )
    return path.absolute()


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
    """Write a checkpoint. If that fails, warn: the run goes on, the old file stays."""
    told, columns = _of_result(result)
    header = _Header(FORMAT, server_round, identity, told, more)
    text = json.dumps(header._asdict(), default=_plain).encode()
    try:
        archive.write(path, {_HEADER: text, **columns, **members})
    except OSError as error:
        result.unsaved.append(server_round)
        logger.warning("round %d: no checkpoint was written: %s", server_round, error)


@contextlib.contextmanager
def reading(path: Where, num_rounds: int | None = None) -> Iterator[Checkpoint]:
    """Open a checkpoint; raise ValueError if it is none, or cut short, or altered.

    Nor may it have more rounds than the run that is to go on, if `num_rounds` is given.
    """
    with archive.reading(path) as members:
        try:
            told = parse(cast(bytes, members[_HEADER]))
            if (version := as_kind(int, told["format"], "format")) != FORMAT:
                raise ValueError(
                    f"it has the format {version}; this gossiplib reads format {FORMAT}"
                )
            header = as_kind(_Header, told, "header")
            special: Special = {
                MetricRecord: _to_metrics,
                _CLIENTS: partial(_to_clients, members),
            }
            kinds, of_result = fields_of(GossipResult), header.result.items()
            kept = {k: as_kind(kinds[k], v, k, special) for k, v in of_result}
            if not header.round:
                raise ValueError("there is no round 0")
        except _WRONG as error:
            raise _refusal(path, error) from error
        if num_rounds is not None and header.round > num_rounds:
            raise ValueError(
                f"the checkpoint {path} has {header.round} rounds, more than "
                f"num_rounds={num_rounds}"
            )
        _, t, identity, _, more = header
        yield Checkpoint(path, t, identity, GossipResult(**kept), more, members)


def _refusal(path: Where, error: Exception) -> ValueError:
    return ValueError(f"{path} is no checkpoint: {error!r:.300}")


def _of_result(result: GossipResult) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return a result as JSON (which keeps each float to the bit) and arrays."""
    told: dict[str, Any] = {}
    columns: dict[str, np.ndarray] = {}
    for name, kind in fields_of(GossipResult).items():
        value = getattr(result, name)
        if kind == NodeMetrics:
            rounds, value = value, {}
            for t, clients in rounds.items():
                if isinstance(clients, StackedMetrics):
                    at = f"{name}/{t}"
                    value[t] = {"columns": list(clients.columns)}
                    columns[f"{at}/clients"] = clients.clients
                    columns |= {f"{at}/{k}": v for k, v in clients.columns.items()}
                else:
                    value[t] = _of_clients(clients)
        if name not in ("arrays", "node_arrays"):  # the models are the clients'
            told[name] = value
    return told, columns


def _of_clients(clients: Mapping[int, MetricRecord]) -> dict[str, Any]:
    records = list(clients.values())
    if len({id(record) for record in records}) == 1:
        records = records[:1]  # of round 0: one first model, measured once
    return {"clients": list(clients), "metrics": records}


def _plain(value: object) -> object:
    if isinstance(value, MetricRecord):
        return dict(value)
    if isinstance(value, np.integer | np.floating):
        return value.item()
    raise TypeError(f"a result cannot hold a {type(value).__name__}")


def _to_clients(members: Members, told: Any, at: str) -> Mapping[int, MetricRecord]:
    told = as_kind(dict[str, list[Any]], told, at)
    if "columns" in told:
        ids = members.array(f"{at}/clients", "lq")
        if not np.array_equal(ids, np.unique(ids[ids >= 0])):
            raise ValueError(f"the clients of {at} are not in ascending order")
        names = dict.fromkeys(as_kind(list[str], told["columns"], at))
        columns = (members.array(f"{at}/{k}", _NUMBERS, ids.shape) for k in names)
        return StackedMetrics(ids, dict(zip(names, columns, strict=True)))
    clients, metrics = as_kind(list[int], told["clients"], at), told["metrics"]
    if len(metrics) == 1:
        return dict.fromkeys(clients, _to_metrics(metrics[0], at))
    if not len({*clients}) == len(clients) == len(metrics):
        raise ValueError(f"{at} is not one record for each client")
    return {i: _to_metrics(m, at) for i, m in zip(clients, metrics, strict=True)}


def _to_metrics(told: Any, at: str) -> MetricRecord:
    return MetricRecord(as_kind(dict[str, Any], told, at))


def identity(W: Matrix, discover_every: int, records: Records) -> Identity:
    """Return what decides the models of a run of `Gossip`; W is the round's.

    How often a run is measured, and how many rounds it has, may differ when it goes on.
    """
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
    """Write a checkpoint of a run on Flower, with all that its clients keep.

    A client that fails is booked as lost, and the checkpoint is without it.
    """
    calls = clients.calls
    with calls.result.timed("checkpoint"):
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
        save(path, server_round, identity, calls.result, more, kept)


def known_to(kept: Checkpoint, initial: ArrayRecord) -> Known:
    """Return what `save_clients` wrote, with models like `initial`; or ValueError."""

    def stored(call: str, told: Any, at: str) -> dict[int, RecordDict]:
        ids = as_kind(list[int], told, at)
        return {i: load(cast(bytes, kept.members[f"{call}/{i}"])) for i in ids}

    def models(told: Any, at: str) -> dict[int, ArrayRecord]:
        found = stored("first", told, at).items()
        return {i: record_of(state, "arrays", ArrayRecord) for i, state in found}

    special: Special = {
        dict[int, RecordDict]: partial(stored, "state"),
        dict[int, ArrayRecord]: models,
    }
    try:
        known: Known = as_kind(Known, kept.more, "more", special)
        named = {*known.states, *known.have_model, *known.late, *known.first}
        named.update(j for i, near in known.chosen for j in (i, *near))
        if not named <= set(range(cast(int, kept.identity["clients"]))):
            raise ValueError("it names clients that the run does not have")
        runs, own = set(), list(known.first.values())
        for state in known.states.values():
            rule = record_of(state, RULE, ConfigRecord)
            for what in ("average", "discover"):
                as_kind(str, rule[what], RULE)
            own.append(record_of(state, MODEL, ArrayRecord, initial))
            runs.add(record_of(state, RUN, ConfigRecord, ConfigRecord()).get("run"))
        for model in own:
            check_arrays(model, initial)
        if runs and known.run not in runs:  # one client may have been restarted
            raise ValueError("no client was in its run")
    except _WRONG as error:
        raise _refusal(kept.path, error) from error
    return known


def restore(kept: Checkpoint, known: Known, clients: Membership) -> None:
    """Give clients back what they kept, and fill in what the server knew of them.

    Clients that are not in the checkpoint count as late.
    """
    calls, states = clients.calls, known.states
    if missing := sorted(set(states) - set(calls.nodes)):
        raise RuntimeError(
            f"the checkpoint {kept.path} has the clients {missing}, which did not join "
            f"this run: client {missing[0]} {calls.why_missing}"
        )
    calls.server_round = kept.server_round
    told = [calls.message("query.restore", i, **state) for i, state in states.items()]
    back = {calls.client_of(reply) for reply in calls.send(told, counted=False)}
    if back != set(states):
        loss = kept.result.lost[-1]
        raise RuntimeError(
            f"client {loss.client} did not take its state back: {loss.reason}"
        )
    clients.have_model.update(known.have_model)
    clients.late.update(known.late, set(calls.nodes).difference(states))
    clients.first.update(known.first)
    clients.chosen.update(known.chosen)
