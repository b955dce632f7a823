"""What the server and its clients keep between two rounds: to a checkpoint and back.

The clients' part is their whole `context.state`, with what average functions and the
wrapped app put there. `server.Gossip` calls this; the file is `checkpoint`'s matter.
"""

from typing import TYPE_CHECKING

from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from gossiplib import topology
from gossiplib.archive import Member
from gossiplib.checkpoint import Checkpoint, Identity, fingerprint
from gossiplib.members import Members
from gossiplib.records import dump, load

if TYPE_CHECKING:
    from gossiplib.server import Gossip

__all__ = ["identity", "restore", "take"]


def identity(
    strategy: "Gossip",
    server_round: int,
    told: tuple[ArrayRecord, ConfigRecord | None, ConfigRecord | None],
) -> Identity:
    """Return what decides the models of a run, see `checkpoint`.

    Parameters
    ----------
    strategy : server.Gossip
        Graph, weights and when clients discover.
    server_round : int
        The round of the checkpoint.
    told : tuple
        The first model, and what clients are told in training and in evaluation.
    """
    W = strategy.weights(topology.at(strategy.schedule, server_round))
    records = [record or ConfigRecord() for record in told]
    names = ("initial_arrays", "train_config", "evaluate_config")
    return {
        "engine": "Gossip",
        "clients": strategy.num_clients,
        "discover_every": strategy.discover_every,
        "graph or weights": fingerprint(W.toarray() if hasattr(W, "toarray") else W),
        **dict(zip(names, map(fingerprint, records), strict=True)),
    }


def take(members: Members) -> tuple[dict, dict[str, Member]]:
    """Ask all clients for what they keep; put what the server knows of them beside it.

    A client that fails is booked as lost. The checkpoint is without it.

    Returns
    -------
    tuple
        `more` and `members` of a checkpoint.
    """
    calls, chosen = members.calls, members.neighbourhood.chosen
    asked = [calls.message("query.state", i) for i in sorted(calls.nodes)]
    kept = {}
    states = set()
    for reply in calls.send(asked, counted=False):
        i = calls.client_of(reply)
        try:
            kept[f"state/{i}"] = dump(reply.content)
            states.add(i)
        except (ValueError, TypeError, AttributeError, EOFError) as error:
            calls.lose(i, "query.state", f"its state cannot be kept: {error}")
    for i, arrays in members.first.items():
        kept[f"first/{i}"] = dump(RecordDict({"arrays": arrays}))
    more = {
        "run": calls.run,
        "states": sorted(states),
        "have_model": sorted(members.have_model & states),
        "late": sorted(members.late & states),
        "first": sorted(members.first),
        "chosen": [[i, near] for i, near in chosen.items() if i in states],
    }
    return more, kept


def restore(kept: Checkpoint, members: Members) -> None:
    """Give clients back what they kept, and fill in what the server knew of them.

    Clients that are not in the checkpoint count as late.

    Raises
    ------
    RuntimeError
        If a client of the checkpoint is not there, or fails.
    """
    _check(kept)
    calls, states = members.calls, kept.more["states"]
    if missing := sorted(set(states) - set(calls.nodes)):
        raise RuntimeError(
            f"the checkpoint {kept.path} has the clients {missing}, which did not join "
            f"this run: client {missing[0]} {calls.why_missing}"
        )
    calls.server_round = kept.server_round
    told = [
        calls.message("query.restore", i, **load(kept.members[f"state/{i}"]))
        for i in states
    ]
    back = {calls.client_of(reply) for reply in calls.send(told, counted=False)}
    if back != set(states):
        loss = kept.result.lost[-1]
        raise RuntimeError(
            f"client {loss.client} did not take its state back: {loss.reason}"
        )
    members.have_model.update(kept.more["have_model"])
    members.late.update(kept.more["late"], set(calls.nodes).difference(states))
    for i in kept.more["first"]:
        members.first[i] = load(kept.members[f"first/{i}"])["arrays"]
    members.neighbourhood.chosen.update(kept.more["chosen"])


def _check(kept: Checkpoint) -> None:
    """Raise ValueError unless a checkpoint holds what `take` has put there."""
    more, members = kept.more, kept.members
    try:
        clients = range(kept.identity["clients"])
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
