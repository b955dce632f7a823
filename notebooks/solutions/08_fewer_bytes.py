"""Solutions of notebook 08: how little may a client say?"""

import numpy as np

from gossiplib.check import check


def a_hundredth_of_a_million():
    """08.1: 10,000 values of 4 bytes, and 10,000 places, too large for 2 bytes."""
    return (10_000 * (4 + 4),)


def a_larger_step():
    """08.2: 0.1 is too slow, and from about 0.4 on the errors grow."""
    return (0.3,)


def one_bit_each():
    """08.3: the sign of each number, and the mean size, which is nearest to all."""

    def encode(x):
        return [np.array([np.abs(x).mean()]), np.packbits(x > 0)]

    def decode(message, size):
        length, bits = message
        return length * (2.0 * np.unpackbits(bits, count=size) - 1)

    return encode, decode


def places_that_both_know():
    """08.4: both sides draw the places from the same seed, the round."""

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


ANSWERS = {
    "08.1": a_hundredth_of_a_million,
    "08.2": a_larger_step,
    "08.3": one_bit_each,
    "08.4": places_that_both_know,
}

if __name__ == "__main__":
    for exercise, answer in ANSWERS.items():
        check(exercise, *answer())
