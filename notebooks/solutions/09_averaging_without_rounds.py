"""Solutions of notebook 09: can an average do without rounds?"""

import math

import numpy as np

from gossiplib.classroom import check


def half_are_out():
    """09.1: the mean of 2^-φ, where φ counts the meetings of a client.

    Its own call succeeds with probability 1/2, which gives (1 + 1/2) / 2 = 3/4. The
    calls that come in are Poisson with mean 1/2, which gives exp(-1/4). It is not the
    middle of 1 and 0.303, nor the root of 0.303.
    """
    return (3 / 4 * math.exp(-1 / 4),)


def meetings_of_a_hypercube():
    """09.2: the one-peer schedule of notebook 03, with meetings in place of messages.

    Let those meet whose numbers differ in one binary digit: first the last digit, then
    the next. After each digit, twice as many clients hold the same mean of twice as
    many. Four digits, eight meetings each.
    """
    digits = [1, 2, 4, 8]
    return ([(i, i | digit) for digit in digits for i in range(16) if not i & digit],)


def meetings_on_a_ring():
    """09.3: what a meeting takes away is half the squared difference of the two.

    Fresh numbers differ by as much on average, whoever has them. After many meetings,
    neighbours on a ring are alike, and the far sides are not: they never meet. On the
    complete graph any two may meet, so the share stays what it is. The two shares are as
    the two squared differences: after 200 meetings about a fifth, as this measures.
    """
    n, rng = 50, np.random.default_rng(1)
    x = rng.normal(size=(n, 500))  # 500 starts side by side
    for i in rng.integers(n, size=200):
        x[i] = x[i - 1] = (x[i] + x[i - 1]) / 2  # client -1 is the last one
    neighbours = np.mean((x - np.roll(x, 1, axis=0)) ** 2)
    any_two = np.mean((x[:, None] - x) ** 2) * n / (n - 1)  # without oneself
    return "same", "less", neighbours / any_two


def send_halves():
    """09.4: `np.add.at` adds up, where several send to the same client.

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


def count_the_clients():
    """09.5: s / w tends to the sum of all s by the sum of all w, so make it n / 1.

    Each client puts in 1, and one of them, who began the count, the only weight. Until a
    share of that weight has come to a client, its w is 0, and it knows nothing yet.
    """
    return [1] * 20, [1] + [0] * 19


ANSWERS = {
    "09.1": half_are_out,
    "09.2": meetings_of_a_hypercube,
    "09.3": meetings_on_a_ring,
    "09.4": send_halves,
    "09.5": count_the_clients,
}

if __name__ == "__main__":
    for exercise, answer in ANSWERS.items():
        check(exercise, *answer())
