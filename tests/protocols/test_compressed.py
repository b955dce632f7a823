"""Protocols with compressed messages: against the paper's equations and rates."""

from itertools import islice

import numpy as np
import pytest
import torch
from contexts import in_round
from flwr.app import RecordDict

from gossiplib.core import mixing
from gossiplib.core.averaging import weighted_mean
from gossiplib.core.client import gossip
from gossiplib.core.grid import LocalGrid
from gossiplib.core.server import Gossip
from gossiplib.core.topology import named
from gossiplib.protocols.codecs import Parts, Qsgd, RandomK, TopK
from gossiplib.protocols.compressed import (
    Choco,
    Compressed,
    DeepSqueeze,
    Partial,
    Shared,
)
from gossiplib.tasks.task import digits
from gossiplib.vectorized.consensus import averaging_rounds
from gossiplib.vectorized.engine import gossip_learning

N, D = 25, 2000
RING = named("ring", N)
RATE = 1 / 3 + 2 / 3 * np.cos(2 * np.pi / N)  # λ₂ of the ring, in closed form
# Each client holds the same signal, and noise of a tenth of its size.
SIGNAL = 10 * np.random.default_rng(1).normal(size=D)
NOISE = np.random.default_rng(0).normal(size=(N, D))


def errors(average, rounds, values, graph=RING):
    """Return ‖X_t - mean of X_0‖² by round, in parts of that at the start."""
    mean = values.mean(axis=0)
    start = ((values - mean) ** 2).sum()
    steps = islice(averaging_rounds(values, graph, average=average), rounds)
    return np.array([((X - mean) ** 2).sum() / start for X, _ in steps])


def after(average, rounds, values, graph):
    """Return the values after some rounds."""
    return list(islice(averaging_rounds(values, graph, average=average), rounds))[-1][0]


def test_choco_with_qsgd_converges_as_exact_gossip_does():
    found = errors(Choco(Qsgd(256), 1.0), 450, SIGNAL + NOISE)
    assert found[-1] < 1e-8
    factor = (found[449] / found[249]) ** (1 / 200)
    assert factor == pytest.approx(RATE**2, abs=1e-4)  # .95855


def test_naive_quantised_gossip_stalls():
    found = errors(Compressed(Qsgd(256, unbiased=True)), 300, SIGNAL + NOISE)
    assert found.min() > 0.1
    assert found[-1] > 0.5


@pytest.mark.parametrize(
    ("codec", "step"), [(TopK(0.01), 0.046), (RandomK(0.01), 0.011)], ids=str
)
def test_choco_with_a_hundredth_of_the_numbers_converges_linearly(codec, step):
    found = np.log(errors(Choco(codec, step), 400, NOISE)[200:])
    slope, start = np.polyfit(np.arange(200), found, 1)
    assert slope < np.log(0.999)
    assert np.abs(start + slope * np.arange(200) - found).max() < 0.1  # a line


def test_choco_is_the_algorithm_of_the_paper():
    graph, d, step, k = named("barbell", 8), 40, 0.3, 4
    W = mixing.metropolis(graph)
    values = np.random.default_rng(0).normal(size=(8, d))
    X, public = values.copy(), np.zeros((8, d))
    for _ in range(30):
        for i in range(8):
            difference = X[i] - public[i]
            largest = sorted(range(d), key=lambda c: -abs(difference[c]))[:k]
            for c in largest:
                public[i, c] += difference[c]
        X = np.array(
            [
                X[i] + step * sum(W[i, j] * (public[j] - public[i]) for j in range(8))
                for i in range(8)
            ]
        )
    assert np.allclose(
        after(Choco(TopK(0.1), step), 30, values, graph), X, rtol=0, atol=1e-12
    )


def test_choco_that_says_all_is_exact_gossip():
    graph = named("barbell", 8)
    values = np.random.default_rng(0).normal(size=(8, 5))
    W = np.linalg.matrix_power(mixing.metropolis(graph), 7)
    assert np.allclose(after(Choco(TopK(1), 1.0), 7, values, graph), W @ values)


