"""Solutions of notebook 13: what does a neighbour learn about me?"""

import networkx as nx
import numpy as np
from scipy.optimize import brentq

from gossiplib.classroom import check
from gossiplib.protocols import privacy


def by_the_darkest_pixel():
    """13.1: each row is the image times a number, of either sign.

    The row with the largest numbers is the safest: that of another class may be nearly
    0. Its largest number in size belongs to the darkest pixel, which is 1.
    """

    def image_of(dW):
        row = dW[np.abs(dW).max(axis=1).argmax()]
        return row / row[np.abs(row).argmax()]

    return (image_of,)


def take_the_masks_off():
    """13.2: client 2 is the later one of both pairs, so it has subtracted both masks.

    r_01 is not in its number at all.
    """
    return ((412 + 871 + 230) % 1000,)


def the_same_mask_twice():
    """13.3: both messages have the same masks, so these are gone in the difference.

    It is counted modulo 2⁶⁴ like the messages: what is below 0 shows as nearly 2⁶⁴. The
    same bits, read as int64, have the sign.
    """

    def difference(one, two):
        return (two - one).view(np.int64) * 2.0**-40

    return (difference,)


def noise_for_twenty():
    """13.4: look for the std at which ε is 1. More noise, smaller ε.

    The classical formula with ε/20 for each message gives a valid one too, but far more
    noise than is needed.
    """

    def excess(std):
        return privacy.exact_epsilon(2, std, 1e-5, rounds=20) - 1

    return (1.001 * brentq(excess, 1, 1000),)


def a_star():
    """13.5: behind one neighbour, fourteen clients that look alike to you.

    You hear of them only in sums in which all fourteen weigh the same. So your share of
    each is 1/14, however long you listen.
    """
    return (nx.star_graph([1, 0, *range(2, 16)]),)


ANSWERS = {
    "13.1": by_the_darkest_pixel,
    "13.2": take_the_masks_off,
    "13.3": the_same_mask_twice,
    "13.4": noise_for_twenty,
    "13.5": a_star,
}

if __name__ == "__main__":
    for exercise, answer in ANSWERS.items():
        check(exercise, *answer())
