"""The vectorised engine is LocalGrid's, as arrays: same models, same result."""

import os
import signal
import threading
from dataclasses import dataclass

import networkx as nx
import numpy as np
import pytest
import scipy.sparse
import torch
from torch import nn

from benchmarks.by_hand import rounds_of
from gossiplib.core import mixing
from gossiplib.core.averaging import SoftmaxDistance, weighted_mean
from gossiplib.core.client import gossip
from gossiplib.core.grid import LocalGrid
from gossiplib.core.server import Gossip
from gossiplib.core.topology import churn, drop_links, named, one_peer_exponential, push
from gossiplib.system import runs
from gossiplib.tasks.task import Task, digits
from gossiplib.vectorized import training
from gossiplib.vectorized._speed import CHUNK, WRITTEN, Recorded, written_out
from gossiplib.vectorized.engine import gossip_learning

N = 12
SCHEDULES = {
    "ring": named("ring", N),
    "regular": named("regular", N),
    "star": named("star", N),
    "directed one-peer": one_peer_exponential(N),
    "push": push(named("regular", N)),
    "dropped links": drop_links(named("regular", N), 0.3, seed=1),
    "churn": churn(named("regular", N), 0.6, seed=1),
    "churn and directed": churn(one_peer_exponential(N), 0.7, seed=2),
}


def cnn():
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 4, 3, stride=2),
        nn.GroupNorm(2, 4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(36, 10),
    )


MODELS = {"linear": {}, "MLP": {"hidden": 16}, "CNN": {"build": cnn}}
OPTIONS = {"batch_size": 32, "lr": 0.2, "momentum": 0.5, "weight_decay": 0.01}


def both(task, schedule, num_rounds, *, training=OPTIONS, average=None, **options):
    """Run gossip on both engines."""
    how = {"average": average} if average else {}
    start = {"num_rounds": num_rounds}
    if "evaluate_fn" in options:
        start["evaluate_fn"] = options["evaluate_fn"]
    rest = {k: v for k, v in options.items() if k != "evaluate_fn"}
    app = gossip(task.client_app(**training), **how)
    grid = LocalGrid(app, task.num_clients)
    by_messages = Gossip(schedule, **rest).start(grid, task.initial_arrays(), **start)
    by_arrays = gossip_learning(
        task, schedule, num_rounds, **training, **how, **options
    )
    return by_messages, by_arrays


def difference(a, b):
    assert list(a.node_arrays) == list(b.node_arrays)
    return np.abs(a.models() - b.models()).max()


def same_tables(a, b, tolerance):
    for by in ("client", "round"):
        one, other = (
            r.to_pandas(by).drop(columns="server_bytes", errors="ignore")
            for r in (a, b)
        )
        assert list(one) == list(other) and len(one) == len(other)
        assert np.allclose(
            one.to_numpy(float), other.to_numpy(float), atol=tolerance, equal_nan=True
        )


# Schedules meet the engine in W and in who is online alone, so each is there once or
# twice, and churn with both kinds of graph. Model, data type and whether the step is
# called, recorded or written out, which no CNN is, are one computation: all sixteen
# combinations of them are there.
CASES = [
    ("ring", "linear", "f32", "called"),
    ("ring", "MLP", "f64", "recorded"),
    ("regular", "linear", "f64", "called"),
    ("regular", "CNN", "f32", "recorded"),
    ("star", "linear", "f32", "recorded"),
    ("star", "CNN", "f64", "called"),
    ("directed one-peer", "linear", "f64", "recorded"),
    ("directed one-peer", "MLP", "f32", "called"),
    ("push", "CNN", "f32", "called"),
    ("push", "linear", "f64", "written out"),
    ("dropped links", "MLP", "f32", "recorded"),
    ("dropped links", "CNN", "f64", "recorded"),
    ("dropped links", "MLP", "f64", "written out"),
    ("churn", "MLP", "f64", "called"),
    ("churn", "linear", "f32", "written out"),
    ("churn and directed", "MLP", "f32", "written out"),
]


@pytest.fixture
def step(request, monkeypatch):
    """Let a step be written out, as by default, or recorded, or called."""
    if request.param != "written out":
        monkeypatch.setattr(training, "written_out", lambda model: None)
    monkeypatch.setattr(Recorded, "AFTER", 1 if request.param == "recorded" else 10**6)


