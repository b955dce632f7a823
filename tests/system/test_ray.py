"""On Flower's simulation, whose clients run in Ray's processes.

Ray takes about 20 s to start, so one run serves all tests.
"""

import errno
import logging
import time

import networkx as nx
import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

from faults import shows
from gossiplib.core import mixing, topology
from gossiplib.core.client import choose, gossip
from gossiplib.core.grid import LocalGrid
from gossiplib.core.server import Gossip
from gossiplib.system import archive
from gossiplib.system.simulation import run_on_ray
from gossiplib.tasks.task import digits
from toy_apps import drift, drifting_app, zeros

N, ROUNDS, LATE, KILLED = 5, 4, 1, 2
GRAPH = nx.cycle_graph(N)
GRAPH.add_edge(0, 2)  # so that degrees differ, and with them the weights

#: (round, client) -> fault. Client 4 always fails, the others once.
FAULTS = {
    (1, 3): "nan",
    (2, 1): "raises",
    (3, 2): "none",
    **{(t, 4): "shape" for t in range(1, ROUNDS + 1)},
}
#: Client -> fault, in each round.
ALWAYS = {1: "raises", 2: "none", 3: "nan"}
REASONS = {
    "nan": "its array 0 has NaN or infinite values",
    "raises": "the disk is full",
    "none": "the ClientApp returned None instead of a Message",
    "shape": "its array 0 has shape (2, 2) instead of (3,)",
}
#: Half of the links are lost in each round.
LOSSY = topology.drop_links(GRAPH, 0.5, seed=3)
#: The round and the client whose average function raises.
BROKEN = (3, 0)
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


class Reordering(Without):
    """A Grid that gives the replies in another order."""

    def get_node_ids(self):
        return self._grid.get_node_ids()

    def send_and_receive(self, messages, *, timeout=None):
        replies = self._grid.send_and_receive(messages, timeout=timeout)
        return sorted(replies, key=lambda r: hash((r.metadata.src_node_id, "order")))


class Restarting(Reordering):
    """A Grid on which a client forgets all that it keeps before round 3."""

    trainings = 0

    def send_and_receive(self, messages, *, timeout=None):
        messages = list(messages)
        if messages and messages[0].metadata.message_type == "train":
            self.trainings += 1
            if self.trainings == 3:
                node = messages[LATE].metadata.dst_node_id
                forget = Message(RecordDict(), node, "query.join")
                list(self._grid.send_and_receive([forget], timeout=timeout))
        return self._grid.send_and_receive(messages, timeout=timeout)


def parted(server_round):
    """Return the graph, in round 2 and 3 in two parts."""
    graph = GRAPH.copy()
    if server_round in (2, 3):
        graph.remove_edges_from([(1, 2), (0, 2), (3, 4)])
    return graph


def client_app():
    """Return clients that learn digits, or drift when `train_config` has "faults"."""
    toy, task_app = drifting_app(), digits(N, alpha=1.0).client_app()
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        import os
        import signal

        config = message.content["config"]
        if "faults" not in config:
            return task_app(message, context)
        here = (config["server-round"], context.node_config["partition-id"])
        if "{} {} killed".format(*here) in config["faults"]:
            os.kill(os.getpid(), signal.SIGKILL)
        return toy(message, context)

    app.evaluate()(task_app)
    return breaking(gossip(app, discover=choose(3)))


def breaking(inner):
    """Return a gossip client that once fails to average, if told of several faults.

    It stands around gossip: no app and average function know of each other.
    """
    outer, broken = ClientApp(), BROKEN
    for name in ("join", "discover", "model", "state", "restore"):
        outer.query(name)(inner)
    outer.evaluate()(inner)

    @outer.train()
    def train(message: Message, context: Context) -> Message:
        from flwr.app import ConfigRecord

        config = message.content["config"]
        here = (config["server-round"], context.node_config["partition-id"])
        breaks = here == broken and len(config.get("faults", [])) > 1
        reply = inner(message, context)
        context.state["breaks"] = ConfigRecord({"now": breaks})
        return reply

    @outer.train("average")
    def average(message: Message, context: Context) -> Message:
        if "breaks" in context.state and context.state["breaks"]["now"]:
            raise ArithmeticError("no average today")
        return inner(message, context)

    return outer


