"""What users give to gossip: read in one way, or refused by name.

Each case is one that users of the field ran into. What FedAvg averages, gossip averages
as well, to the same numbers where all clients hear all.
"""

import os
import sys

import networkx as nx
import numpy as np
import pytest
import torch
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from torch import nn

from gossiplib.core import mixing, topology
from gossiplib.core.averaging import weighted_mean
from gossiplib.core.client import accept_all, gossip
from gossiplib.core.grid import LocalGrid
from gossiplib.core.server import Gossip
from toy_apps import drifting_app, still_app, zeros


def app_of(change) -> ClientApp:
    """Return an app whose clients train by `change(arrays by name, client)`."""
    app = ClientApp()

    @app.train()
    def train(message, context):
        client = context.node_config["partition-id"]
        arrays = {k: a.numpy() for k, a in message.content["arrays"].items()}
        arrays = {k: Array(np.asarray(a)) for k, a in change(arrays, client).items()}
        metrics = MetricRecord({"num-examples": 1})
        content = RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics})
        return Message(content, reply_to=message)

    return app


def record_of(**arrays) -> ArrayRecord:
    return ArrayRecord({name: Array(np.asarray(a)) for name, a in arrays.items()})


def run(
    app,
    graph,
    initial,
    *,
    rounds=2,
    average=weighted_mean,
    discover=accept_all,
    **options,
):
    options = {"evaluate_every": 0} | options
    n = 6 if callable(graph) else len(graph)  # a schedule is asked by the run alone
    grid = LocalGrid(gossip(app, average=average, discover=discover), n)
    return Gossip(graph, **options).start(grid, initial, num_rounds=rounds)


def unchanged(arrays, client):
    return arrays


# What FedAvg averages, gossip averages.


@pytest.mark.parametrize(
    "array",
    [
        np.array([2**60 + 1, -(2**53) - 1]),
        np.array([2**63 - 1, -(2**63)]),
        np.array([2**64 - 1], np.uint64),
        np.array(True),
        np.triu(np.full((4, 4), -np.inf), 1),
        np.array([np.inf, 1.5], np.float16),
        np.zeros((0, 3)),
    ],
)
@pytest.mark.parametrize("rule", [mixing.metropolis, mixing.best_constant])
def test_what_all_have_alike_stays_as_it_is(array, rule):
    initial = record_of(w=np.ones(2), kept=array)
    result = run(app_of(unchanged), topology.named("star", 6), initial, weights=rule)
    assert not result.lost and max(result.consensus_distance.values()) < 1e-15
    for model in [*result.node_arrays.values(), result.arrays]:
        kept = model["kept"].numpy()
        assert kept.dtype == array.dtype and np.array_equal(kept, array)


