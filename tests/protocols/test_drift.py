"""What corrects drift, on quadratics, where optimum and rest points are computed.

Client i holds f_i(x) = (x - b_i)' H_i (x - b_i) / 2 and steps down it with all of its
data, so training is x -> b_i + (I - η H_i)^K (x - b_i) for K steps.
"""

import networkx as nx
import numpy as np
import pytest
from contexts import in_round
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from gossiplib.core import mixing
from gossiplib.core.averaging import weighted_mean
from gossiplib.core.client import gossip
from gossiplib.core.grid import LocalGrid
from gossiplib.core.server import Gossip
from gossiplib.core.topology import drop_links
from gossiplib.protocols.diffusion import ExactDiffusion
from gossiplib.protocols.momentum import QuasiGlobalMomentum
from gossiplib.protocols.tracking import GradientTracking
from gossiplib.system.records import array_bytes

N, D, STEP = 8, 2, 0.1
RING = nx.cycle_graph(N)
W = mixing.metropolis(RING)
LAZY = (np.eye(N) + W) / 2
RNG = np.random.default_rng(0)
B = RNG.normal(size=(N, D))
ROOTS = RNG.normal(size=(N, D, D))
H = ROOTS @ ROOTS.transpose(0, 2, 1) / 2 + 0.3 * np.eye(D)
BEST = np.linalg.solve(H.sum(axis=0), np.einsum("nij,nj->i", H, B))
PLAIN, TRACKING = weighted_mean, GradientTracking()
DIFFUSION, MOMENTUM = ExactDiffusion(), QuasiGlobalMomentum(0.8, mu=0.9)
EXACT = pytest.mark.parametrize("average", [TRACKING, DIFFUSION], ids=str)


def shrink(steps=1, step=STEP):
    """Return what K local steps leave of the way to each client's own optimum."""
    return np.linalg.matrix_power(np.eye(D) - step * H, steps)


def train(x, steps=1, step=STEP):
    """Return the models after training."""
    return B + np.einsum("nij,nj->ni", shrink(steps, step), x - B)


def rest(W, steps=1, step=STEP):
    """Return where X = W train(X), by a linear system of all clients' numbers.

    With z = train(x) and one step it is (I - W) z / η + W ∇f = 0, in other words.
    """
    left = shrink(steps, step)
    matrix, constant = np.zeros((N, D, N, D)), np.zeros((N, D))
    for i in range(N):
        for j in range(N):
            matrix[i, :, j] = W[i, j] * left[j]
            constant[i] += W[i, j] * (np.eye(D) - left[j]) @ B[j]
    system = np.eye(N * D) - matrix.reshape(N * D, N * D)
    return np.linalg.solve(system, constant.ravel()).reshape(N, D)


def federated(steps=1):
    """Return where FedAvg rests: a complete graph."""
    return rest(np.full((N, N), 1 / N), steps)


def run(
    average, rounds, W=W, train=train, start=None, lose=None, states=None, away=None
):
    """Return the models of all rounds, by messages: each client is called alone."""
    states = states or [RecordDict() for _ in range(N)]
    x = np.zeros((N, D)) if start is None else start
    send = getattr(average, "send", lambda model, context: model)
    found = [x]
    for t in range(1, rounds + 1):
        now = W(t) if callable(W) else W
        models = [[row] for row in train(x)]
        said = [send(models[i], in_round(i, t, state=states[i])) for i in range(N)]
        new = []
        for i in range(N):
            if away and away(i, t):
                new.append(x[i])
                continue
            near = [j for j in np.flatnonzero(now[i]) if j != i]
            near = [j for j in near if not (lose and lose(i, j, t))]
            weights = now[i, [i, *near]]
            weights[0] = 1 - weights[1:].sum()
            turn = in_round(i, t, senders=near, state=states[i])
            new.append(average(models[i], [said[j] for j in near], weights, turn)[0])
        x = np.array(new)
        found.append(x)
    return np.array(found)


def error(x, target=BEST):
    return np.abs(x - target).max()


# Rest points --------------------------------------------------------------------------


@EXACT
def test_corrected_models_meet_at_the_optimum(average):
    assert error(run(average, 900)[-1]) < 1e-8


@pytest.mark.parametrize("average", [PLAIN, MOMENTUM], ids=["plain", "momentum"])
def test_others_miss_it_by_what_theory_says(average):
    at_rest = rest(W)
    assert error(at_rest) > 0.1
    assert error(run(average, 900)[-1], at_rest) < 1e-8


