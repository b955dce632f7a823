"""Solutions of notebook 10: what if nobody waits?"""

import numpy as np

from gossiplib.asynchronous import Linear
from gossiplib.classroom import check


def what_tokens_allow():
    """10.1: a token a cycle, and for a while what was saved.

    At the start nothing is saved: 100 cycles, 100 messages. Later, a full account of 20
    can be spent in ten cycles, with the ten tokens that these bring.
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


def generous():
    """10.3: the timer of the simple account, and the answers of the randomised one.

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


def far_from_the_straggler():
    """10.4: the delay goes one hop a round, so it reaches client 5 in round 6.

    Five rounds of a second, then 5 s more in round 6 than in 5 ... In round r, client 5
    waits for what began at client 0, went five hops and four trainings of a second:
    5 (r - 4) + 4.
    """
    return 3, 5 * (20 - 4) + 4, 20 * 5


ANSWERS = {
    "10.1": what_tokens_allow,
    "10.2": merge_by_age,
    "10.3": generous,
    "10.4": far_from_the_straggler,
}

if __name__ == "__main__":
    for exercise, answer in ANSWERS.items():
        check(exercise, *answer())
