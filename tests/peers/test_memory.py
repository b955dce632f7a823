"""Protocols with memory on peers: after a loss they find back."""

import networkx as nx
import numpy as np
import pytest
from test_peers import Crowd, answer, between

from faults import shows
from gossiplib.core.client import gossip
from gossiplib.core.mixing import consensus_distance
from gossiplib.protocols.codecs import Qsgd
from gossiplib.protocols.compressed import Choco
from gossiplib.protocols.push_sum import PushSum
from toy_apps import still_app, vector

RING = nx.cycle_graph(4)
LOST = {(10, 0, 1), (20, 1, 2), (21, 3, 2)}  # round, from, to


class Odd(Choco):
    """CHOCO whose client 1 leaves out an array of its letters of rounds 10 to 12."""

    def send(self, model, context):
        """Return a message, or the half of one."""
        message = super().send(model, context)
        odd = int(context.clients) == 1 and 10 <= context.server_round <= 12
        return message[:1] if odd else message


@shows(
    "memory", "peers", "CHOCO: whole again two rounds after; push-sum: weight counted"
)
@pytest.mark.parametrize("fault", ["link", "letters"])
def test_choco_finds_back(tmp_path, fault):
    average = (Odd if fault == "letters" else Choco)(Qsgd(255), 0.9)
    with Crowd(tmp_path, gossip(still_app(), average=average), RING, 80) as peers:
        for i, peer in enumerate(peers.peers):

            def lose(t, to, again, i=i):
                lost = fault == "link" and (t, i, to) in LOST
                return answer() if lost else again()

            between(peer, lose)
        models = peers.run()
        losses = peers.losses()
        last = [peers.events(i, "averaged")[-1] for i in range(4)]
    if fault == "letters":  # those who cannot read them say so
        rounds = (10, 11, 12)
        assert losses == {(t, i, "train.average") for t in rounds for i in (0, 2)}
    else:
        assert losses == {(t, i, "Push") for t, i, _ in LOST}
    assert consensus_distance(models) < 1e-9
    assert all((e["round"], len(e["senders"])) == (80, 2) for e in last)


def test_push_sum_counts_what_is_lost(tmp_path):
    app = gossip(still_app(), average=PushSum())
    with Crowd(tmp_path, app, RING, 40) as peers:
        between(peers.peers[0], lambda t, to, again: answer() if t == 1 else again())
        models = peers.run()
        weights = [peers.events(i, "trained")[-1]["metrics"] for i in range(4)]
    # Client 0 has given both its neighbours a third of its model, in vain.
    start = np.stack([vector(i) for i in range(4)])
    left = np.array([1 / 3, 1, 1, 1])
    expected = left @ start / left.sum()
    assert np.allclose(models, expected, rtol=0, atol=1e-9)
    found = sum(metrics["push-sum-weight"] for metrics in weights)
    assert np.isclose(found, left.sum())
