"""Clients that fail, and input that is wrong, on LocalGrid. `test_ray` does it on Ray.

The run ends and names the client; the others' models are those of an independent numpy
computation in which the lost client took no part in that round.
"""

import logging
import time

import networkx as nx
import numpy as np
import pytest
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Error,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp

from faults import shows
from gossiplib.core import mixing, topology
from gossiplib.core.averaging import weighted_mean
from gossiplib.core.client import choose, gossip
from gossiplib.core.grid import LocalGrid
from gossiplib.core.result import Loss
from gossiplib.core.server import Gossip
from toy_apps import SpyGrid, drift, drifting_app, still_app, zeros

GRAPH = nx.cycle_graph(5)
GRAPH.add_edge(0, 2)  # so that degrees differ, and with them the weights
ROUNDS, FAULTY = 4, 1


def run(app, *, rounds=ROUNDS, timeout=30.0, grid=None, schedule=GRAPH, **options):
    grid = grid or LocalGrid(app, len(topology.at(schedule, 1)))
    strategy = Gossip(schedule, join_timeout=0, **options)
    return strategy.start(grid, zeros(), rounds, timeout=timeout)


def lost(result):
    """Return what was lost, without the reasons."""
    return [loss[:3] for loss in result.lost]


# Clients that fail --------------------------------------------------------------------

FAULTS = {
    "raises": "RuntimeError: the disk is full",
    "none": "TypeError: the ClientApp returned None instead of a Message",
    "shape": r"ValueError: its array 0 has shape (2, 2) instead of (3,)",
    "nan": "ValueError: its array 0 has NaN or infinite values",
}


@shows("raises", "LocalGrid", "counted; neighbours go on without it")
@shows("none", "LocalGrid", "counted; neighbours go on without it")
@shows("nan", "LocalGrid", "counted; neighbours go on without it")
@shows("shape", "LocalGrid", "counted; neighbours go on without it")
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("rounds", [(1,), (2,), (1, 2), (1, 2, 3, 4)])
def test_a_client_that_fails_in_training_takes_no_part(fault, rounds):
    result = run(gossip(drifting_app(fault, client=FAULTY, rounds=rounds)))
    expected = drift(GRAPH, 5, ROUNDS, untrained={(t, FAULTY) for t in rounds})
    here = [i for i in range(5) if i != FAULTY or len(rounds) < ROUNDS]
    assert sorted(result.node_arrays) == here
    assert np.allclose(result.models(), expected[here])
    assert result.lost == [Loss(t, FAULTY, "train", FAULTS[fault]) for t in rounds]
    # Client 1 has the neighbours 0 and 2: four of the twelve models of a round.
    assert result.messages == {t: 8 if t in rounds else 12 for t in range(1, 5)}
    for t in range(1, ROUNDS + 1):
        assert (FAULTY in result.node_train_metrics[t]) == (t not in rounds)
    assert result.to_pandas("round")["lost"].sum() == len(rounds)


@pytest.mark.usefixtures("clock")
@shows("delayed", "LocalGrid", "counted beyond the timeout; the model is kept")
@pytest.mark.parametrize("rounds", [(1,), (3,), (2, 3)])
def test_a_client_that_answers_too_late_has_trained_but_takes_no_part(rounds):
    app = gossip(drifting_app("late", client=FAULTY, rounds=rounds, nap=0.4))
    result = run(app, timeout=0.3)
    expected = drift(GRAPH, 5, ROUNDS, apart={(t, FAULTY) for t in rounds})
    assert np.allclose(result.models(), expected)
    assert result.lost == [
        Loss(t, FAULTY, "train", "no reply in 0.3 s") for t in rounds
    ]


@shows(
    "hangs",
    "LocalGrid",
    "no answer: counted, not called again; code that never ends can not be stopped",
)
def test_a_client_that_never_answers_is_not_called_again():
    class Deaf(SpyGrid):
        def send_and_receive(self, messages, *, timeout=None):
            replies = super().send_and_receive(messages, timeout=timeout)
            return [r for r in replies if not self.is_dropped(r)]

        def is_dropped(self, reply):
            client = self._client[reply.metadata.src_node_id]
            kind, trained = reply.metadata.message_type, len(self.calls("train")) // 5
            return client == FAULTY and kind == "train" and trained >= 2

    app = gossip(drifting_app())
    grid = Deaf(app, 5)
    result = run(app, grid=grid)
    trained = [i for i, _ in grid.calls("train")]
    assert trained.count(FAULTY) == 2 and trained.count(0) == ROUNDS
    expected = drift(GRAPH, 5, ROUNDS, untrained={(t, FAULTY) for t in (2, 3, 4)})
    others = [0, 2, 3, 4]
    assert sorted(result.node_arrays) == others  # the model was not shown at the end
    assert np.allclose(result.models(), expected[others])
    assert result.lost[0] == Loss(2, FAULTY, "train", "no reply in 30 s")
    assert {x.reason for x in result.lost[1:]} == {"still owes an earlier reply"}
    assert {x.client for x in result.lost} == {FAULTY}


