"""Average functions that withstand liars: other libraries' results, and theory."""

import numpy as np
import pytest
from contexts import flat, in_round
from scipy import stats

from gossiplib.core import mixing
from gossiplib.core.averaging import weighted_mean
from gossiplib.core.topology import named
from gossiplib.protocols import robust
from gossiplib.protocols.byzantine import Byzantine
from gossiplib.vectorized.consensus import averaging_rounds
from other_libraries import byzfl

SHAPES = [(4, 3), (5,), ()]


def models(n, seed=0, clients=(), dtype=np.float64):
    rng = np.random.default_rng(seed)
    return [
        [rng.normal(size=clients + s).astype(dtype) for s in SHAPES] for _ in range(n)
    ]


def clipped_knowing(liars):
    """Return ClippedGossip with the radius of theory, which no client can know.

    τ_i² = (1/δ_i) Σ_{honest j} w_ij ‖x_i - x_j‖², where δ_i is the weight of the liars;
    without any, the radius is infinite.
    """

    def average(own, neighbours, weights, context):
        far = robust.distances(own, neighbours, context.batch)
        lies, w = np.isin(context.senders, liars), weights[1:]
        with np.errstate(divide="ignore"):
            squares = (w * far**2)[~lies].sum(axis=0) / w[lies].sum(axis=0)
        return robust.clip(own, neighbours, weights, far, np.sqrt(squares))

    return average


def even(n):
    return np.full(n, 1 / n)


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_median_is_byzfl_s_and_numpy_s(n):
    own, *others = models(n)
    found = flat(robust.coordinate_median(own, others, even(n)))
    rows = np.stack([flat(m) for m in (own, *others)])
    assert np.array_equal(found, [np.median(column) for column in rows.T])
    assert np.allclose(found, byzfl("aggregators").Median()(rows))


@pytest.mark.parametrize(("n", "f"), [(1, 1), (3, 1), (5, 0), (5, 2), (8, 3)])
def test_trimmed_mean_is_byzfl_s_and_scipy_s(n, f):
    own, *others = models(n)
    found = flat(robust.TrimmedMean(f)(own, others, even(n)))
    rows = np.stack([flat(m) for m in (own, *others)])
    if n == 1:
        assert np.array_equal(found, rows[0])
        return
    assert np.allclose(found, stats.trim_mean(rows, (f + 0.5) / n, axis=0))
    assert np.allclose(found, byzfl("aggregators").TrMean(f)(rows))


def test_trimmed_mean_of_three_with_one_liar_is_the_median():
    own, *others = models(3)
    trimmed = robust.TrimmedMean(1)(own, others, even(3))
    assert np.allclose(flat(trimmed), flat(robust.coordinate_median(own, others)))


def krum_by_hand(rows, f, keep):
    """Return the mean of the `keep` rows with the smallest scores, one by one."""
    scores = []
    for a in range(len(rows)):
        far = [sum((rows[a] - rows[b]) ** 2) for b in range(len(rows)) if b != a]
        scores.append(sum(sorted(far)[: len(rows) - f - 2]))
    order = sorted(range(len(rows)), key=scores.__getitem__)
    return np.mean([rows[a] for a in order[:keep]], axis=0)


@pytest.mark.parametrize(
    ("n", "f", "keep"), [(5, 1, 1), (8, 2, 3), (11, 4, 7), (4, 0, 1)]
)
def test_krum_is_the_paper_s(n, f, keep):
    for seed in range(5):
        own, *others = models(n, seed)
        found = robust.Krum(f, keep)(own, others, even(n), in_round())
        rows = np.stack([flat(m) for m in (own, *others)])
        assert np.allclose(flat(found), krum_by_hand(rows, f, keep))


@pytest.mark.parametrize(("n", "f"), [(5, 1), (8, 3), (11, 4)])
def test_krum_is_byzfl_s_which_adds_up_one_distance_more(n, f):
    """n - f - 1 distances, where the paper has n - f - 2: as ours if f is one less."""
    own, *others = models(n)
    rows = np.stack([flat(m) for m in (own, *others)])
    for keep, theirs in ((1, "Krum"), (n - f, "MultiKrum")):
        found = robust.Krum(f - 1, keep)(own, others, even(n), in_round())
        expected = getattr(byzfl("aggregators"), theirs)(f)(rows)
        assert np.allclose(flat(found), expected)


