"""Solutions of notebook 00: what is gossip learning?"""

import logging

import networkx as nx

from gossiplib import Gossip, LocalGrid, gossip
from gossiplib.classroom import check
from gossiplib.core import named
from gossiplib.tasks import digits

task = digits(num_clients=16, alpha=0.3, seed=0)
app = gossip(task.client_app())


def run(graph, rounds=20):
    """Run gossip learning, as in the notebook."""
    strategy = Gossip(graph, evaluate_every=0)
    return strategy.start(
        LocalGrid(app, num_nodes=16),
        task.initial_arrays(),
        num_rounds=rounds,
        evaluate_fn=task.evaluate_fn,
    )


def two_lines_away():
    """00.1: eleven: client 0, its four neighbours, and six of theirs.

    News goes along one line in a round. The neighbours' models of round 1 have
    something of their neighbours, and in round 2 they reach client 0.
    """
    graph = named("regular", 16, seed=0)
    return (len(nx.single_source_shortest_path_length(graph, 0, cutoff=2)),)


def three_neighbours_each():
    """00.2: 48 messages a round are three for each client.

    Any networkx graph will do: here a random one in which each client has exactly three
    neighbours. Nobody is far from anybody in it. A ring is cheaper still (32), but news
    needs eight rounds to reach its far side. A star is cheapest, and all clients are two
    hops apart, but they give its middle a weight of only 1/16 (see notebook 02).
    """
    return (run(nx.random_regular_graph(3, 16, seed=0)),)


def evenly_spread():
    """00.3: alone more accurate, and gossip adds less: clients see three digits more.

    Now each client sees all ten digits, where it saw seven on average. So alone it is not far
    behind gossip. What is left to add is what more images teach. With the uneven
    digits, gossip taught most clients digits that they had never seen.
    """
    before = (task.label_counts() > 0).sum(axis=1).mean()
    now = (digits(16, partition="iid").label_counts() > 0).sum(axis=1).mean()
    return "larger", "smaller", now - before


ANSWERS = {
    "00.1": two_lines_away,
    "00.2": three_neighbours_each,
    "00.3": evenly_spread,
}

if __name__ == "__main__":
    logging.getLogger("flwr").setLevel("ERROR")
    for exercise, answer in ANSWERS.items():
        check(exercise, *answer())
