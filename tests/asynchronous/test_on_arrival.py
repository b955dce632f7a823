"""Gossip without rounds through Flower, against the array program and plain numpy."""

import networkx as nx
import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from gossiplib.asynchronous.client import gossip_on_arrival
from gossiplib.asynchronous.engine import gossip_cycles
from gossiplib.asynchronous.merging import (
    Linear,
    hinge,
    logistic,
    merge_update,
    random_walk,
    update_merge,
)
from gossiplib.asynchronous.network import (
    GeneralizedTokenAccount,
    NetworkModel,
    RandomizedTokenAccount,
    Traffic,
)
from gossiplib.asynchronous.server import AsyncServer
from gossiplib.core.grid import LocalGrid
from gossiplib.system.records import flat, unpack
from gossiplib.tasks.task import Task, spambase
from toy_apps import SpyGrid, drifting_app, zeros

N, LAM = 10, 0.1
LOSSES = {"pegasos": hinge, "logistic": logistic}


def task():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(150, 5)), rng.integers(2, size=150)
    return Task(x, y, N, alpha=1.0, dtype=torch.float64, holdout=0)


def linear_app(task, loss, lam=LAM):
    """Return an ordinary ClientApp that makes a step for each of its examples."""
    app = ClientApp()

    @app.train()
    def train(message, context):
        (w,) = message.content["arrays"].to_numpy_ndarrays()
        age = message.content["config"]["age"]
        x, y = task.part(context.node_config["partition-id"], "train")
        for row, sign in zip(x.numpy(), 2 * y.numpy() - 1, strict=True):
            age += 1
            slope = loss(np.asarray(sign * row @ w))
            w = (1 - 1 / age) * w + sign * slope / (lam * age) * row
        metrics = MetricRecord({"num-examples": len(y)})
        content = {"arrays": ArrayRecord([w]), "metrics": metrics}
        return Message(RecordDict(content), reply_to=message)

    return app


def run(app, cycles=4, *, grid=None, create=merge_update, first=None, **options):
    grid = grid or LocalGrid(gossip_on_arrival(app, create), N)
    strategy = AsyncServer(N, join_timeout=0, **options)
    return strategy.start(grid, first or zeros(), cycles)


HARD = {
    "slots": 3,
    "network": NetworkModel(drop=0.2, delay=4, online=0.9),
    "account": RandomizedTokenAccount(4, 2),
}


@pytest.mark.parametrize("create", [random_walk, merge_update, update_merge])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("options", [{}, HARD, {"graph": nx.cycle_graph(N)}])
def test_on_flower_as_on_arrays(create, loss, options):
    some, cycles = task(), 8
    app = linear_app(some, LOSSES[loss])
    first = ArrayRecord([np.zeros(5)])
    result = run(app, cycles, create=create, first=first, **options)
    arrays = gossip_cycles(
        some, cycles, create=create, loss=LOSSES[loss], lam=LAM, **options
    )
    expected = arrays.models()
    assert np.abs(expected[:, :-1]).max() > 0.3
    assert np.allclose(result.models(), expected[:, :-1], rtol=1e-10, atol=1e-12)
    assert result.messages == arrays.messages and result.bytes == arrays.bytes
    assert result.lost == []
    last = result.node_train_metrics[cycles]
    assert all(last[i]["age"] == expected[i, -1] for i in last)


