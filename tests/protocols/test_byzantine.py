"""Lies, at the receiver: formulas of the papers, other libraries, both engines."""

import networkx as nx
import numpy as np
import pytest
from contexts import flat, in_round
from scipy import stats
from test_robust import even, models

from gossiplib.core.averaging import per_client, weighted_mean
from gossiplib.core.topology import named
from gossiplib.protocols import byzantine, robust
from gossiplib.protocols.byzantine import AttackView, Byzantine
from gossiplib.vectorized.consensus import averaging_rounds
from other_libraries import byzfl

ATTACKS = {
    "sign flip": byzantine.SignFlip(2.0),
    "noise": byzantine.Noise(0.5, seed=3),
    "a little": byzantine.ALittleIsEnough(1.5),
    "inconsistent": byzantine.Inconsistent(2.0),
    "dissensus": byzantine.Dissensus(1.5),
}


def view(honest=4, liars=2, client=0, server_round=1):
    own, *others = models(1 + honest + liars)
    weights = np.random.default_rng(1).dirichlet(np.ones(1 + honest + liars))
    near = weights[1:]
    return AttackView(
        own,
        others[:honest],
        others[honest:],
        near[:honest],
        near[honest:],
        in_round(client, server_round, senders=range(1, 1 + honest + liars)),
    )


def test_sign_flip_is_byzfl_s_of_the_liar_s_own_model():
    here = view()
    lies = byzantine.SignFlip()(here)
    for lie, true in zip(lies, here.true, strict=True):
        assert np.allclose(flat(lie), byzfl("attacks").SignFlipping()(flat(true)[None]))


def test_a_little_is_byzfl_s():
    here = view()
    rows = np.stack([flat(m) for m in (here.own, *here.honest)])
    expected = byzfl("attacks").ALittleIsEnough(tau=-1.5)(rows)
    for lie in byzantine.ALittleIsEnough(1.5)(here):
        assert np.allclose(flat(lie), expected)
    alone = byzantine.ALittleIsEnough(1.5)(view(honest=0, liars=1))
    assert np.allclose(flat(alone[0]), flat(view(honest=0, liars=1).own))


