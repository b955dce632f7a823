"""What enters a protocol, as its parameters or in a model: read one way, or refused."""

import networkx as nx
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from pandas import DataFrame

from gossiplib.core.averaging import weighted_mean
from gossiplib.core.client import gossip
from gossiplib.core.grid import LocalGrid
from gossiplib.core.server import Gossip
from gossiplib.protocols import (
    ALittleIsEnough,
    Byzantine,
    Choco,
    ClippedGossip,
    Compressed,
    Dissensus,
    Inconsistent,
    Krum,
    LikeLabels,
    Masked,
    Noise,
    Partial,
    Parts,
    Qsgd,
    QuasiGlobalMomentum,
    RandomK,
    Shared,
    SignFlip,
    TopK,
    TrimmedMean,
    UnlikeLabels,
    coordinate_median,
    privacy,
    tell_labels,
    variance_corrected,
)


def run(average, change, initial, rounds=1):
    """Run six clients that all hear all, and train by `change(arrays, client)`."""
    app = ClientApp()

    @app.train()
    def train(message, context):
        arrays = {k: a.numpy() for k, a in message.content["arrays"].items()}
        trained = change(arrays, context.node_config["partition-id"])
        record = ArrayRecord({k: Array(np.asarray(a)) for k, a in trained.items()})
        content = RecordDict({"arrays": record, "metrics": MetricRecord()})
        return Message(content, reply_to=message)

    grid = LocalGrid(gossip(app, average=average), 6)
    first = ArrayRecord({k: Array(np.asarray(a)) for k, a in initial.items()})
    strategy = Gossip(nx.complete_graph(6), evaluate_every=0)
    return strategy.start(grid, first, num_rounds=rounds)


def far_liar(arrays, client):
    return {"w": np.full(3, 100.0 if client == 0 else client / 100)}


@pytest.mark.parametrize(
    "more",
    [
        lambda client: {"n": np.array(1000 * client)},  # steps that each has made
        lambda client: {"mask": np.array([0, -np.inf])},
        lambda client: {"n": np.array(client), "mask": np.array([-np.inf])},
    ],
)
def test_counters_and_masks_do_not_make_a_liar_near(more):
    def change(arrays, client):
        return far_liar(arrays, client) | more(client)

    plain = run(ClippedGossip(1), far_liar, {"w": np.zeros(3)})
    result = run(ClippedGossip(1), change, {"w": np.zeros(3)} | more(0))
    assert not result.lost
    for i, model in result.node_arrays.items():
        assert np.allclose(model["w"].numpy(), plain.node_arrays[i]["w"].numpy())
        assert i == 0 or (model["w"].numpy() < 1).all()


@pytest.mark.parametrize(
    "average",
    [coordinate_median, TrimmedMean(1), ClippedGossip(1), variance_corrected],
)
def test_masks_stay_as_they_are(average):
    initial = {"w": np.arange(3.0), "mask": np.triu(np.full((3, 3), -np.inf), 1)}
    result = run(average, lambda arrays, client: arrays, initial, rounds=2)
    assert not result.lost
    for model in result.node_arrays.values():
        assert np.array_equal(model["mask"].numpy(), initial["mask"])
        assert np.allclose(model["w"].numpy(), initial["w"])


@pytest.mark.parametrize(
    "average",
    [
        coordinate_median,
        TrimmedMean(1),
        Compressed(TopK(1)),
        Partial(TopK(1)),
        Choco(TopK(1), 1),
    ],
)
def test_no_imaginary_part_is_left_out_in_silence(average):
    def change(arrays, client):
        return {"c": arrays["c"] + client * 1j}

    with pytest.raises(AssertionError, match="complex numbers"):
        try:
            result = run(average, change, {"c": np.ones(2, complex)})
        except RuntimeError as error:
            raise AssertionError(error) from error
        raise AssertionError(result.lost[0].reason)
    mean = run(weighted_mean, change, {"c": np.ones(2, complex)})
    for same in (ClippedGossip(0), variance_corrected):
        found = run(same, change, {"c": np.ones(2, complex)})
        assert np.allclose(found.models(), mean.models()) and not found.lost