@pytest.mark.parametrize("hidden", [(FAULTY,), (0, 3)])
def test_clients_that_are_missing_are_named_and_the_others_go_on(hidden):
    app = gossip(drifting_app())
    result = run(app, grid=SpyGrid(app, 5, hidden=hidden))
    gone = {(t, i) for t in range(1, ROUNDS + 1) for i in hidden}
    others = [i for i in range(5) if i not in hidden]
    assert sorted(result.node_arrays) == others
    assert np.allclose(result.models(), drift(GRAPH, 5, ROUNDS, untrained=gone)[others])
    assert lost(result) == [(t, i, "train") for t, i in sorted(gone)]
    assert {x.reason for x in result.lost} == {"is not on the grid"}


def test_a_client_that_appears_late_joins_if_there_is_time():
    class Growing(LocalGrid):
        looks = 0

        def get_node_ids(self):
            self.looks += 1
            return super().get_node_ids()[: 1 + 2 * self.looks]

    grid = Growing(gossip(drifting_app()), 5)
    result = Gossip(GRAPH, join_timeout=30).start(grid, zeros(), 2)
    assert result.lost == [] and np.allclose(result.models(), drift(GRAPH, 5, 2))


@pytest.mark.parametrize("rounds", [(1,), (2, 3)])
def test_a_client_whose_average_raises_keeps_its_own_model(rounds):
    seen = []

    def average(own, neighbours, weights, context):
        if context.node_config["partition-id"] == FAULTY:
            seen.append(1)
            if len(seen) in rounds:
                raise ArithmeticError("no average today")
        return [sum(w * m[0] for w, m in zip(weights, [own, *neighbours], strict=True))]

    result = run(gossip(drifting_app(), average=average))
    expected = drift(GRAPH, 5, ROUNDS, unmixed={(t, FAULTY) for t in rounds})
    assert np.allclose(result.models(), expected)
    reason = "ArithmeticError: no average today"
    assert result.lost == [Loss(t, FAULTY, "train.average", reason) for t in rounds]


@pytest.mark.usefixtures("clock")
def test_an_average_that_comes_too_late_has_changed_the_model():
    seen = []

    def average(own, neighbours, weights, context):
        if context.node_config["partition-id"] == FAULTY:
            seen.append(1)
            if len(seen) == 2:
                time.sleep(0.4)
        return weighted_mean(own, neighbours, weights)

    result = run(gossip(drifting_app(), average=average), timeout=0.3)
    assert result.lost == [Loss(2, FAULTY, "train.average", "no reply in 0.3 s")]
    assert np.allclose(result.models(), drift(GRAPH, 5, ROUNDS))


def test_a_client_whose_discover_fails_hears_nobody():
    def discover(candidates, server_round, context):
        if context.node_config["partition-id"] == FAULTY:
            raise LookupError("nobody there")
        return candidates

    grid = SpyGrid(gossip(drifting_app(), discover=discover), 5)
    result = run(None, grid=grid)
    assert result.lost == [
        Loss(t, FAULTY, "query.discover", "LookupError: nobody there")
        for t in range(1, ROUNDS + 1)
    ]
    directed = GRAPH.to_directed()
    directed.remove_edges_from([(0, FAULTY), (2, FAULTY)])
    assert np.allclose(result.models(), drift(directed, 5, ROUNDS))
    assert FAULTY not in [i for i, _ in grid.calls("train.average")]


def test_a_client_whose_discover_failed_once_is_asked_again():
    seen = []

    def discover(candidates, server_round, context):
        if context.node_config["partition-id"] == FAULTY:
            seen.append(server_round)
            if server_round == 1:
                raise LookupError("nobody there")
        return candidates

    grid = SpyGrid(gossip(drifting_app(), discover=discover), 5)
    result = run(None, grid=grid)
    assert seen == [1, 2]
    assert [loss.round for loss in result.lost] == [1]
    assert len(grid.calls("query.discover")) == 5 + 1