def test_krum_keeps_no_more_than_may_be_honest():
    own, *others = models(7)
    most = robust.Krum(2, keep=5)(own, others, even(7), in_round())
    more = robust.Krum(2, keep=100)(own, others, even(7), in_round())
    assert np.array_equal(flat(most), flat(more))


def test_of_equal_scores_krum_takes_its_own_then_the_first_to_come():
    own, *others = ([np.array([x])] for x in (10.0, 0.0, 11.0, 1.0))  # all 1 from one
    for keep, mean in ((1, 10.0), (2, 5.0), (3, 7.0)):
        (found,) = robust.Krum(1, keep)(own, others, even(4), in_round())
        assert found == pytest.approx(mean)


def test_krum_takes_no_lie_far_away_and_needs_f_and_two_neighbours():
    own, *others = models(6)
    others[2] = [a + 1e9 for a in others[2]]
    for keep in (1, 5):
        found = robust.Krum(1, keep)(own, others, even(6), in_round())
        assert np.abs(flat(found)).max() < 10
    alone = robust.Krum(1)(own, others[:2], even(3), in_round())
    assert np.array_equal(flat(alone), flat(own))


def test_clipping_is_that_of_byzfl_s_centered_clipping():
    """One step from the own model: x + mean of clip(x_j - x), the own term being 0."""
    own, *others = models(6)
    step = byzfl("aggregators").CenteredClipping(L=1, tau=2.0)
    step.m = flat(own)
    expected = step(np.stack([flat(m) for m in others]))
    # all weight is the neighbours': 1/5 each
    weights = np.array([0, *even(5)])
    far = robust.distances(own, others)
    found = robust.clip(own, others, weights, far, 2.0)
    assert np.allclose(flat(found), expected)


@pytest.mark.parametrize("radius", [0.0, 0.5, 3.0, np.inf])
def test_clip_shortens_differences_to_the_radius(radius):
    own, *others = models(5)
    weights = np.random.default_rng(1).dirichlet(np.ones(5))
    expected = flat(own)
    for w, other in zip(weights[1:], others, strict=True):
        apart = flat(other) - flat(own)
        far = np.linalg.norm(apart)
        expected = expected + w * (apart if far <= radius else apart / far * radius)
    far = robust.distances(own, others)
    found = robust.clip(own, others, weights, far, radius)
    assert np.allclose(flat(found), expected)


def test_the_norm_is_over_all_arrays_of_a_model():
    own, *others = models(4)
    found = robust.distances(own, others)
    assert np.allclose(found, [np.linalg.norm(flat(o) - flat(own)) for o in others])


def test_a_radius_that_clips_nobody_is_plain_averaging():
    own, *others = models(5)
    weights = np.random.default_rng(1).dirichlet(np.ones(5))
    plain = flat(weighted_mean(own, others, weights))
    assert np.allclose(
        flat(robust.ClippedGossip(0)(own, others, weights, in_round())), plain
    )
    context = in_round(senders=[1, 2, 3, 4])
    knowing = clipped_knowing([9])(own, others, weights, context)
    assert np.allclose(flat(knowing), plain)


def clipped_one_by_one(own, others, weights, f):
    """Return what ClippedGossip makes of flat models, by a loop over neighbours."""
    apart = [other - own for other in others]
    tau = sorted((np.linalg.norm(d) for d in apart), reverse=True)[f]
    moved = own.copy()
    for w, d in zip(weights[1:], apart, strict=True):
        moved += w * d * min(1, tau / np.linalg.norm(d))
    return moved


@pytest.mark.parametrize("f", [0, 1, 3])
def test_the_radius_leaves_out_the_f_farthest(f):
    rng = np.random.default_rng(f)
    for scale in (1e-3, 1, 1e6):
        own, *others = models(6)
        others[2] = [scale * a for a in others[2]]
        weights = rng.dirichlet(np.ones(6))
        found = flat(robust.ClippedGossip(f)(own, others, weights, in_round()))
        rows = [flat(m) for m in others]
        assert np.allclose(found, clipped_one_by_one(flat(own), rows, weights, f))


