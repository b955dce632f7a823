"""Solutions of notebook 11: how little may a client say?"""

import numpy as np

from gossiplib.classroom import check
from gossiplib.protocols import Qsgd


def heads_of_their_own():
    """11.1: on its own images a private head is no better, on the common ones far worse.

    A head learns from the few images of its client alone, and never learns to name a
    digit that this client does not have.
    """
    return "same", "lower"


def levels_that_fill_seven_bits():
    """11.2: 63 levels, positive or negative, and 0 are 127 symbols: 7 bits are full.

    With 31 levels a message is shorter, but τ is larger, so many more steps are needed.
    From 63 on, QSGD is nearly as fast as exact averaging: more levels only cost bytes.
    """
    return Qsgd(63), 1.0


def one_bit_each():
    """11.3: the sign of each number, and the mean magnitude, which is nearest to all."""

    def encode(x):
        return [np.array([np.abs(x).mean()]), np.packbits(x > 0)]

    def decode(message, size):
        length, bits = message
        return length * (2.0 * np.unpackbits(bits, count=size) - 1)

    return encode, decode


def places_that_both_know():
    """11.4: both sides draw the places from the same seed, the round."""

    def places(size, server_round):
        rng = np.random.default_rng(server_round)
        return rng.choice(size, size // 10, replace=False)

    def encode(x, server_round):
        return [x[places(len(x), server_round)]]

    def decode(message, size, server_round):
        (values,) = message
        x = np.zeros(size)
        x[places(size, server_round)] = values
        return x

    return encode, decode


def what_a_stronger_signal_does():
    """11.5: with 256 levels and the top 1 % nothing, with random 1 % a lot.

    What is said is soon in the copies, and then only differences count. All clients
    share the signal, so all say nearly the same places first by top-k, and their copies
    are alike from the start. By random-k they say different places. Where only one of
    two neighbours has said a number, the difference of the copies is the signal itself.
    Clients take it for disagreement.
    """
    return "same", "same", "larger"


ANSWERS = {
    "11.1": heads_of_their_own,
    "11.2": levels_that_fill_seven_bits,
    "11.3": one_bit_each,
    "11.4": places_that_both_know,
    "11.5": what_a_stronger_signal_does,
}

if __name__ == "__main__":
    for exercise, answer in ANSWERS.items():
        check(exercise, *answer())
