"""Clients that come late, or are killed and come back, on LocalGrid.

`test_deployment` does it with SuperNodes. The models are those of a numpy computation.
"""

import logging
from unittest import mock

import networkx as nx
import numpy as np
import pytest
from flwr.app import Error, Message

from faults import shows
from gossiplib.core import mixing, topology
from gossiplib.core.client import gossip
from gossiplib.core.grid import LocalGrid, LocalNode
from gossiplib.core.membership import Membership
from gossiplib.core.result import Loss
from gossiplib.core.server import Gossip
from toy_apps import SIZE, drifting_app, zeros

GRAPH = nx.cycle_graph(5)
GRAPH.add_edge(0, 2)
ROUNDS, BACK = 6, 1
STEP = np.arange(1.0, SIZE + 1)


class Breaking(LocalGrid):
    """A grid on which a client is killed in one round and comes back in another.

    `same` tells whether it comes back on the node that it had. Until then the SuperLink
    answers for it, as Flower's does for a node that is gone, or (`silent`) nobody does.
    """

    def __init__(self, killed, back, *, same, silent=False, listed=True):
        app = gossip(drifting_app())
        super().__init__(app, 5)
        self.app, self.killed, self.back, self.same = app, killed, back, same
        self.silent, self.listed = silent, listed
        self.round, self.lost = 1, []
        self.node = list(self._nodes)[BACK]
        self.is_up, self.calls = killed > 1, []

    def begin(self, server_round):
        """Begin a round: kill the client, or let it come back."""
        self.round = server_round
        if self.round == self.killed:
            self.is_up = False
        if self.round == self.back:
            self.is_up = True
            old, self.node = self.node, self.node if self.same else 12345
            if self.same or not self.silent:
                del self._nodes[old]
            self._nodes[self.node] = LocalNode(self.app, BACK, 5, self.node)

    def get_node_ids(self):
        here = super().get_node_ids()
        return [n for n in here if n != self.node or self.is_up or self.listed]

    def send_and_receive(self, messages, *, timeout=None):
        messages = list(messages)
        gone = [m for m in messages if m.metadata.dst_node_id == self.node]
        gone = [] if self.is_up else gone
        kept = [m for m in messages if m not in gone]
        self.calls += [
            (self.round, m.metadata.message_type)
            for m in kept
            if m.metadata.dst_node_id == self.node
        ]
        for number, message in enumerate(gone):
            name = f"gone {self.round} {message.metadata.message_type} {number}"
            message.metadata.__dict__["_message_id"] = name
        self.lost += gone if self.silent else []
        error = Error(code=3, reason="Node Unavailable")
        answers = [Message(error, reply_to=m) for m in gone if not self.silent]
        return super().send_and_receive(kept, timeout=timeout) + answers

    def pull_messages(self, message_ids):
        """Answer for messages that hold no longer, as soon as the node is back."""
        ids = list(message_ids)
        up = self.is_up and self.same
        expired = [m for m in self.lost if m.metadata.message_id in ids and up]
        self.lost = [m for m in self.lost if m not in expired]
        error = Error(code=4, reason="expired")
        answers = [Message(error, reply_to=m) for m in expired]
        return super().pull_messages(ids) + answers


def expected(away, joins, schedule=GRAPH):
    """Return what the models must be: `away` rounds without client BACK."""
    X = np.zeros((5, SIZE))
    for t in range(1, ROUNDS + 1):
        if t == joins:  # it starts from its first neighbour's model
            X[BACK] = X[min(GRAPH[BACK])]
        here = [i for i in range(5) if i != BACK or t not in away]
        for i in here:
            X[i] += (i + 1) * STEP
        W = mixing.metropolis(topology.at(schedule, t))
        if t in away:
            W[np.arange(5), np.arange(5)] += W[:, BACK]
            W[:, BACK] = W[BACK] = 0
            W[BACK, BACK] = 1
        X = W @ X
    return X


def run(grid, schedule=GRAPH):
    class Watched(Membership):
        def welcome(self):
            grid.begin(self.calls.server_round)
            super().welcome()

    strategy = Gossip(schedule, join_timeout=0, evaluate_every=0)
    with mock.patch("gossiplib.core.server.Membership", Watched):
        return strategy.start(grid, zeros(), ROUNDS)


