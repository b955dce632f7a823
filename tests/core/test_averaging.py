"""Average functions on lists of arrays."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pytest

from gossiplib.core.averaging import (
    SoftmaxDistance,
    name_of,
    softmax_distance_weights,
    weighted_mean,
)
from gossiplib.core.models import check_model


def models(count, seed=0):
    rng = np.random.default_rng(seed)
    return [
        [rng.normal(size=(2, 3)).astype("f4"), rng.normal(size=4), rng.normal(size=())]
        for _ in range(count)
    ]


def outputs(count, examples=7, classes=4, seed=0):
    logits = np.random.default_rng(seed).normal(size=(count, examples, classes))
    return np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("count", [0, 1, 4])
def test_weighted_mean_is_the_weighted_mean(count):
    own, *others = models(1 + count)
    weights = np.random.default_rng(1).dirichlet(np.ones(1 + count))
    mixed = weighted_mean(own, others, weights)
    for k, layer in enumerate(mixed):
        wide = np.stack([m[k].astype("f8") for m in [own, *others]])
        expected = np.tensordot(weights, wide, axes=1)
        # What is left is the rounding of the result to its own data type.
        assert np.allclose(layer, expected, rtol=np.finfo(layer.dtype).eps)


@pytest.mark.parametrize(
    "dtype", ["f2", "f4", "f8", ">f4", "i1", "i4", "i8", "u1", "bool"]
)
def test_shapes_and_data_types_are_kept(dtype):
    own = [
        np.array([[1, 0], [1, 1]], dtype),
        np.array(1, dtype),
        np.ones((0, 3), dtype),
    ]
    mixed = weighted_mean(own, [own, own], [0.5, 0.25, 0.25])
    for layer, mine in zip(mixed, own, strict=True):
        assert isinstance(layer, np.ndarray)
        assert layer.dtype == mine.dtype and layer.shape == mine.shape
        assert np.array_equal(layer, mine)


def test_sums_are_wide():
    # In float16 the sum would overflow, and each small part would be lost.
    big, small = np.array([60000], "f2"), np.array([1e-4], "f2")
    assert weighted_mean([big], [[big], [big]], [0.5, 0.25, 0.25])[0] == big
    assert weighted_mean([small], [[small]] * 999, np.full(1000, 1e-3))[0] == small


def test_counters_are_rounded():
    mixed = weighted_mean([np.array([3, 7])], [[np.array([4, 9])]], [0.4, 0.6])
    assert mixed[0].tolist() == [4, 8]


def test_flags_go_with_the_heavier_side():
    own, other = [np.array([True, False, False])], [np.array([True, True, False])]
    assert weighted_mean(own, [other], [0.7, 0.3])[0].tolist() == [True, False, False]


def test_inputs_are_unchanged():
    own, *others = models(3)
    weights = np.array([0.5, 0.25, 0.25])
    kept = [[a.copy() for a in m] for m in [own, *others]]
    for model in [own, *others]:
        for array in model:
            array.flags.writeable = False
    mixed = weighted_mean(own, others, weights)
    SoftmaxDistance(lambda m, c: np.abs(m[0]))(own, others, weights, None)
    for model, before in zip([own, *others], kept, strict=True):
        assert all(map(np.array_equal, model, before))
    assert not any(np.shares_memory(a, b) for a, b in zip(mixed, own, strict=True))


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ([0.5, 0.5], "3 models need as many weights, not 2"),
        ([0.5, 0.5, 0.5], "sum to 1, not to 1.5"),
        ([0.5, 0.25, np.nan], "sum to 1, not to nan"),
        ([], "not 0"),
        ([[1.0, 0.0, 0.0]], "as many weights"),
    ],
)
def test_weighted_mean_refuses_wrong_weights(weights, says):
    with pytest.raises(ValueError, match=says):
        weighted_mean(*split(models(3)), weights)


def split(all_models):
    return all_models[0], all_models[1:]


@pytest.mark.parametrize("alpha", [-2, -1, 0, 0.5, 1, 3])
@pytest.mark.parametrize("self_weight", [0.0, 0.3, 1.0])
def test_softmax_distance_weights_are_those_of_algorithm_2(alpha, self_weight):
    own, *others = outputs(4)
    distances = []
    for theirs in others:
        cosine_distances = []
        for mine, its in zip(own, theirs, strict=True):
            product = sum(a * b for a, b in zip(mine, its, strict=True))
            lengths = sum(a * a for a in mine) ** 0.5 * sum(b * b for b in its) ** 0.5
            cosine_distances.append(1 - product / lengths)
        distances.append(sum(cosine_distances) / len(cosine_distances))
    total = sum(d**alpha for d in distances)
    expected = [self_weight, *((1 - self_weight) * d**alpha / total for d in distances)]
    weights = softmax_distance_weights(
        own, others, self_weight=self_weight, alpha=alpha
    )
    assert np.allclose(weights, expected, rtol=1e-9)  # rounding of both sums


def test_alpha_decides_whom_a_client_listens_to():
    own, near, far = np.array([[[0.8, 0.2]], [[0.7, 0.3]], [[0.1, 0.9]]])
    for alpha, sign in [(2, 1), (0, 0), (-2, -1)]:
        _, to_near, to_far = softmax_distance_weights(
            own, [near, far], self_weight=0.5, alpha=alpha
        )
        assert np.sign(round(to_far - to_near, 12)) == sign


@pytest.mark.parametrize(
    ("alpha", "expected"),
    [
        (-1, [0.4, 0.3, 0.3, 0]),  # ∞ / ∞: those at distance 0 share all
        (0, [0.4, 0.2, 0.2, 0.2]),
        (1, [0.4, 0, 0, 0.6]),
    ],
)
def test_limits_where_neighbours_agree_entirely(alpha, expected):
    own, other = np.eye(2)[[0, 1]], np.eye(2)[[1, 0]]
    weights = softmax_distance_weights(
        own, [own, own, other], self_weight=0.4, alpha=alpha
    )
    assert np.allclose(weights, expected)


@pytest.mark.parametrize("alpha", [-1, 0, 1])
def test_limits_where_all_agree(alpha):
    own = np.eye(3)
    weights = softmax_distance_weights(own, [own, own], self_weight=0.4, alpha=alpha)
    assert np.allclose(weights, [0.4, 0.3, 0.3])


@pytest.mark.parametrize("alpha", [-200, 200])
def test_large_alpha_neither_overflows_nor_vanishes(alpha):
    own, *others = outputs(3)
    weights = softmax_distance_weights(own, others, self_weight=0.5, alpha=alpha)
    assert weights.sum() == pytest.approx(1) and np.isfinite(weights).all()


def test_softmax_distance_averages_with_its_own_weights():
    own, *others = [[x] for x in outputs(3)]
    learned = softmax_distance_weights(
        own[0], [m[0] for m in others], self_weight=0.2, alpha=-1
    )
    seen = []

    def predict(model, context):
        seen.append(context)
        return model[0]

    average = SoftmaxDistance(predict, self_weight=0.2, alpha=-1)
    mixed = average(own, others, np.array([1.0, 0.0, 0.0]), "context")
    assert np.allclose(mixed[0], weighted_mean(own, others, learned)[0])
    assert set(seen) == {"context"}
    assert average(own, [], np.array([1.0]), None) is own


@pytest.mark.parametrize("self_weight", [-0.1, 1.1, float("nan")])
def test_softmax_distance_checks_self_weight(self_weight):
    own, *others = outputs(2)
    with pytest.raises(ValueError, match="self_weight"):
        softmax_distance_weights(own, others, self_weight=self_weight, alpha=1)
    with pytest.raises(ValueError, match="self_weight"):
        SoftmaxDistance(len, self_weight=self_weight)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ([np.zeros(2)], "1 arrays instead of 2"),
        (
            [np.zeros(2), np.zeros((3, 1))],
            r"array 1 has shape \(3, 1\) instead of \(3,\)",
        ),
        ([np.array([0, np.nan]), np.zeros(3)], "array 0 has NaN"),
        ([np.zeros(2), np.array([0, np.inf, 0])], "array 1 has NaN or infinite"),
        ([np.array(["a", "b"]), np.zeros(3)], "array 0 holds <U1"),
        ([np.zeros(2, complex), np.zeros(3)], "array 0 holds complex128"),
    ],
)
def test_check_model_names_the_array(model, says):
    with pytest.raises(ValueError, match=says):
        check_model(model, [np.zeros(2), np.zeros(3)])


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i8", "u1", "bool"])
def test_check_model_passes_numbers(dtype):
    check_model([np.zeros((2, 0), dtype), np.array(1, dtype)], models_of(dtype))


def models_of(dtype):
    return [np.ones((2, 0), dtype), np.array(0, dtype)]


def rule(own, neighbours, weights, context, bound=0):
    return own


@dataclass(frozen=True)
class Wrapped:
    average: Any
    seen: dict = field(repr=False, default_factory=dict)

    def method(self):
        return self


class Plain:
    pass


HERE = __name__
NAMES = {
    f"{HERE}.rule": rule,
    "gossiplib.core.averaging.weighted_mean": weighted_mean,
    "SoftmaxDistance(predict=builtins.len, self_weight=0.3, alpha=-1)": (
        SoftmaxDistance(len, self_weight=0.3, alpha=-1)
    ),
    f"Wrapped(average=Wrapped(average={HERE}.rule))": Wrapped(Wrapped(rule)),
    f"Wrapped(average=Wrapped(average=0).{HERE}.Wrapped.method)": Wrapped(
        Wrapped(0).method
    ),
    f"partial({HERE}.rule, 1, bound={HERE}.rule)": partial(rule, 1, bound=rule),
    f"{HERE}.Plain": Plain(),
    "'text'": "text",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_tells_functions_and_parameters_and_no_address(name):
    assert name_of(NAMES[name]) == name


class Mixer:
    def __init__(self, share):
        self.share = share

    def mix(self, own, neighbours, weights, context):
        return own


@dataclass(frozen=True)
class Holding:
    what: object


def test_a_name_is_the_same_in_each_process_and_no_other_s():
    """No address is in it, and nothing that numpy would leave out."""
    alike = [
        ((len, [Mixer]), (len, [Mixer])),
        (frozenset([8, 0]), frozenset([0, 8])),
        (np.float64(0.5), 0.5),
        (Mixer(1), Mixer(1)),
    ]
    for one, other in alike:
        assert name_of(Holding(one)) == name_of(Holding(other))
        assert " at 0x" not in name_of(Holding(one))
    long = np.arange(2000)
    unlike = [
        (long, np.where(long == 1000, 0, long)),
        (Holding(1), Holding(2)),
        ({"a": 1}, {"a": 2}),
        (None, 0),
    ]
    for one, other in unlike:
        assert name_of(Holding(one)) != name_of(Holding(other))
    method = name_of(Holding(Mixer(1).mix))
    assert method == name_of(Holding(Mixer(2).mix))  # plain objects have no parameters
    assert method.endswith("Mixer.test_averaging.Mixer.mix)")


def test_a_repr_says_the_parameters():
    said = (
        "SoftmaxDistance(predict=<built-in function len>, self_weight=0.3, alpha=1.0)"
    )
    assert repr(SoftmaxDistance(len, self_weight=0.3)) == said


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"alpha": "1"}, "alpha must be a number; got '1'"),
        ({"alpha": float("nan")}, "alpha must be finite; got nan"),
        ({"self_weight": 1.5}, "self_weight is a probability"),
        ({"predict": "softmax"}, "predict must be callable, not 'softmax'"),
    ],
)
def test_softmax_distance_refuses_what_makes_no_sense(options, says):
    with pytest.raises((TypeError, ValueError), match=says):
        SoftmaxDistance(**{"predict": abs} | options)
