"""The gossip server: what each client's model becomes, and what it costs."""

import warnings

import networkx as nx
import numpy as np
import pandas as pd
import pytest
from flwr.app import (
    ArrayRecord,
    ConfigRecord,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg, Result, Strategy

from gossiplib.core import mixing, topology
from gossiplib.core.averaging import SoftmaxDistance
from gossiplib.core.client import choose, gossip
from gossiplib.core.grid import LocalGrid
from gossiplib.core.server import Gossip, GossipResult
from gossiplib.tasks.task import Task, digits
from toy_apps import SpyGrid, drift, drifting_app, still_app, vector, zeros

N = 12
X = np.stack([vector(i) for i in range(N)])
BYTES = len(zeros()["0"].data)


def start(schedule, n=N, *, app=None, rounds=1, grid=None, client=None, **options):
    """Run Gossip with training off; return the result."""
    grid = grid or LocalGrid(gossip(app or still_app(), **client or {}), n)
    return Gossip(schedule, **options).start(grid, zeros(), num_rounds=rounds)


# The mathematics ----------------------------------------------------------------------

SCHEDULES = {
    "ring": topology.named("ring", N),
    "torus": topology.named("torus", N),
    "star": topology.named("star", N),
    "random": topology.named("random", N),
    "barbell": topology.named("barbell", N),
    "exponential": topology.named("exponential", N),
    "one-peer exponential": topology.one_peer_exponential(N),
    "random matching": topology.random_matching(nx.complete_graph(N)),
    "push": topology.push(nx.complete_graph(N)),
    "dropped links": topology.drop_links(nx.cycle_graph(N), 0.3),
    "dropped directions": topology.drop_links(nx.cycle_graph(N).to_directed(), 0.3),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_50_rounds_are_50_products_with_w(name):
    schedule, expected = SCHEDULES[name], X
    for t in range(1, 51):
        expected = mixing.metropolis(topology.at(schedule, t)) @ expected
    result = start(schedule, rounds=50, evaluate_every=0, observe_every=0)
    assert result.lost == []
    assert list(result.node_arrays) == list(range(N))
    # Both are float64; another order of the sums is all that differs.
    assert np.allclose(result.models(), expected, rtol=0, atol=1e-12)
    assert np.allclose(
        result.consensus_distance[50], mixing.consensus_distance(expected)
    )


@pytest.mark.parametrize("rule", ["uniform", "max_degree", "best_constant", "sparse"])
@pytest.mark.parametrize("name", ["ring", "barbell"])
def test_other_weights(rule, name):
    def sparse(graph):
        return mixing.metropolis(graph, sparse=True)

    graph = topology.named(name, N)
    weights = sparse if rule == "sparse" else getattr(mixing, rule)
    W = mixing.metropolis(graph) if rule == "sparse" else weights(graph)
    result = start(graph, rounds=5, weights=weights)
    assert np.allclose(result.models(), np.linalg.matrix_power(W, 5) @ X)


def test_under_churn_the_offline_neither_train_nor_average():
    schedule = topology.churn(nx.complete_graph(6), 0.6)
    away = [(t, i) for t in range(1, 9) for i in range(6) if not online(schedule, t, i)]
    assert len({t for t, _ in away}) > 3 and any(t == 1 for t, _ in away)
    result = start(schedule, 6, app=drifting_app(), rounds=8)
    assert np.allclose(result.models(), drift(schedule, 6, 8))
    assert result.lost == []
    for t, metrics in result.node_train_metrics.items():
        assert set(metrics) == {i for i in range(6) if online(schedule, t, i)}


def online(schedule, t, i):
    return topology.is_online(schedule(t), i)


def test_dropped_links_and_churn_together():
    ring = nx.cycle_graph(8)
    schedule = topology.churn(topology.drop_links(ring, 0.2, seed=1), 0.8, seed=2)
    result = start(schedule, 8, app=drifting_app(), rounds=10)
    assert np.allclose(result.models(), drift(schedule, 8, 10))


def test_training_comes_before_averaging_in_each_round():
    result = start(nx.cycle_graph(4), 4, app=drifting_app(), rounds=3)
    assert np.allclose(result.models(), drift(nx.cycle_graph(4), 4, 3))


def test_on_a_complete_graph_every_model_is_fedavg_s():
    x, y = digits(4).x.numpy()[:1000], digits(4).y.numpy()[:1000]
    task = Task(x, y, 8, partition="iid")
    assert set(task.label_counts().sum(axis=1)) == {80}  # clients of equal size
    app, arrays = task.client_app(), task.initial_arrays()
    gossiped = Gossip(nx.complete_graph(8), weights=mixing.uniform).start(
        LocalGrid(gossip(app), 8), arrays, num_rounds=5
    )
    averaged = FedAvg().start(LocalGrid(app, 8), arrays, num_rounds=5)
    expected = np.concatenate([a.ravel() for a in averaged.arrays.to_numpy_ndarrays()])
    # Float32, and FedAvg adds up in another order.
    assert np.allclose(gossiped.models(), expected, rtol=0, atol=1e-5)
    assert np.abs(expected).max() > 0.5  # it did learn
    assert gossiped.consensus_distance[5] < 1e-5


def test_a_single_client_trains_alone():
    task = digits(1, partition="iid")
    app, model = task.client_app(), task.initial_arrays()
    result = Gossip(nx.empty_graph(1)).start(
        LocalGrid(gossip(app), 1), model, num_rounds=3
    )
    grid = LocalGrid(app, 1)
    for t in (1, 2, 3):
        config = ConfigRecord({"server-round": t})
        content = RecordDict({"arrays": model, "config": config})
        message = Message(content, *grid.get_node_ids(), "train")
        (reply,) = grid.send_and_receive([message])
        model = reply.content["arrays"]
    assert result.node_arrays[0] == model
    assert result.lost == [] and sum(result.messages.values()) == 0


def test_two_runs_are_identical_to_the_bit():
    task = digits(6, alpha=1.0)
    schedule = topology.churn(topology.named("random", 6), 0.8)

    def run(grid):
        return Gossip(schedule).start(
            grid, task.initial_arrays(), num_rounds=3, evaluate_fn=task.evaluate_fn
        )

    grid = LocalGrid(gossip(task.client_app(), discover=choose(2)), 6)
    results = [run(grid)]
    results.append(run(grid))  # a second start begins afresh
    results.append(run(LocalGrid(gossip(task.client_app(), discover=choose(2)), 6)))
    for result in results:
        assert result.node_arrays == results[0].node_arrays
        assert result.consensus_distance == results[0].consensus_distance
        pd.testing.assert_frame_equal(result.to_pandas(), results[0].to_pandas())


def test_one_strategy_serves_two_runs():
    strategy = Gossip(nx.cycle_graph(4))
    results = [
        strategy.start(LocalGrid(gossip(drifting_app()), 4), zeros(), num_rounds=t)
        for t in (3, 2)
    ]
    assert np.allclose(results[0].models(), drift(nx.cycle_graph(4), 4, 3))
    assert np.allclose(results[1].models(), drift(nx.cycle_graph(4), 4, 2))
    assert len(results[0].messages) == 3 and len(results[1].messages) == 2


def test_counters_of_batch_norm_pass():
    app = ClientApp()

    @app.train()
    def train(message, context):
        w, count = message.content["arrays"].to_numpy_ndarrays()
        step = context.node_config["partition-id"]
        arrays = ArrayRecord([w + np.float32(step), np.asarray(count + 3 * step)])
        return Message(RecordDict({"arrays": arrays}), reply_to=message)

    initial = ArrayRecord([np.zeros(2, "f4"), np.array(0)])
    result = Gossip(nx.complete_graph(3)).start(
        LocalGrid(gossip(app), 3), initial, num_rounds=1
    )
    for arrays in [*result.node_arrays.values(), result.arrays]:
        w, count = arrays.to_numpy_ndarrays()
        assert w.tolist() == [1, 1] and w.dtype == "f4"
        assert count.shape == () and count == 3 and count.dtype == np.int64


def test_the_mean_model_rounds_counters_as_averaging_does():
    app = ClientApp()

    @app.train()
    def train(message, context):
        arrays = ArrayRecord([np.array([context.node_config["partition-id"]])])
        return Message(RecordDict({"arrays": arrays}), reply_to=message)

    strategy = Gossip(topology.drop_links(nx.path_graph(3), 1.0))  # no averaging
    grid = LocalGrid(gossip(app), 3)
    initial = ArrayRecord([np.array([0])])
    assert strategy.start(grid, initial).arrays.to_numpy_ndarrays()[0].tolist() == [1]
    two = Gossip(topology.drop_links(nx.path_graph(4), 1.0))
    mean = two.start(LocalGrid(gossip(app), 4), initial).arrays.to_numpy_ndarrays()[0]
    assert mean.tolist() == [2]  # 1.5, rounded as numpy.rint does


# Who hears what -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "schedule",
    [nx.star_graph(5), topology.one_peer_exponential(6), nx.DiGraph([(0, 1), (1, 0)])],
    ids=["star", "one-peer exponential", "pair"],
)
def test_only_neighbours_models_reach_a_client(schedule):
    n = len(topology.at(schedule, 1))
    grid = SpyGrid(gossip(drifting_app()), n)
    start(schedule, n, grid=grid, rounds=3)
    averages = grid.calls("train.average")
    per_round = len(averages) // 3
    for k, (i, content) in enumerate(averages):
        t = 1 + k // per_round
        graph = topology.at(schedule, t)
        trained = drift(schedule, n, t - 1) + np.outer(np.arange(1, n + 1), [1, 2, 3])
        models = content.array_records
        assert sorted(map(int, models)) == topology.senders(graph, i)
        for j, arrays in models.items():
            assert np.allclose(arrays.to_numpy_ndarrays()[0], trained[int(j)])
        W = mixing.metropolis(graph)
        weights = [W[i, i], *(W[i, j] for j in content["gossip"]["senders"])]
        assert np.allclose(content["gossip"]["weights"], weights)
    # No other message brings a model, but the first one of the server.
    for kind in ("query.join", "query.discover", "evaluate", "query.model"):
        assert all(not c.array_records for _, c in grid.calls(kind))
    firsts = [c.array_records.get("arrays") for _, c in grid.calls("train")]
    assert firsts == [zeros()] * n + [None] * 2 * n


def test_each_client_is_called_once_a_phase():
    grid = SpyGrid(gossip(still_app()), 4)
    start(nx.cycle_graph(4), grid=grid, rounds=3)
    everyone = [0, 1, 2, 3]
    for kind, times in [
        ("query.join", 1),
        ("query.discover", 1),
        ("train", 3),
        ("train.average", 3),
        ("evaluate", 3),
        ("query.model", 3),
    ]:
        assert [i for i, _ in grid.calls(kind)] == everyone * times, kind


def test_clients_choose_k_of_their_neighbours():
    grid = SpyGrid(gossip(still_app(), discover=choose(2)), N)
    result = start(nx.complete_graph(N), grid=grid, rounds=3)
    W = np.zeros((N, N))
    for i, content in grid.calls("train.average")[:N]:
        senders = content["gossip"]["senders"]
        assert len(senders) == len(set(senders)) == 2 and i not in senders
        W[i, [i, *senders]] = content["gossip"]["weights"]
    assert np.allclose(W.sum(axis=1), 1) and (W >= 0).all()
    graph = nx.DiGraph([(j, i) for i, j in np.argwhere(W) if i != j])
    assert np.allclose(W, mixing.metropolis(graph))
    assert np.allclose(result.models(), np.linalg.matrix_power(W, 3) @ X)
    assert set(result.messages.values()) == {2 * N}


def senders_by_round(grid, n):
    calls = grid.calls("train.average")
    assert len(calls) % n == 0
    return [
        {i: list(c["gossip"]["senders"]) for i, c in calls[k : k + n]}
        for k in range(0, len(calls), n)
    ]


@pytest.mark.parametrize("every", [None, 1, 2, 3])
def test_discovery_is_repeated_every_k_rounds(every):
    n, rounds = 8, 5
    grid = SpyGrid(gossip(still_app(), discover=choose(2)), n)
    start(nx.complete_graph(n), grid=grid, rounds=rounds, discover_every=every)
    due = [t for t in range(1, rounds + 1) if t == 1 or every and (t - 1) % every == 0]
    asked = [(c["gossip"]["server-round"], i) for i, c in grid.calls("query.discover")]
    assert asked == [(t, i) for t in due for i in range(n)]
    heard = senders_by_round(grid, n)
    for t in range(2, rounds + 1):
        assert (heard[t - 1] == heard[t - 2]) == (t not in due)


def test_a_schedule_is_discovered_in_each_round_or_every_k():
    schedule = topology.one_peer_exponential(8)
    grid = SpyGrid(gossip(still_app()), 8)
    start(schedule, grid=grid, rounds=3)
    assert [senders[0] for senders in senders_by_round(grid, 8)] == [[7], [6], [4]]
    grid = SpyGrid(gossip(still_app()), 8)
    start(schedule, grid=grid, rounds=3, discover_every=2)
    # In round 2 the schedule has other links than those chosen in round 1: silence.
    assert [senders[0] for senders in senders_by_round(grid, 8)] == [[7], [4]]


def test_who_is_online_is_of_the_round_though_choices_last_longer():
    schedule = topology.churn(nx.complete_graph(6), 0.6)
    result = start(schedule, app=gossip(still_app()), n=6, rounds=6, discover_every=3)
    for t, metrics in result.node_train_metrics.items():
        assert sorted(metrics) == [i for i in range(6) if online(schedule, t, i)]


def test_a_round_with_nobody_online_changes_nothing():
    ring = nx.cycle_graph(5)
    nobody = topology.churn(ring, 0.0)

    def schedule(server_round):
        return nobody(server_round) if server_round in (1, 3) else ring

    result = Gossip(schedule).start(
        LocalGrid(gossip(drifting_app()), 5), zeros(), num_rounds=4
    )
    assert result.lost == []
    assert result.messages == {1: 0, 2: 10, 3: 0, 4: 10}
    assert np.allclose(result.models(), drift(schedule, 5, 4))


def test_a_run_in_which_nobody_is_ever_online_ends():
    result = Gossip(topology.churn(nx.cycle_graph(5), 0.0)).start(
        LocalGrid(gossip(drifting_app()), 5), zeros(), num_rounds=2
    )
    assert result.node_arrays == {} and sum(result.messages.values()) == 0


def test_discovery_under_churn_offers_online_clients_only():
    schedule = topology.churn(nx.complete_graph(6), 0.6)
    grid = SpyGrid(gossip(still_app(), discover=choose(2)), 6)
    start(schedule, grid=grid, rounds=4)
    for i, content in grid.calls("query.discover"):
        t = content["gossip"]["server-round"]
        assert online(schedule, t, i)
        assert content["gossip"]["candidates"] == topology.senders(schedule(t), i)


# What it costs ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "received"),
    [
        (nx.star_graph(3), 6),
        (nx.cycle_graph(4), 8),
        (topology.one_peer_exponential(4), 4),
        (topology.drop_links(nx.cycle_graph(4), 1.0), 0),
    ],
    ids=["star", "ring", "one-peer exponential", "all links lost"],
)
def test_messages_and_bytes_are_counted_as_sent(schedule, received):
    result = start(schedule, 4, rounds=3)
    assert result.messages == dict.fromkeys((1, 2, 3), received)
    assert result.bytes == dict.fromkeys((1, 2, 3), received * BYTES)
    # In: four trained models. Out: the models relayed, and four first ones in round 1.
    assert result.server_bytes == {
        1: (4 + 4 + received) * BYTES,
        2: (4 + received) * BYTES,
        3: (4 + received) * BYTES,
    }