def test_complex_numbers_and_arrays_in_another_order_average_as_under_fedavg():
    def change(arrays, client):
        w = arrays["w"] + (client + 1) * (2 - 1j)
        return {"b": arrays["b"] - client, "mask": arrays["mask"], "w": w}

    mask = np.array([0, -np.inf])
    initial = record_of(w=np.zeros(2, complex), mask=mask, b=np.ones(1))
    app = app_of(change)
    federated = FedAvg(fraction_evaluate=0.0).start(
        LocalGrid(app, 4), initial, num_rounds=2
    )
    result = run(app, nx.complete_graph(4), initial)
    assert not result.lost
    for model in result.node_arrays.values():
        assert list(model) == ["w", "mask", "b"]
        for name, array in model.items():
            assert np.allclose(array.numpy(), federated.arrays[name].numpy())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda a, i: {**a, "mask": np.array([0.0, 1])}, None),
        (lambda a, i: {**a, "mask": np.array([0.0, np.inf])}, "array mask has NaN or"),
        (lambda a, i: {**a, "w": a["w"] * np.nan}, "array w has NaN or infinite"),
        (lambda a, i: {**a, "w": a["w"] + 1j}, "array w holds complex128, not numbers"),
        (lambda a, i: {"w": a["w"]}, r"named \['w'\], not.*look at \['mask'\]"),
        (lambda a, i: {**a, "more": a["w"]}, r"look at \['more'\]"),
    ],
)
def test_an_array_that_does_not_fit_is_named(change, says):
    initial = record_of(w=np.ones(2), mask=np.array([0, -np.inf]))
    app = app_of(lambda a, i: change(a, i) if i == 1 else a)
    result = run(app, topology.named("ring", 4), initial, rounds=1)
    if says is None:  # what was masked may become a number for all, or for none
        says = "array mask has NaN or infinite"
    assert {loss.client for loss in result.lost} >= {1}
    with pytest.raises(AssertionError, match=says):
        raise AssertionError([loss.reason for loss in result.lost])


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_whole_numbers_out_of_range_are_a_loss_that_says_so(dtype):
    hub, others = (200, 10) if dtype is np.uint8 else (2**63 - 1, -(2**63))
    app = app_of(lambda a, i: {"n": np.array([hub if i == 0 else others], dtype)})
    star, initial = topology.named("star", 6), record_of(n=np.zeros(1, dtype))
    result = run(app, star, initial, weights=mixing.best_constant, rounds=1)
    reasons = {loss.client: loss.reason for loss in result.lost}
    assert f"out of the range of {np.dtype(dtype)}" in reasons[0]
    assert result.node_arrays[0]["n"].numpy() == hub  # its own


def norm(arrays, client):
    """Train a layer with batch normalisation, client 0 on wider data."""
    layer = nn.BatchNorm1d(2, momentum=1.0)
    with torch.random.fork_rng():
        torch.manual_seed(client)
        layer(torch.randn(32, 2) * (4 if client == 0 else 1))
    return {name: a.numpy() for name, a in layer.state_dict().items()}


@pytest.mark.parametrize("rule", [mixing.metropolis, mixing.best_constant])
def test_no_average_makes_a_variance_negative(rule, caplog):
    initial = ArrayRecord(nn.BatchNorm1d(2).state_dict())
    star = topology.named("star", 6)
    result = run(app_of(norm), star, initial, weights=rule, rounds=1)
    for model in result.node_arrays.values():
        assert (model["running_var"].numpy() > 0).all()
    convex = rule is mixing.metropolis
    assert convex == (not result.lost) == ("weights are below 0" not in caplog.text)
    if not convex:
        assert "variance 'running_var' negative" in result.lost[0].reason


def test_the_consensus_distance_is_of_what_is_learned():
    def count(arrays, client):
        counter = arrays["num_batches_tracked"] + 10 * (client + 1)
        return {**arrays, "num_batches_tracked": counter}

    initial = ArrayRecord(nn.BatchNorm1d(3).state_dict())
    result = run(app_of(count), topology.named("ring", 8), initial, rounds=5)
    assert set(result.consensus_distance.values()) == {0.0}
    assert result.models().shape == (8, 12) and not result.lost


# Whose is what.


def careful_app(seen) -> ClientApp:
    """Return an app that takes its state to be its own: it clears and replaces it."""
    app = ClientApp()

    @app.train()
    def train(message, context):
        seen.append(sorted(context.state))
        assert len(context.state.array_records) <= 1
        count = context.state["count"]["n"] if context.state else 0
        context.state.clear()
        if count % 2:
            context.state = RecordDict()
        context.state["count"] = ConfigRecord({"n": count + 1})
        context.state["gossip.model"] = ArrayRecord([np.ones(2)])
        (w,) = message.content["arrays"].to_numpy_ndarrays()
        metrics = MetricRecord({"num-examples": 1, "count": count})
        content = RecordDict({"arrays": ArrayRecord([w + 1]), "metrics": metrics})
        return Message(content, reply_to=message)

    return app