def test_with_one_liar_the_radius_is_that_of_the_authors_program():
    """The second largest distance; then a step of byzfl's clipping is the same."""
    own, *others = models(6)
    rows = np.stack([flat(m) for m in others])
    step = byzfl("aggregators").CenteredClipping(
        L=1, tau=np.sort(np.linalg.norm(rows - flat(own), axis=1))[-2]
    )
    step.m = flat(own)
    weights = np.array([0, *even(5)])
    found = robust.ClippedGossip(1)(own, others, weights, in_round())
    assert np.allclose(flat(found), step(rows))


def test_no_lie_moves_a_client_farther_than_its_farthest_honest_neighbour_may():
    rng = np.random.default_rng(0)
    for _ in range(500):
        k = int(rng.integers(1, 9))
        f = int(rng.integers(0, k))
        own, *others = ([rng.normal(size=3)] for _ in range(k + 1))
        honest = others[f:]
        for lie in others[:f]:
            lie[0] *= 10 ** rng.uniform(-4, 4)
        weights = rng.dirichlet(np.ones(k + 1))
        moved = robust.ClippedGossip(f)(own, others, weights, in_round())[0] - own[0]
        longest = max(np.linalg.norm(x[0] - own[0]) for x in honest)
        assert np.linalg.norm(moved) <= longest * weights[1:].sum() * (1 + 1e-9)


def test_as_many_yes_men_as_others_stop_an_honest_client():
    """Each lie is at distance 0, and so is the nearest of those that are kept."""
    own, *others = models(6)
    for liars, stands in ((2, False), (3, True)):
        told = [own] * liars + others[liars:]
        found = robust.ClippedGossip(liars)(own, told, even(6), in_round())
        assert np.allclose(flat(found), flat(own)) == stands


def test_a_client_with_no_more_than_f_neighbours_trusts_nobody():
    own, *others = models(3)
    found = robust.ClippedGossip(2)(own, others, even(3), in_round())
    assert np.allclose(flat(found), flat(own))


AVERAGES = {
    "median": robust.coordinate_median,
    "trimmed": robust.TrimmedMean(1),
    "clipped": robust.ClippedGossip(1),
    "krum": robust.Krum(1),
    "multi-krum": robust.Krum(1, keep=10),
    "oracle": clipped_knowing([2]),
}


def test_too_few_neighbours_are_named():
    own, *others = models(4)
    with pytest.raises(ValueError, match="client 7 has 3 neighbours.* needs 4 or more"):
        robust.TrimmedMean(2)(own, others, even(4), in_round(7, senders=[1, 2, 3]))


@pytest.mark.parametrize("f", [-1, 1.5])
def test_f_is_a_number_of_liars(f):
    for rule in (robust.TrimmedMean, robust.ClippedGossip, robust.Krum):
        with pytest.raises(ValueError, match="f must be a whole number, at least 0"):
            rule(f)
    with pytest.raises(ValueError, match="keep must be a whole number, at least 1"):
        robust.Krum(1, keep=0)


def after(average, rounds=20):
    """Return the start and what one liar of 11 that says 1000 makes of it."""
    start = np.random.default_rng(0).normal(size=(11, 10))

    def says_1000(view):
        return [[np.full_like(a, 1000.0) for a in m] for m in view.true]

    told = Byzantine(average, [0], says_1000)
    steps = averaging_rounds(start, named("complete", 11), average=told)
    return start[1:], [next(steps)[0] for _ in range(rounds)][-1][1:]


def test_one_liar_moves_plain_averaging_as_theory_says():
    start, end = after(weighted_mean)
    mean = start.mean(axis=0)
    theory = mean + (1 - (10 / 11) ** 20) * (1000 - mean)
    assert np.allclose(end.mean(axis=0), theory)
    assert np.linalg.norm(end.mean(axis=0) - mean) > 1000


@pytest.mark.parametrize("average", AVERAGES.values(), ids=AVERAGES)
def test_defences_keep_the_drift_below_5(average):
    if average is AVERAGES["oracle"]:
        average = clipped_knowing([0])
    start, end = after(average)
    assert np.linalg.norm(end.mean(axis=0) - start.mean(axis=0)) < 5
    assert mixing.consensus_distance(end) < 1e-6 * mixing.consensus_distance(start)
