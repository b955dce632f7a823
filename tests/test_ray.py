"""On Flower's simulation, whose clients run in Ray's processes.

Ray takes about 20 s to start, so one run serves all tests.
"""

import logging

import networkx as nx
import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from gossiplib import topology
from gossiplib.client import choose, gossip
from gossiplib.grid import LocalGrid, run_on_ray
from gossiplib.server import Gossip
from gossiplib.task import digits
from toy_apps import drift, drifting_app, zeros

N, ROUNDS, FAULTY = 5, 3, 1
GRAPH = nx.cycle_graph(N)
GRAPH.add_edge(0, 2)  # so that degrees differ, and with them the weights

#: fault -> (rounds, reason)
FAULTS = {
    "raises": ((2,), "the disk is full"),
    "none": ((2,), "the ClientApp returned None instead of a Message"),
    "shape": ((1, 2, 3), "its array 0 has shape (2, 2) instead of (3,)"),
    "nan": ((1,), "its array 0 has NaN or infinite values"),
}
#: The client's `choose(3)` takes all neighbours in the ring, and three of four in the
#: complete graph.
SCHEDULES = {
    "ring": nx.cycle_graph(N),
    "choose": nx.complete_graph(N),
    "churn": topology.churn(nx.complete_graph(N), 0.7),
}


class Over(Exception):
    """Ends the run on Ray."""


class Without:
    """A Grid on which one node cannot be seen."""

    def __init__(self, grid):
        self._grid = grid

    def __getattr__(self, name):
        return getattr(self._grid, name)

    def get_node_ids(self):
        return list(self._grid.get_node_ids())[1:]


def client_app():
    """Return clients that learn digits, or drift when `train_config` has a "fault"."""
    toy, task_app = drifting_app(), digits(N, alpha=1.0).client_app()
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        from flwr.app import ConfigRecord

        context.state.pop("breaks", None)
        fault = message.content["config"].get("fault")
        if fault == "average":
            context.state["breaks"] = ConfigRecord()
        return (task_app if fault is None else toy)(message, context)

    app.evaluate()(task_app)

    def average(own, neighbours, weights, context):
        from gossiplib.averaging import weighted_mean

        if context.node_config["partition-id"] == 1 and "breaks" in context.state:
            raise ArithmeticError("no average today")
        return weighted_mean(own, neighbours, weights)

    return gossip(app, average=average, discover=choose(3))


def drift_on(grid, fault="", rounds=(), timeout=60.0, nap=0.0):
    """Run drifting clients, one of them with a fault."""
    strategy = Gossip(GRAPH, evaluate_every=0, observe_every=0, join_timeout=2)
    config = {"fault": fault, "client": FAULTY, "rounds": list(rounds), "nap": nap}
    return strategy.start(grid, zeros(), ROUNDS, timeout, ConfigRecord(config))


def learn_on(grid):
    """Run digits on each schedule, and by FedAvg."""
    task = digits(N, alpha=1.0)
    arrays = task.initial_arrays()
    results = {
        name: Gossip(schedule, discover_every=1).start(
            grid, arrays, num_rounds=2, evaluate_fn=task.evaluate_fn
        )
        for name, schedule in SCHEDULES.items()
    }
    return results | {"fedavg": FedAvg().start(grid, arrays, num_rounds=2)}


@pytest.fixture(scope="module")
def on_ray():
    """Return name -> result, all of one run of Ray."""
    results = {}

    def main(grid):
        results[""] = drift_on(grid)
        for fault, (rounds, _) in FAULTS.items():
            results[fault] = drift_on(grid, fault, rounds)
        results["average"] = drift_on(grid, "average")
        results["missing"] = drift_on(Without(grid))
        results.update(learn_on(grid))
        # Last: the next run would meet the client still asleep.
        results["late"] = drift_on(grid, "late", (2,), timeout=4.0, nap=7.0)
        raise Over("that was it")

    with pytest.raises(Over, match="that was it"):  # it comes out of Ray's run
        run_on_ray(client_app(), N, main)
    return results


@pytest.fixture(scope="module")
def local():
    """Return name -> result on LocalGrid."""
    return learn_on(LocalGrid(client_app(), N))


# Faults -------------------------------------------------------------------------------


