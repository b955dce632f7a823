"""LocalGrid behaves as Flower's simulation does."""

import time

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from gossiplib.core.grid import LocalGrid
from toy_apps import SpyGrid, drifting_app, still_app, vector, zeros


def app_of(function):
    """Return an app that trains by this function."""
    app = ClientApp()
    app.train()(function)
    return app


def send(grid, node, timeout=None, **content):
    content = RecordDict(content)
    return grid.send_and_receive([Message(content, node, "train")], timeout=timeout)


def counting(message, context):
    """Count the calls in the client's state, and tell."""
    calls = context.state.get("calls", ConfigRecord({"are": 0}))["are"] + 1
    context.state["calls"] = ConfigRecord({"are": calls})
    orders = message.content.get("orders", ConfigRecord())
    if orders.get("raise"):
        raise RuntimeError("the disk is full")
    if orders.get("silent"):
        return None
    time.sleep(orders.get("nap", 0))
    content = RecordDict({"calls": ConfigRecord({"are": calls})})
    return Message(content, reply_to=message)


def orders(**what):
    return ConfigRecord(what)


def calls(replies):
    (reply,) = replies
    return reply.content["calls"]["are"]


def test_it_is_a_grid_with_random_node_ids():
    grid = LocalGrid(still_app(), 5)
    nodes = grid.get_node_ids()
    assert isinstance(grid, Grid)
    assert len(set(nodes)) == 5 and not set(nodes) & set(range(5))
    assert nodes == LocalGrid(still_app(), 5).get_node_ids()  # the same in each run


@pytest.mark.parametrize("num_nodes", [0, -1])
def test_it_needs_a_node(num_nodes):
    with pytest.raises(ValueError, match=f"at least 1.*{num_nodes}"):
        LocalGrid(still_app(), num_nodes)


def test_clients_know_their_partition_their_node_and_the_run_config():
    seen = []

    def train(message, context):
        seen.append((context.node_id, context.node_config, context.run_config))
        return Message(RecordDict(), reply_to=message)

    grid = LocalGrid(app_of(train), 3, run_config={"lr": 0.1})
    for node in grid.get_node_ids():
        send(grid, node)
    assert seen == [
        (node, {"partition-id": i, "num-partitions": 3}, {"lr": 0.1})
        for i, node in enumerate(grid.get_node_ids())
    ]


def test_replies_belong_to_their_messages():
    grid = LocalGrid(app_of(counting), 3)
    messages = [Message(RecordDict(), n, "train") for n in grid.get_node_ids()]
    replies = grid.send_and_receive(messages)
    for message, reply in zip(messages, replies, strict=True):
        assert reply.metadata.src_node_id == message.metadata.dst_node_id
        assert reply.metadata.reply_to_message_id == message.metadata.message_id != ""
    assert len({m.metadata.message_id for m in messages}) == 3


def test_push_and_pull_give_each_reply_once():
    grid = LocalGrid(app_of(counting), 2)
    messages = [Message(RecordDict(), n, "train") for n in grid.get_node_ids()]
    ids = list(grid.push_messages(iter(messages)))
    assert len(grid.pull_messages(ids[:1])) == 1
    assert len(grid.pull_messages(ids)) == 1
    assert grid.pull_messages(ids) == grid.pull_messages(["unknown"]) == []


def test_create_message_makes_one_that_can_be_sent():
    grid = LocalGrid(app_of(counting), 1)
    (node,) = grid.get_node_ids()
    message = grid.create_message(RecordDict(), "train", node, "a group")
    assert message.metadata.group_id == "a group"
    assert calls(grid.send_and_receive([message])) == 1


def test_a_node_that_is_not_there_never_answers():
    grid = LocalGrid(app_of(counting), 1)
    assert send(grid, 12345) == []
    assert calls(send(grid, *grid.get_node_ids())) == 1


def test_each_client_has_its_own_state():
    grid = LocalGrid(app_of(counting), 2)
    first, second = grid.get_node_ids()
    assert [calls(send(grid, n)) for n in (first, first, second, first)] == [1, 2, 1, 3]
    assert calls(send(LocalGrid(app_of(counting), 2), first)) == 1


def test_a_client_that_raises_answers_with_an_error_and_is_rolled_back():
    grid = LocalGrid(app_of(counting), 1)
    (node,) = grid.get_node_ids()
    send(grid, node)
    (reply,) = send(grid, node, orders=orders(**{"raise": True}))
    assert reply.has_error() and reply.metadata.src_node_id == node
    assert reply.error.reason == "RuntimeError: the disk is full"
    assert calls(send(grid, node)) == 2


def test_a_client_that_returns_none_never_answers_but_has_changed():
    grid = LocalGrid(app_of(counting), 1)
    (node,) = grid.get_node_ids()
    assert send(grid, node, orders=orders(silent=True)) == []
    assert calls(send(grid, node)) == 2


