"""Solutions of notebook 05: what is left for the server?"""

import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict

from gossiplib import topology
from gossiplib.classroom import check

rng = np.random.default_rng(0)


def send(grid, what, records):
    """Call a function of several clients, as in the notebook."""
    nodes = grid.get_node_ids()
    calls = [Message(RecordDict(r), nodes[i], what) for i, r in records.items()]
    clients, replies = {node: i for i, node in enumerate(nodes)}, {}
    for reply in grid.send_and_receive(calls):
        if reply.has_error():
            raise RuntimeError(f"a client failed in {what}: {reply.error.reason}")
        replies[clients[reply.metadata.src_node_id]] = reply.content
    return replies


def gossip_round(grid, heard, W, server_round, first=None):
    """Call train, then average, of each client, as in the notebook."""
    told = ConfigRecord({"server-round": server_round})
    call = {"config": told, "gossip": told} | ({"arrays": first} if first else {})
    replies = send(grid, "train", dict.fromkeys(heard, call))
    models = {i: content["arrays"] for i, content in replies.items()}
    calls = {}
    for i, senders in heard.items():
        weights = [float(W[i, j]) for j in senders]
        about = {"senders": senders, "weights": [1 - sum(weights), *weights]}
        sent = {str(j): models[j] for j in senders}
        calls[i] = {"gossip": ConfigRecord(about)} | sent
    send(grid, "train.average", calls)
    return models


def lossy_round(grid, heard, W, server_round, first=None):
    """05.1: a lost message is a neighbour that is not heard in this round.

    `gossip_round` gives the own model what the neighbours that are heard leave of 1, so
    it is enough to hand it a list that is shorter by chance.
    """
    arrived = {i: [j for j in near if rng.random() >= 0.1] for i, near in heard.items()}
    return gossip_round(grid, arrived, W, server_round, first)


def half_round(grid, heard, W, server_round, first=None):
    """05.2: `gossip_round` calls those that it is handed, and no others."""
    half = sorted(rng.permutation(list(heard))[: len(heard) // 2].tolist())
    among = {i: [j for j in heard[i] if j in half] for i in half}
    return gossip_round(grid, among, W, server_round, first)


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
    "05.1": lambda: (lossy_round,),
    "05.2": lambda: (half_round,),
    "05.3": two_models_a_round,
    "05.4": how_far_apart,
}

if __name__ == "__main__":
    for exercise, answer in ANSWERS.items():
        check(exercise, *answer())
