"""Solutions of notebook 03: how fast does a rumour become an average?"""

import math

import numpy as np

from gossiplib import mixing, topology
from gossiplib.classroom import check


def rounds_that_theory_promises():
    """03.1: the first t with |λ₂|ᵗ ≤ 1/1000, by logarithms.

    Both logarithms are negative, so dividing turns ≤ into ≥; then round up.
    `mixing.rounds_to_consensus(W, tolerance=1e-3)` does the same.
    """
    torus_rate = mixing.slem(mixing.metropolis(topology.named("torus", 64)))
    rounds = math.ceil(math.log(1 / 1000) / math.log(torus_rate))
    return rounds, torus_rate


def gone_at_once():
    """03.2: a client keeps the mean of three numbers, so let any three sum to 0.

    Numbers that repeat every three places do so, and 15 is a multiple of 3. They are a
    wave with eigenvalue 0: |λ₂| is the promise for the slowest wave alone.
    """
    return ([1, 0, -1] * 5,)


def hear(*hops, n=12):
    """Let each client take the plain mean of its own and those so many places away."""
    W = np.eye(n)
    for i in range(n):
        for hop in hops:
            W[i, (i + hop) % n] = 1
    return W / (1 + len(hops))


def exact_for_twelve():
    """03.3: count in mixed digits, as 12 = 3 x 2 x 2.

    The one-peer schedule is exact because 1 + 2 + 4 + 8 reaches each place in exactly
    one way: binary digits. Twelve places have digits too, one of three values (0, 1, 2)
    and two of two values (0 or 3, 0 or 6): each of 0, ..., 11 is one sum of them. So
    three rounds are enough.
    """
    return ([hear(1, 2), hear(3), hear(6)],)


def noise_on_a_ring():
    """03.4: noise walks at random, so in t rounds it gets about √t places far.

    Who keeps half of its own model lets noise walk in every other round only: fewer. The
    ends of a ring of 100 are farther away than noise gets in 100 rounds, so a longer
    ring is the "same". Half the learning rate is twice the memory, and √2 times as far.
    """
    return "fewer", "same", math.sqrt(2)


ANSWERS = {
    "03.1": rounds_that_theory_promises,
    "03.2": gone_at_once,
    "03.3": exact_for_twelve,
    "03.4": noise_on_a_ring,
}

if __name__ == "__main__":
    for exercise, answer in ANSWERS.items():
        check(exercise, *answer())
