"""Solutions of notebook 06: does gossip survive uneven data?"""

import networkx as nx
import numpy as np
from scipy import stats

from gossiplib.classroom import check
from gossiplib.tasks import digits


def no_ones():
    """06.1: column 1 of the table."""
    counts = digits(16, alpha=0.1, seed=0).label_counts()
    return (int((counts[:, 1] == 0).sum()),)


def by_the_end():
    """06.2: seeds differ much, but alike for both: compare within a seed."""

    def later_or_worse(a, b):
        gap = b - a
        half = stats.t.ppf(0.975, len(gap) - 1) * stats.sem(gap, axis=0)
        behind = gap.mean(axis=0) > half
        return "worse" if behind[-1] else "later" if behind.any() else "same"

    return (later_or_worse,)


def by_neighbours_examples():
    """06.3: the sizes where there is a link or the client itself, and rows that sum to 1."""

    def weights(graph, sizes):
        linked = nx.to_numpy_array(graph, nodelist=range(len(graph)))
        W = (linked + np.eye(len(graph))) * sizes
        return W / W.sum(axis=1, keepdims=True)

    return (weights,)


def between_later_and_worse():
    """06.4: at 1.0 it ends too low, at 0.3 it is still on its way by round 60."""
    return 0.5, 60


def uniform_weights():
    """06.5: on the star, a client takes half of the centre's model, not a sixteenth.

    On the ring all degrees are 2, so both kinds of weights are 1/3: nothing changes.
    """
    return "better", "same"


ANSWERS = {
    "06.1": no_ones,
    "06.2": by_the_end,
    "06.3": by_neighbours_examples,
    "06.4": between_later_and_worse,
    "06.5": uniform_weights,
}

if __name__ == "__main__":
    for exercise, answer in ANSWERS.items():
        check(exercise, *answer())