@pytest.mark.parametrize(
    ("schedule", "model", "dtype", "step"), CASES, indirect=["step"]
)
def test_the_models_are_local_grid_s(schedule, model, dtype, step):
    dtype = {"f32": torch.float32, "f64": torch.float64}[dtype]
    task = digits(N, dtype=dtype, **MODELS[model])
    sizes = task.label_counts().sum(axis=1)
    assert 2 * sizes.min() < sizes.max() and len({*sizes}) > 6  # in batches: 2 to 6
    a, b = both(task, SCHEDULES[schedule], 4, evaluate_fn=task.evaluate_fn)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-10
    start = np.concatenate(
        [x.ravel() for x in task.initial_arrays().to_numpy_ndarrays()]
    )
    assert np.abs(b.models() - start).max() > 0.1  # they did learn
    assert difference(a, b) < tolerance
    same_tables(a, b, 10 * tolerance)
    assert a.lost == b.lost == []
    for one, other in zip(
        a.arrays.to_numpy_ndarrays(), b.arrays.to_numpy_ndarrays(), strict=True
    ):
        assert np.allclose(one, other, atol=tolerance)


@pytest.mark.parametrize(
    "weights", [mixing.uniform, mixing.max_degree, mixing.best_constant]
)
def test_other_weights(weights):
    a, b = both(digits(N), named("barbell", N), 3, weights=weights)
    assert difference(a, b) < 1e-5


def test_weights_of_one_s_own_may_be_dense():
    def lazy(graph):
        return (np.eye(len(graph)) + mixing.metropolis(graph)) / 2

    a, b = both(digits(N), named("star", N), 3, weights=lazy)
    assert difference(a, b) < 1e-5


BATCHES = {
    "several": {"batch_size": 8},
    "one": {"batch_size": 1000},
    "one, three times": {"batch_size": 1000, "epochs": 3, "momentum": 0.9},
    "all options": {"batch_size": 7, "momentum": 0.9, "weight_decay": 0.1, "lr": 0.1},
}


# Batches depend on a partition by its sizes alone: each kind of batches is there with
# clients of (nearly) one size, iid and dealt, and of many, and is recorded with one of
# these, and written out with the other. The second round has other batches, of the
# shapes of the first.
@pytest.mark.parametrize(
    ("batches", "partition", "step"),
    [
        ("several", "iid", "recorded"),
        ("several", "dirichlet", "written out"),
        ("one", "dealt", "recorded"),
        ("one", "classes", "written out"),
        ("one, three times", "iid", "written out"),
        ("one, three times", "classes", "recorded"),
        ("all options", "dealt", "written out"),
        ("all options", "dirichlet", "recorded"),
    ],
    indirect=["step"],
)
def test_any_batches(batches, partition, step):
    task = digits(N, partition=partition)
    a, b = both(task, named("ring", N), 2, training=BATCHES[batches])
    assert difference(a, b) < 1e-5
    same_tables(a, b, 1e-4)


def stack(*layers):
    return lambda: nn.Sequential(*(layer() for layer in layers))


def linear(a, b, **options):
    return lambda: nn.Linear(a, b, **options)


def test_a_round_written_by_hand_is_the_same_work():
    task = digits(40, partition="dealt")
    options = {"batch_size": 8, "evaluate_every": 0, "observe_every": 0}
    result = gossip_learning(task, named("regular", 40), 5, **options)
    assert np.abs(rounds_of(task)(5).numpy() - result.models()).max() < 1e-6


STACKS = {
    "tanh": stack(linear(64, 7), nn.Tanh, linear(7, 10)),
    "sigmoid, first and last": stack(nn.Sigmoid, linear(64, 10), nn.Sigmoid),
    "two in turn": stack(linear(64, 9), nn.Tanh, nn.ReLU, linear(9, 5), linear(5, 10)),
}


@pytest.mark.parametrize("build", STACKS.values(), ids=STACKS)
def test_what_is_written_out_comes_to_local_grid_s(build):
    assert written_out(build())
    task = digits(N, build=build, dtype=torch.float64)
    more = OPTIONS | {"epochs": 2}
    a, b = both(task, named("ring", N), 2, training=more)
    assert difference(a, b) < 1e-10
    same_tables(a, b, 1e-9)


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


def hooked():
    model = nn.Linear(64, 10)
    model.register_forward_hook(lambda module, x, out: 2 * out)
    return model


OTHERS = {
    "no bias": linear(64, 10, bias=False),
    "nested": stack(stack(linear(64, 10))),
    "another layer": stack(linear(64, 10), nn.Softplus),
    "a layer of one's own": lambda: Doubled(64, 10),
    "a hook": hooked,
}