def test_error_feedback_is_the_algorithm_of_the_paper():
    graph, d, step, k = named("barbell", 8), 40, 0.2, 4
    W = mixing.metropolis(graph)
    values = np.random.default_rng(0).normal(size=(8, d))
    X, left_out = values.copy(), np.zeros((8, d))
    for _ in range(30):
        said = np.zeros((8, d))
        for i in range(8):
            whole = X[i] + left_out[i]
            for c in sorted(range(d), key=lambda c: -abs(whole[c]))[:k]:
                said[i, c] = whole[c]
            left_out[i] = whole - said[i]
        X = X + step * (W - np.eye(8)) @ said
    found = after(DeepSqueeze(TopK(0.1), step), 30, values, graph)
    assert np.allclose(found, X, rtol=0, atol=1e-12)


def test_naive_gossip_with_a_step_is_the_algorithm_of_the_paper():
    """And what a client takes for its own part is what it said, drawn only once."""
    graph, step = named("barbell", 8), 0.2
    W = mixing.metropolis(graph)
    codec = Qsgd(5, unbiased=True)
    values = np.random.default_rng(0).normal(size=(8, 40))
    X = values.copy()
    for t in range(1, 31):
        sent = [codec.encode(X[i], in_round(i, t)) for i in range(8)]
        said = np.array([codec.decode(message, 40) for message in sent])
        X = np.array(
            [
                X[i] + step * sum(W[i, j] * (said[j] - said[i]) for j in range(8))
                for i in range(8)
            ]
        )
    found = after(Compressed(codec, step), 30, values, graph)
    assert np.allclose(found, X, rtol=0, atol=1e-12)
    assert np.allclose(found.mean(axis=0), values.mean(axis=0), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("average", "power"),
    [
        (lambda step: Compressed(Qsgd(256, unbiased=True), step), 1),
        (lambda step: DeepSqueeze(Qsgd(256), step), 2),
    ],
)
def test_with_half_the_step_the_error_halves_or_is_quartered(average, power):
    """Where it ends: with γ without a memory, with γ² with error feedback."""
    graph, ends = named("regular", 16, seed=0), []
    values = 0.4 * SIGNAL + NOISE[:16]
    for step in (0.2, 0.1):
        rounds = round(40 / step)
        ends.append(errors(average(step), rounds, values, graph)[-rounds // 2 :].mean())
    assert ends[0] / ends[1] == pytest.approx(2**power, rel=0.2)


def test_error_feedback_ends_nearer_with_a_smaller_step_and_never_arrives():
    ends = [
        errors(DeepSqueeze(Qsgd(256), step), rounds, 0.4 * SIGNAL + NOISE)[-1]
        for step, rounds in ((1.0, 300), (0.3, 600), (0.1, 1500))
    ]
    assert ends[0] > 5 * ends[1] > 25 * ends[2] > 25e-6


@pytest.mark.parametrize("kind", [Choco, DeepSqueeze, Compressed])
@pytest.mark.parametrize("codec", [TopK(0.1), RandomK(0.1), Qsgd(2)], ids=str)
def test_a_step_keeps_the_mean(kind, codec):
    values = SIGNAL[:200] + NOISE[:, :200]
    found = after(kind(codec, 0.05), 50, values, RING)
    assert np.allclose(found.mean(axis=0), values.mean(axis=0), rtol=0, atol=1e-10)
    assert not np.allclose(found, values, atol=0.1)


def test_naive_gossip_is_right_on_average():
    """E x_i = Σ_j w_ij x_j; the variance is Σ_j w_ij² p (1 - p) ‖x_j‖² / s²."""
    copies, s = 3000, 4
    x = np.random.default_rng(0).normal(size=(3, 20))
    codec = Qsgd(s, unbiased=True)
    messages = [
        codec.encode(
            np.broadcast_to(x[j], (copies, 20)), in_round(np.arange(copies), j)
        )
        for j in (1, 2)
    ]
    weights = np.array([0.5, 0.3, 0.2])
    own = [np.broadcast_to(x[0], (copies, 20))]
    (mixed,) = Compressed(codec)(
        own, messages, np.tile(weights[:, None], copies), in_round(np.arange(copies))
    )
    spread = mixed.std(axis=0) / copies**0.5
    assert (np.abs(mixed.mean(axis=0) - weights @ x) < 5 * spread).all()
    norms = (x**2).sum(axis=1, keepdims=True) ** 0.5
    p = np.abs(x) * s / norms % 1
    variance = weights[1:] ** 2 @ (p * (1 - p) * norms**2 / s**2)[1:]
    assert np.allclose(mixed.var(axis=0), variance, rtol=0.15)


def test_partial_averages_what_was_said_and_keeps_the_rest():
    x = np.random.default_rng(0).normal(size=(3, 10))
    codec, weights = TopK(0.3), np.array([0.5, 0.3, 0.2])
    messages = [codec.encode(x[j], in_round(j)) for j in (1, 2)]
    (mixed,) = Partial(codec)([x[0]], messages, weights, in_round(0))
    expected = x[0].copy()
    for j in (1, 2):
        for c in np.argsort(-np.abs(x[j]))[:3]:
            expected[c] += weights[j] * (x[j, c] - x[0, c])
    assert np.allclose(mixed, expected)


@pytest.mark.parametrize("average", [Partial(TopK(1)), Compressed(Parts(1))])
def test_what_says_all_is_the_weighted_mean(average):
    values = NOISE[:, :7]
    exact = after(weighted_mean, 3, values, RING)
    assert np.allclose(after(average, 3, values, RING), exact)


def test_partitioned_models_mix_each_part_as_exact_gossip_does():
    values = NOISE[:, :21]
    found = after(Partial(Parts(3)), 6, values, RING)
    exact = np.linalg.matrix_power(mixing.metropolis(RING), 2) @ values
    assert np.allclose(found, exact)


def test_shared_mixes_some_arrays():
    rng = np.random.default_rng(0)
    models = [[rng.normal(size=s) for s in ((2, 3), (3,), (1,))] for _ in range(3)]
    weights, average = np.array([0.5, 0.3, 0.2]), Shared([2, 0])
    messages = [average.send(model, in_round(j)) for j, model in enumerate(models)]
    assert [a.shape for a in messages[0]] == [(2, 3), (1,)]
    mixed = average(models[0], messages[1:], weights, in_round(0))
    whole = weighted_mean(models[0], models[1:], weights)
    assert np.allclose(mixed[0], whole[0]) and np.allclose(mixed[2], whole[2])
    assert np.array_equal(mixed[1], models[0][1])


PROTOCOLS = {
    "choco top-k": Choco(TopK(0.1), 0.4),
    "choco random-k": Choco(RandomK(0.1), 0.1),
    "choco qsgd": Choco(Qsgd(15), 0.5),
    "naive top-k": Compressed(TopK(0.1)),
    "naive random-k": Compressed(RandomK(0.1, unbiased=True)),
    "naive qsgd": Compressed(Qsgd(15, unbiased=True)),
    "naive, a step, qsgd": Compressed(Qsgd(15, unbiased=True), 0.3),
    "partial top-k": Partial(TopK(0.1)),
    "partitioned": Partial(Parts(5)),
    "shared": Shared([0, 1]),
}
HEADERS, PARAMETERS = 128, 64 * 8 + 8 + 8 * 10 + 10
# Bytes of a message: two NPY headers and what is in the arrays, in float64.
CONTENT = {
    "top-k": 61 * (2 + 8),
    "random-k": 61 * (2 + 8),
    "qsgd": 8 + -(-PARAMETERS * 5 // 8),
    "partitioned": 1 + PARAMETERS // 5 * 8,
    "shared": (64 * 8 + 8) * 8,
}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_local_grid_and_arrays_agree(name):
    average = PROTOCOLS[name]
    task = digits(8, hidden=8, dtype=torch.float64)
    graph = named("barbell", 8)
    app = gossip(task.client_app(), average=average)
    by_messages = Gossip(graph).start(LocalGrid(app, 8), task.initial_arrays(), 4)
    by_arrays = gossip_learning(task, graph, 4, average=average)
    assert by_messages.lost == by_arrays.lost == []
    assert np.abs(by_messages.models() - by_arrays.models()).max() < 1e-9
    plain = gossip_learning(task, graph, 4)
    assert np.abs(plain.models() - by_arrays.models()).max() > 0.01
    assert by_messages.bytes == by_arrays.bytes
    size = 2 * HEADERS + CONTENT[name.split()[-1]]
    assert by_arrays.bytes == {t: m * size for t, m in by_arrays.messages.items()}


def test_counters_are_said_and_rounded():
    average = Partial(TopK(1))
    models = [[np.array([1.5]), np.array(4)], [np.array([2.5]), np.array(7)]]
    message = average.send(models[1], in_round(1))
    mixed = average(models[0], [message], np.array([0.5, 0.5]), in_round(0))
    assert mixed[0].tolist() == [2.0]
    assert mixed[1].dtype.kind == "i" and mixed[1].shape == () and mixed[1] in (5, 6)


def test_choco_does_not_mind_in_which_order_messages_come():
    """And it is sure of its sum, so that its messages are the codec's two arrays."""
    choco, state = Choco(TopK(0.5), 0.5), RecordDict()
    x, weights = [np.arange(4.0)], np.array([0.2, 0.3, 0.5])
    for t, order, arrays in ((1, [7, 9], 2), (2, [9, 7], 2), (3, [7, 9], 2)):
        now = in_round(3, t, senders=order, state=state)
        message = choco.send(x, now)
        assert len(message) == arrays
        choco(x, [message] * 2, weights[[0, *np.argsort(order) + 1]], now)
    choco(x, [message] * 2, weights, in_round(3, 3, senders=[9, 7], state=state))
    assert len(choco.send(x, in_round(3, 4, state=state))) == 3  # the weights changed


@pytest.mark.parametrize("step", [0, -1, 1.1, np.nan])
@pytest.mark.parametrize("kind", [Choco, Compressed])
def test_wrong_steps_are_refused(kind, step):
    with pytest.raises(ValueError, match="step must be above 0 and at most 1; got"):
        kind(TopK(0.1), step)


def test_wrong_arrays_are_refused():
    assert Shared([2, 0]) == Shared((0, 2, 2))
    with pytest.raises(ValueError, match="name at least one array"):
        Shared([])
    with pytest.raises(ValueError, match="array 2 is to be shared, but"):
        Shared([0, 2]).send([np.zeros(1), np.zeros(1)], in_round(0))


def test_which_codecs_need_which_repair():
    """With room; notebook 11 has more seeds, and searches for the steps."""
    plain, coarse, top = Qsgd(7, unbiased=True), Qsgd(7), TopK(0.1)
    schemes = {
        "whole": weighted_mean,
        "naive 7": Compressed(plain, 0.1),
        "feedback 7": DeepSqueeze(coarse, 0.1),
        "CHOCO 7": Choco(coarse, 0.3),
        "naive top": Compressed(top),
        "feedback top": DeepSqueeze(top, 0.2),
        "CHOCO top": Choco(top, 0.3),
        "CHOCO, too fast": Choco(top, 0.6),
    }
    graph, found = named("regular", 16, seed=0), {}
    for name, average in schemes.items():
        curves = []
        for seed in range(2):
            task = digits(16, alpha=0.3, hidden=32, holdout=0, seed=seed)
            options = {"batch_size": 32, "evaluate_every": 0, "observe_every": 40}
            options |= {"average": average, "evaluate_fn": task.evaluate_fn}
            result = gossip_learning(task, graph, 200, **options)
            observed = result.evaluate_metrics_serverapp
            curves.append([observed[t]["accuracy"] for t in (40, 200)])
        found[name] = np.mean(curves, axis=0)
    early, end = ({k: v[at] for k, v in found.items()} for at in (0, 1))
    for codec in ("7", "top"):
        assert end["whole"] - 0.04 < end[f"CHOCO {codec}"] < end["whole"]
        assert end[f"feedback {codec}"] < end[f"naive {codec}"] + 0.02
    assert end["naive 7"] < end["CHOCO 7"] - 0.02
    assert end["feedback top"] < end["CHOCO top"] - 0.01
    # A step that looks best early diverges.
    assert early["CHOCO, too fast"] > early["CHOCO top"] - 0.02
    assert end["CHOCO, too fast"] < 0.5