def test_the_wrapped_app_has_a_state_of_its_own():
    seen: list[list[str]] = []
    result = run(careful_app(seen), nx.cycle_graph(3), zeros(), rounds=4)
    assert not result.lost and (result.models() == 4).all()
    assert result.train_metrics_clientapp[4]["count"] == 3
    assert seen == 3 * [[]] + 9 * [["count", "gossip.model"]]
    seen.clear()  # and with FedAvg, wrapped, as bare
    grid = LocalGrid(gossip(careful_app(seen)), 3)
    federated = FedAvg(fraction_evaluate=0.0).start(grid, zeros(), num_rounds=4)
    assert (federated.arrays.to_numpy_ndarrays()[0] == 4).all()
    assert seen == 3 * [[]] + 9 * [["count", "gossip.model"]]


def test_an_average_function_has_a_state_of_its_own():
    def average(own, neighbours, weights, context):
        seen.append(sorted(context.state))
        context.state.clear()
        context.state["gossip.model"] = context.state["count"] = ConfigRecord({"n": 7})
        return weighted_mean(own, neighbours, weights)

    seen: list[list[str]] = []
    ring = nx.cycle_graph(3)
    result = run(careful_app([]), ring, zeros(), rounds=4, average=average)
    assert not result.lost and (result.models() == 4).all()
    assert seen == 3 * [[]] + 9 * [["count", "gossip.model"]]


# What a process of its own would keep apart.


def test_a_client_that_leaves_by_sys_exit_is_lost_and_the_run_goes_on():
    def leave(arrays, client):
        if client == 1:
            sys.exit("dataset not found")
        return arrays

    result = run(app_of(leave), topology.named("ring", 4), zeros(), rounds=2)
    assert {loss.client for loss in result.lost} == {1} and len(result.messages) == 2
    assert "SystemExit: dataset not found" in result.lost[0].reason


def test_ctrl_c_in_a_client_ends_the_run():
    def interrupt(arrays, client):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(app_of(interrupt), topology.named("ring", 4), zeros())


def test_what_a_client_changes_later_or_elsewhere_counts_no_more():
    kept = []
    app = ClientApp()

    @app.train()
    def train(message, context):
        for reply, other in kept:  # those of other clients, and its own
            reply.content["arrays"] = ArrayRecord([np.full(3, 99.0)])
            other.state.clear()
            other.node_config["partition-id"] = 0
        (w,) = message.content["arrays"].to_numpy_ndarrays()
        content = {"arrays": ArrayRecord([w + 1]), "metrics": MetricRecord()}
        kept.append((Message(RecordDict(content), reply_to=message), context))
        return kept[-1][0]

    result = run(app, topology.named("ring", 4), zeros(), rounds=3)
    assert not result.lost and (result.models() == 3).all()


def test_a_run_within_a_run_of_the_same_strategy():
    strategy = Gossip(topology.named("ring", 4), evaluate_every=0)

    def start(**more):
        grid = LocalGrid(gossip(drifting_app()), 4)
        return strategy.start(grid, zeros(), num_rounds=5, **more)

    plain, inner = start(), []

    def again(server_round, arrays):
        if server_round == 2 and not inner:
            inner.append(start())

    outer = start(evaluate_fn=again)
    for result in (outer, *inner):
        assert np.array_equal(result.models(), plain.models())
        assert list(result.messages) == list(plain.messages)


# Graphs, and numbers.


def test_a_graph_that_is_changed_during_a_run_is_followed_or_refused():
    def changing(change):
        graph, seen = nx.cycle_graph(6), []

        def evaluate_fn(server_round, arrays):
            if server_round == 2 and not seen:
                seen.append(change(graph))

        grid = LocalGrid(gossip(still_app()), 6)
        strategy = Gossip(graph, evaluate_every=0)
        return strategy.start(grid, zeros(), num_rounds=4, evaluate_fn=evaluate_fn)

    def schedule(t):
        return nx.cycle_graph(6) if t <= 2 else nx.complete_graph(6)

    grown = changing(lambda graph: graph.add_edges_from(nx.complete_graph(6).edges))
    same = run(still_app(), schedule(1), zeros(), rounds=4).messages
    assert same == dict.fromkeys(range(1, 5), 12)
    assert grown.messages == {1: 12, 2: 12, 3: 30, 4: 30}
    grid = LocalGrid(gossip(still_app()), 6)
    other = Gossip(schedule, evaluate_every=0).start(grid, zeros(), num_rounds=4)
    assert np.array_equal(grown.models(), other.models())
    with pytest.raises(ValueError, match="disconnected"):
        changing(lambda graph: graph.remove_edges_from([(0, 1), (3, 4)]))
    with pytest.raises(ValueError, match="missing 5"):
        changing(lambda graph: graph.remove_node(5))