@pytest.mark.parametrize("build", OTHERS.values(), ids=OTHERS)
def test_other_models_are_not_written_out(build):
    assert written_out(build()) is None
    a, b = both(digits(N, build=build), named("ring", N), 1)
    assert difference(a, b) < 1e-5


def test_a_recorded_function_is_not_called_again():
    calls = []

    def function(models, x, y):
        calls.append(x.shape)
        return (models["w"] * x).sum(1) + y, x.exp()

    fast = Recorded(function)
    fast.AFTER = 2
    rng = np.random.default_rng(0)
    for n in (4, 4, 4, 3, 4):
        w, x, y = (torch.from_numpy(rng.normal(size=s)) for s in ((n, 5), (n, 5), n))
        for found, wanted in zip(
            fast({"w": w}, x, y), ((w * x).sum(1) + y, x.exp()), strict=True
        ):
            assert torch.equal(found, wanted)
    assert calls == [(4, 5)] * 3 + [(3, 5)]  # two, one more that was recorded


def test_small_chunks_change_nothing(monkeypatch):
    task = digits(64, partition="dealt", examples=20, hidden=8)
    whole = gossip_learning(task, named("torus", 64), 3, batch_size=8)
    monkeypatch.setitem(CHUNK, "cpu", 1)
    monkeypatch.setitem(WRITTEN, "cpu", 1)
    parts = gossip_learning(task, named("torus", 64), 3, batch_size=8)
    assert difference(whole, parts) < 1e-6
    same_tables(whole, parts, 1e-6)


# Average functions that are not linear ------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "alpha"),
    [("star", -1), ("regular", 0), ("directed one-peer", 2), ("churn", -1)],
)
def test_algorithm_2_is_batched(schedule, alpha):
    task = digits(N, hidden=8, dtype=torch.float64)
    average = SoftmaxDistance(task.predict, self_weight=0.4, alpha=alpha)
    a, b = both(task, SCHEDULES[schedule], 3, average=average)
    assert difference(a, b) < 1e-10


def median(own, neighbours, weights, context):
    return [
        np.median(np.stack(layer), axis=0)
        for layer in zip(own, *neighbours, strict=True)
    ]


def test_any_average_function_takes_many_clients():
    a, b = both(digits(N), named("small-world", N), 3, average=median)
    assert difference(a, b) < 1e-5


@pytest.mark.parametrize("average", [None, median])
def test_a_link_of_weight_0_carries_a_model(average):
    deaf = {"weights": lambda graph: np.eye(N)}
    a, b = both(digits(N), named("star", N), 2, average=average, **deaf)
    assert difference(a, b) < 1e-5
    assert a.messages == b.messages == {1: 22, 2: 22}


def test_an_average_that_takes_clients_for_a_part_of_the_model_is_refused():
    def shrink(own, neighbours, weights, context):
        size = np.sqrt(sum(np.square(a).sum() for a in own))
        return [a / size for a in own]

    with pytest.raises(ValueError, match=r"client \d+ another average alone"):
        gossip_learning(digits(N), named("ring", N), 1, average=shrink)


def test_an_average_of_another_shape_is_refused():
    def first(own, neighbours, weights, context):
        return [a[:1] for a in own]

    with pytest.raises(ValueError, match="returned arrays of shapes.*first axis"):
        gossip_learning(digits(N), named("ring", N), 1, average=first)


def test_an_average_that_is_not_finite_is_lost():
    def bad(own, neighbours, weights, context):
        is_5 = np.asarray(context.node_config["partition-id"] == 5)
        axes = (1,) * (own[0].ndim - is_5.ndim)
        mixed = [np.where(is_5.reshape(is_5.shape + axes), np.nan, own[0]), own[1]]
        return mixed

    result = gossip_learning(digits(N), named("ring", N), 1, average=bad)
    (loss,) = result.lost
    assert loss[:3] == (1, 5, "train.average") and "NaN" in loss.reason
    assert np.isfinite(result.models()).all()


# Faults and bad input -----------------------------------------------------------------