def test_bytes_are_those_of_flower_s_records():
    arrays = digits(2).initial_arrays()
    size = arrays.count_bytes() - sum(map(len, arrays))  # which counts the names too
    app = digits(2).client_app()
    result = Gossip(nx.path_graph(2)).start(LocalGrid(gossip(app), 2), arrays, 1)
    assert result.bytes == {1: 2 * size}
    assert size > 4 * 650  # 650 float32


# Metrics ------------------------------------------------------------------------------


def test_metrics_of_each_client_and_their_means():
    schedule = nx.cycle_graph(4)
    result = start(schedule, 4, app=drifting_app(), rounds=2)
    for t in (1, 2):
        models = drift(schedule, 4, t)
        trained = drift(schedule, 4, t - 1) + np.outer([1, 2, 3, 4], [1, 2, 3])
        for i in range(4):
            assert result.node_train_metrics[t][i]["mean"] == trained[i].mean()
            metrics = result.node_evaluate_metrics[t][i]
            assert metrics["sum"] == pytest.approx(models[i].sum())
        assert result.train_metrics_clientapp[t]["mean"] == pytest.approx(
            trained.mean()
        )
        assert result.evaluate_metrics_clientapp[t] == {
            "sum": pytest.approx(models.sum(axis=1).mean())
        }
        assert result.consensus_distance[t] == pytest.approx(
            mixing.consensus_distance(models)
        )
    assert isinstance(result, Result) and isinstance(result, GossipResult)
    assert np.allclose(result.arrays.to_numpy_ndarrays()[0], models.mean(axis=0))
    assert "4 clients, 2 rounds, 16 messages, 0 lost" in repr(result)


