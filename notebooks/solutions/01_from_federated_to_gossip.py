"""Solutions of notebook 01: what does the server cost?"""

import logging

from flwr.serverapp.strategy import FedAvg

from gossiplib import LocalGrid
from gossiplib.classroom import check
from gossiplib.tasks import digits

task = digits(num_clients=16, alpha=0.3, seed=0)
size = sum(len(a.data) for a in task.initial_arrays().values())


def bytes_through_the_server():
    """01.1: in each round, one model to each client, and one back."""
    clients, rounds = 1000, 50
    answer = 2 * clients * rounds * size
    return answer, size, clients, rounds


def run(share, rounds):
    strategy = FedAvg(fraction_train=share, fraction_evaluate=0.0)
    result = strategy.start(
        LocalGrid(task.client_app(), 16),
        task.initial_arrays(),
        num_rounds=rounds,
        evaluate_fn=task.evaluate_fn,
    )
    return strategy, result


def a_share_of_the_clients():
    """01.2: a quarter of the clients a round, which is four of 16, and more rounds.

    FedAvg draws the clients at random, so each run ends a little differently. In each
    round it sees less data, so it needs more rounds for the same accuracy; in all, it
    may well need fewer bytes. An eighth of 16 is two clients, and FedAvg never takes
    fewer: a smaller share changes nothing.
    """
    return run(share=0.25, rounds=60)


def busiest_bytes(graph, size):
    """01.3: the client with the most neighbours hears them all, and sends to them all.

    In the middle of a star of n clients that is 2 (n - 1) models a round. FedAvg's server
    has 2 n: a star makes a server of one client.
    """
    return 2 * size * max(degree for _, degree in graph.degree)


def lost_on_a_star():
    """01.4: without the middle the others are alone; one of the others is not missed.

    "In gossip learning no client is special" is true of a graph in which none is. On a
    star everything that one client learns from another passes the middle: without it,
    fifteen parts of one client each are left.
    """
    return "lower", "same", 15


ANSWERS = {
    "01.1": bytes_through_the_server,
    "01.2": a_share_of_the_clients,
    "01.3": lambda: (busiest_bytes,),
    "01.4": lost_on_a_star,
}

if __name__ == "__main__":
    logging.getLogger("flwr").setLevel("ERROR")
    for exercise, answer in ANSWERS.items():
        check(exercise, *answer())
