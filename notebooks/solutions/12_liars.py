"""Solutions of notebook 12: whom can a client trust?"""

import networkx as nx
import numpy as np
from scipy.optimize import brentq

from gossiplib import averaging
from gossiplib.classroom import check
from gossiplib.protocols import privacy


def leave_two_out():
    """09.1: leave 50 and 90 out; all weights are 1/11, and δ is two of them.

    τ² = (48/11) / (2/11) = 24. `robust.estimated_radius` does the same.
    """
    far = np.array([1, 1, 2, 2, 2, 3, 3, 4])
    return (np.sqrt((far**2 / 11).sum() / (2 / 11)),)


def three_ways_across():
    """09.2: client 5 needs a third neighbour, and the groups three ways across.

    One way goes through client 5. The two others are links between two clients each,
    none of which is on another way. `nx.node_connectivity` counts how many clients it
    takes to cut a graph.
    """
    graph = nx.barbell_graph(5, 1)
    graph.add_edges_from([(5, 0), (1, 8), (2, 9)])
    return (graph,)


def weiszfeld():
    """09.3: repeated weighted means, with weights 1/distance.

    A model at distance 0 would get an infinite weight. A smallest distance, far below
    all others, keeps it finite: then this model gets nearly all the weight.
    """

    def average(own, neighbours, weights, context):
        models = [own, *neighbours]
        even = np.full(len(models), 1 / len(models))
        x = averaging.weighted_mean(own, neighbours, even)
        for _ in range(500):
            squares = [
                sum(np.square(a - b).sum() for a, b in zip(model, x, strict=True))
                for model in models
            ]
            near = 1 / np.maximum(np.sqrt(squares), 1e-9)
            x = averaging.weighted_mean(own, neighbours, near / near.sum())
        return x

    return (average,)


def noise_for_twenty():
    """09.4: look for the std at which ε is 1. More noise, smaller ε.

    The classical formula with ε/20 for each message gives a valid one too, but far more
    noise than is needed.
    """

    def excess(std):
        return privacy.exact_epsilon(2, std, 1e-5, rounds=20) - 1

    return (1.001 * brentq(excess, 1, 1000),)


def most_liars():
    """09.5: five for the median, three for the trimmed mean, one for clipping.

    Five lies of eleven values are a minority still: the middle value is honest. The
    trimmed mean leaves out the f largest, so f lies. And if more than f lie, one lie is
    in clipping's sum, and the radius is longer than the way to the lie: nothing is
    shortened. So f must not be too small.
    """
    return 5, 3, 1


ANSWERS = {
    "09.1": leave_two_out,
    "09.2": three_ways_across,
    "09.3": weiszfeld,
    "09.4": noise_for_twenty,
    "09.5": most_liars,
}

if __name__ == "__main__":
    for exercise, answer in ANSWERS.items():
        check(exercise, *answer())
