"""How a peer proceeds: round by round with its neighbours, or by its own clock.

Both loops do for one client what a server does for all (`server.Gossip`,
`relay.Relay`): they call its functions, with a `peer.Peer` to send and to receive.
"""

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from flwr.app import ConfigRecord, RecordDict

from gossiplib.arrays import array_bytes, only_arrays
from gossiplib.client import NEIGHBOURS
from gossiplib.letters import Letter

if TYPE_CHECKING:
    from gossiplib.peer import Peer

__all__ = ["run_rounds", "run_sends"]


def run_rounds(peer: "Peer", evaluate_every: int = 1, observe_every: int = 1) -> None:
    """Train and average with the neighbours, round by round, to the last one.

    Parameters
    ----------
    peer : Peer
        Made with a number of rounds. It is closed at the end.
    evaluate_every, observe_every : int
        Rounds between two calls of `evaluate`, and between two models written down; 0
        is never, and after the last round only.
    """
    peer.join()
    # Some may still be starting; later, all have begun.
    seconds = peer.deadline if peer.round else max(peer.patience, peer.deadline)
    while peer.round < peer.rounds and not peer.closed:
        t = peer.mailbox.next_round(peer.round + 1)
        if t > peer.round + 1:
            peer.journal.note("skipped", t, rounds=t - peer.round - 1)
        _turn(peer, t, seconds)
        seconds = peer.deadline
        if evaluate_every and t % evaluate_every == 0:
            reply = peer.call("evaluate", t, gossip=ConfigRecord())
            if reply is not None:
                peer.journal.note("evaluated", t, metrics=_metrics(reply))
        if t == peer.rounds or (observe_every and t % observe_every == 0):
            peer.journal.keep(t, peer.model)
        peer.journal.note("round", t, refused=peer.refused())
    peer.finish()


def _turn(peer: "Peer", t: int, seconds: float) -> None:
    """Train, send, wait, average: one round."""
    neighbours = sorted(peer.mailbox.neighbours)
    degree = len(neighbours)
    # A link that the other side asked for is one of the client's as well.
    peer.state[NEIGHBOURS] = ConfigRecord({"neighbours": neighbours})
    told = ConfigRecord({"server-round": t, "receivers": degree})
    reply = peer.call("train", t, gossip=told)
    trained = None
    if reply is not None:
        trained = only_arrays(reply)
        peer.journal.note("trained", t, metrics=_metrics(reply))
        if "gossip" not in reply:  # else it is encoded, in a form that only it knows
            peer.mailbox.expect(peer.initial)
    peer.outbox.send(t, degree, trained, neighbours)
    came = peer.mailbox.collect(t, neighbours, seconds)
    for j in sorted(set(neighbours) - set(came)):
        peer.journal.lose(t, j, "Push", f"client {peer.client} has heard nothing of it")
    heard = {j: came[j] for j in sorted(came) if came[j].arrays is not None}
    if trained is not None and heard:
        _average(peer, t, degree, heard)
    shown = peer.call("query.model", t)
    peer.finish_round(t, None if shown is None else only_arrays(shown))


def _average(peer: "Peer", t: int, degree: int, heard: dict[int, Letter]) -> None:
    """Let the client average, with the weights of `mixing.metropolis`.

    Each end of a link knows both degrees. What is missing stays with the own model.
    A neighbour that lies about its degree gets at most 1 / (1 + the own degree).
    """
    weights = [1 / (1 + max(degree, letter.degree)) for letter in heard.values()]
    told = {
        "server-round": t,
        "senders": list(heard),
        "weights": [1 - sum(weights), *weights],
    }
    models = {str(j): letter.arrays for j, letter in heard.items()}
    reply = peer.call("train.average", t, gossip=ConfigRecord(told), **models)
    if reply is not None:
        size = sum(map(array_bytes, models.values()))
        peer.journal.note("averaged", t, senders=list(heard), bytes=size)


def run_sends(peer: "Peer", sends: int, every: float = 0.1, seed: int = 0) -> None:
    """Send the newest model to a random neighbour at each tick; learn what comes.

    Parameters
    ----------
    peer : Peer
        Made without a number of rounds. It is closed at the end.
    sends : int
        Number of ticks. After the last one it tells its neighbours so, and goes on
        learning until they have said the same, or nothing has come for as long as its
        patience lasts.
    every : float
        Seconds between two ticks.
    seed : int
        Decides who gets a model. What comes when, the network decides.
    """
    first = peer.call("query.send")
    if first is None:
        raise RuntimeError("the client is none of arrivals.gossip_on_arrival")
    peer.mailbox.expect(only_arrays(first))
    peer.join()
    rng = np.random.default_rng([seed, peer.client])
    due, quiet = time.monotonic() + every * rng.random(), 0.0
    done: set[int] = set()  # neighbours that send no more
    while peer.round < sends and not peer.closed:
        done |= _learn(peer, peer.round + 1, due - time.monotonic())[1]
        if time.monotonic() >= due:
            due = max(due + every, time.monotonic())
            _tick(peer, peer.round + 1, rng)
    neighbours = sorted(peer.mailbox.neighbours)
    peer.outbox.send(sends + 1, len(neighbours), None, neighbours)
    end = time.monotonic() + 10 * peer.patience  # one that never stops does not count
    while peer.mailbox.alive - done and quiet < peer.patience and not peer.closed:
        if time.monotonic() > end:
            break
        came, last = _learn(peer, sends, every)
        quiet = 0.0 if came else quiet + every
        done |= last
    _keep(peer, sends)
    peer.finish()


def _tick(peer: "Peer", cycle: int, rng: np.random.Generator) -> None:
    """Send once, and write the model down."""
    neighbours = sorted(peer.mailbox.neighbours)
    said = peer.call("query.send", cycle)
    if said is not None and neighbours:
        to = [int(rng.choice(neighbours))]
        peer.outbox.send(cycle, len(neighbours), only_arrays(said), to)
    _keep(peer, cycle)
    peer.journal.note("round", cycle, refused=peer.refused())


def _keep(peer: "Peer", cycle: int) -> None:
    """Write the newest model down."""
    shown = peer.call("query.model", cycle)
    peer.finish_round(cycle, None if shown is None else only_arrays(shown))
    peer.journal.keep(cycle, peer.model)


def _learn(peer: "Peer", cycle: int, seconds: float) -> tuple[bool, set[int]]:
    """Hand the next model that comes to the client.

    Returns whether a letter came, and whose last it was: one that brings no model.
    """
    came = peer.mailbox.take(seconds)
    if came is None:
        return False, set()
    sender, letter = came
    if letter.arrays is None:
        return True, {sender}
    told = ConfigRecord({"cycle": cycle})
    reply = peer.call("train", cycle, gossip=told, arrays=letter.arrays)
    if reply is not None:
        peer.journal.note("trained", cycle, metrics=_metrics(reply))
        size = array_bytes(letter.arrays)
        peer.journal.note("learned", cycle, other=sender, bytes=size)
    return True, set()


def _metrics(reply: RecordDict) -> dict[str, Any]:
    """Return the metrics of a reply."""
    return {k: v for record in reply.metric_records.values() for k, v in record.items()}