def test_any_client_app_of_pytorch_runs():
    some = spambase(N, holdout=0.1)
    app = gossip_on_arrival(some.client_app(lr=0.1))
    strategy = AsyncServer(N, observe_every=5)
    grid = LocalGrid(app, N)
    result = strategy.start(
        grid, some.initial_arrays(), 10, evaluate_fn=some.evaluate_fn
    )
    accuracy = result.evaluate_metrics_serverapp
    assert list(accuracy) == [5, 10] and accuracy[10]["accuracy"] > 0.85
    assert list(result.node_arrays[0]) == list(some.initial_arrays())
    assert result.train_metrics_clientapp[10]["loss"] < 0.5
    assert {"age", "useful", "loss"} <= set(result.to_pandas().columns.str[6:])
    # And it still works with FedAvg.
    fedavg = FedAvg(fraction_evaluate=1.0)
    federated = fedavg.start(LocalGrid(app, N), some.initial_arrays(), 1)
    plain = FedAvg(fraction_evaluate=1.0).start(
        LocalGrid(some.client_app(lr=0.1), N), some.initial_arrays(), 1
    )
    assert np.allclose(flat(federated.arrays), flat(plain.arrays))
    assert len(federated.evaluate_metrics_clientapp) == 1


def test_models_of_several_arrays_keep_shapes_and_data_types():
    app = ClientApp()

    @app.train()
    def train(message, context):
        record = message.content["arrays"].copy()
        W, count = unpack(record)
        new = ArrayRecord([W + 1, np.asarray(count + 1)])
        for name, array in zip(list(record), new.values(), strict=True):
            record[name] = array
        return Message(RecordDict({"arrays": record}), reply_to=message)

    zero = {"W": torch.zeros(2, 3), "count": torch.zeros((), dtype=torch.int64)}
    result = run(app, 3, create=random_walk, first=ArrayRecord(zero))
    for model in result.node_arrays.values():
        assert list(model) == ["W", "count"]
        W, count = unpack(model)
        assert W.shape == (2, 3) and W.dtype == np.float32 and count.dtype == np.int64
        assert (W == count).all()


FAULTS = {
    "raises": "RuntimeError: the disk is full",
    "none": "TypeError: the ClientApp returned None instead of a Message",
    "shape": "ValueError: its array 0 has shape (2, 2) instead of (3,)",
    "nan": "ValueError: its array 0 has NaN or infinite values",
}


def replay(cycles, failing, n=N):
    """Return what random walks of `drifting_app` lead to, one message after another."""
    traffic = Traffic(n, 0)
    newest, mail = np.zeros((n, 3)), []
    for t in range(1, cycles + 1):
        for _ in traffic.slots(t):
            mail += [newest[i].copy() for i in traffic.leave()]
            for numbers, _, receivers in traffic.arrive():
                for k, i in zip(numbers, receivers, strict=True):
                    if (t, i) not in failing:
                        newest[i] = mail[k] + (i + 1) * np.arange(1.0, 4.0)
    return newest


@pytest.mark.parametrize("fault", FAULTS)
def test_a_client_that_fails_keeps_its_model_and_is_named(fault):
    app = drifting_app(fault, client=3, rounds=(2, 4, 5))
    result = run(app, 5, create=random_walk)
    expected = replay(5, {(2, 3), (4, 3), (5, 3)})
    assert np.allclose(result.models(), expected)
    assert not np.allclose(expected, replay(5, set()))
    assert {loss[:3] for loss in result.lost} <= {(t, 3, "train") for t in (2, 4, 5)}
    assert result.lost and {loss.reason for loss in result.lost} == {FAULTS[fault]}


def test_a_client_that_is_missing_is_named_and_the_others_go_on():
    app = gossip_on_arrival(drifting_app(), random_walk)
    result = run(None, 4, grid=SpyGrid(app, N, hidden=(2,)))
    assert sorted(result.node_arrays) == [i for i in range(N) if i != 2]
    assert {loss.client for loss in result.lost} == {2}
    assert {loss.reason for loss in result.lost} == {"is not on the grid"}


def test_a_client_that_never_answers_is_not_called_again():
    class Deaf(SpyGrid):
        def send_and_receive(self, messages, *, timeout=None):
            replies = super().send_and_receive(messages, timeout=timeout)
            return [r for r in replies if not self.is_dropped(r)]

        def is_dropped(self, reply):
            client = self._client[reply.metadata.src_node_id]
            return client == 2 and reply.metadata.message_type == "train"

    app = gossip_on_arrival(drifting_app(), random_walk)
    grid = Deaf(app, N)
    result = run(None, 6, grid=grid)
    assert len([i for i, _ in grid.calls("train") if i == 2]) == 1
    assert {loss.client for loss in result.lost} == {2}
    assert "still owes an earlier reply" in {loss.reason for loss in result.lost}


