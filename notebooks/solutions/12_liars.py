"""Solutions of notebook 12: whom can a client trust?"""

import networkx as nx
import numpy as np

from gossiplib import averaging
from gossiplib.classroom import check


def leave_two_out():
    """12.1: leave 50 and 90 out; all weights are 1/11, and δ is two of them.

    τ² = (48/11) / (2/11) = 24. `robust.estimated_radius` does the same.
    """
    far = np.array([1, 1, 2, 2, 2, 3, 3, 4])
    return (np.sqrt((far**2 / 11).sum() / (2 / 11)),)


def three_ways_across():
    """12.2: client 5 needs a third neighbour, and the groups three ways across.

    One way goes through client 5. The two others are links between two clients each,
    none of which is on another way. `nx.node_connectivity` counts how many clients it
    takes to cut a graph.
    """
    graph = nx.barbell_graph(5, 1)
    graph.add_edges_from([(5, 0), (1, 8), (2, 9)])
    return (graph,)


def weiszfeld():
    """12.3: repeated weighted means, with weights 1/distance.

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


def most_liars():
    """12.4: five for the median, three for the trimmed mean, one for clipping.

    Five lies of eleven values are a minority still: the middle value is honest. The
    trimmed mean leaves out the f largest, so f lies. And if more than f lie, one lie is
    in clipping's sum, and the radius is longer than the way to the lie: nothing is
    shortened. So f must not be too small.
    """
    return 5, 3, 1


def where_nobody_looks():
    """12.5: less, less, and the same.

    Honest images have ink in the middle: honest clients train these weights, and theirs
    work against the liars'. One liar is half of what two are. Four can not win much,
    where two have nearly all.
    """
    return "less", "less", "same"


ANSWERS = {
    "12.1": leave_two_out,
    "12.2": three_ways_across,
    "12.3": weiszfeld,
    "12.4": most_liars,
    "12.5": where_nobody_looks,
}

if __name__ == "__main__":
    for exercise, answer in ANSWERS.items():
        check(exercise, *answer())
