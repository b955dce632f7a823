"""Solutions of notebook 07: which neighbours are worth hearing?"""

from itertools import combinations

import numpy as np
from flwr.app import ConfigRecord

from gossiplib.classroom import check


def choosy_but_not_too_much():
    """07.1: a milder power lets strangers in, a stronger one leaves a friend or two."""
    return (-4,)


class Fair:
    """07.2: a count for each name; who has none was never heard."""

    def hear(self, own, neighbours, context):
        counts = dict(context.state.get("heard", {}))
        for j in context.senders:
            counts[str(j)] = counts.get(str(j), 0) + 1
        context.state["heard"] = ConfigRecord(counts)

    def __call__(self, candidates, server_round, context):
        counts = context.state.get("heard", {})
        return sorted(candidates, key=lambda j: counts.get(str(j), 0))[:2]


def best_of_ten():
    """07.3: all ways to give client 0 two companions."""
    six = np.array([[8, 1, 0], [7, 0, 2], [0, 9, 1], [1, 6, 0], [0, 2, 5], [3, 0, 8]])
    p = six / six.sum(axis=1, keepdims=True)

    def skews(clique):
        parts = [list(clique), [i for i in range(6) if i not in clique]]
        return sum(
            np.abs(p[part].mean(axis=0) - p.mean(axis=0)).sum() for part in parts
        )

    ways = [(0, *two) for two in combinations(range(1, 6), 2)]
    return (list(min(ways, key=skews)),)


def half_as_probable():
    """07.4: 2q = 4 (1 - q)² has the solution q = 1/2 below 1; and ε adds up."""
    return round(np.log(2), 2), round(5 * np.log(2), 2)


def ten_by_likeness():
    """07.5: a client of a camp has seven friends; of ten, three at least are strangers.

    On uneven digits, ten of fifteen are not all alike: more that is new.
    """
    return "worse", "better"


ANSWERS = {
    "07.1": choosy_but_not_too_much,
    "07.2": lambda: (Fair(),),
    "07.3": best_of_ten,
    "07.4": half_as_probable,
    "07.5": ten_by_likeness,
}

if __name__ == "__main__":
    for exercise, answer in ANSWERS.items():
        check(exercise, *answer())
