"""Attacks and noise: autograd, scikit-learn, Flower's mod, and numerical theory."""

import logging

import networkx as nx
import numpy as np
import pytest
import torch
from flwr.clientapp.mod import LocalDpMod
from scipy import integrate, optimize, stats
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score

from gossiplib.core import mixing
from gossiplib.core.client import gossip
from gossiplib.core.grid import LocalGrid
from gossiplib.core.server import Gossip
from gossiplib.core.topology import named
from gossiplib.protocols import privacy
from gossiplib.protocols.push_sum import PushSum
from gossiplib.system.records import unpack
from gossiplib.tasks.task import digits
from gossiplib.tasks.training import train
from gossiplib.vectorized.consensus import averaging_rounds
from gossiplib.vectorized.engine import gossip_learning

TASK = {"partition": "dealt", "examples": 20, "holdout": 0.25}
N = 6


@pytest.fixture(autouse=True)
def quiet():
    logging.getLogger("flwr").setLevel("ERROR")


def run(app, rounds=2, average=None, task=None):
    task = task or digits(N, **TASK)
    how = {} if average is None else {"average": average}
    grid = LocalGrid(gossip(app, **how), N)
    strategy = Gossip(named("ring", N), evaluate_every=0)
    return strategy.start(grid, task.initial_arrays(), num_rounds=rounds)


def test_both_engines_overhear_the_models_that_are_sent():
    task, graph = digits(N, **TASK), named("ring", N)
    one, other = {}, {}
    run(task.client_app(), average=privacy.HonestButCurious(one))
    listening = privacy.HonestButCurious(other)
    gossip_learning(task, graph, 2, average=listening, evaluate_every=0)
    assert sorted(one) == sorted(other) == list(range(N))
    for i in one:
        for a, b in zip(one[i], other[i], strict=True):
            assert np.allclose(a, b, atol=1e-5)


def test_what_is_no_model_is_not_overheard():
    with pytest.raises(ValueError, match=r"PushSum\(\) sends is no model"):
        privacy.HonestButCurious({}, PushSum())


def test_what_is_overheard_is_trained_and_not_yet_averaged():
    task = digits(N, **TASK)
    heard = {}
    result = run(task.client_app(), 1, privacy.HonestButCurious(heard))
    alone = gossip_learning(
        task, lambda t: nx.empty_graph(N), 1, evaluate_every=0
    ).node_arrays
    for i in range(N):
        for a, b in zip(heard[i], unpack(alone[i]), strict=True):
            assert np.allclose(a, b, atol=1e-5)
        assert not np.allclose(heard[i][0], unpack(result.node_arrays[i])[0])


def test_scores_are_scikit_learn_s_losses():
    task = digits(N, **TASK)
    x, y = (a.numpy() for a in task.part(2, "train"))
    fit = LogisticRegression(max_iter=500).fit(
        np.concatenate([x, np.eye(10, 64)]), np.concatenate([y, np.arange(10)])
    )
    model = [fit.coef_.astype(np.float32), fit.intercept_.astype(np.float32)]
    trained, scores = privacy.membership(task, model, 2)
    rest = [task.part(2, name) for name in ("train", "validation", "test")]
    x, y = (torch.cat(a).numpy() for a in zip(*rest, strict=True))
    assert trained.tolist() == [True] * 10 + [False] * 10
    losses = [
        log_loss([label], fit.predict_proba(row[None]), labels=range(10))
        for row, label in zip(x, y, strict=True)
    ]
    assert np.allclose(scores, -np.array(losses), atol=1e-4)


def areas(task, models):
    """Return for each client the share of pairs that `membership` puts in order."""
    judged = [privacy.membership(task, model, i) for i, model in models.items()]
    return np.array([roc_auc_score(*one) for one in judged])


def test_a_model_that_saw_nothing_gives_nothing_away():
    task = digits(40, **TASK)
    start = unpack(task.initial_arrays())
    found = areas(task, dict.fromkeys(range(40), start))
    low, high = stats.t.interval(0.99, 39, found.mean(), stats.sem(found))
    assert low < 0.5 < high


def test_a_model_that_learnt_by_heart_gives_much_away():
    task = digits(N, **TASK)
    alone = gossip_learning(
        task, lambda t: nx.empty_graph(N), 20, epochs=10, evaluate_every=0
    ).node_arrays
    models = {i: unpack(alone[i]) for i in range(N)}
    assert areas(task, models).mean() > 0.9