def test_evaluate_fn_sees_each_client_s_model():
    seen = []

    def evaluate_fn(server_round, arrays):
        (x,) = arrays.to_numpy_ndarrays()
        seen.append((server_round, x))
        return MetricRecord({"first": float(x[0])}) if server_round != 1 else None

    result = Gossip(nx.path_graph(3)).start(
        LocalGrid(gossip(drifting_app()), 3), zeros(), 2, evaluate_fn=evaluate_fn
    )
    assert [t for t, _ in seen] == [0, 1, 1, 1, 2, 2, 2]
    assert not seen[0][1].any()
    models = drift(nx.path_graph(3), 3, 2)
    assert np.allclose([x for _, x in seen[4:]], models)
    assert 1 not in result.evaluate_metrics_serverapp
    assert 1 not in result.node_server_metrics
    assert result.node_server_metrics[2] == {
        i: {"first": pytest.approx(models[i, 0])} for i in range(3)
    }
    assert result.evaluate_metrics_serverapp[0] == {"first": 0}
    assert result.evaluate_metrics_serverapp[2]["first"] == pytest.approx(
        models[:, 0].mean()
    )


def test_evaluate_fn_may_consume_what_it_gets():
    def evaluate_fn(server_round, arrays):
        arrays.to_numpy_ndarrays(keep_input=False)
        return MetricRecord()

    result = Gossip(nx.path_graph(2)).start(
        LocalGrid(gossip(drifting_app()), 2), zeros(), 2, evaluate_fn=evaluate_fn
    )
    assert np.allclose(result.models(), drift(nx.path_graph(2), 2, 2))
    assert len(result.arrays) == 1


