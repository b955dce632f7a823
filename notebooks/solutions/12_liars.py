"""Solutions of notebook 12: whom can a client trust?"""

import networkx as nx
import numpy as np

from gossiplib import averaging
from gossiplib.classroom import check


def two_arrows():
    """12.1: the third largest distance; two arrows of that length, each weighs 1/11.

    50 and 90 may be lies. Of the three farthest one at least is honest. By the mean, the
    two move the client by (50 + 90) / 11.
    """
    return 4, 2 * 4 / 11, (50 + 90) / 11


def across():
    """12.2: three ways across, or two voices at each step.

    (a) Client 5 needs a third neighbour, and the groups three ways across that share
    no client: one through client 5, and two links between two clients each.
    `nx.node_connectivity` counts how many clients it takes to cut a graph.

    (b) The trimmed mean leaves out the largest and the smallest value, so a single
    voice from the other side is never heard. Client 4 hears two, 6 and 7. Client 3
    hears one, 6, and besides client 4, which has moved. Then 0, 1 and 2 hear 3 and 4.
    In the other group 6 hears 3 and 4, 7 hears 4 and 6, and 8 to 10 hear 6 and 7.

    One graph cannot do both. (b) takes all three links between the groups, and two of
    them at one client: that client and another cut the graph. And in (a) nobody hears
    two voices, so not even the trimmed mean with an honest client 5 brings the groups
    together. That no two liars can cut the graph is not enough.
    """
    not_cut = nx.barbell_graph(5, 1)
    not_cut.add_edges_from([(5, 0), (1, 8), (2, 9)])
    brought_together = nx.barbell_graph(5, 1)
    brought_together.add_edges_from([(4, 6), (4, 7), (3, 6)])
    return not_cut, brought_together


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
    trimmed mean leaves out the f largest, so f lies. And if more than f lie, clipping's
    radius is the way to a lie: nothing is shortened. So f must not be too small.
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
    "12.1": two_arrows,
    "12.2": across,
    "12.3": weiszfeld,
    "12.4": most_liars,
    "12.5": where_nobody_looks,
}

if __name__ == "__main__":
    for exercise, answer in ANSWERS.items():
        check(exercise, *answer())