def test_a_graph_from_a_file_is_told_how_to_be_one_of_clients():
    read = nx.parse_edgelist(["0 1", "1 2", "2 0"])
    with pytest.raises(ValueError, match="client '0', '1', '2'; networkx.convert_node"):
        Gossip(read)
    numbered = nx.convert_node_labels_to_integers(read)
    assert len(run(still_app(), numbered, zeros()).models()) == 3


def test_weights_of_edges_are_not_ignored_in_silence():
    graph = nx.cycle_graph(4)
    nx.set_edge_attributes(graph, {(0, 1): 0.9}, "weight")
    for use in (Gossip, mixing.metropolis):
        with pytest.warns(UserWarning, match="edges have weights.*see mixing"):
            use(graph)


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"num_rounds": 3.0}, ValueError, "num_rounds must be a whole.*got 3.0"),
        ({"num_rounds": "3"}, ValueError, "num_rounds must be a whole.*got '3'"),
        ({"num_rounds": True}, ValueError, "num_rounds must be a whole.*got True"),
        ({"timeout": float("nan")}, ValueError, "timeout is in seconds.*got nan"),
        ({"timeout": 0}, ValueError, "timeout is in seconds, above 0.*got 0"),
        ({"timeout": "9"}, ValueError, "timeout must be a number; got '9'"),
        ({"train_config": {"lr": 1}}, TypeError, "must be a ConfigRecord"),
        ({"initial_arrays": [np.zeros(3)]}, TypeError, "must be an ArrayRecord"),
    ],
)
def test_start_refuses_by_name_before_any_client_is_called(changes, error, says):
    class Untouched(LocalGrid):
        def get_node_ids(self):
            raise AssertionError("a client was called")

    arguments = {"initial_arrays": zeros(), "num_rounds": 3} | changes
    with pytest.raises(error, match=says):
        grid = Untouched(gossip(still_app()), 3)
        Gossip(nx.cycle_graph(3)).start(grid, **arguments)


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: Gossip(nx.cycle_graph(3), weights="metropolis"), TypeError, "weights"),
        (
            lambda: Gossip(nx.cycle_graph(3), join_timeout=-1),
            ValueError,
            "join_timeout",
        ),
        (lambda: Gossip(nx.cycle_graph(3), observe_every=2.0), ValueError, "observe_"),
        (lambda: gossip("app"), TypeError, "app must be callable, not 'app'"),
        (lambda: gossip(still_app(), average=None), TypeError, "average must be"),
        (lambda: LocalGrid(still_app(), 2.0), ValueError, "num_nodes must be a whole"),
    ],
)
def test_what_makes_no_sense_is_refused_where_it_is_given(make, error, says):
    with pytest.raises(error, match=says):
        make()


# Numbers of numpy, which overflow where those of Python grow.


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.int8])
@pytest.mark.parametrize("name", topology.NAMES)
def test_a_topology_of_numpy_s_numbers_is_that_of_python_s(name, kind):
    found, wanted = (topology.named(name, k(16), degree=k(4)) for k in (kind, int))
    assert nx.utils.graphs_equal(found, wanted)


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.int8])
def test_one_peer_and_a_grid_take_numpy_s_numbers(kind):
    schedule = topology.one_peer_exponential(kind(8))
    assert all(schedule(kind(t)).has_edge(0, 2 ** (t - 1)) for t in (1, 2, 3))
    grid = LocalGrid(gossip(drifting_app()), kind(8))
    result = Gossip(schedule).start(grid, zeros(), num_rounds=kind(3))
    assert not result.lost