@pytest.mark.parametrize(
    ("every", "rounds", "due"),
    [(1, 3, [1, 2, 3]), (2, 5, [2, 4]), (3, 2, []), (0, 3, [])],
)
def test_evaluate_every(every, rounds, due):
    grid = SpyGrid(gossip(still_app()), 3)
    result = start(nx.path_graph(3), grid=grid, rounds=rounds, evaluate_every=every)
    assert list(result.node_evaluate_metrics) == due
    assert list(result.evaluate_metrics_clientapp) == due
    assert len(grid.calls("evaluate")) == 3 * len(due)


@pytest.mark.parametrize(
    ("every", "rounds", "due"),
    [(1, 3, [1, 2, 3]), (2, 5, [2, 4, 5]), (3, 2, [2]), (0, 3, [3])],
)
def test_observe_every_and_always_after_the_last_round(every, rounds, due):
    grid = SpyGrid(gossip(still_app()), 3)
    result = start(nx.path_graph(3), grid=grid, rounds=rounds, observe_every=every)
    assert list(result.consensus_distance) == due
    assert len(grid.calls("query.model")) == 3 * len(due)
    assert len(result.node_arrays) == 3


def test_metrics_that_do_not_fit_together_do_not_end_the_run():
    app = ClientApp()

    @app.train()
    def train(message, context):
        i = context.node_config["partition-id"]
        metrics = MetricRecord({"ragged": [1.0] * (1 + i), "list": [1.0 * i, 2.0 * i]})
        if i == 0:
            metrics["own"] = 1
        content = {"arrays": message.content["arrays"], "metrics": metrics}
        return Message(RecordDict(content), reply_to=message)

    result = start(nx.path_graph(3), 3, app=app, evaluate_every=0)
    assert result.train_metrics_clientapp[1] == {"list": [1.0, 2.0]}
    assert result.node_train_metrics[1][2]["ragged"] == [1.0, 1.0, 1.0]