def test_what_plain_averaging_misses_grows_with_the_step():
    """Of first order, and no more than η λ / (1 - λ) allows; gradients sum to 0."""
    for step in (0.1, 0.05, 0.001):
        x = rest(W, step=step)
        gradients = np.einsum("nij,nj->ni", H, x - B)
        assert np.allclose(gradients.sum(axis=0), 0, atol=1e-10)
        apart = np.linalg.norm(x - x.mean(axis=0))
        rate = mixing.slem(W)
        assert apart <= step * rate / (1 - rate) * np.linalg.norm(gradients) + 1e-12
    ratio = error(rest(W, step=0.002)) / error(rest(W, step=0.001))
    assert ratio == pytest.approx(2, rel=0.01)


@EXACT
@pytest.mark.parametrize("steps", [5, 20])
def test_with_local_steps_they_rest_where_fedavg_does(average, steps):
    """So the graph costs nothing more; but that is not the optimum either."""
    target = federated(steps)
    assert np.ptp(target, axis=0).max() < 1e-12 and error(target) > 0.01

    def longer(x):
        return train(x, steps)

    assert error(run(average, 600, train=longer)[-1], target) < 1e-8
    assert error(rest(W, steps)) > 3 * error(target)


@pytest.mark.parametrize("steps", [1, 5, 20])
def test_added_to_each_local_step_the_correction_removes_that_drift_too(steps):
    """K-GT, of which the rule for c_i is tracking's; Liu et al., arXiv:2301.01313."""
    x, c = np.zeros((N, D)), np.zeros((N, D))
    for _ in range(2000):
        y = x
        for _ in range(steps):
            y = train(y, step=STEP / 5) + c / steps
        moved = y - x  # z_i: c_i and the gradients
        x, c = W @ y, c - (moved - W @ moved)
    assert error(x) < 1e-8


def test_a_clients_own_momentum_only_enlarges_the_step():
    """A velocity of its own, β v + u_i, rests where a step of η / (1 - β) does."""
    beta, v = 0.5, np.zeros((N, D))
    x = np.zeros((N, D))
    for _ in range(600):
        v = beta * v + train(x) - x
        x = W @ (x + v)
    assert error(x, rest(W, step=STEP / (1 - beta))) < 1e-8
    assert error(x) > 1.5 * error(rest(W))


# Oracles: the papers' iterations, in plain numpy -------------------------------------


def gradient(x):
    return np.einsum("nij,nj->ni", H, x - B)


def test_tracking_is_the_textbooks():
    found = run(TRACKING, 60)
    x = found[1]  # the first round is a plain one
    y = gradient(x)
    for t in range(2, 61):
        new = W @ (x - STEP * y)
        y = W @ y + gradient(new) - gradient(x)
        x = new
        assert np.allclose(found[t], x, rtol=0, atol=1e-12)


def test_diffusion_is_d2_and_exact_diffusion():
    found = run(DIFFUSION, 60)
    before, x = found[0], found[1]
    assert np.allclose(x, LAZY @ (before - STEP * gradient(before)))
    psi = before - STEP * gradient(before)
    for t in range(2, 61):
        d2 = LAZY @ (2 * x - before - STEP * (gradient(x) - gradient(before)))
        new_psi = x - STEP * gradient(x)
        exact, psi = LAZY @ (new_psi + x - psi), new_psi
        before, x = x, d2
        assert np.allclose(found[t], d2, rtol=0, atol=1e-12)
        assert np.allclose(found[t], exact, rtol=0, atol=1e-12)


def test_momentum_is_the_papers():
    found = run(MOMENTUM, 60)
    x, m = found[1], np.zeros((N, D))
    for t in range(2, 61):
        new = W @ (x - STEP * (0.8 * m + gradient(x)))
        m = 0.9 * m + 0.1 * (x - new) / STEP
        x = new
        assert np.allclose(found[t], x, rtol=0, atol=1e-12)


def test_without_lazy_weights_d2_does_not_hold_on_every_graph():
    """Each client hears its two neighbours and not itself: -1 is an eigenvalue."""
    swap = nx.to_numpy_array(RING) / 2
    assert np.linalg.eigvalsh(swap).min() < -1 / 3
    before = np.zeros((N, D))
    x = swap @ train(before)
    for _ in range(100):
        psi = x + train(x) - train(before)
        before, x = x, swap @ psi
    assert error(x) > 1e6
    assert error(run(DIFFUSION, 900, W=swap)[-1]) < 1e-8


# On Flower, with what an app trains --------------------------------------------------


