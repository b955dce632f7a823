"""What users' functions return and do: read in one way, or refused by name.

Average functions, discover, weights, evaluate_fn and the wrapped app itself are a
user's; what they return may be of a near type, and what they are given is theirs alone.
"""

import os

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from scipy import sparse
from test_what_enters import app_of, record_of, run

from gossiplib.core import mixing, topology
from gossiplib.core.averaging import weighted_mean
from gossiplib.core.client import gossip
from gossiplib.core.grid import LocalGrid
from gossiplib.core.server import Gossip
from toy_apps import drift, drifting_app, zeros

RING = topology.named("ring", 4)


def reasons(result) -> str:
    return "; ".join({f"{call}: {reason}" for _, _, call, reason in result.lost})


# Average functions.


def clearing(own, neighbours, weights, context):
    mean = weighted_mean(own, neighbours, weights)
    own.clear(), neighbours.clear(), weights.fill(0)
    return mean


def as_it(convert):
    return lambda own, near, w, context: convert(weighted_mean(own, near, w))


@pytest.mark.parametrize(
    "average",
    [
        clearing,
        as_it(tuple),
        as_it(iter),
        as_it(np.stack),
        as_it(lambda mean: [a.tolist() for a in mean]),
        as_it(lambda mean: [torch.tensor(a) for a in mean]),
        as_it(lambda mean: [np.asfortranarray(a[::-1])[::-1] for a in mean]),
    ],
)
def test_an_average_of_a_near_type_is_the_model_that_it_holds(average):
    result = run(drifting_app(), RING, zeros(), average=average, rounds=3)
    assert not result.lost and np.allclose(result.models(), drift(RING, 4, 3))


@pytest.mark.parametrize(
    ("average", "says"),
    [
        (as_it(lambda mean: None), "must return a list of arrays, not a NoneType"),
        (
            as_it(lambda mean: [np.ma.array(a, mask=a > -1) for a in mean]),
            "returned masked values",
        ),
        (
            as_it(lambda mean: {"w": mean[0]}),
            "must return a list of arrays, not a dict",
        ),
        (as_it(lambda mean: mean[0]), "3 arrays instead of 1"),
        (as_it(lambda mean: [mean[0] + 1j]), "array 0 holds complex128"),
        (as_it(lambda mean: [mean[0].astype(str)]), "array 0 holds <U"),
    ],
)
def test_an_average_that_is_no_model_is_told_and_changes_none(average, says):
    result = run(drifting_app(), RING, zeros(), average=average, rounds=1)
    assert says in reasons(result) and len(result.lost) == 4
    assert np.array_equal(result.models()[:, 0], [1, 2, 3, 4])


def test_an_average_beyond_the_data_type_of_the_model_is_lost_not_infinite():
    initial = record_of(w=np.ones(2, np.float16))
    huge = lambda own, *_: [own[0].astype(float) * 1e6]  # noqa: E731
    result = run(app_of(lambda a, i: a), RING, initial, average=huge, rounds=1)
    assert "w has NaN or infinite" in reasons(result) and (result.models() == 1).all()


def test_what_has_a_sign_of_its_own_is_no_variance():
    app = app_of(lambda a, i: {"log_var": np.array([1.0 if i == 0 else -1.0])})
    complete, initial = nx.complete_graph(4), record_of(log_var=np.ones(1))
    result = run(app, complete, initial, rounds=1)
    federated = FedAvg(fraction_evaluate=0.0).start(
        LocalGrid(app, 4), initial, num_rounds=1
    )
    assert not result.lost
    assert np.allclose(result.models(), federated.arrays["log_var"].numpy())


# Discover.


@pytest.mark.parametrize("convert", [set, tuple, np.array, lambda c: iter(2 * c)])
def test_neighbours_of_a_near_type_are_whom_it_holds(convert):
    result = run(
        drifting_app(), RING, zeros(), rounds=3, discover=lambda c, t, _: convert(c)
    )
    assert not result.lost and np.allclose(result.models(), drift(RING, 4, 3))


@pytest.mark.parametrize(
    "convert",
    [
        lambda c: [str(j) for j in c],
        lambda c: "".join(map(str, c)),
        lambda c: [j + 0.7 for j in c],
        lambda c: np.isin(c, c[:1]),  # a mask
        lambda c: [True] * len(c),
    ],
)
def test_neighbours_that_are_no_whole_numbers_are_refused(convert):
    result = run(
        drifting_app(), RING, zeros(), discover=lambda c, t, _: convert(c), rounds=1
    )
    assert "what discover chose must be a whole number" in reasons(result)
    assert result.messages == {1: 0}


def test_a_discover_function_may_take_its_candidates_apart():
    pick = lambda c, t, _: [c.pop(), c.pop()]  # noqa: E731
    result = run(drifting_app(), nx.complete_graph(5), zeros(), discover=pick)
    assert not result.lost and result.messages == {1: 10, 2: 10}


def test_a_discover_function_has_a_state_of_its_own():
    def discover(candidates, server_round, context):
        seen.append(sorted(context.state))
        context.state.clear()
        context.state["gossip.model"] = ConfigRecord({"n": server_round})
        return candidates

    seen: list[list[str]] = []
    result = run(
        drifting_app(), RING, zeros(), discover=discover, discover_every=1, rounds=3
    )
    assert not result.lost and np.allclose(result.models(), drift(RING, 4, 3))
    assert seen == 4 * [[]] + 8 * [["gossip.model"]]


# The app's reply.