def test_discover_that_chooses_a_stranger_is_named():
    def discover(candidates, server_round, context):
        return [3] if context.node_config["partition-id"] == FAULTY else candidates

    result = run(gossip(drifting_app(), discover=discover))
    assert result.lost == [
        Loss(
            t,
            FAULTY,
            "query.discover",
            "ValueError: discover chose [3], but was offered [0, 2]",
        )
        for t in range(1, ROUNDS + 1)
    ]


def test_an_app_without_evaluate_trains_and_the_losses_are_named():
    app = ClientApp()

    @app.train()
    def train(message, context):
        (x,) = message.content["arrays"].to_numpy_ndarrays()
        x = x + (context.node_config["partition-id"] + 1) * np.array([1.0, 2.0, 3.0])
        return Message(RecordDict({"arrays": ArrayRecord([x])}), reply_to=message)

    result = run(gossip(app), rounds=2)
    assert np.allclose(result.models(), drift(GRAPH, 5, 2))
    assert lost(result) == [(t, i, "evaluate") for t in (1, 2) for i in range(5)]
    assert "evaluate" in result.lost[0].reason
    assert run(gossip(app), rounds=2, evaluate_every=0).lost == []


def test_an_app_that_answers_with_an_error_is_named():
    app = ClientApp()

    @app.train()
    def train(message, context):
        if context.node_config["partition-id"] == FAULTY:
            return Message(Error(code=7, reason="out of battery"), reply_to=message)
        return Message(RecordDict({"arrays": zeros()}), reply_to=message)

    result = run(gossip(app), rounds=1, evaluate_every=0)
    assert result.lost == [Loss(1, FAULTY, "train", "out of battery")]


@shows("lost", "LocalGrid", "its weight goes to the own model; not counted as failure")
def test_messages_that_are_lost():
    schedule = topology.drop_links(GRAPH, 0.5, seed=3)
    result = run(gossip(drifting_app()), schedule=schedule)
    assert result.lost == []
    assert sum(result.messages.values()) < 2 * len(GRAPH.edges) * ROUNDS
    assert np.allclose(result.models(), drift(schedule, 5, ROUNDS))


@shows("partition", "LocalGrid", "each part goes on; they mix again when it heals")
def test_a_graph_that_falls_apart_and_heals():
    def schedule(server_round):
        graph = GRAPH.copy()
        if 5 <= server_round <= 15:
            graph.remove_edges_from([(1, 2), (0, 2), (3, 4)])
        return graph

    result = run(gossip(drifting_app()), schedule=schedule, rounds=40)
    assert result.lost == []
    assert np.allclose(result.models(), drift(schedule, 5, 40))
    # Clients drift apart by a constant step a round, so whole the graph keeps them at
    # some distance, and apart the two sides move away from each other.
    distance = result.consensus_distance
    assert distance[15] > 2 * distance[4]
    assert np.isclose(
        distance[40],
        run(gossip(drifting_app()), rounds=40).consensus_distance[40],
        rtol=0.01,
    )


@shows("repeated", "LocalGrid", "the second one is ignored")
@shows("reordered", "LocalGrid", "nothing: the same models")
def test_replies_that_come_twice_and_in_another_order_change_nothing():
    class Stutters(LocalGrid):
        def send_and_receive(self, messages, *, timeout=None):
            replies = super().send_and_receive(messages, timeout=timeout)
            order = np.random.default_rng(0).permutation(len(replies) * 2)
            return [(replies * 2)[k] for k in order]

    app = gossip(drifting_app())
    result, plain = run(app, grid=Stutters(app, 5)), run(app)
    assert result.lost == []
    assert np.array_equal(result.models(), plain.models())
    assert result.messages == plain.messages and result.bytes == plain.bytes