def test_it_ends_if_all_fail_at_once():
    class Mute(SpyGrid):
        def send_and_receive(self, messages, *, timeout=None):
            kept = super().send_and_receive(messages, timeout=timeout)
            return [r for r in kept if r.metadata.message_type == "query.join"]

    app = gossip_on_arrival(drifting_app())
    with pytest.raises(RuntimeError, match="all clients failed by cycle 1; client"):
        run(None, 2, grid=Mute(app, N))


def made_up(data=b"", stype="numpy.ndarray"):
    """Return arrays that no client could have trained."""
    return ArrayRecord({"0": Array("float64", (3,), stype, data)})


MADE_UP = {
    "no bytes": ("query.send", {"arrays": made_up()}, "its model"),
    "other kind": ("query.send", {"arrays": made_up(stype="torch")}, "its model"),
    "no model": ("query.model", {}, "its model"),
    "no bytes to look at": ("query.model", {"arrays": made_up()}, "its model"),
    "other shape": ("query.model", {"arrays": ArrayRecord([np.ones(2)])}, "its model"),
    "no metrics": ("train", {}, "its reply"),
    "metrics of others": ("train", {"m": MetricRecord({"loss": 1.0})}, "its reply"),
}


@pytest.mark.parametrize("fault", MADE_UP)
def test_a_reply_that_makes_no_sense_is_lost_and_the_run_goes_on(fault):
    call, content, what = MADE_UP[fault]

    class Liar(SpyGrid):
        def send_and_receive(self, messages, *, timeout=None):
            replies = list(super().send_and_receive(messages, timeout=timeout))
            for reply in replies:
                about = reply.metadata
                if (self._client[about.src_node_id], about.message_type) == (2, call):
                    reply.content = RecordDict(content)
            return replies

    grid = Liar(gossip_on_arrival(drifting_app(), random_walk), N)
    result = run(None, 4, grid=grid)
    assert result.lost and {loss[1:3] for loss in result.lost} == {(2, call)}
    assert all(f"{what} cannot be used" in loss.reason for loss in result.lost)
    assert len(result.messages) == 4 and len(result.node_arrays) >= N - 1
    assert all(unpack(a)[0].shape == (3,) for a in result.node_arrays.values())


def test_create_that_makes_no_numbers_is_named():
    def broken(received, before, update):
        return Linear(received.w * np.nan, received.age)

    result = run(drifting_app(), 2, create=broken)
    assert "is not finite, in cycle 1" in result.lost[0].reason
    assert np.array_equal(result.models(), np.zeros((N, 3)))


@pytest.mark.parametrize(
    ("create", "says"),
    [
        (lambda a, b, update: None, "must make a Linear, weights and ages, not None"),
        (lambda a, b, update: update(a).w[0], "must make a Linear.*not ndarray"),
        (lambda a, b, update: Linear(a.w + 1j, a.age), "of complex128, float64, not"),
    ],
)
def test_create_that_makes_no_models_is_told(create, says):
    result = run(drifting_app(), 2, create=create)
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(result.lost[0].reason)
    assert np.array_equal(result.models(), np.zeros((N, 3)))