def test_examples_that_are_not_held_back_are_missed():
    task = digits(4, holdout=0)
    with pytest.raises(ValueError, match="client 1 holds back no examples.*holdout"):
        privacy.membership(task, unpack(task.initial_arrays()), 1)


def test_membership_is_scored_in_the_mode_of_evaluation():
    def dropping():
        return torch.nn.Sequential(torch.nn.Linear(64, 10), torch.nn.Dropout(0.5))

    scores = [
        privacy.membership(task, unpack(task.initial_arrays()), 1)[1]
        for task in (digits(4, build=dropping), digits(4))  # they start the same
    ]
    assert np.allclose(scores[0], scores[1], atol=1e-5)


def test_mods_go_around_training_and_nothing_else():
    seen = []

    def note(message, context, call_next):
        seen.append(message.metadata.message_type)
        return call_next(message, context)

    task = digits(N, **TASK)
    modified = privacy.with_mods(task.client_app(), [note])
    strategy = Gossip(named("ring", N))
    found = strategy.start(
        LocalGrid(gossip(modified), N), task.initial_arrays(), num_rounds=2
    )
    assert seen == ["train"] * (2 * N)
    plain = Gossip(named("ring", N)).start(
        LocalGrid(gossip(task.client_app()), N), task.initial_arrays(), num_rounds=2
    )
    assert np.array_equal(found.models(), plain.models())
    assert found.to_pandas().equals(plain.to_pandas())


@pytest.mark.parametrize(("epsilon", "delta"), [(0.5, 1e-5), (1.0, 0.5), (100.0, 1e-5)])
def test_noise_std_is_what_flower_s_mod_adds(epsilon, delta):
    task = digits(N, **TASK)
    heard = {}
    mod = LocalDpMod(1.0, 2.0, epsilon, delta)
    app = privacy.with_mods(task.client_app(lr=1e-7), [mod])
    np.random.seed(0)
    result = run(app, 1, privacy.HonestButCurious(heard))
    assert not result.lost
    start = unpack(task.initial_arrays())
    noise = np.concatenate(
        [(a - b).ravel() for m in heard.values() for a, b in zip(m, start, strict=True)]
    )
    theory = privacy.noise_std(2.0, epsilon, delta)
    # the standard error of a measured std is about std/√(2n)
    assert abs(noise.std() / theory - 1) < 4 / np.sqrt(2 * noise.size)
    assert stats.kstest(noise / theory, "norm").pvalue > 0.01


def test_flower_s_mod_clips_the_update():
    task = digits(N, **TASK)
    heard = {}
    mod = LocalDpMod(0.1, 0.0, 1.0, 1e-5)  # a sensitivity of 0: no noise
    run(privacy.with_mods(task.client_app(), [mod]), 1, privacy.HonestButCurious(heard))
    start = unpack(task.initial_arrays())
    for model in heard.values():
        parts = [np.square(a - b).sum() for a, b in zip(model, start, strict=True)]
        assert np.isclose(np.sqrt(sum(parts)), 0.1, rtol=1e-4)


def delta_of(epsilon, mu):
    """Return δ of two normal distributions that are μ apart, by integration."""

    def excess(x):
        return stats.norm.pdf(x, mu) - np.exp(epsilon) * stats.norm.pdf(x)

    first = epsilon / mu + mu / 2  # from there on the integrand is above 0
    return integrate.quad(excess, first, first + 30, epsabs=1e-13)[0]


@pytest.mark.parametrize("std", [0.5, 1.0, 3.0, 20.0])
@pytest.mark.parametrize("rounds", [1, 4, 20])
def test_exact_epsilon_is_that_of_the_integral(std, rounds):
    mu = 2 * np.sqrt(rounds) / std
    epsilon = privacy.exact_epsilon(2.0, std, 1e-5, rounds)
    if epsilon < 20:  # e^ε and tiny densities: beyond that the integral is rough
        assert np.isclose(delta_of(epsilon, mu), 1e-5, rtol=1e-3)
    assert privacy.exact_epsilon(2.0, 1e6, 1e-5) == 0