def test_configs_reach_the_clients_with_the_round():
    grid = SpyGrid(gossip(still_app()), 2)
    Gossip(nx.path_graph(2)).start(
        grid,
        zeros(),
        2,
        train_config=ConfigRecord({"lr": 0.1}),
        evaluate_config=ConfigRecord({"batch": 8}),
    )
    for kind, option in [("train", {"lr": 0.1}), ("evaluate", {"batch": 8})]:
        configs = [c["config"] for _, c in grid.calls(kind)]
        assert configs[-1] == option | {"server-round": 2}
        assert len(configs) == 4


# Tables -------------------------------------------------------------------------------


def test_table_by_client():
    result = start(
        nx.path_graph(3), 3, app=drifting_app("raises", rounds=(2,)), rounds=2
    )
    table = result.to_pandas()
    assert list(table["round"]) == [1, 1, 1, 2, 2, 2]
    assert list(table["client"]) == [0, 1, 2, 0, 1, 2]
    assert list(table["lost"]) == [0, 0, 0, 0, 1, 0]
    assert np.isnan(table.loc[4, "train_mean"])
    row = table.loc[5]
    assert row["train_mean"] == result.node_train_metrics[2][2]["mean"]
    assert row["evaluate_sum"] == result.node_evaluate_metrics[2][2]["sum"]


