"""Solutions of notebook 05: what is left for the server?"""

import logging

from gossiplib import Gossip, LocalGrid, gossip, topology
from gossiplib.classroom import check
from gossiplib.tasks import digits


def models_through_the_server():
    """05.1: each client sends its model in, and gets those of its four neighbours."""
    return (1000 + 1000 * 4,)


def online_with_a_chance_of_0_7():
    """05.2: `churn` makes a schedule of the graph; nothing else changes."""
    task = digits(num_clients=16, alpha=0.3, seed=0)
    graph = topology.named("regular", 16, seed=0)
    schedule = topology.churn(graph, 0.7, seed=0)
    strategy = Gossip(schedule, evaluate_every=0, observe_every=0)
    grid = LocalGrid(gossip(task.client_app()), num_nodes=16)
    return (strategy.start(grid, task.initial_arrays(), num_rounds=20),)


def two_models_a_round():
    """05.3: a graph that changes beats one that stays.

    The one-peer exponential schedule of notebook 03 needs one model a round, and with
    16 clients it is at the average after four rounds. Pairs that meet by chance will do,
    too: `topology.random_matching(topology.named("complete", 16), seed=0)`. So will a
    ring, if its clients change their places in each round.
    """
    return (topology.one_peer_exponential(16),)


def how_far_apart():
    """05.4: the distance settles where averaging undoes what a round of training does.

    Two epochs pull each model farther towards its own data. If the digits are spread
    evenly, all models are pulled nearly the same way, but not quite: the images still
    differ. So the distance is smaller, and not zero.
    """
    return "larger", "smaller"


ANSWERS = {
    "05.1": models_through_the_server,
    "05.2": online_with_a_chance_of_0_7,
    "05.3": two_models_a_round,
    "05.4": how_far_apart,
}

if __name__ == "__main__":
    logging.getLogger("flwr").setLevel("ERROR")
    for exercise, answer in ANSWERS.items():
        check(exercise, *answer())
