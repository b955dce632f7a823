"""Checks of the exercises of notebook 17: no server at all."""

import numpy as np
from flwr.app import ArrayRecord

from gossiplib.classroom.checking import (
    Function,
    checks,
    need,
    need_number,
    need_words,
)
from gossiplib.peers.messages import Mailbox, PeerMessage, Refused, encode


@checks("17.1")
def _(weight: float) -> str:
    need_number(weight)
    need(0 < weight < 1, "A weight is above 0 and below 1.")
    need(weight < 0.3, "Your own degree counts too, whatever the neighbour says.")
    need(abs(weight - 1 / 4) < 1e-3, "A lower degree than yours changes nothing.")
    weights = ", ".join(f"{1 / (1 + max(3, d)):.3g}" for d in (1, 2, 3, 4, 7))
    return f"If it says 1, 2, 3, 4, 7, it gets {weights}."


@checks("17.2")
def _(fresh: Function) -> str:
    one = [(5, 3)]
    need(bool(fresh([], (5, 1))), "The first message of a peer is fresh.")
    need(bool(fresh(one, (5, 4))), "The next message of a process is fresh.")
    need(bool(fresh(one, (5, 9))), "Some between may be lost; the next is fresh.")
    need(not fresh(one, (5, 3)), "A message that comes twice is not fresh.")
    need(not fresh(one, (5, 2)), "A message that comes late is not fresh.")
    need(bool(fresh(one, (6, 1))), "A peer that starts anew counts anew.")
    need(bool(fresh(one, (2, 1))), "Starts are drawn at random, and have no order.")
    three = [(5, 3), (8, 1), (2, 6), (2, 7)]
    need(bool(fresh(three, (2, 8))), "The process that was heard last may go on.")
    need(not fresh(three, (8, 2)), "A process that was followed by another has ended.")
    need(not fresh(three, (5, 4)), "One that ended before the last one is as dead.")
    return "The last stamp, and the starts before it: no more has to be kept."


@checks("17.3")
def _(next_round: Function) -> None:
    need(next_round(4, {1: 5, 2: 5}) == 4, "A round ahead is not far.")
    here = next_round(4, {1: 9, 2: 4}) == 4
    need(here, "One neighbour is still here: it may be right.")
    need(next_round(4, {1: 9, 2: 7}) == 7, "The slowest of them decides.")
    need(next_round(4, {1: 6, 2: 6}) == 6, "Two rounds ahead is far.")
    need(next_round(4, {1: 900, 2: 6, 3: 8}) == 6, "One liar must not drag you.")
    need(next_round(4, {1: 2, 2: 3}) == 4, "Nobody goes back.")
    need(next_round(4, {}) == 4, "With nobody alive, go on alone.")


@checks("17.4")
def _(influence: Function) -> None:
    chain = [(0, 1, 0.1, 0.2), (1, 2, 0.3, 0.4), (2, 3, 0.5, 0.6)]
    hint = "News travels on: what 1 heard of 0 before it sent to 2 goes along."
    need(set(influence(chain, 3, 1.0)) == {0, 1, 2, 3}, hint)
    hint = "What has not arrived yet is not known."
    need(set(influence(chain, 3, 0.55)) == {3}, hint)
    need(set(influence(chain, 0, 1.0)) == {0}, "Messages go one way.")
    late = [(1, 2, 0.1, 0.2), (0, 1, 0.3, 0.4)]
    hint = "A message cannot tell what its sender hears after it was sent."
    need(set(influence(late, 2, 1.0)) == {1, 2}, hint)
    crossed = [(1, 2, 0.30, 0.90), (0, 1, 0.10, 0.20), (3, 1, 0.10, 0.50)]
    hint = "It matters when a message was sent, not when it arrives."
    need(set(influence(crossed, 2, 1.0)) == {0, 1, 2}, hint)
    lost = [(0, 1, 0.1, np.nan), (1, 2, 0.3, 0.4)]
    need(set(influence(lost, 2, 1.0)) == {1, 2}, "A lost message tells nothing.")
    hint = "The messages may come in any order in the list."
    need(set(influence(chain[::-1], 3, 1.0)) == {0, 1, 2, 3}, hint)


@checks("17.5")
def _(degree: str, ahead: str, gap: str, thief: str) -> str:
    need_words((degree, ahead, gap, thief), "taken", "refused")
    why = []
    for name, answer, odd, hint in (
        ("degree", degree, {"degree": 100}, "How many neighbours can a peer have?"),
        ("ahead", ahead, {"round": 20}, "What if peer 0 was away for a while?"),
        ("gap", gap, {"count": 40}, "Does every message get there?"),
        ("thief", thief, {}, "Which of the two processes is the newer one, to peer 0?"),
    ):
        verdict, reason = _asked(name == "thief", **odd)
        need(answer == verdict, f"{name}: {hint}")
        why += [f'{name} as "{reason}"'] if reason else []
    return f"The mailbox has counted {' and '.join(why)}."


def _asked(thief: bool, **odd: int) -> tuple[str, str]:
    """Return what a mailbox in round 3 does with a neighbour's second message, why."""
    model = ArrayRecord([np.random.default_rng(0).normal(size=(64, 10))])
    box = Mailbox(num_clients=8, max_bytes=20_000, num_rounds=30)
    box.expect(model)
    box.link(1)
    header = {"round": 2, "degree": 2, "start": 5, "count": 1}
    box.put(1, encode(PeerMessage(**header, arrays=model)))
    box.collect(2, [1], timeout=0)
    header |= {"round": 3, "count": 2} | odd
    if thief:
        stolen = header | {"start": 9, "count": 1}
        box.put(1, encode(PeerMessage(**stolen, arrays=model)))
    try:
        box.put(1, encode(PeerMessage(**header, arrays=model)))
    except Refused as refused:
        return "refused", str(refused)
    return "taken", ""