def test_table_by_round():
    result = start(
        nx.path_graph(3),
        3,
        app=drifting_app("raises", rounds=(2,)),
        rounds=3,
        observe_every=2,
    )
    table = result.to_pandas(by="round")
    assert list(table.columns) == [
        "round",
        "consensus_distance",
        "messages",
        "bytes",
        "server_bytes",
        "lost",
    ]
    assert list(table["round"]) == [1, 2, 3]
    assert list(table["messages"]) == [4, 0, 4]
    assert list(table["bytes"]) == [4 * BYTES, 0, 4 * BYTES]
    assert list(table["lost"]) == [0, 1, 0]
    assert np.isnan(table.loc[0, "consensus_distance"])
    assert table.loc[1, "consensus_distance"] == result.consensus_distance[2]


def test_tables_of_an_empty_result():
    assert list(GossipResult().to_pandas()["round"]) == []
    assert list(GossipResult().to_pandas(by="round")["round"]) == []
    with pytest.raises(ValueError, match="week"):
        GossipResult().to_pandas(by="week")


# One line from FedAvg to Gossip -------------------------------------------------------


def test_gossip_starts_as_any_strategy_of_flower():
    import inspect

    ours, theirs = (inspect.signature(c.start).parameters for c in (Gossip, Strategy))
    assert list(ours) == list(theirs)
    assert {k: p.default for k, p in ours.items()} == {
        k: p.default for k, p in theirs.items()
    }
    assert issubclass(Gossip, Strategy)


def test_graphs_of_numpy_numbers_are_welcome():
    graph = nx.Graph()
    graph.add_edges_from(np.array([[0, 1], [1, 2]]))
    result = start(graph, 3, app=drifting_app())
    assert np.allclose(result.models(), drift(nx.path_graph(3), 3, 1))


# On real data ---------------------------------------------------------------------


def test_gossip_comes_close_to_fedavg_on_uneven_digits():
    """The accuracies that the project promises, as `make run` prints them."""
    task = digits(16, alpha=0.3)
    app = gossip(task.client_app())

    def at_the_end(server_round, arrays):
        return task.evaluate_fn(server_round, arrays) if server_round == 60 else None

    run = {"num_rounds": 60, "evaluate_fn": at_the_end}
    fedavg = FedAvg(fraction_evaluate=0.0).start(
        LocalGrid(app, 16), task.initial_arrays(), **run
    )
    best = fedavg.evaluate_metrics_serverapp[60]["accuracy"]
    accuracy = {}
    for name in ("regular", "ring"):
        result = Gossip(topology.named(name, 16), evaluate_every=0).start(
            LocalGrid(app, 16), task.initial_arrays(), **run
        )
        metrics = result.node_server_metrics[60].values()
        accuracy[name] = [m["accuracy"] for m in metrics]
    assert np.mean(accuracy["regular"]) > best - 0.03
    assert min(accuracy["regular"]) > best - 0.06
    assert np.mean(accuracy["ring"]) < np.mean(accuracy["regular"])


def test_algorithm_2_runs_through_gossip_without_a_warning():
    task = digits(6, alpha=0.5)
    average = SoftmaxDistance(task.predict, self_weight=0.5, alpha=-1)
    app = gossip(task.client_app(), average=average)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = Gossip(nx.cycle_graph(6), evaluate_every=0).start(
            LocalGrid(app, 6), task.initial_arrays(), 5, evaluate_fn=task.evaluate_fn
        )
    assert result.lost == []
    first, last = (result.evaluate_metrics_serverapp[t]["accuracy"] for t in (0, 5))
    assert last > first + 0.3