@pytest.mark.parametrize("told", [{"joined": False}, {"encoded": True}, {"run": 1}])
def test_no_record_of_the_app_is_taken_for_one_of_gossips(told):
    inner, app = drifting_app(), ClientApp()

    @app.train()
    def train(message, context):
        content = RecordDict({**inner(message, context).content})
        content["gossip"] = content["unread"] = ConfigRecord(told)
        return Message(content, reply_to=message)

    result = run(app, RING, zeros(), rounds=3)
    assert not result.lost and np.allclose(result.models(), drift(RING, 4, 3))
    assert result.train_metrics_clientapp[1]["mean"] == 5


# Weights, schedules and evaluate_fn.


@pytest.mark.parametrize(
    "convert",
    [
        np.matrix,
        sparse.csc_array,
        sparse.coo_matrix,
        sparse.dia_array,
        sparse.lil_matrix,
        np.asfortranarray,
    ],
)
@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_a_matrix_of_a_near_type_is_the_matrix_that_it_holds(convert, tmp_path):
    weights = lambda graph: convert(mixing.metropolis(graph))  # noqa: E731
    where = tmp_path / "run.zip"
    result = run(drifting_app(), RING, zeros(), weights=weights, checkpoint=where)
    assert not result.lost and np.allclose(result.models(), drift(RING, 4, 2))


@pytest.mark.parametrize(
    "convert",
    [
        torch.from_numpy,
        pd.DataFrame,
        np.ndarray.tolist,
        lambda W: W + 0j,
        lambda W: W.astype(str),
        lambda W: W.astype(object),
        lambda W: None,
    ],
)
def test_a_matrix_of_no_numbers_is_refused_by_name(convert):
    weights = lambda graph: convert(mixing.metropolis(graph))  # noqa: E731
    with pytest.raises(TypeError, match="W must be an array of real numbers, not "):
        run(drifting_app(), RING, zeros(), weights=weights)


def test_a_checkpoint_asks_no_schedule_twice(tmp_path):
    def messages(**options):
        stream = np.random.default_rng(0)  # it lives on
        draw = lambda t: nx.gnp_random_graph(6, 0.5, int(stream.integers(99)))  # noqa: E731
        return run(drifting_app(), draw, zeros(), rounds=5, **options).messages

    assert messages(checkpoint=tmp_path / "run.zip") == messages()


def test_evaluate_fn_may_tell_numbers_by_name(tmp_path):
    told = MetricRecord()

    def again(server_round, arrays):
        told["sum"] = float(arrays["0"].numpy().sum())
        return told

    def numpys(server_round, arrays):
        total = arrays["0"].numpy().sum(dtype=np.float32)
        return {"sum": torch.tensor(total) if server_round else total}

    tables = []
    for evaluate_fn in (again, numpys):
        grid = LocalGrid(gossip(drifting_app()), 4)
        strategy = Gossip(RING, checkpoint=tmp_path / "run.zip", evaluate_every=0)
        result = strategy.start(grid, zeros(), 2, evaluate_fn=evaluate_fn)
        tables.append(result.to_pandas()["server_sum"])
        for i, arrays in result.node_arrays.items():
            found = result.node_server_metrics[2][i]
            assert found["sum"] == pytest.approx(arrays["0"].numpy().sum())
    assert np.allclose(*tables)


@pytest.mark.parametrize(
    ("evaluate_fn", "says"),
    [
        ("accuracy", r"must be a function of \(round, arrays\); got str"),
        (lambda t, a: 0.5, "must tell metrics by name, or None; got float"),
        (lambda t, a: (0.5, {"loss": 1.0}), "or None; got tuple"),
        (lambda t, a: {"good": True}, "must tell numbers by name; got {'good': True}"),
        (lambda t, a: {1: 0.5}, "must tell numbers by name; got {1: 0.5}"),
    ],
)
def test_an_evaluate_fn_that_tells_no_metrics_is_refused_before_the_work(
    evaluate_fn, says
):
    app = app_of(lambda a, i: pytest.fail("a client was called"))
    with pytest.raises(TypeError, match=says):
        Gossip(RING).start(
            LocalGrid(gossip(app), 4), zeros(), 2, evaluate_fn=evaluate_fn
        )


# What is shared with whoever called, or with the process.


def test_a_first_model_that_is_changed_during_the_run_changes_nothing():
    def evaluate_fn(server_round, arrays):
        initial["0"] = record_of(w=np.full(3, 9.0))["w"]

    initial = zeros()
    grid = LocalGrid(gossip(drifting_app()), 4)
    result = Gossip(RING).start(grid, initial, 2, evaluate_fn=evaluate_fn)
    assert np.allclose(result.models(), drift(RING, 4, 2))


def test_who_the_client_is_no_app_can_change_for_gossip():
    inner, app, seen = drifting_app(), ClientApp(), []

    @app.train()
    def train(message, context):
        reply = inner(message, context)
        context.node_config["partition-id"] = 0
        context.node_config.pop("num-partitions")
        return reply

    def average(own, neighbours, weights, context):
        seen.append(int(context.clients))
        return weighted_mean(own, neighbours, weights)

    result = run(app, RING, zeros(), average=average)
    assert not result.lost and np.allclose(result.models(), drift(RING, 4, 2))
    assert seen == [0, 1, 2, 3] * 2


def test_a_client_that_changes_the_folder_moves_no_checkpoint(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    app = app_of(lambda a, i: os.chdir(tmp_path / "elsewhere") or a)
    result = run(app, RING, zeros(), checkpoint="run.zip")
    assert not result.unsaved and (tmp_path / "run.zip").exists()
    assert not [*(tmp_path / "elsewhere").iterdir()]


def test_a_run_in_which_nobody_was_online_has_no_models():
    graph = nx.cycle_graph(3)
    nx.set_node_attributes(graph, False, "online")
    result = run(drifting_app(), graph, zeros())
    assert len(result.models()) == 0 and not result.arrays
