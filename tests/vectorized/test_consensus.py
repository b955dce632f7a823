"""Averaging without learning, and the averages whose messages carry a number."""

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch
from flwr.app import ArrayRecord

from gossiplib.core import mixing, topology
from gossiplib.core.averaging import weighted_mean
from gossiplib.core.client import gossip
from gossiplib.core.grid import LocalGrid
from gossiplib.core.server import Gossip
from gossiplib.protocols.push_sum import PushSum
from gossiplib.protocols.variance import variance_corrected
from gossiplib.tasks.task import digits
from gossiplib.vectorized.consensus import averaging_rounds
from gossiplib.vectorized.engine import gossip_learning
from toy_apps import still_app, vector, zeros

RING = topology.named("ring", 8)


def after(rounds, values, schedule, **options):
    steps = averaging_rounds(values, schedule, **options)
    for _ in range(rounds):
        values, _ = next(steps)
    return values


def directed(n, p, seed):
    """Return a strongly connected directed random graph."""
    while True:
        graph = nx.gnp_random_graph(n, p, seed=seed, directed=True)
        if nx.is_strongly_connected(graph):
            return graph
        seed += 1


@pytest.mark.parametrize("name", ["ring", "star", "barbell"])
def test_is_the_power_of_the_mixing_matrix(name):
    graph = topology.named(name, 9)
    values = np.random.default_rng(0).normal(size=(9, 4))
    W = np.linalg.matrix_power(mixing.metropolis(graph), 20)
    assert np.allclose(after(20, values, graph), W @ values, rtol=0, atol=1e-12)


def test_keeps_values_and_data_type():
    values = np.ones((8, 2), dtype=np.float32)
    rounds = averaging_rounds(values, RING)
    first, sent = next(rounds)
    first[:] = 7
    second, _ = next(rounds)
    assert second.dtype == np.float32 and (second == 1).all() and (values == 1).all()
    model = ArrayRecord([values[0]])
    assert sent == 16 * len(model["0"].data)


@pytest.mark.parametrize(
    ("values", "culprit"),
    [
        (np.zeros(8), "shape"),
        (np.zeros((8, 0)), "shape"),
        (np.zeros((8, 2), dtype=int), "int64"),
        (np.zeros((8, 2), dtype=">f8"), ">f8"),
        (np.ma.array(np.zeros((8, 2)), mask=np.eye(8, 2)), "values has masked"),
        (np.where(np.arange(16).reshape(8, 2) == 5, np.nan, 0), "client 2"),
        (np.zeros((7, 2)), "not a client 7"),
    ],
)
def test_refuses_values_that_do_not_fit(values, culprit):
    with pytest.raises(ValueError, match=culprit):
        next(averaging_rounds(values, RING))


def test_values_may_be_tensors_or_tables():
    values = np.arange(16.0).reshape(8, 2)
    wanted, _ = next(averaging_rounds(values, RING))
    for other in (torch.tensor(values, requires_grad=True), pd.DataFrame(values)):
        found, _ = next(averaging_rounds(other, RING))
        assert np.array_equal(found, wanted)


def test_push_sum_finds_the_mean_where_plain_averaging_does_not():
    graph = directed(50, 0.06, seed=0)
    values = np.random.default_rng(0).normal(size=(50, 3))
    mean = values.mean(axis=0)
    plain = after(100, values, graph, weights=mixing.uniform)
    assert np.abs(plain - plain[0]).max() < 1e-6  # they agree
    assert np.abs(plain - mean).max() > 1e-2  # on another value
    W = mixing.uniform(graph)
    eigenvalues, left = np.linalg.eig(W.T)
    stationary = np.real(left[:, np.argmax(np.real(eigenvalues))])
    other = (stationary / stationary.sum()) @ values
    assert np.allclose(plain, other, atol=1e-6)
    pushed = after(60, values, graph, average=PushSum(), weights=mixing.uniform)
    assert np.abs(pushed - mean).max() < 1e-4


