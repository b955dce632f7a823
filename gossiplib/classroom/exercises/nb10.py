"""Checks of the exercises of notebook 10: without rounds."""

from typing import Any

import numpy as np

from gossiplib.asynchronous.merging import Linear
from gossiplib.asynchronous.network import NetworkModel, SimpleTokenAccount, Traffic
from gossiplib.asynchronous.seconds import Devices
from gossiplib.classroom.checking import Function, checks, need, need_number, untouched
from gossiplib.core import topology


@checks("10.1")
def _(in_100: float, in_10: float) -> None:
    need(in_100 >= 100, "Where nothing is wasted, each cycle's token is sent.")
    need(in_100 <= 100, "A client that begins with nothing cannot spend that much.")
    need(in_10 > 10, "Think of what it may have saved before these ten cycles.")
    need(in_10 >= 30, "It could have saved more, and goes on getting tokens.")
    need(in_10 <= 30, "So many tokens can never come together in ten cycles.")


@checks("10.2")
def _(create: Function) -> None:
    rng = np.random.default_rng(0)
    ages = [np.array([3.0, 0, 0, 5, 2]), np.array([1.0, 4, 0, 5, 0])]
    received, before = (Linear(rng.normal(size=(5, 3)), age) for age in ages)
    updated = []

    def update(models: Linear) -> Linear:
        updated.append(models)
        return Linear(models.w + 10, models.age + 1)

    with np.errstate(all="ignore"), untouched("models", received, before):
        try:
            made = create(received, before, update)
        except ValueError as error:
            need(
                "ambiguous" not in str(error), "Ages are arrays: use np.where, not if."
            )
            raise
    need(len(updated) == 1, "Call update once, for the merged models.")
    w, age = updated[0]
    need(np.shape(w) == (5, 3) and np.shape(age) == (5,), "Keep the shapes.")
    need(np.isfinite(w).all(), "Two models may both have the age 0.")
    need(np.array_equal(age, [3, 4, 0, 5, 2]), "The age is that of the older one.")
    share = np.array([3 / 4, 0, 1 / 2, 1 / 2, 1])[:, None]
    right = np.allclose(w, share * received.w + (1 - share) * before.w)
    need(right, "Each model weighs as its share of both ages, client by client.")
    returned = np.allclose(made[0], w + 10) and np.allclose(made[1], age + 1)
    need(returned, "Return what update makes of the merged models.")


@checks("10.3")
def _(account: Any) -> None:
    age, most, _ = _walks(account, NetworkModel())
    need(most <= 12, f"A balance of {most} tokens is more than 12.")
    _, most, sent = _walks(account, NetworkModel(drop=1.0))
    need(most <= 12, f"If no message arrives, a balance grows to {most} tokens.")
    alone = sent[12:].min() >= 1
    need(alone, "If no message arrives, a client must still send once a cycle.")
    answers = account.reactive(np.arange(13), np.zeros(13, dtype=bool))
    need(np.all(np.equal(answers, 0)), "A message that is not useful gets no answer.")
    plain, _, _ = _walks(SimpleTokenAccount(0), NetworkModel())
    hint = f"Walks are {age / plain:.1f} times as old as with plain gossip. Do tokens "
    need(age >= 6 * plain, hint + "wait unused, or are they gone at once?")


@checks("10.4")
def _(round_3: float, round_20: float, server_20: float) -> str:
    for answer in (round_3, round_20, server_20):
        need_number(answer)
    need(server_20 == 100, "Whom does the server wait for, in each of the 20 rounds?")
    need(round_3 <= 3, "Whom has client 5 waited for, directly or not, by round 3?")
    need(round_3 == 3, "It has trained three times itself.")
    need(round_20 < 100, "In its first rounds, it has not heard of client 0 yet.")
    hint = "In each round the delay reaches one more client on either side."
    need(round_20 > 20, hint + " How many rounds does it take to client 5?")
    need(round_20 == 84, "Its last rounds take 5 s each. Which is the first of these?")
    slow = Devices(np.array([5.0, *[1.0] * 9]), np.zeros(10), np.ones(10))
    ends = slow.rounds(topology.named("ring", 10), 40, 0)[:, 5]
    last = ends[-1] - ends[-2]
    told = f"`Devices` has {ends[3]:g} s and {ends[20]:g} s."
    return f"{told} Each round takes {last:g} s by then."


def _walks(account: Any, network: NetworkModel) -> tuple[float, int, np.ndarray]:
    """Return the mean age of random walks, the largest balance, and who sent when."""
    traffic = Traffic(200, 0, slots=10, network=network, account=account)
    age, mail, most, sent = np.zeros(200), [], 0, []
    for t in range(1, 61):
        for _ in traffic.slots(t):
            mail += age[traffic.leave()].tolist()
            most = max(most, int(traffic.tokens.max()))
            for numbers, _, receivers in traffic.arrive():
                came = np.array([mail[k] for k in numbers])
                useful = came >= age[receivers]
                age[receivers] = came + 1
                traffic.react(receivers, useful)
        sent.append(traffic.sent.copy())
    return age.mean(), most, np.array(sent)