def test_a_pair_of_arrays_is_a_linear_as_well():
    results = [
        run(drifting_app(), create=create)
        for create in (random_walk, lambda a, b, update: tuple(update(a)))
    ]
    assert np.array_equal(*(result.models() for result in results))
    assert not results[1].lost and results[1].models().any()


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: AsyncServer(1), ValueError, "num_clients .* at least 2; got 1"),
        (lambda: AsyncServer(N, graph=nx.cycle_graph(9)), ValueError, "missing 9"),
        (lambda: AsyncServer(N, observe_every=-1), ValueError, "observe_every"),
        (lambda: AsyncServer(N, network=NetworkModel(drop=2)), ValueError, "drop"),
        (
            lambda: AsyncServer(N, account=GeneralizedTokenAccount(2, 3)),
            ValueError,
            "reactivity",
        ),
        (lambda: run(drifting_app(), 0), ValueError, "num_rounds"),
        (
            lambda: AsyncServer(N).start(None, zeros(), train_config={"lr": 1}),
            TypeError,
            "must be a ConfigRecord",
        ),
        (lambda: run(drifting_app(), first=[1.0]), TypeError, "ArrayRecord"),
        (
            lambda: run(drifting_app(), first=ArrayRecord([np.array([np.nan])])),
            ValueError,
            "initial_arrays: array 0 has NaN",
        ),
        (
            lambda: AsyncServer(N).start(None, zeros(), evaluate_fn="accuracy"),
            TypeError,
            "evaluate_fn must be a function",
        ),
        (lambda: AsyncServer(N, network=0.2), TypeError, "network must be a Net.*0.2"),
        (lambda: AsyncServer(N, account=3), TypeError, "account must be a Token.*3"),
        (lambda: run(drifting_app(), create="merge"), TypeError, "create.*'merge'"),
    ],
)
def test_bad_input(call, error, says):
    with pytest.raises(error, match=says):
        call()


def test_a_strategy_holds_no_state_of_a_run():
    strategy = AsyncServer(N, seed=3, **HARD)
    results = [
        strategy.start(LocalGrid(gossip_on_arrival(drifting_app()), N), zeros(), 5)
        for _ in range(2)
    ]
    assert np.array_equal(*(result.models() for result in results))
    assert not strategy.traffic.sent.any() and not strategy.traffic.flying()
    with pytest.raises(NotImplementedError, match="call its start"):
        strategy.configure_train(1, zeros(), ConfigRecord(), LocalGrid(None, 1))


def test_train_config_reaches_the_app():
    app = drifting_app()
    grid = LocalGrid(gossip_on_arrival(app, random_walk), N)
    config = ConfigRecord({"faults": ["2 4 raises"]})
    result = AsyncServer(N).start(grid, zeros(), 3, train_config=config)
    assert {loss[:3] for loss in result.lost} == {(2, 4, "train")}


@pytest.mark.parametrize("kind", ["i8", "u1", "i1", "?", "f2", "c8", ">f4"])
@pytest.mark.parametrize("create", [random_walk, merge_update, update_merge])
@pytest.mark.filterwarnings("error")
def test_ages_and_sums_are_those_of_floats_whatever_the_model_is_of(create, kind):
    def results(dtype):
        app = ClientApp()

        @app.train()
        def train(message, context):
            metrics = MetricRecord({"num-examples": 300})
            content = {"arrays": message.content["arrays"], "metrics": metrics}
            return Message(RecordDict(content), reply_to=message)

        return run(app, 30, create=create, first=ArrayRecord([np.ones(3, dtype)]))

    found, wanted = results(kind), results("f8")
    assert not found.lost and found.to_pandas().equals(wanted.to_pandas())
    for model in found.node_arrays.values():
        (array,) = unpack(model)
        assert array.dtype == np.dtype(kind) and (array == 1).all()


def test_the_result_has_the_mean_model_of_the_clients():
    result = run(drifting_app())
    assert np.allclose(flat(result.arrays), result.models().mean(axis=0))


@pytest.mark.parametrize("seen", [-1, float("nan"), float("inf")])
def test_a_model_grows_older_by_a_number_of_examples(seen):
    app = ClientApp()

    @app.train()
    def train(message, context):
        metrics = MetricRecord({"num-examples": seen})
        content = {"arrays": message.content["arrays"], "metrics": metrics}
        return Message(RecordDict(content), reply_to=message)

    lost = run(app, 2, create=random_walk).lost
    assert f"num-examples is how many were seen; got {float(seen)}" in lost[0].reason