@pytest.mark.parametrize("n", [2, 7, 16])
def test_push_sum_is_kempes_iteration_and_conserves_mass(n):
    """Against s ← P s, w ← P w in plain numpy, on time-varying graphs."""
    schedule = topology.push(nx.complete_graph(n), seed=1)
    values = np.random.default_rng(n).normal(size=(n, 2))
    s, w = values.copy(), np.ones(n)
    rounds = averaging_rounds(
        values, schedule, average=PushSum(), weights=mixing.uniform
    )
    for t in range(1, 13):
        found, _ = next(rounds)
        P = np.eye(n)
        for j, i in topology.at(schedule, t).edges:
            P[i, j] = 1
        P /= P.sum(axis=0)
        s, w = P @ s, P @ w
        assert np.allclose(found, s / w[:, None], rtol=0, atol=1e-12)
        assert np.isclose(w.sum(), n)
        assert np.allclose((w[:, None] * found).sum(axis=0), values.sum(axis=0))


def test_push_sum_through_flower():
    schedule = topology.push(nx.complete_graph(6), seed=2)
    options = {"weights": mixing.uniform}
    values = np.stack([vector(i) for i in range(6)])
    found = after(9, values, schedule, average=PushSum(), **options)
    grid = LocalGrid(gossip(still_app(), average=PushSum()), 6)
    for _ in range(2):  # a second run on the same grid begins with weights of 1
        result = Gossip(schedule, **options).start(grid, zeros(), num_rounds=9)
        assert np.allclose(result.models(), found, rtol=0, atol=1e-12)
    assert not result.lost


@pytest.mark.parametrize(
    ("average", "same_start"),
    [(PushSum(), True), (variance_corrected, True), (variance_corrected, False)],
)
def test_both_engines_agree(average, same_start):
    task = digits(6, seed=1, hidden=5, same_start=same_start)
    if isinstance(average, PushSum):
        schedule = topology.push(topology.named("complete", 6), seed=3)
    else:
        schedule = topology.churn(topology.named("ring", 6), 0.7, seed=1)
    options = {"weights": mixing.uniform, "evaluate_every": 0}
    arrays = gossip_learning(task, schedule, 4, average=average, **options)
    grid = LocalGrid(gossip(task.client_app(), average=average), 6)
    start = task.initial_arrays()
    flower = Gossip(schedule, **options).start(grid, start, num_rounds=4)
    assert not flower.lost and not arrays.lost
    assert np.allclose(arrays.models(), flower.models(), atol=1e-5)
    assert arrays.bytes == flower.bytes


def test_clients_start_with_models_of_their_own():
    task = digits(4, seed=0, hidden=5, same_start=False)
    rows = [
        np.concatenate([p.detach().ravel() for p in task.model(i).parameters()])
        for i in range(4)
    ]
    assert len({row.tobytes() for row in rows}) == 4
    spread = np.std(rows, axis=0)
    assert 0.05 < spread.mean() < 0.5
    again = digits.__wrapped__(4, seed=0, hidden=5, same_start=False)
    assert all(
        (a == b).all()
        for a, b in zip(
            task.model(2).parameters(), again.model(2).parameters(), strict=True
        )
    )


@pytest.mark.parametrize("k", [2, 4, 16])
def test_the_mean_of_unrelated_models_loses_variance_unless_corrected(k):
    rng = np.random.default_rng(k)
    models = [[rng.normal(size=(60, 50)), np.zeros(3)] for _ in range(k)]
    weights = np.full(k, 1 / k)
    plain = weighted_mean(models[0], models[1:], weights)
    mended = variance_corrected(models[0], models[1:], weights)
    assert np.isclose(plain[0].var(), 1 / k, rtol=0.15)
    wanted = np.mean([m[0].var() for m in models])
    assert np.isclose(mended[0].var(), wanted, rtol=1e-9)
    assert np.isclose(mended[0].mean(), plain[0].mean())
    assert (mended[1] == 0).all()


@pytest.mark.parametrize(
    ("average", "start", "kept"),
    [(weighted_mean, 1 / 8, 1 / 8), (variance_corrected, 1, 1)],
)
def test_what_steadies_training_is_lost_with_the_correction(average, start, kept):
    """Of the variance of noise that clients do not share, a mean of 8 keeps 1/8."""
    rng, rounds = np.random.default_rng(0), 100
    models = 0.1 * rng.normal(size=(8, 150, 100))
    for _ in range(rounds):
        own, *others = ([m] for m in models + 0.01 * rng.normal(size=models.shape))
        (mean,) = average(own, others, np.full(8, 1 / 8))
        models = np.broadcast_to(mean, models.shape)
    wanted = start * 0.1**2 + kept * rounds * 0.01**2
    assert mean.var() == pytest.approx(wanted, rel=0.05)
