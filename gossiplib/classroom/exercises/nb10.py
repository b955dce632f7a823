"""Checks of the exercises of notebook 10: without rounds."""

from typing import Any

import numpy as np

from gossiplib.asynchronous.merging import Linear
from gossiplib.asynchronous.network import NetworkModel, SimpleTokenAccount, Traffic
from gossiplib.classroom.checking import Function, checks, need, untouched


@checks("10.1")
def _(in_100: float, in_10: float) -> None:
    need(in_100 >= 100, "Where nothing is wasted, each period's token is sent.")
    need(in_100 <= 100, "A client that begins with nothing cannot spend that much.")
    need(in_10 > 10, "Think of what it may have saved before these ten periods.")
    need(in_10 >= 30, "It could have saved more, and goes on getting tokens.")
    need(in_10 <= 30, "So many tokens can never come together in ten periods.")


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
        made = create(received, before, update)
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
def _(push: Function) -> None:
    rng = np.random.default_rng(0)
    n, s = 30, np.arange(30.0)
    w = np.ones(n)
    for t in range(60):
        to = (np.arange(n) + rng.integers(1, n, size=n)) % n
        if t == 0:
            to[:5] = 17  # several send to one
        with untouched("arrays", s, w, to):
            new_s, new_w = push(s, w, to)
        need(np.shape(new_s) == np.shape(new_w) == (n,), "Return two arrays like s.")
        kept = np.isclose(new_s.sum(), s.sum()) and np.isclose(new_w.sum(), w.sum())
        need(kept, "The sums of all s and of all w must not change.")
        for old, new in ((s, new_s), (w, new_w)):
            right = [old[i] / 2 + old[to == i].sum() / 2 for i in range(n)]
            need(np.allclose(new, right), "A client has its half, and what comes.")
        s, w = new_s, new_w
    need(np.allclose(s / w, 14.5, atol=1e-4), "s / w must tend to the mean.")


@checks("10.4")
def _(account: Any) -> None:
    age, most, _ = _walks(account, NetworkModel())
    need(most <= 12, f"A balance of {most} tokens is more than 12.")
    _, most, sent = _walks(account, NetworkModel(drop=1.0))
    need(most <= 12, f"If no message arrives, a balance grows to {most} tokens.")
    alone = sent[12:].min() >= 1
    need(alone, "If no message arrives, a client must still send once a period.")
    answers = account.reactive(np.arange(13), np.zeros(13, dtype=bool))
    need(np.all(np.equal(answers, 0)), "A message that is not useful gets no answer.")
    plain, _, _ = _walks(SimpleTokenAccount(0), NetworkModel())
    hint = f"Walks are {age / plain:.1f} times as old as with plain gossip. Do tokens "
    need(age >= 6 * plain, hint + "wait unused, or are they gone at once?")


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