def test_the_classical_formula_holds_below_1_and_fails_above():
    """Dwork and Roth's proof is for ε < 1; Balle and Wang show that it must be."""

    def exact(epsilon):
        return privacy.exact_epsilon(2, privacy.noise_std(2, epsilon, 1e-5), 1e-5)

    assert all(exact(epsilon) <= epsilon for epsilon in (0.01, 0.1, 0.5, 0.99))
    assert all(exact(epsilon) > epsilon for epsilon in (10, 100, 1000))


def test_messages_together_cost_no_more_than_their_sum():
    for rounds in (2, 10):
        one = privacy.exact_epsilon(1, 5, 1e-5 / rounds)
        assert privacy.exact_epsilon(1, 5, 1e-5, rounds) < rounds * one


def test_found_bound_is_that_of_the_best_test_between_two_normals():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 400_000))
    for rounds in (1, 4):
        mu = np.sqrt(rounds) * 2 / 3
        for alarms in (0.01, 0.3):
            share = (b + mu > np.quantile(a, 1 - alarms)).mean()
            bound = privacy.found_bound(2, 3, alarms, rounds)
            assert abs(share - bound) < 0.005


def test_found_bound_and_exact_epsilon_make_one_promise():
    """(ε, δ) allows at most e^ε α + δ to be found, at each α; and touches it at one."""
    for std, rounds in ((3, 1), (3, 10), (10, 10)):
        epsilon = privacy.exact_epsilon(2, std, 1e-3, rounds)
        alarms = np.logspace(-8, -0.01, 2000)
        found = np.array([privacy.found_bound(2, std, a, rounds) for a in alarms])
        allowed = np.exp(epsilon) * alarms + 1e-3
        assert (found <= allowed + 1e-9).all()
        assert (allowed - found).min() < 1e-4


def one_step(task, rows, lr=0.5):
    """Return the model of a task before and after one step with some rows."""
    x, y = task.x[rows], task.y[rows]
    model = task.model()
    before = [p.detach().numpy().copy() for p in model.parameters()]
    train(model, x, y, [torch.arange(len(rows))], lr=lr)
    return before, [p.detach().numpy() for p in model.parameters()]


@pytest.mark.parametrize("seed", range(5))
def test_one_example_is_reconstructed_exactly(seed):
    """A row of W's gradient over that entry of b's gradient is the example."""
    task = digits(4, seed=seed, dtype=torch.float64)
    before, after = one_step(task, [seed])
    (found,), (label,) = privacy.reconstruct(before, after, 1, 0.5)
    dW, db = (b - a for a, b in zip(before, after, strict=True))
    assert np.allclose(found, dW[label] / db[label], rtol=0, atol=1e-12)
    assert np.allclose(found, task.x[seed], rtol=0, atol=1e-12)
    assert label == task.y[seed]


def draw(seed, examples, dtype=torch.float64):
    """Return some examples, in the order of their classes, and one step with them."""
    task = digits(4, seed=seed, dtype=dtype)
    rows = np.random.default_rng(seed).permutation(len(task.y))[:examples]
    rows = rows[task.y[rows].argsort(stable=True)]
    return task.x[rows].numpy(), task.y[rows].numpy(), one_step(task, rows)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("examples", "dtype"), [(9, "float64"), (4, "float32")])
def test_up_to_nine_are_reconstructed_whatever_their_classes(seed, examples, dtype):
    """Digits have ten classes. A model sent in float32 is exact enough."""
    x, y, (before, after) = draw(seed, examples, getattr(torch, dtype))
    found, labels = privacy.reconstruct(before, after, examples, 0.5)
    assert labels.tolist() == y.tolist()
    error = np.sqrt(np.square(found[:, None] - x).mean(axis=-1))
    pairs = optimize.linear_sum_assignment(error)
    assert labels[pairs[0]].tolist() == y[pairs[1]].tolist()
    assert error[pairs].max() < 1e-3


def test_of_more_most_of_those_alone_in_their_class_are_reconstructed():
    nearest = {True: [], False: []}
    for seed in range(10):
        x, y, (before, after) = draw(seed, 12)
        found, _ = privacy.reconstruct(before, after, 12, 0.5)
        assert found.min() >= 0 and found.max() <= 1
        error = np.sqrt(np.square(found[:, None] - x).mean(axis=-1)).min(axis=0)
        for alone in nearest:
            nearest[alone].extend(error[(np.bincount(y)[y] == 1) == alone])
    assert np.mean(np.array(nearest[True]) < 0.03) > 0.5
    assert np.mean(np.array(nearest[False]) < 0.03) < 0.05