@shows(
    "restarted", "LocalGrid", "counted; joins again, starts from a neighbour's model"
)
def test_a_client_restarted_between_rounds_says_so_and_joins_again():
    grid = Breaking(3, 3, same=True)
    result = run(grid)
    # In round 3 it has forgotten the run, in round 4 it takes a model of client 0.
    assert result.lost == [
        Loss(3, BACK, "train", "does not know of this run: it was restarted"),
        Loss(3, BACK, "query.model", result.lost[-1].reason),
    ]
    assert np.allclose(result.models(), expected({3}, joins=4))
    assert [call for t, call in grid.calls if t == 4][:2] == [
        "query.join",
        "query.discover",
    ]
    assert result.messages == {t: {3: 8, 4: 13}.get(t, 12) for t in range(1, 7)}


@pytest.mark.parametrize("same", [True, False])
def test_a_client_that_was_gone_for_some_rounds_comes_back(same):
    result = run(Breaking(3, 5, same=same, listed=False))
    lost = {(loss.round, loss.call) for loss in result.lost}
    assert {loss.client for loss in result.lost} == {BACK}
    # On its old node, the server learns only from its answer that it was restarted.
    joins = 6 if same else 5
    away = set(range(3, joins))
    assert {t for t, call in lost if call == "train"} == away
    assert np.allclose(result.models(), expected(away, joins))


def test_a_client_that_owes_a_reply_is_called_again_when_that_has_expired():
    result = run(Breaking(2, 4, same=True, silent=True))
    reasons = [loss.reason for loss in result.lost if loss.call == "train"]
    assert reasons == [
        "no reply in 3600 s",
        "still owes an earlier reply",
        "does not know of this run: it was restarted",
    ]
    assert np.allclose(result.models(), expected({2, 3, 4}, joins=5))


def test_a_node_may_take_the_place_of_one_that_owes_a_reply():
    result = run(Breaking(2, 4, same=False, silent=True))
    reasons = [loss.reason for loss in result.lost if loss.call == "train"]
    assert reasons == ["no reply in 3600 s", "still owes an earlier reply"]
    assert np.allclose(result.models(), expected({2, 3}, joins=4))


def test_a_node_that_takes_the_place_of_one_still_there_must_wait(caplog):
    class Twins(Breaking):
        def begin(self, server_round):
            self._nodes[777] = LocalNode(self.app, BACK, 5, 777)

    grid = Twins(99, 99, same=True)
    with caplog.at_level(logging.WARNING, logger="gossiplib"):
        result = run(grid)
    assert result.lost == []
    assert np.allclose(result.models(), expected(set(), joins=None))
    assert [r.getMessage() for r in caplog.records] == [
        "node 777 cannot join: two clients have the partition id 1"
    ]


def test_a_client_that_comes_late_starts_from_a_neighbours_model():
    result = run(Breaking(1, 4, same=False, listed=False))
    assert {(loss.round, loss.call) for loss in result.lost} == {
        (t, "train") for t in (1, 2, 3)
    }
    assert np.allclose(result.models(), expected({1, 2, 3}, joins=4))


def test_a_client_that_comes_back_offline_waits_for_a_neighbour():
    def schedule(server_round):
        graph = GRAPH.copy()
        if server_round in (3, 4):
            graph.remove_edges_from(list(graph.edges(BACK)))
            nx.set_node_attributes(graph, {BACK: False}, "online")
        return graph

    grid = Breaking(3, 3, same=False)
    result = run(grid, schedule)
    assert [loss for loss in result.lost if loss.call == "train"] == []
    assert np.allclose(result.models(), expected({3, 4}, 5, schedule))


def test_a_run_on_a_used_grid_does_not_see_the_states_of_the_run_before():
    grid = LocalGrid(gossip(drifting_app()), 5)
    first = Gossip(GRAPH).start(grid, zeros(), 2)
    asleep = {node: local.context for node, local in grid._nodes.items()}

    class Late(Gossip):
        """One client writes its old state back, as one that wakes up on Ray does."""

        def configure_train(self, server_round, *args):
            if server_round == 3:
                node = list(grid._nodes)[BACK]
                grid._nodes[node].context = asleep[node]
            return super().configure_train(server_round, *args)

    second = Late(GRAPH).start(grid, zeros(), ROUNDS)
    assert first.lost == []
    assert [loss[:3] for loss in second.lost if loss.call == "train"] == [
        (3, BACK, "train")
    ]
    assert np.allclose(second.models(), expected({3}, joins=4))