def test_z_is_the_paper_s_and_what_it_promises():
    # Baruch et al. 2019, Algorithm 3, with n = 50 and m = 24: s = 2, Φ(z) = 24/26.
    assert np.isclose(byzantine.z_max(50, 24), stats.norm.ppf(24 / 26))
    for n, m in ((11, 2), (11, 5), (51, 24)):
        beyond = (n - m) * stats.norm.sf(byzantine.z_max(n, m))  # honest ones
        assert np.isclose(beyond + m, n // 2 + 1)  # a majority
    for n, m in ((10, 0), (10, 6)):
        with pytest.raises(ValueError, match=f"liars among {n} models; there are {m}"):
            byzantine.z_max(n, m)


def test_z_is_the_formula_s_unless_given():
    here = view(honest=5, liars=4)
    z = byzantine.z_max(10, 4)
    lie, given = (
        byzantine.ALittleIsEnough()(here),
        byzantine.ALittleIsEnough(z)(here),
    )
    assert np.allclose(flat(lie[0]), flat(given[0])) and z > 0.1


def test_noise_is_normal_and_fresh():
    big = np.zeros(20_000)
    near = AttackView(
        [big], [], [[big], [big]], even(1)[:0], even(2), in_round(3, 5, senders=[1, 2])
    )
    a, b = (flat(lie) / 0.5 for lie in byzantine.Noise(0.5)(near))
    assert stats.kstest(a, "norm").pvalue > 0.01
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.03
    again = flat(byzantine.Noise(0.5)(near)[0]) / 0.5
    assert np.array_equal(a, again)
    for other in (in_round(4, 5, senders=[1, 2]), in_round(3, 6, senders=[1, 2])):
        c = flat(byzantine.Noise(0.5)(near._replace(context=other))[0]) / 0.5
        assert abs(np.corrcoef(a, c)[0, 1]) < 0.03
    d = flat(byzantine.Noise(0.5, seed=1)(near)[0]) / 0.5
    assert abs(np.corrcoef(a, d)[0, 1]) < 0.03


def test_inconsistent_lies_pull_apart():
    even_one, odd = (view(client=i) for i in (4, 7))
    attack = byzantine.Inconsistent(2.0)
    pulls = [flat(attack(s)[0]) - flat(s.own) for s in (even_one, odd)]
    assert np.allclose(pulls[0], -pulls[1])
    assert np.allclose([np.linalg.norm(p) for p in pulls], 2)


@pytest.mark.parametrize("epsilon", [0.5, 1, 2])
def test_dissensus_is_the_paper_s(epsilon):
    """x_i - ε Σ_honest w_ik (x_k - x_i) / Σ_liars w_ij, so W moves by 1 - ε."""
    here = view()
    pull = sum(
        w * (flat(m) - flat(here.own))
        for w, m in zip(here.honest_weights, here.honest, strict=True)
    )
    lie = byzantine.Dissensus(epsilon)(here)[1]
    expected = flat(here.own) - epsilon * pull / here.true_weights.sum()
    assert np.allclose(flat(lie), expected)


@pytest.mark.parametrize("name", ["complete", "regular", "barbell"])
def test_with_dissensus_1_whoever_hears_a_liar_stands_still(name):
    start = np.random.default_rng(0).normal(size=(12, 3))
    graph = named(name, 12)
    attack = Byzantine(weighted_mean, [0, 7], byzantine.Dissensus(1.0))
    end, _ = next(averaging_rounds(start, graph, average=attack))
    honest = [i for i in graph if i not in (0, 7)]
    hears = [bool({0, 7} & set(graph[i])) for i in honest]
    moved = np.abs(end - start)[honest].max(axis=1) > 1e-9
    assert moved.tolist() == [not h for h in hears]


def tells_who_and_when(view):
    """Say who sends, who receives, and when: what an attack may know."""
    now = view.context
    known = now.senders.sum(axis=0) + now.clients + now.server_round
    return [[0 * a + per_client(known, a) for a in m] for m in view.true]


KNOWING = ATTACKS | {"tells who": tells_who_and_when}


@pytest.mark.parametrize("attack", KNOWING.values(), ids=KNOWING)
def test_many_receivers_hear_what_each_hears_alone(attack):
    heard = {}

    def note(own, neighbours, weights, context):
        heard["models"] = neighbours
        return own

    own, *others = models(6, clients=(9,))
    weights = np.random.default_rng(1).dirichlet(np.ones(6), size=9).T
    rng = np.random.default_rng(2)
    senders = np.stack([rng.choice(20, 5, replace=False) for _ in range(9)]).T
    liars = [1, 4, 5, 8, 12]
    average = Byzantine(note, liars, attack)
    ids = rng.permutation(20)[:9]
    average(own, others, weights, in_round(ids, senders=senders))
    together = heard["models"]
    touched = 0
    for i in range(9):
        near = [[a[i] for a in m] for m in others]
        at = in_round(int(ids[i]), senders=senders[:, i])
        average([a[i] for a in own], near, weights[:, i], at)
        for k, model in enumerate(heard["models"]):
            assert np.allclose(flat([a[i] for a in together[k]]), flat(model))
            lied = not np.array_equal(flat(model), flat(near[k]))
            assert lied == (senders[k, i] in liars and ids[i] not in liars)
            touched += lied
    assert touched > 5


def test_liars_do_not_lie_to_each_other_or_without_receivers():
    start = np.random.default_rng(0).normal(size=(4, 2))
    average = Byzantine(weighted_mean, [0, 1, 2, 3], byzantine.SignFlip(100))
    end, _ = next(averaging_rounds(start, nx.complete_graph(4), average=average))
    assert np.allclose(end, start.mean(axis=0))


def test_a_cut_vertex_that_agrees_with_everyone_keeps_groups_apart():
    start = np.repeat([0.0, 0.5, 1.0], [5, 1, 5])[:, None]
    for rule in (weighted_mean, robust.coordinate_median, robust.ClippedGossip(1)):
        average = Byzantine(rule, [5], lambda here: [here.own] * len(here.true))
        rounds = averaging_rounds(start, nx.barbell_graph(5, 1), average=average)
        end = [next(rounds)[0] for _ in range(30)][-1]
        assert np.allclose(end[:5], 0) and np.allclose(end[6:], 1)


def test_the_order_of_nodes_does_not_matter():
    attack = byzantine.SignFlip()
    found = Byzantine(weighted_mean, np.array([3, 1]), attack)
    assert found == Byzantine(weighted_mean, (1, 3), attack)


def test_bad_attacks_are_refused():
    own, *others = models(3)
    here = (own, others, even(3), in_round(senders=[1, 2]))
    with pytest.raises(ValueError, match="made 2 lies for 1 liars"):
        Byzantine(weighted_mean, [1], lambda s: [s.own, s.own])(*here)
    with pytest.raises(ValueError, match="a lie has arrays of shapes"):
        Byzantine(weighted_mean, [1], lambda s: [s.own[:1]])(*here)


def test_what_is_no_model_cannot_be_lied_about():
    class Compressing:
        def send(self, model, context):
            return model

    with pytest.raises(ValueError, match="its `send` would have to lie"):
        Byzantine(Compressing(), [1], byzantine.SignFlip())
