"""Solutions of notebook 05: what is left for the server?"""

import logging

from gossiplib import topology
from gossiplib.check import check
from gossiplib.client import gossip
from gossiplib.grid import LocalGrid
from gossiplib.server import Gossip
from gossiplib.task import digits


def online_with_a_chance_of_0_7():
    """05.1: `churn` makes a schedule of the graph; nothing else changes."""
    task = digits(num_clients=16, alpha=0.3, seed=0)
    graph = topology.named("regular", 16, seed=0)
    schedule = topology.churn(graph, 0.7, seed=0)
    strategy = Gossip(schedule, evaluate_every=0, observe_every=0)
    grid = LocalGrid(gossip(task.client_app()), num_nodes=16)
    return (strategy.start(grid, task.initial_arrays(), num_rounds=20),)


def two_models_a_round():
    """05.2: a graph that changes beats one that stays.

    The one-peer exponential schedule of notebook 03 needs one model a round, and with
    16 clients it is at the average after four rounds. Pairs that meet by chance will do,
    too: `topology.random_matching(topology.named("complete", 16), seed=0)`. So will a
    ring, if its clients change their places in each round.
    """
    return (topology.one_peer_exponential(16),)


ANSWERS = {"05.1": online_with_a_chance_of_0_7, "05.2": two_models_a_round}

if __name__ == "__main__":
    logging.getLogger("flwr").setLevel("ERROR")
    for exercise, answer in ANSWERS.items():
        check(exercise, *answer())