@pytest.mark.parametrize("kind", ["ring", "torus", "regular", "hypercube", "barbell"])
@pytest.mark.parametrize("rounds", [1, 3, 6])
def test_what_is_heard_is_what_regression_finds_in_the_messages(kind, rounds):
    n, draws = 16, 20_000
    graph = named(kind, n)
    W = mixing.metropolis(graph)
    noise = np.random.default_rng(0).normal(size=(n, draws))
    steps, x, view = averaging_rounds(noise, graph), noise, [noise[[0]]]
    for _ in range(rounds):
        view.append(x[sorted(graph[0])])
        x = next(steps)[0].copy()
    heard = np.concatenate(view)
    fit = LinearRegression(fit_intercept=False).fit(heard.T, noise.T)
    left = np.square(noise - fit.predict(heard.T).T).mean(axis=1)
    theory = privacy.heard_share(W, 0, rounds)
    assert np.allclose(1 - left, theory, atol=5 / np.sqrt(draws))


GRAPHS = [("ring", 20), ("torus", 36), ("regular", 64), ("hypercube", 32)]
GRAPHS += [("star", 12), ("barbell", 12), ("complete", 9), ("geometric", 30)]


@pytest.mark.parametrize(("kind", "n"), GRAPHS)
def test_nobody_hears_more_than_the_bound(kind, n):
    graph = named(kind, n)
    for listener in (0, n // 2):
        hops = nx.single_source_shortest_path_length(graph, listener)
        far = np.array([hops[i] for i in range(n)])
        for W in (mixing.metropolis(graph), (np.eye(n) + mixing.metropolis(graph)) / 2):
            for rounds in (1, 2, 4, 8, 16):
                share = privacy.heard_share(W, listener, rounds)
                assert share.max() < 1 + 1e-9 and share[listener] > 1 - 1e-9
                assert np.all(share[far > rounds] < 1e-9)
                bounds = privacy.hop_bound(W, listener, rounds)
                assert len(bounds) == far.max()
                for k, bound in enumerate(bounds, 1):
                    assert share[far >= k].mean() <= bound + 1e-9


def test_messages_with_common_noise_say_more_together_than_one_by_one():
    """On a ring, a listener peels the clients one by one, as far as news comes."""
    W = mixing.metropolis(named("ring", 20))
    share = privacy.heard_share(W, 0, 4)
    assert np.allclose(share[[0, 1, 2, 3, 4, -4, -3, -2, -1]], 1)
    assert np.allclose(share[5:-4], 0, atol=1e-9)
    # No other graph could hide less: the bound is reached, at each distance.
    far = np.minimum(np.arange(20), 20 - np.arange(20))
    reached = [share[far >= k].mean() for k in range(1, 11)]
    assert np.allclose(privacy.hop_bound(W, 0, 4), reached)
    one_by_one = np.zeros(20)
    for t in range(4):
        for row in np.linalg.matrix_power(W, t)[[1, -1]]:
            one_by_one += np.square(row) / np.square(row).sum()
    assert one_by_one[4] < 0.01


def test_what_a_client_is_promised_is_that_of_the_best_attack():
    """The likelihood ratio between two values of one client, given all messages."""
    n, rounds, std, draws = 16, 4, 1.0, 100_000
    graph, rng = named("torus", n), np.random.default_rng(0)
    W = mixing.metropolis(graph)
    powers = [np.linalg.matrix_power(W, t)[sorted(graph[0])] for t in range(rounds)]
    A = np.concatenate([np.eye(n)[[0]], *powers])
    for client in (1, 5, 10):
        signal = A @ np.eye(n)[client]
        best = np.linalg.pinv(A @ A.T, rcond=1e-9) @ signal
        quiet = best @ A @ rng.normal(size=(n, draws)) * std
        other = best @ A @ rng.normal(size=(n, draws)) * std + best @ signal
        share = privacy.heard_share(W, 0, rounds)[client]
        theory = privacy.found_bound(np.sqrt(share), std, 0.1)
        assert abs((other > np.quantile(quiet, 0.9)).mean() - theory) < 0.01