def test_a_trimmed_mean_keeps_what_its_data_type_holds():
    large = np.array([2**60 + 1], np.longdouble)
    result = run(TrimmedMean(1), lambda a, i: {"w": a["w"] + 2 * i}, {"w": large})
    wanted = (large + 5).astype(np.longdouble)
    assert all((m["w"].numpy() == wanted).all() for m in result.node_arrays.values())


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Shared([0.0]), "place of an array.*got 0.0"),
        (lambda: Shared([True, False]), "place of an array.*got"),
        (lambda: Shared("01"), "place of an array.*got '"),
        (lambda: Shared([-1]), "place of an array.*got -1"),
        (lambda: Shared([]), "at least one array"),
        (lambda: RandomK(0.5, seed=-1), "seed.*got -1"),
        (lambda: RandomK(0.5, seed=1.5), "seed.*got 1.5"),
        (lambda: RandomK("0.5"), "share must be a number; got '0.5'"),
        (lambda: Qsgd(4, seed=np.random.default_rng(0)), "seed.*got Generator"),
        (lambda: Compressed("topk"), "codec.*got 'topk'"),
        (lambda: Choco(None, 0.5), "codec.*got None"),
        (lambda: Byzantine(weighted_mean, [1.7], SignFlip()), "a liar.*got 1.7"),
        (lambda: Byzantine(weighted_mean, "12", SignFlip()), "a liar.*got '1'"),
        (lambda: Byzantine(weighted_mean, [-1], SignFlip()), "a liar.*got -1"),
        (lambda: SignFlip("2"), "scale must be a number; got '2'"),
        (lambda: Noise(-1), "std must be 0 or more; got -1"),
        (lambda: Noise(1, seed=0.5), "seed.*got 0.5"),
        (lambda: ALittleIsEnough("1"), "z must be a number"),
        (lambda: Inconsistent("1"), "strength must be a number"),
        (lambda: Dissensus(None), "epsilon must be a number; got None"),
        (lambda: privacy.noise_std(1, -1, 1e-5), "epsilon must be above 0; got -1"),
        (lambda: privacy.noise_std(1, 0, 1e-5), "epsilon must be above 0; got 0"),
        (lambda: privacy.noise_std(1, 1, 2), "delta must be above 0 and below 1"),
        (lambda: privacy.exact_epsilon(1, 0, 1e-5), "std must be above 0; got 0"),
        (lambda: privacy.exact_epsilon(1, 1, 0), "delta must be above 0 and below 1"),
        (lambda: privacy.exact_epsilon(1, 1, 0.1, rounds=-1), "rounds.*got -1"),
        (lambda: privacy.found_bound(1, -1, 0.1), "std must be above 0; got -1"),
        (
            lambda: privacy.found_bound(1, float("nan"), 0.1),
            "std must be above 0; got nan",
        ),
    ],
)
def test_a_parameter_of_another_kind_is_refused_where_it_is_given(make, says):
    with pytest.raises((TypeError, ValueError), match=says):
        make()


def test_numpys_whole_numbers_are_whole_numbers():
    assert Shared(np.array([1, 0])) == Shared([0, 1])
    liars = Byzantine(weighted_mean, np.array([2, 1]), SignFlip())
    assert liars.nodes == (1, 2)


@pytest.mark.parametrize(
    "make",
    [
        lambda k: TrimmedMean(k(2)),
        lambda k: ClippedGossip(k(2)),
        lambda k: Krum(k(1), keep=k(2)),
        lambda k: Choco(Qsgd(k(200), seed=k(3)), 0.3),
        lambda k: Partial(RandomK(0.5, seed=k(200))),
        lambda k: Partial(Parts(k(3))),
        lambda k: Masked(k(3), seed=k(200)),
        lambda k: Byzantine(TrimmedMean(1), [k(0)], SignFlip(k(2))),
        lambda k: Byzantine(TrimmedMean(1), [k(0)], Dissensus(k(2))),
        lambda k: Byzantine(TrimmedMean(1), [k(0)], Inconsistent(k(200))),
    ],
)
def test_a_parameter_of_8_bits_is_that_of_python(make):
    results = [run(make(k), far_liar, {"w": np.zeros(3)}, 3) for k in (np.uint8, int)]
    assert not results[0].lost
    assert np.allclose(*(result.models() for result in results))


def test_a_liar_that_is_no_client_is_told():
    average = Byzantine(weighted_mean, [0, 6], SignFlip())
    result = run(average, far_liar, {"w": np.zeros(3)})
    assert "client 6, a liar, is none of 0..5" in result.lost[0].reason


@pytest.mark.parametrize("counts", [[[0.5, 0.5]], [[np.nan, 1]], [["1", "2"]]])
def test_labels_are_told_by_counts_and_not_by_shares(counts):
    with pytest.raises(ValueError, match="counts are whole numbers"):
        tell_labels(np.array(counts))


def test_whole_counts_may_be_held_as_floats():
    assert tell_labels(np.array([[3.0, 4.0]])).dtype == np.int64


def test_a_table_of_what_clients_told_is_the_array_that_it_holds():
    told = np.array([[1, 2, 0], [3, 0, 1], [0, 5, 5]])
    context = Context(0, 0, {"partition-id": 0}, RecordDict(), {})
    for rule in (LikeLabels, UnlikeLabels):
        near = [rule(given, 1)([1, 2], 1, context) for given in (told, DataFrame(told))]
        assert near[0] == near[1]


@pytest.mark.parametrize("listener", [-1, 4, 1.0])
def test_a_listener_is_a_client(listener):
    W = np.full((4, 4), 0.25)
    for share in (privacy.heard_share, privacy.hop_bound):
        with pytest.raises(ValueError, match="listener must be a whole number"):
            share(W, listener, 2)


@pytest.mark.filterwarnings("error")
def test_an_array_without_numbers_has_no_variance_to_keep():
    first = {"w": np.arange(3.0), "none": np.zeros((0, 3))}
    change = lambda arrays, client: arrays | {"w": arrays["w"] * (1 + client)}  # noqa: E731
    result = run(variance_corrected, change, first)
    assert not result.lost and result.arrays["none"].numpy().shape == (0, 3)


def test_a_variance_that_a_correction_makes_negative_is_not_blamed_on_weights():
    def change(arrays, client):
        (v,) = arrays.values()
        return {"running_var": v * (0.1 if client else 2)}

    first = {"running_var": np.ones(2)}
    result = run(QuasiGlobalMomentum(), change, first, rounds=4)
    assert "protocols that correct" in result.lost[0].reason


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.longdouble])
@pytest.mark.parametrize("average", [weighted_mean, Masked(3), variance_corrected])
def test_narrow_and_wide_floats_average_alike(average, dtype):
    def change(arrays, client):
        return {"w": (arrays["w"] + client + np.arange(3)).astype(arrays["w"].dtype)}

    results = [run(average, change, {"w": np.zeros(3, k)}) for k in (dtype, np.float64)]
    assert not results[0].lost
    assert np.allclose(*(result.models() for result in results), rtol=2e-3)