@pytest.mark.parametrize(
    "average", [TRACKING, DIFFUSION, MOMENTUM, PLAIN], ids=["GT", "D2", "QGM", "plain"]
)
def test_on_flower_it_is_the_same_and_costs_what_it_says(average):
    app = ClientApp()

    @app.train()
    def step(message, context):
        i = context.node_config["partition-id"]
        (x,) = message.content["arrays"].to_numpy_ndarrays()
        x = B[i] + shrink()[i] @ (x - B[i])
        metrics = MetricRecord({"num-examples": 1})
        content = {"arrays": ArrayRecord([x]), "metrics": metrics}
        return Message(RecordDict(content), reply_to=message)

    grid = LocalGrid(gossip(app, average=average), N)
    strategy = Gossip(RING, evaluate_every=0)
    result = strategy.start(grid, ArrayRecord([np.zeros(D)]), 12)
    assert np.allclose(result.models(), run(average, 12)[-1], rtol=0, atol=1e-12)
    vectors = 2 if average is TRACKING else 1
    assert result.bytes[12] == 2 * N * vectors * array_bytes(ArrayRecord([np.zeros(D)]))


# Losses ------------------------------------------------------------------------------


def corrections(states):
    names = [k for k in states[0] if k.endswith("correction")]
    return sum(states[i][k].to_numpy_ndarrays()[0] for i in range(N) for k in names)


def both_ways(schedule):
    """Return W of each round of a schedule."""
    return lambda t: mixing.metropolis(schedule(t))


@EXACT
def test_links_that_fail_both_ways_do_not_matter(average):
    states = [RecordDict() for _ in range(N)]
    lossy = both_ways(drop_links(RING, 0.2, seed=1))
    assert error(run(average, 1500, W=lossy, states=states)[-1]) < 1e-8
    assert np.allclose(corrections(states), 0, atol=1e-12)


@EXACT
def test_who_comes_late_or_is_away_for_a_while_is_no_harm(average):
    """Client 5 joins in round 21, and client 2 is away from 100 to 150."""

    def away(i, t):
        return i == 5 and t <= 20 or i == 2 and 100 <= t < 150

    def weights(t):
        here = [i for i in range(N) if not away(i, t)]
        graph = RING.subgraph(here).copy()
        graph.add_nodes_from(range(N))
        return mixing.metropolis(graph)

    states = [RecordDict() for _ in range(N)]
    x = run(average, 1100, W=weights, away=away, states=states)[-1]
    assert error(x) < 1e-8
    assert np.allclose(corrections(states), 0, atol=1e-12)


@EXACT
def test_what_is_lost_one_way_at_the_start_stays_and_near_rest_does_not_matter(average):
    def lose(when):
        return lambda i, j, t: (i, j) == (2, 3) and t in when

    states = [RecordDict() for _ in range(N)]
    early = run(average, 900, lose=lose(range(3, 8)), states=states)[-1]
    assert not np.allclose(corrections(states), 0, atol=1e-4)
    assert np.ptp(early, axis=0).max() < 1e-8  # they meet, but elsewhere
    gradients = np.einsum("nij,nj->i", H, early - B)
    assert np.allclose(STEP * gradients, corrections(states), atol=1e-8)
    late = run(average, 1500, lose=lose(range(1000, 1005)))[-1]
    assert error(late) < 1e-8


# Arrays of other kinds ---------------------------------------------------------------


@pytest.mark.parametrize("average", [TRACKING, DIFFUSION, MOMENTUM], ids=str)
def test_whole_numbers_and_masks_are_left_alone(average):
    """What cannot be corrected is averaged as ever; in a mask nothing becomes NaN."""
    state = RecordDict()
    numbers, mask = np.array([2**60, 7]), np.array([-np.inf, 0.0], dtype="f4")
    own = [numbers, mask, np.ones(2, dtype="f4")]
    for t in range(1, 5):
        turn = in_round(0, t, senders=[1], state=state)
        message = average.send(own, turn)
        assert not any(np.isnan(a).any() for a in message if a.dtype.kind == "f")
        made = average(own, [message], np.array([0.5, 0.5]), turn)
        assert [a.dtype for a in made] == [a.dtype for a in own]
        assert np.array_equal(made[0], numbers) and np.array_equal(made[1], mask)
        own = [*made[:2], made[2] - made[2].dtype.type(0.1)]


@pytest.mark.parametrize("average", [TRACKING, DIFFUSION, MOMENTUM], ids=str)
def test_a_message_that_makes_no_sense_counts_as_lost(average):
    turn = in_round(0, 1, senders=[1])
    own = [np.arange(3.0)]
    average.send(own, turn)
    made = average(own, [[np.ones(2)]], np.array([0.4, 0.6]), turn)
    assert np.array_equal(made[0], own[0]) and list(turn.unread) == [1]


def test_momentum_wants_shares_below_one():
    for name in ("beta", "mu"):
        for value in (-0.1, 1, 1.5, "x"):
            with pytest.raises((ValueError, TypeError), match=name):
                QuasiGlobalMomentum(**{name: value})
