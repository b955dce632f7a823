"""Solutions of notebook 08: why do clients drift, and what corrects it?"""

import numpy as np

from gossiplib.classroom import check
from gossiplib.core import weighted_mean


def rest_of_a_path():
    """08.1: W_22 = 2/3 and client 1 rests at 0, so x = 2/3 (0.7 x + 0.3)."""
    return (0.2 / (1 - 1.4 / 3),)


def extra_in_numpy():
    """08.2: the models and gradients of the round before are what it remembers."""

    def extra(x, memory, W, gradient, eta):
        g = gradient(x)
        if memory is None:
            return W @ x - eta * g, (x, g)
        before, g_before = memory
        lazy = (np.eye(len(W)) + W) / 2
        return x + W @ x - lazy @ before - eta * (g - g_before), (x, g)

    return (extra,)


def lazy_enough():
    """08.3: the lowest eigenvalue of W is -1, so a - (1 - a) > -1/3."""
    return (1 / 3,)


def what_rest_depends_on():
    """08.4: plain gossip on η and on who is whose neighbour; the others do not.

    Momentum's velocity is 0 at rest, whatever β.
    """
    return "larger", "same", "same", "smaller"


def largest_norm():
    """08.5: the largest norm of all spreads one step further in each round."""

    def average(own, neighbours, weights, context):
        if context.server_round > 3:
            return weighted_mean(own, neighbours, weights)
        return max([own, *neighbours], key=lambda m: sum((a**2).sum() for a in m))

    return (average,)


ANSWERS = {
    "08.1": rest_of_a_path,
    "08.2": extra_in_numpy,
    "08.3": lazy_enough,
    "08.4": what_rest_depends_on,
    "08.5": largest_norm,
}

if __name__ == "__main__":
    for exercise, answer in ANSWERS.items():
        check(exercise, *answer())