def poisoned(**options):
    """Return a task in which training of some clients overflows."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 4)), rng.integers(3, size=200)
    task = Task(x, y, 6, partition="iid", **options)
    for client in (2, 4):
        first, count = task.parts.span(client, "train")
        task.x[task.parts.index[first : first + count]] = float("inf")
    return task


def test_a_client_whose_training_diverges_is_lost_and_keeps_its_model():
    task = poisoned()
    a, b = both(task, named("ring", 6), 4, training={"batch_size": 8})
    assert difference(a, b) < 1e-5
    assert {(x.round, x.client, x.call) for x in a.lost} == {
        (x.round, x.client, x.call) for x in b.lost
    }
    assert a.messages == b.messages
    assert list(b.node_arrays) == [0, 1, 3, 5]  # 2 and 4 never had a model


def test_other_clients_data_do_no_harm():
    task = digits(N, alpha=0.31)
    first, _ = task.parts.span(4, "validation")
    task.x[task.parts.index[first]] = float("inf")  # next to client 3's examples
    result = gossip_learning(task, named("ring", N), 2, batch_size=32)
    assert result.lost == [] and len(result.node_arrays) == N


def test_an_average_that_overflows_is_lost():
    def wild(graph):
        return 2001 * np.eye(N) - 1000 * nx.to_numpy_array(graph)

    result = gossip_learning(digits(N), named("ring", N), 15, weights=wild)
    assert "train.average" in {loss.call for loss in result.lost}
    assert np.isfinite(result.models()).all()


def test_average_functions_cannot_change_what_they_are_given():
    def greedy(own, neighbours, weights, context):
        own[0][...] += 1
        return own

    with pytest.raises(ValueError, match="read-only"):
        gossip_learning(digits(N), named("ring", N), 1, average=greedy)


@pytest.mark.parametrize(
    "kind", [np.matrix, scipy.sparse.coo_array, scipy.sparse.csr_matrix]
)
def test_weights_of_any_kind_of_matrix(kind):
    def weights(graph):
        return kind(mixing.metropolis(graph))

    result = gossip_learning(digits(N), named("star", N), 2, weights=weights)
    usual = gossip_learning(digits(N), named("star", N), 2)
    assert difference(result, usual) < 1e-6


def test_a_client_offline_from_the_start_changes_nothing_in_tables():
    schedule = churn(named("ring", N), 0.0)
    a, b = both(digits(N, build=cnn), schedule, 2)
    assert len(a.node_arrays) == len(b.node_arrays) == 0
    assert list(a.to_pandas()) == list(b.to_pandas())


def test_all_clients_diverging_is_an_error():
    task = poisoned()
    task.x[:] = float("nan")
    with pytest.raises(RuntimeError, match="all clients failed.*NaN"):
        gossip_learning(task, named("ring", 6), 2)


def test_too_little_memory_is_told_before_the_work(monkeypatch):
    monkeypatch.setattr(runs, "free_memory", lambda device: 10**8)
    with pytest.raises(
        MemoryError, match=r"12 clients.*650 parameters.*0\.1 GB are free"
    ):
        gossip_learning(digits(N), named("ring", N), 1)


def test_free_memory_heeds_a_container_s_limit(tmp_path):
    limit, used = tmp_path / "max", tmp_path / "current"
    cgroups = [(str(limit), str(used))]
    cpu = torch.device("cpu")
    free = runs.free_memory(cpu, cgroups)  # no such files: the machine's
    assert free > 10**8
    limit.write_text("3000\n")
    used.write_text("1000\n")
    assert runs.free_memory(cpu, cgroups) == 2000
    limit.write_text("max\n")
    assert runs.free_memory(cpu, cgroups) > 10**8


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"num_rounds": 0}, "num_rounds"),
        ({"sample": 0}, "sample.*1 to 12; got 0"),
        ({"sample": 13}, "sample.*got 13"),
        ({"evaluate_every": -1}, "evaluate_every"),
        ({"observe_every": 1.5}, "observe_every"),
        ({"epochs": 0}, "epochs"),
        ({"lr": -0.1}, "lr must be 0 or more"),
        ({"momentum": float("nan")}, "momentum"),
        ({"num_rounds": 2.5}, "num_rounds must be a whole number"),
        ({"batch_size": 0}, "batch_size"),
        ({"lr": "0.1"}, "lr must be a number"),
        ({"device": "none"}, "device 'none' cannot be used"),
        ({"device": "meta"}, "device 'meta' cannot be used"),
        ({"schedule": named("ring", 11)}, "missing 11"),
        ({"schedule": nx.empty_graph(N)}, "disconnected"),
        ({"weights": lambda graph: np.ones((N, N))}, "sum to 1"),
    ],
)
def test_bad_input(options, says):
    with pytest.raises(ValueError, match=says):
        gossip_learning(**{"task": digits(N), "schedule": named("ring", N)} | options)


def test_a_schedule_of_another_kind():
    with pytest.raises(TypeError, match="Graph"):
        gossip_learning(digits(N), "ring")


@pytest.mark.parametrize("name", ["task", "weights", "average", "evaluate_fn"])
def test_what_must_be_a_task_or_a_function(name):
    ring = named("ring", N)
    with pytest.raises(TypeError, match=name):
        gossip_learning(**{"task": digits(N), "schedule": ring, name: np.eye(N)})


def frozen(model):
    return model.requires_grad_(False)


class Spare(nn.Linear):
    """A model with a layer that nothing uses."""

    def __init__(self):
        super().__init__(64, 10)
        self.spare = nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (
            lambda: nn.Sequential(
                nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Linear(8, 10)
            ),
            "1.running_mean",
        ),
        (lambda: nn.Sequential(frozen(nn.Linear(64, 64)), nn.Linear(64, 10)), "0.bias"),
        (Spare, "no output depends on spare.weight, spare.bias"),
    ],
)
def test_a_model_that_cannot_be_stacked(build, says):
    with pytest.raises(ValueError, match=says):
        gossip_learning(digits(N, build=build), named("ring", N))


# What a run leaves behind -------------------------------------------------------------


def test_a_sample_is_evaluated_without_replacement():
    task = digits(N)
    everyone = gossip_learning(task, named("ring", N), 2, evaluate_fn=task.evaluate_fn)
    some = gossip_learning(
        task, named("ring", N), 2, evaluate_fn=task.evaluate_fn, sample=5
    )
    assert difference(everyone, some) == 0
    drawn = set()
    for metrics in (
        "node_train_metrics",
        "node_evaluate_metrics",
        "node_server_metrics",
    ):
        for t in (1, 2):
            kept, all_ = getattr(some, metrics)[t], getattr(everyone, metrics)[t]
            assert len(set(kept)) == len(kept) == 5
            assert all(kept[i] == all_[i] for i in kept)
            drawn.add(tuple(kept))
    assert len(drawn) == 2  # drawn anew in each round, the same for all metrics
    assert some.train_metrics_clientapp == everyone.train_metrics_clientapp
    assert some.consensus_distance == everyone.consensus_distance


def test_another_evaluate_fn_sees_each_client_s_model():
    task, seen = digits(N), []

    def count(server_round, arrays):
        seen.append((server_round, arrays))
        return task.evaluate_fn(server_round, arrays)

    ours = gossip_learning(task, named("ring", N), 2, evaluate_fn=task.evaluate_fn)
    called = gossip_learning(task, named("ring", N), 2, evaluate_fn=count)
    assert len(seen) == 1 + 2 * N
    same_tables(ours, called, 1e-6)


def test_models_and_metrics_read_as_dicts():
    task = digits(N)
    result = gossip_learning(task, named("ring", N), 2)
    assert list(result.node_arrays) == list(range(N)) and len(result.node_arrays) == N
    flat = [a.ravel() for a in result.node_arrays[7].to_numpy_ndarrays()]
    assert np.array_equal(np.concatenate(flat), result.models()[7])
    assert list(result.node_arrays[7]) == list(task.initial_arrays())
    with pytest.raises(KeyError):
        result.node_arrays[N]
    with pytest.raises(KeyError):
        result.node_train_metrics[1][-1]
    with pytest.raises(ValueError, match="read-only"):
        result.models()[0] = 0
    assert result.node_train_metrics[1][3]["num-examples"] == len(
        task.part(3, "train")[1]
    )
    assert set(result.seconds) == {"train", "average", "measure"}
    assert "12 clients, 2 rounds" in repr(result)


def test_evaluation_is_only_done_when_asked():
    result = gossip_learning(
        digits(N), named("ring", N), 4, evaluate_every=2, observe_every=0
    )
    assert list(result.node_evaluate_metrics) == [2, 4]
    assert list(result.consensus_distance) == [4]


def test_a_task_without_holdout_has_nothing_to_evaluate():
    task = digits(N, holdout=0)
    with pytest.raises(ValueError, match="holdout"):
        gossip_learning(task, named("ring", N), 1)
    gossip_learning(task, named("ring", N), 1, evaluate_every=0)


def test_a_look_because_a_run_ends_is_not_in_its_checkpoint(tmp_path):
    path, how = tmp_path / "run.zip", {"observe_every": 0}
    gossip_learning(digits(N), named("ring", N), 2, checkpoint=path, **how)
    resumed = gossip_learning(digits(N), named("ring", N), 4, resume=path, **how)
    whole = gossip_learning(digits(N), named("ring", N), 4, **how)
    assert resumed.consensus_distance == whole.consensus_distance
    assert list(whole.consensus_distance) == [4]


@dataclass(frozen=True)
class Pull:
    """An average function with a parameter."""

    share: float

    def __call__(self, own, neighbours, weights, context):
        mixed = weighted_mean(own, neighbours, weights)
        return [a + self.share * (m - a) for a, m in zip(own, mixed, strict=True)]


def test_a_checkpoint_knows_its_average_function(tmp_path):
    path, ring = tmp_path / "run.zip", named("ring", N)
    gossip_learning(digits(N), ring, 1, average=Pull(0.5), checkpoint=path)
    whole = gossip_learning(digits(N), ring, 2, average=Pull(0.5))
    resumed = gossip_learning(digits(N), ring, 2, average=Pull(0.5), resume=path)
    assert difference(whole, resumed) == 0
    for other in (Pull(0.25), weighted_mean, median):
        with pytest.raises(ValueError, match=r"differs: average \(Pull\(share=0.5\)"):
            gossip_learning(digits(N), ring, 2, average=other, resume=path)


def test_an_interrupted_run_returns_what_it_has():
    task, seen = digits(N), []

    def press(server_round, arrays):
        if server_round == 2 and not seen:
            seen.append(arrays)
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.warns(UserWarning, match="that of 2 of 50 rounds") as warned:
        result = gossip_learning(task, named("ring", N), 50, evaluate_fn=press)
    assert __file__ in {
        one.filename for one in warned
    }  # it is told where it was called
    assert signal.getsignal(signal.SIGINT) is before
    assert difference(result, gossip_learning(task, named("ring", N), 2)) == 0
    assert list(result.messages) == [1, 2]


def test_a_second_interrupt_ends_at_once():
    def press(server_round, arrays):
        if server_round == 2:
            os.kill(os.getpid(), signal.SIGINT)  # for each of the clients

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        gossip_learning(digits(N), named("ring", N), 50, evaluate_fn=press)
    assert signal.getsignal(signal.SIGINT) is before


def test_the_engine_runs_in_another_thread():
    results = []
    thread = threading.Thread(
        target=lambda: results.append(gossip_learning(digits(N), named("ring", N), 1))
    )
    thread.start()
    thread.join()
    assert len(results) == 1


def test_one_client_trains_alone():
    a, b = both(digits(1), nx.empty_graph(1), 2)
    assert difference(a, b) < 1e-5
    assert b.messages == {1: 0, 2: 0}


def test_training_learns_at_scale():
    task = digits(2000, partition="dealt")
    result = gossip_learning(
        task,
        named("regular", 2000),
        30,
        batch_size=8,
        evaluate_every=0,
        observe_every=0,
        evaluate_fn=task.evaluate_fn,
        sample=100,
    )
    accuracy = [m["accuracy"] for m in result.node_server_metrics[30].values()]
    assert len(accuracy) == 100 and np.mean(accuracy) > 0.8


def test_links_of_a_large_graph_are_checked_without_overflow():
    n = 70_000  # n² is beyond 32 bits
    graph = nx.cycle_graph(n)
    W = mixing.metropolis(graph, sparse=True)
    mixing.check_weights(W, graph)
    with pytest.raises(ValueError, match="client 69998 weighs client 0"):
        wrong = W.tolil()
        wrong[69998, 69999] = 0
        wrong[69998, 0] = 1 / 3
        mixing.check_weights(wrong.tocsr(), graph)


def test_a_graph_that_is_changed_during_a_run_is_followed_or_refused():
    task = digits(6, partition="iid")

    def changing(change):
        graph, seen = nx.cycle_graph(6), []

        def evaluate_fn(server_round, arrays):
            if server_round == 2 and not seen:
                seen.append(change(graph))

        options = {"evaluate_every": 0, "evaluate_fn": evaluate_fn}
        return gossip_learning(task, graph, 4, **options)

    def schedule(t):
        return nx.cycle_graph(6) if t <= 2 else nx.complete_graph(6)

    grown = changing(lambda graph: graph.add_edges_from(nx.complete_graph(6).edges))
    other = gossip_learning(task, schedule, 4, evaluate_every=0)
    assert grown.messages == {1: 12, 2: 12, 3: 30, 4: 30}
    assert np.array_equal(grown.models(), other.models())
    with pytest.raises(ValueError, match="disconnected"):
        changing(lambda graph: graph.remove_edges_from([(0, 1), (3, 4)]))