@shows("malformed", "LocalGrid", "counted; neighbours go on without it")
@pytest.mark.parametrize("records", [0, 2])
def test_a_reply_that_does_not_hold_one_model_is_a_loss(records):
    inner, app = drifting_app(), ClientApp()

    @app.train()
    def train(message, context):
        reply = inner(message, context)
        if context.node_config["partition-id"] == FAULTY:
            arrays = reply.content.pop("arrays")
            for k in range(records):
                reply.content[f"arrays-{k}"] = arrays
        return reply

    result = run(gossip(app), evaluate_every=0, observe_every=0)
    assert lost(result) == [(t, FAULTY, "train") for t in range(1, ROUNDS + 1)]
    assert f"it holds {records}" in result.lost[0].reason
    gone = {(t, FAULTY) for t in range(1, ROUNDS + 1)}
    expected = drift(GRAPH, 5, ROUNDS, untrained=gone)
    assert np.allclose(result.models(), expected[[0, 2, 3, 4]])


def test_faults_and_churn_together():
    def schedule(server_round):
        away = {1: 3, 2: FAULTY, 3: 0, 4: 2}[server_round]
        graph = GRAPH.copy()
        graph.remove_edges_from(list(graph.edges(away)))
        nx.set_node_attributes(graph, {away: False}, "online")
        return graph

    result = run(
        gossip(drifting_app("raises", client=FAULTY, rounds=(1, 2, 3))),
        schedule=schedule,
    )
    untrained = {(1, FAULTY), (3, FAULTY)}
    assert np.allclose(result.models(), drift(schedule, 5, ROUNDS, untrained=untrained))
    # In round 2 it was away, so nothing was lost.
    assert lost(result) == [(1, FAULTY, "train"), (3, FAULTY, "train")]


def test_a_client_that_fails_alone_online_does_not_end_the_run():
    def schedule(server_round):
        graph = nx.path_graph(2)
        if server_round == 1:
            graph = nx.empty_graph(2)
            nx.set_node_attributes(graph, {0: False, 1: True}, "online")
        return graph

    app = drifting_app("raises", client=1, rounds=(1,))
    result = run(gossip(app), schedule=schedule, rounds=3)
    expected = drift(schedule, 2, 3, untrained={(1, 1)})
    assert np.allclose(result.models(), expected)


def test_losses_are_logged_once_for_each_client_and_call(caplog):
    app = gossip(drifting_app("raises", client=FAULTY, rounds=(2, 3)))
    with caplog.at_level(logging.WARNING, logger="gossiplib"):
        run(app)
    assert [r.getMessage() for r in caplog.records] == [
        "round 2: client 1 lost in train: RuntimeError: the disk is full"
    ]


@shows("killed", "LocalGrid", "counted; neighbours go on without it")
@pytest.mark.parametrize("timeout", [None, 30])
def test_a_node_that_vanishes_is_named_with_any_timeout(timeout):
    class Vanishing(SpyGrid):
        def send_and_receive(self, messages, *, timeout=None):
            messages = list(messages)
            if messages and messages[0].metadata.message_type == "train":
                gone = list(self._nodes)[FAULTY]
                kept = [m for m in messages if m.metadata.dst_node_id != gone]
                for message in messages:
                    message.metadata.__dict__["_message_id"] = "sent"
                return super().send_and_receive(kept, timeout=timeout)
            return super().send_and_receive(messages, timeout=timeout)

    app = gossip(drifting_app())
    result = run(app, grid=Vanishing(app, 5), timeout=timeout, rounds=1)
    assert lost(result)[0] == (1, FAULTY, "train")
    others = [0, 2, 3, 4]
    expected = drift(GRAPH, 5, 1, untrained={(1, FAULTY)})
    assert np.allclose(result.models(), expected[others])


# Runs that cannot be ------------------------------------------------------------------


def test_all_clients_failing_is_an_error_with_the_reason():
    app = ClientApp()

    @app.train()
    def train(message, context):
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="all clients failed.*round 1.*disk is full"):
        run(gossip(app))


def test_an_app_that_is_not_wrapped_is_told_to_be():
    with pytest.raises(RuntimeError, match=r"no client joined.*gossip\(app\)"):
        run(drifting_app())


def test_nobody_there_is_an_error():
    app = gossip(still_app())
    with pytest.raises(
        RuntimeError, match="no client joined.*none appeared within 0 s"
    ):
        run(app, grid=SpyGrid(app, 5, hidden=(0, 1, 2, 3, 4)))


def test_clients_too_slow_to_join_are_not_called_absent():
    class Slow(LocalGrid):
        def send_and_receive(self, messages, *, timeout=None):
            return super().send_and_receive(messages, timeout=-1)

    app = gossip(still_app())
    with pytest.raises(RuntimeError, match="no client joined.*answer"):
        run(app, grid=Slow(app, 5))


