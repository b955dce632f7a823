"""Solutions of notebook 10: what if nobody waits?"""

import numpy as np

from gossiplib.asynchronous import Linear
from gossiplib.classroom import check


def what_tokens_allow():
    """10.1: a token a period, and for a while what was saved.

    At the start nothing is saved: 100 periods, 100 messages. Later, a full account of 20
    can be spent in ten periods, with the ten tokens that these bring.
    """
    return 100, 20 + 10


def merge_by_age():
    """10.2: `np.where` keeps two newborn models from a division by 0."""

    def create(received, before, update):
        both = received.age + before.age
        share = np.where(both > 0, received.age / np.maximum(both, 1), 1 / 2)
        w = share[:, None] * received.w + (1 - share)[:, None] * before.w
        age = np.maximum(received.age, before.age)
        return update(Linear(w.astype(received.w.dtype), age))

    return (create,)


def send_halves():
    """10.3: `np.add.at` adds up, where several send to the same client.

    `s[to] += half` would keep the last half only; the sums would shrink.
    """

    def push(s, w, to):
        halves = []
        for values in (s, w):
            new = values / 2
            np.add.at(new, to, values / 2)
            halves.append(new)
        return tuple(halves)

    return (push,)


def generous():
    """10.4: the timer of the simple account, and the answers of the randomised one.

    Both are needed: answers make walks long, and the timer keeps the network alive, as
    answers alone die out with the messages that they answer. Who has saved a lot sends
    an old model to more than one, so that it is not lost among younger ones.
    """

    class Account:
        def proactive(self, tokens):
            return (tokens >= 10).astype(float)

        def reactive(self, tokens, useful):
            return np.where(useful, tokens / 5, 0)

    return (Account(),)


ANSWERS = {
    "10.1": what_tokens_allow,
    "10.2": merge_by_age,
    "10.3": send_halves,
    "10.4": generous,
}

if __name__ == "__main__":
    for exercise, answer in ANSWERS.items():
        check(exercise, *answer())