def drift_on(grid, faults=(), timeout=60.0, nap=0.0, schedule=GRAPH):
    """Run drifting clients, some of them with faults."""
    strategy = Gossip(schedule, evaluate_every=0, observe_every=0, join_timeout=2)
    config = ConfigRecord({"faults": list(faults), "nap": nap})
    return strategy.start(grid, zeros(), ROUNDS, timeout, config)


def learn_on(grid):
    """Run digits on each schedule, and by FedAvg."""
    task = digits(N, alpha=1.0)
    arrays = task.initial_arrays()
    results = {
        name: Gossip(schedule, discover_every=1).start(
            grid,
            arrays,
            num_rounds=5 if name == "ring" else 2,
            evaluate_fn=task.evaluate_fn,
        )
        for name, schedule in SCHEDULES.items()
    }
    return results | {"fedavg": FedAvg().start(grid, arrays, num_rounds=2)}


def resume_on(grid, path):
    """Run digits with a disk that is full in round 2, and go on from round 1."""
    task = digits(N, alpha=1.0)
    strategy = Gossip(SCHEDULES["choose"], discover_every=1, checkpoint=path)
    told = {"evaluate_fn": task.evaluate_fn}
    write = archive.write

    def write_once(path, members):
        if path.exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, members)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive, "write", write_once)
        full = strategy.start(grid, task.initial_arrays(), 2, **told)
    resumed = strategy.resume(path, grid, task.initial_arrays(), 2, **told)
    return {"full": full, "resumed": resumed}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return name -> result, all of one run of Ray; and how it ended."""
    results = {}
    path = tmp_path_factory.mktemp("checkpoint") / "run.zip"

    def main(grid):
        faults = [f"{t} {i} {fault}" for (t, i), fault in FAULTS.items()]
        results["faults"] = drift_on(grid, faults)
        everywhere = range(1, ROUNDS + 1)
        always = [f"{t} {i} {fault}" for i, fault in ALWAYS.items() for t in everywhere]
        results["always"] = drift_on(grid, always)
        results["missing"] = drift_on(Without(grid))
        results["lossy"] = drift_on(grid, schedule=LOSSY)
        results["parted"] = drift_on(grid, schedule=parted)
        results["restarted"] = drift_on(Restarting(grid))
        results["reordered"] = drift_on(Reordering(grid))
        results.update(learn_on(grid))
        results.update(resume_on(grid, path))
        # Last: the next run would meet the client still asleep.
        late = [f"3 {LATE} late"]
        results["late"] = drift_on(grid, late, timeout=4.0, nap=7.0)
        time.sleep(4)
        # The very last: the worker that is killed is not replaced.
        results["killed"] = drift_on(grid, [f"2 {KILLED} killed"])
        raise Over("that was it")

    try:
        run_on_ray(client_app(), N, main)
    except Exception as error:  # told once, by the first test, not by each
        return results, error
    return results, None


@pytest.fixture
def on_ray(run):
    results, error = run
    if not isinstance(error, Over):
        pytest.skip("the run on Ray broke off: see test_the_run_went_to_its_end")
    return results


def test_the_run_went_to_its_end_and_what_main_raises_comes_out_of_it(run):
    _, error = run
    if not isinstance(error, Over):
        raise error
    assert str(error) == "that was it"


@pytest.fixture(scope="module")
def local():
    """Return name -> result on LocalGrid."""
    return learn_on(LocalGrid(client_app(), N))


# Faults -------------------------------------------------------------------------------


@shows("raises", "Ray", "counted; neighbours go on without it")
@shows("none", "Ray", "counted; neighbours go on without it")
@shows("nan", "Ray", "counted; neighbours go on without it")
@shows("shape", "Ray", "counted; neighbours go on without it")
@shows("malformed", "Ray", "as another shape; strangers can not send")
def test_clients_that_fail_are_named(on_ray):
    lost = {(x.round, x.client): x for x in on_ray["faults"].lost}
    assert len(lost) == len(on_ray["faults"].lost)
    assert set(lost) == {*FAULTS, BROKEN}
    for at, fault in FAULTS.items():
        assert lost[at].call == "train" and REASONS[fault] in lost[at].reason
    assert lost[BROKEN].call == "train.average"
    assert "no average today" in lost[BROKEN].reason


def test_the_others_go_on_without_those_that_fail(on_ray):
    result = on_ray["faults"]
    expected = drift(GRAPH, N, ROUNDS, untrained=set(FAULTS), unmixed={BROKEN})
    assert sorted(result.node_arrays) == [0, 1, 2, 3]
    assert np.allclose(result.models(), expected[:4])


def test_clients_that_always_fail_are_named_and_the_others_go_on(on_ray):
    result = on_ray["always"]
    lost = {(x.round, x.client): x.reason for x in result.lost if x.call == "train"}
    untrained = {(t, i) for t in range(1, ROUNDS + 1) for i in ALWAYS}
    assert set(lost) == untrained
    assert all(REASONS[ALWAYS[i]] in reason for (_, i), reason in lost.items())
    expected = drift(GRAPH, N, ROUNDS, untrained=untrained, unmixed={BROKEN})
    assert sorted(result.node_arrays) == [0, 4]
    assert np.allclose(result.models(), expected[[0, 4]])


def test_reasons_are_short(on_ray):
    # Not Ray's traceback of 30 lines, with colours, paths and process ids.
    for loss in on_ray["faults"].lost:
        assert len(loss.reason) < 100 and "\n" not in loss.reason


@shows("hangs", "Ray", "counted; not called until it answers")
@shows("delayed", "Ray", "counted beyond the timeout; the model is kept")
def test_a_client_that_answers_too_late_takes_no_part(on_ray):
    result = on_ray["late"]
    assert result.lost[0] == (3, LATE, "train", "no reply in 4 s")
    assert {loss.client for loss in result.lost} == {LATE}
    # Once it owes a reply it is not called. That it still does in round 4 is likely.
    missed = {(t, i) for t, i, call, _ in result.lost if call == "train"}
    late = {(3, LATE)}
    assert late <= missed <= late | {(4, LATE)}
    expected = drift(GRAPH, N, ROUNDS, apart=late, untrained=missed - late)
    here = sorted(result.node_arrays)
    assert set(here) >= set(range(N)) - {LATE}
    assert np.allclose(result.models(), expected[here])


@shows("unknown", "Ray", "a client that is missing is counted in each round")
def test_a_client_that_is_missing_is_named(on_ray):
    result = on_ray["missing"]
    (gone,) = set(range(N)) - set(result.node_arrays)
    untrained = [(t, gone) for t in range(1, ROUNDS + 1)]
    assert [loss[:3] for loss in result.lost] == [(*x, "train") for x in untrained]
    assert {loss.reason for loss in result.lost} == {"is not on the grid"}
    expected = drift(GRAPH, N, ROUNDS, untrained=set(untrained))
    assert np.allclose(result.models(), np.delete(expected, gone, axis=0))


@shows("lost", "Ray", "its weight goes to the own model; not counted as failure")
def test_messages_that_are_lost(on_ray):
    assert on_ray["lossy"].lost == []
    assert np.allclose(on_ray["lossy"].models(), drift(LOSSY, N, ROUNDS))
    sent = [
        GRAPH.number_of_edges() * 2 * ROUNDS,
        sum(on_ray["lossy"].messages.values()),
    ]
    assert sent[1] < sent[0]


@shows("partition", "Ray", "each part goes on; they mix again when it heals")
def test_a_graph_that_falls_apart_and_heals(on_ray):
    assert on_ray["parted"].lost == []
    assert np.allclose(on_ray["parted"].models(), drift(parted, N, ROUNDS))


@shows("reordered", "Ray", "nothing: the same models")
def test_replies_in_another_order(on_ray):
    assert on_ray["reordered"].lost == []
    assert np.allclose(on_ray["reordered"].models(), drift(GRAPH, N, ROUNDS))


@shows("restarted", "Ray", "counted; joins again, starts from a neighbour's model")
def test_a_client_that_forgot_the_run_joins_again(on_ray):
    result = on_ray["restarted"]
    assert [x for x in result.lost if x.call == "train"] == [
        (3, LATE, "train", "does not know of this run: it was restarted")
    ]
    # In round 4 it begins with the model of client 0, its first neighbour, in round 3.
    before = drift(GRAPH, N, 3, untrained={(3, LATE)})
    before[LATE] = before[0]
    trained = before + np.outer(np.arange(1, N + 1), [1.0, 2.0, 3.0])
    assert np.allclose(result.models(), mixing.metropolis(GRAPH) @ trained)


@shows("killed", "Ray", "counted, as all later calls to that worker: Ray lacks it then")
def test_a_worker_that_is_killed_ends_no_run(on_ray):
    result = on_ray["killed"]
    first = result.lost[0]
    assert first[:3] == (2, KILLED, "train")
    assert first.reason.startswith("ActorDiedError: The actor died unexpectedly")
    assert "\n" not in first.reason
    assert list(result.messages) == list(range(1, ROUNDS + 1))


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


@shows("disk", "Ray", "warned and counted; the old checkpoint stays")
@shows("server", "Ray", "resumes with the same models")
def test_a_resumed_run_is_the_whole_run(on_ray):
    # The resumed run overwrites the checkpoint of round 1 with that of round 2.
    assert on_ray["full"].unsaved == [2] and on_ray["resumed"].unsaved == []
    for name in ("full", "resumed"):
        one, other = on_ray[name], on_ray["choose"]
        assert np.allclose(one.models(), other.models(), rtol=0, atol=1e-6)
        assert one.lost == [] and one.bytes == other.bytes
        assert one.server_bytes == other.server_bytes
        one, other = one.to_pandas(), other.to_pandas()
        assert np.allclose(one, other, atol=1e-6, equal_nan=True)


def test_the_runs_compared_are_not_all_the_same(local):
    for name in ("ring", "churn"):
        assert local[name].node_arrays != local["choose"].node_arrays


def test_fedavg_gives_the_same_model_too(on_ray, local):
    one, other = (r["fedavg"].arrays.to_numpy_ndarrays() for r in (on_ray, local))
    for a, b in zip(one, other, strict=True):
        assert np.allclose(a, b, rtol=0, atol=1e-5)


def test_run_on_ray_returns_what_main_returns_and_leaves_the_log_as_it_was(monkeypatch):
    def run_simulation(server_app, client_app, num_supernodes, backend_config):
        assert backend_config["client_resources"] == {"num_cpus": 1, "num_gpus": 0.0}
        context = Context(1, 1, {}, RecordDict(), {})
        server_app(LocalGrid(client_app, num_supernodes), context)

    started = []
    monkeypatch.setattr("ray.init", lambda **options: started.append(options))
    monkeypatch.setattr("flwr.simulation.run_simulation", run_simulation)
    level = logging.getLogger("flwr").level
    result = run_on_ray(client_app(), N, drift_on, num_workers=2)
    assert np.allclose(result.models(), drift(GRAPH, N, ROUNDS))
    assert logging.getLogger("flwr").level == level
    assert [options["num_cpus"] for options in started] == [2]  # of the whole cluster


def test_ray_does_not_outlive_a_run_that_flower_never_began(monkeypatch):
    calls = []
    monkeypatch.setattr("ray.init", lambda **options: calls.append("init"))
    monkeypatch.setattr("ray.shutdown", lambda: calls.append("shutdown"))
    with pytest.raises((RuntimeError, ValueError)):  # it is no ClientApp
        run_on_ray(None, N, drift_on)
    assert calls == ["init", "shutdown"]


@pytest.mark.parametrize("failures", [1, 3])
def test_a_ray_that_does_not_start_is_tried_again(monkeypatch, failures):
    tries = []

    def init(**options):
        tries.append(options)
        if len(tries) <= failures:
            raise Exception("The current node timed out during startup. This could")

    monkeypatch.setattr("ray.init", init)
    monkeypatch.setattr("flwr.simulation.run_simulation", lambda *_, **__: None)
    if failures == 1:
        with pytest.raises(IndexError):  # there is no simulation, so no result either
            run_on_ray(client_app(), N, drift_on)
        assert len(tries) == 2
    else:
        with pytest.raises(RuntimeError, match=r"3 times.*busy.*node timed out during"):
            run_on_ray(client_app(), N, drift_on)