@shows("unknown", "LocalGrid", "error: it is none of the graph")
@pytest.mark.parametrize("n", [4, 6])
def test_graph_and_clients_must_be_as_many(n):
    app = gossip(still_app())
    with pytest.raises(ValueError, match=rf"graph has 5 nodes.*client \d of {n}"):
        run(app, grid=LocalGrid(app, n))


def test_two_clients_with_one_partition_id_are_found():
    grid = LocalGrid(gossip(still_app()), 5)
    list(grid._nodes.values())[3].context.node_config["partition-id"] = 2
    with pytest.raises(ValueError, match="two clients have the partition id 2"):
        run(None, grid=grid)


@pytest.mark.parametrize("num_rounds", [0, -1])
def test_there_must_be_a_round(num_rounds):
    with pytest.raises(ValueError, match=f"num_rounds.*at least 1.*{num_rounds}"):
        run(gossip(still_app()), rounds=num_rounds)


@pytest.mark.parametrize(
    ("schedule", "error", "says"),
    [
        (nx.Graph(), ValueError, "no nodes"),
        (nx.Graph([(0, 1), (2, 3)]), ValueError, "disconnected.*2 parts"),
        (nx.DiGraph([(0, 1), (1, 2)]), ValueError, "disconnected.*3 parts"),
        (nx.Graph([(0, 1), (1, 1)]), ValueError, "self-loops at 1"),
        (nx.Graph([(1, 2)]), ValueError, "missing 0; not a client 2"),
        (nx.grid_2d_graph(2, 3), ValueError, r"not a client \(0, 0\)"),
        (nx.MultiGraph([(0, 1)]), TypeError, "MultiGraph"),
        (lambda t: nx.Graph([(0, 0)]), ValueError, "self-loops at 0"),
        (lambda t: None, TypeError, "networkx Graph.*NoneType"),
        (None, TypeError, "networkx Graph.*NoneType"),
        ("ring", TypeError, "networkx Graph.*str"),
        (16, TypeError, "networkx Graph.*int"),
        (np.eye(3), TypeError, "networkx Graph.*ndarray"),
    ],
)
def test_a_schedule_that_is_none_is_refused_at_once(schedule, error, says):
    with pytest.raises(error, match=says):
        Gossip(schedule)


def test_a_schedule_that_goes_wrong_later_is_found():
    def schedule(server_round):
        return nx.path_graph(3 if server_round < 3 else 4)

    with pytest.raises(ValueError, match="not a client 3"):
        run(gossip(still_app()), schedule=schedule)


@pytest.mark.parametrize(
    ("W", "says"),
    [
        (np.eye(4), r"5 x 5.*\(4, 4\)"),
        (np.eye(5) * 0.5, "client 0 sum to 0.5"),
        (np.full((5, 5), 0.2), "client 0 weighs client 3"),
        (np.full((5, 5), np.nan), "client 0 sum to nan"),
        (np.eye(5).tolist(), "array"),
        (None, "array"),
    ],
)
def test_weights_that_are_none_are_refused(W, says):
    with pytest.raises((ValueError, TypeError), match=says):
        run(gossip(still_app()), weights=lambda graph: W)


def test_weights_that_the_graph_of_choices_does_not_have_are_refused():
    app = gossip(still_app(), discover=choose(1))
    with pytest.raises(ValueError, match="best_constant.*undirected"):
        run(app, weights=mixing.best_constant)


@pytest.mark.parametrize("arrays", [[np.zeros(3)], {"w": np.zeros(3)}, None])
def test_initial_arrays_must_be_an_array_record(arrays):
    with pytest.raises(TypeError, match="initial_arrays must be an ArrayRecord"):
        Gossip(GRAPH).start(LocalGrid(gossip(still_app()), 5), arrays)


def test_initial_arrays_must_be_finite():
    arrays = ArrayRecord([np.array([1.0, np.nan, 0.0])])
    with pytest.raises(ValueError, match="initial_arrays.*NaN"):
        Gossip(GRAPH).start(LocalGrid(gossip(still_app()), 5), arrays)


def test_a_config_may_hold_the_round_of_an_earlier_run():
    config = ConfigRecord({"lr": 0.1})
    for _ in range(2):
        result = Gossip(GRAPH).start(
            LocalGrid(gossip(drifting_app()), 5), zeros(), 2, train_config=config
        )
        assert np.allclose(result.models(), drift(GRAPH, 5, 2))