@pytest.mark.usefixtures("clock")
def test_a_late_reply_can_be_pulled_and_the_client_has_changed():
    grid = LocalGrid(app_of(counting), 1)
    message = Message(
        RecordDict({"orders": orders(nap=0.1)}), *grid.get_node_ids(), "train"
    )
    assert grid.send_and_receive([message], timeout=0.05) == []
    ids = [message.metadata.message_id]
    assert calls(grid.pull_messages(ids)) == 1
    assert grid.pull_messages(ids) == []
    assert calls(send(grid, *grid.get_node_ids(), timeout=10)) == 2


@pytest.mark.usefixtures("clock")
def test_the_timeout_is_for_each_client_on_its_own():
    grid = LocalGrid(app_of(counting), 4)
    messages = [
        Message(RecordDict({"orders": orders(nap=0.1)}), node, "train")
        for node in grid.get_node_ids()
    ]
    assert len(grid.send_and_receive(messages, timeout=0.3)) == 4


# Client and server share no records ---------------------------------------------------


def hostile(message, context):
    """Change all that can be changed, and answer with what the client keeps."""
    arrays = message.content["arrays"]
    arrays.to_numpy_ndarrays(keep_input=False)
    arrays["mine"] = zeros()["0"]
    message.content["config"]["lr"] = -1.0
    message.content["config"]["layers"].append(99)
    message.content["more"] = ConfigRecord()
    context.node_config["partition-id"] = 77
    context.run_config["lr"] = -1.0
    kept = context.state.setdefault("kept", ArrayRecord([np.ones(2)]))
    kept_metrics = context.state.setdefault("metrics", MetricRecord({"list": [1.0]}))
    content = RecordDict({"arrays": kept, "metrics": kept_metrics})
    return Message(content, reply_to=message)


def test_a_client_cannot_change_what_the_server_and_others_have():
    grid = LocalGrid(app_of(hostile), 2, run_config={"lr": 0.1})
    arrays, config = zeros(), ConfigRecord({"lr": 0.1, "layers": [1, 2]})
    content = RecordDict({"arrays": arrays, "config": config})
    nodes = grid.get_node_ids()
    replies = grid.send_and_receive([Message(content, n, "train") for n in nodes])
    assert [r.has_error() for r in replies] == [False, False]
    assert arrays == zeros()
    assert list(content) == ["arrays", "config"]
    assert config == {"lr": 0.1, "layers": [1, 2]}


def test_a_client_cannot_change_the_run_config_of_others():
    seen = []

    def train(message, context):
        seen.append(dict(context.run_config))
        context.run_config["lr"] = -1.0
        return Message(RecordDict(), reply_to=message)

    given = {"lr": 0.1}
    grid = LocalGrid(app_of(train), 2, run_config=given)
    for node in grid.get_node_ids():
        send(grid, node)
    assert seen == [{"lr": 0.1}] * 2 and given == {"lr": 0.1}


def test_the_server_cannot_change_what_a_client_keeps():
    grid = LocalGrid(app_of(hostile), 1)
    (node,) = grid.get_node_ids()

    def get():
        config = ConfigRecord({"layers": [1]})
        (reply,) = send(grid, node, arrays=zeros(), config=config)
        return reply.content

    content = get()
    content["arrays"].clear()
    content["metrics"]["list"].append(2.0)
    assert get() == {
        "arrays": ArrayRecord([np.ones(2)]),
        "metrics": MetricRecord({"list": [1.0]}),
    }


def test_what_a_client_that_raises_did_to_its_records_is_rolled_back():
    def train(message, context):
        kept = context.state.setdefault("kept", ConfigRecord({"list": [1], "n": 1}))
        seen.append((list(kept["list"]), kept["n"]))
        if len(seen) == 2:
            kept["list"].append(2)
            kept["n"] = 2
            raise RuntimeError
        return Message(RecordDict(), reply_to=message)

    seen = []
    grid = LocalGrid(app_of(train), 1)
    for _ in range(3):
        send(grid, *grid.get_node_ids())
    assert seen == [([1], 1)] * 3


# Flower's own strategies --------------------------------------------------------------


def test_fedavg_averages_on_it():
    result = FedAvg().start(LocalGrid(still_app(), 4), zeros(), num_rounds=2)
    mean = np.mean([vector(i) for i in range(4)], axis=0)
    assert np.allclose(result.arrays.to_numpy_ndarrays()[0], mean)
    assert result.evaluate_metrics_clientapp[2]["sum"] == pytest.approx(mean.sum())


@pytest.mark.parametrize("fault", ["raises", "none"])
def test_fedavg_goes_on_without_a_client_that_fails(fault):
    grid = SpyGrid(drifting_app(fault, client=1, rounds=(2,)), 3)
    result = FedAvg().start(grid, zeros(), num_rounds=3)
    # Means of 1, 2, 3 in rounds 1 and 3, and of 1, 3 in round 2: all are 2.
    assert np.allclose(result.arrays.to_numpy_ndarrays()[0], [6, 12, 18])
    assert len(grid.calls("train")) == 9