def test_255_rounds_in_8_bits_are_255_rounds():
    grid = LocalGrid(gossip(still_app()), 2)
    strategy = Gossip(nx.path_graph(2), evaluate_every=0, observe_every=0)
    result = strategy.start(grid, zeros(), num_rounds=np.uint8(255))
    assert len(result.messages) == 255


@pytest.mark.parametrize("n", [0, 4.0, "4", True])
def test_one_peer_needs_a_number_of_clients(n):
    with pytest.raises(ValueError, match="n must be a whole number"):
        topology.one_peer_exponential(n)


@pytest.mark.parametrize("kind", ["i8", "u1", "?", "f2"])
def test_what_is_trained_to_whole_numbers_averages_as_under_fedavg(kind):
    def change(arrays, client):
        w = np.array([client % 2, client > 2, 1]).astype(kind)
        return {"n": np.array([300]), "w": w}  # a counter of another width

    first = {"n": np.zeros(1, np.uint8), "w": np.zeros(3, np.float32)}
    app, initial = app_of(change), record_of(**first)
    everyone = {"fraction_evaluate": 0, "min_train_nodes": 6, "min_available_nodes": 6}
    fedavg = FedAvg(**everyone).start(LocalGrid(app, 6), initial.copy(), num_rounds=1)
    result = run(app, nx.complete_graph(6), initial, rounds=1)
    assert np.allclose(
        result.arrays["w"].numpy(), fedavg.arrays["w"].numpy(), atol=1e-3
    )
    for model in result.node_arrays.values():
        assert model["w"].numpy().dtype.kind == "f" and model["n"].numpy() == 300


def test_whole_numbers_too_large_for_floats_are_a_loss_that_says_so():
    app = app_of(lambda a, i: {"w": np.array([70_000 if i == 1 else 1])})
    first = record_of(w=np.zeros(1, np.float16))
    result = run(app, nx.complete_graph(3), first, rounds=1)
    assert {loss.client for loss in result.lost} >= {1}
    assert "NaN or infinite" in next(x.reason for x in result.lost if x.client == 1)


# Graphs.


def test_a_matching_goes_both_ways_and_so_needs_links_that_do():
    cycle = nx.DiGraph([(0, 1), (1, 2), (2, 0)])
    for graph in (cycle, nx.to_scipy_sparse_array(cycle)):
        for make in (topology.random_matching, topology.push_pull):
            with pytest.raises(ValueError, match="needs an undirected graph"):
                make(graph)


@pytest.mark.parametrize(
    "make",
    [topology.random_matching, topology.push, topology.pull, topology.push_pull],
)
def test_who_is_offline_in_a_graph_is_not_drawn_in_silence(make):
    graph = nx.complete_graph(4)
    graph.nodes[2]["online"] = False
    with pytest.raises(ValueError, match="client 2 is offline in the graph"):
        make(graph)


@pytest.mark.parametrize("online", ["False", 0, None, float("nan")])
def test_online_is_a_truth_value(online):
    graph = nx.cycle_graph(4)
    graph.nodes[1]["online"] = online
    with pytest.raises(ValueError, match="online is True or False; of client 1 it is"):
        Gossip(graph)


def test_a_checkpoint_takes_the_place_of_no_device(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (fifo, "/dev/null"):
        with pytest.raises(ValueError, match="must name a file"):
            Gossip(nx.cycle_graph(3), checkpoint=path)
    assert fifo.is_fifo()


def test_the_distance_of_complex_models_is_that_of_their_parts():
    models = np.array([[1 + 2j, 0], [0, 3j], [-1, 1]])
    parts = np.concatenate([models.real, models.imag], axis=1)
    wanted = mixing.consensus_distance(parts)
    assert np.isclose(mixing.consensus_distance(models), wanted)