@pytest.mark.usefixtures("clock")
def test_clients_that_appear_while_others_join_are_waited_for():
    """Flower registers nodes one by one, and the first reply may take long."""

    class SlowStart(LocalGrid):
        looks = None

        def get_node_ids(self):
            if self.looks is not None:
                self.looks += 1
            # The last one is not there yet when the replies of the others have come.
            late = self.looks is None or self.looks < 2
            return super().get_node_ids()[: 4 if late else 5]

        def send_and_receive(self, messages, *, timeout=None):
            replies = super().send_and_receive(messages, timeout=timeout)
            if self.looks is None:
                time.sleep(0.3)  # longer than join_timeout
                self.looks = 0
            return replies

    grid = SlowStart(gossip(drifting_app()), 5)
    result = Gossip(GRAPH, join_timeout=0.2).start(grid, zeros(), ROUNDS)
    assert result.lost == []
    assert np.allclose(result.models(), drift(GRAPH, 5, ROUNDS))


@pytest.mark.parametrize(("timeout", "ttl"), [(30, 60), (None, None)])
def test_a_message_holds_for_twice_the_timeout(timeout, ttl):
    """Else a client that wakes late would work for a round that is over."""
    grid = SpyGrid(gossip(drifting_app()), 5)
    Gossip(GRAPH).start(grid, zeros(), 1, timeout=timeout)
    default = Message(RecordDict(), 1, "train").metadata.ttl
    assert {m.metadata.message_type for m in grid.sent} >= {"query.join", "train"}
    assert {m.metadata.ttl for m in grid.sent} == {ttl or default}


def test_a_superlink_that_answers_for_a_node_that_is_gone_is_understood():
    """It sends the error in its own name, with the id of the message it is about."""

    class Gone(LocalGrid):
        def send_and_receive(self, messages, *, timeout=None):
            replies = super().send_and_receive(messages, timeout=timeout)
            for k, reply in enumerate(replies):
                gone = reply.metadata.src_node_id == self.get_node_ids()[FAULTY]
                if gone and reply.metadata.message_type == "train":
                    error = Message(Error(5, "Node Unavailable"), reply_to=messages[k])
                    error.metadata.__dict__["_src_node_id"] = 1
                    replies[k] = error
            return replies

    grid = Gone(gossip(drifting_app()), 5)
    result = Gossip(GRAPH).start(grid, zeros(), ROUNDS)
    everywhere = range(1, ROUNDS + 1)
    assert result.lost == [
        Loss(t, FAULTY, "train", "Node Unavailable") for t in everywhere
    ]


def test_a_model_without_arrays_is_not_dropped_in_silence():
    app = ClientApp()

    @app.train()
    def train(message, context):
        content = {"arrays": ArrayRecord(), "metrics": MetricRecord({"loss": 1.0})}
        return Message(RecordDict(content), reply_to=message)

    grid = LocalGrid(gossip(app), 5)
    result = Gossip(GRAPH, evaluate_every=0).start(grid, ArrayRecord(), ROUNDS)
    assert result.lost == []
    assert (
        sorted(result.node_arrays) == sorted(result.node_train_metrics[1]) == [*GRAPH]
    )


def array_of(data):
    """Return an array whose bytes are made up."""
    return Array(dtype="float64", shape=(3,), stype="numpy.ndarray", data=data)


@pytest.mark.parametrize(
    ("call", "content"),
    [
        ("train", RecordDict({"arrays": ArrayRecord({"0": array_of(b"")})})),
        ("train", RecordDict({"arrays": ArrayRecord({"0": array_of(b"PK\3\4xxxx")})})),
        ("train", "no message"),
        ("query.discover", RecordDict()),
        ("query.discover", RecordDict({"gossip": ConfigRecord({"neighbours": 3})})),
        ("query.discover", RecordDict({"gossip": ArrayRecord()})),
    ],
)
def test_whatever_a_client_answers_is_a_loss_and_no_end(call, content):
    honest = gossip(drifting_app())

    def app(message, context):
        kind, client = message.metadata.message_type, context.node_config
        reply = honest(message, context)
        if kind == call and client["partition-id"] == FAULTY:
            if isinstance(content, str):
                return content
            reply.content = content
        return reply

    result = run(app)
    assert {(x.client, x.call) for x in result.lost} >= {(FAULTY, call)}
    assert {x.client for x in result.lost} == {FAULTY}
    assert list(result.messages) == list(range(1, ROUNDS + 1))