def test_a_run_without_faults(on_ray):
    assert on_ray[""].lost == []
    assert np.allclose(on_ray[""].models(), drift(GRAPH, N, ROUNDS))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_client_that_fails_in_training_takes_no_part(on_ray, fault):
    rounds, reason = FAULTS[fault]
    result = on_ray[fault]
    expected = drift(GRAPH, N, ROUNDS, untrained={(t, FAULTY) for t in rounds})
    here = [i for i in range(N) if i != FAULTY or len(rounds) < ROUNDS]
    assert sorted(result.node_arrays) == here
    assert np.allclose(result.models(), expected[here])
    assert [loss[:3] for loss in result.lost] == [(t, FAULTY, "train") for t in rounds]
    assert all(reason in loss.reason for loss in result.lost)


@pytest.mark.parametrize("fault", FAULTS)
def test_reasons_are_short(on_ray, fault):
    # Not Ray's traceback of 30 lines, with colours, paths and process ids.
    for loss in on_ray[fault].lost:
        assert len(loss.reason) < 100 and "\n" not in loss.reason


def test_a_client_that_answers_too_late_takes_no_part(on_ray):
    result = on_ray["late"]
    assert result.lost[0] == (2, FAULTY, "train", "no reply in 4 s")
    assert {loss.client for loss in result.lost} == {FAULTY}
    # Once it owes a reply it is not called. That it still does in round 3 is likely.
    missed = {(t, i) for t, i, call, _ in result.lost if call == "train"}
    late = {(2, FAULTY)}
    assert late <= missed <= late | {(3, FAULTY)}
    expected = drift(GRAPH, N, ROUNDS, apart=late, untrained=missed - late)
    here = sorted(result.node_arrays)
    assert set(here) >= set(range(N)) - {FAULTY}
    assert np.allclose(result.models(), expected[here])


def test_a_client_that_is_missing_is_named(on_ray):
    result = on_ray["missing"]
    (gone,) = set(range(N)) - set(result.node_arrays)
    untrained = [(t, gone) for t in (1, 2, 3)]
    assert [loss[:3] for loss in result.lost] == [(*x, "train") for x in untrained]
    assert {loss.reason for loss in result.lost} == {"is not on the grid"}
    expected = drift(GRAPH, N, ROUNDS, untrained=set(untrained))
    assert np.allclose(result.models(), np.delete(expected, gone, axis=0))


def test_a_client_whose_average_raises_keeps_its_own_model(on_ray):
    result = on_ray["average"]
    unmixed = [(t, FAULTY) for t in (1, 2, 3)]
    assert np.allclose(result.models(), drift(GRAPH, N, ROUNDS, unmixed=set(unmixed)))
    assert [x[:3] for x in result.lost] == [(*x, "train.average") for x in unmixed]
    assert all("no average today" in loss.reason for loss in result.lost)


# The same models as on LocalGrid ------------------------------------------------------


@pytest.mark.parametrize("name", SCHEDULES)
def test_ray_and_local_grid_give_the_same_models(on_ray, local, name):
    one, other = on_ray[name], local[name]
    assert one.lost == other.lost == []
    # The same code on float32 in another process: at most its rounding differs.
    assert np.allclose(one.models(), other.models(), rtol=0, atol=1e-5)
    assert one.messages == other.messages
    assert one.bytes == other.bytes and one.server_bytes == other.server_bytes
    one, other = one.to_pandas(), other.to_pandas()
    assert list(one.columns) == list(other.columns) and len(one) == len(other)
    assert np.allclose(one, other, atol=1e-4, equal_nan=True)


def test_the_runs_compared_are_not_all_the_same(local):
    ring, chosen, churned = (local[name].models() for name in SCHEDULES)
    assert np.abs(ring - chosen).max() > 1e-3
    assert np.abs(chosen - churned).max() > 1e-3


def test_fedavg_gives_the_same_model_too(on_ray, local):
    one, other = (r["fedavg"].arrays.to_numpy_ndarrays() for r in (on_ray, local))
    for a, b in zip(one, other, strict=True):
        assert np.allclose(a, b, rtol=0, atol=1e-5)


def test_run_on_ray_returns_what_main_returns_and_leaves_the_log_as_it_was(monkeypatch):
    def run_simulation(server_app, client_app, num_supernodes, backend_config):
        assert backend_config["client_resources"] == {"num_cpus": 1, "num_gpus": 0.0}
        assert backend_config["init_args"]["num_cpus"] == 2  # of the whole cluster
        context = Context(1, 1, {}, RecordDict(), {})
        server_app(LocalGrid(client_app, num_supernodes), context)

    monkeypatch.setattr("flwr.simulation.run_simulation", run_simulation)
    level = logging.getLogger("flwr").level
    result = run_on_ray(client_app(), N, drift_on, num_workers=2)
    assert np.allclose(result.models(), drift(GRAPH, N, ROUNDS))
    assert logging.getLogger("flwr").level == level
