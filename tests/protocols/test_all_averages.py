"""What each average function must hold, in one table: those of core and of protocols.

Where one cannot hold something by its nature, `BUT` says why, and the test that it
does not: so the table is true in both directions.
"""

import functools
import inspect
import pickle
from dataclasses import is_dataclass

import networkx as nx
import numpy as np
import pytest
import torch
from contexts import alike, in_round
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

import gossiplib.core
import gossiplib.protocols
from gossiplib.core.averaging import SoftmaxDistance, name_of, weighted_mean
from gossiplib.core.client import gossip
from gossiplib.core.grid import LocalGrid
from gossiplib.core.server import Gossip
from gossiplib.core.topology import drop_links
from gossiplib.protocols.byzantine import (
    ALittleIsEnough,
    Byzantine,
    Dissensus,
    Inconsistent,
    Noise,
    SignFlip,
)
from gossiplib.protocols.codecs import Parts, Qsgd, RandomK, TopK
from gossiplib.protocols.compressed import (
    Choco,
    Compressed,
    DeepSqueeze,
    Partial,
    Shared,
)
from gossiplib.protocols.diffusion import ExactDiffusion
from gossiplib.protocols.masked import Masked
from gossiplib.protocols.momentum import QuasiGlobalMomentum
from gossiplib.protocols.privacy import HonestButCurious
from gossiplib.protocols.push_sum import PushSum
from gossiplib.protocols.robust import (
    ClippedGossip,
    Krum,
    TrimmedMean,
    coordinate_median,
)
from gossiplib.protocols.tracking import GradientTracking
from gossiplib.protocols.variance import variance_corrected
from gossiplib.tasks.task import digits
from gossiplib.vectorized.consensus import averaging_rounds
from gossiplib.vectorized.engine import gossip_learning
from toy_apps import still_app, vector, zeros


def predict(model, context):
    """Return the softmax of a model's first array, as if of two or more examples."""
    e = np.exp(np.reshape(model[0], (*context.batch, -1, 1)) * [1.0, -1.0, 0.5])
    return e / e.sum(axis=-1, keepdims=True)


LIARS, CODECS = [1, 3], [TopK(0.2), RandomK(0.2), Qsgd(7), Parts(3)]
ATTACKS = [SignFlip(), Noise(0.1), ALittleIsEnough(1.5), Inconsistent(1.0), Dissensus()]
AVERAGES = [weighted_mean, variance_corrected, coordinate_median, PushSum()]
AVERAGES += [GradientTracking(), ExactDiffusion(), QuasiGlobalMomentum(0.5, mu=0.8)]
AVERAGES += [SoftmaxDistance(predict, self_weight=0.4, alpha=-1)]
AVERAGES += [TrimmedMean(1), ClippedGossip(1), Shared([0]), HonestButCurious({})]
AVERAGES += [Krum(1), Krum(1, keep=3)]
AVERAGES += [kind(codec) for kind in (Compressed, Partial) for codec in CODECS]
WITH_A_STEP = Compressed, DeepSqueeze, Choco
AVERAGES += [kind(codec, 0.3) for kind in WITH_A_STEP for codec in CODECS]
AVERAGES += [Masked(3), Masked(6)]  # among six, all are in the group of the second
AVERAGES += [Byzantine(ClippedGossip(1), LIARS, attack) for attack in ATTACKS]
EACH = pytest.mark.parametrize("average", AVERAGES, ids=name_of)

#: What a rule cannot hold: (property, part of its name) -> why.
BUT = {
    ("consensus", "Compressed(codec=TopK(share=0.2), step=None"): "the own is whole",
    ("consensus", "Compressed(codec=Parts(count=3), step=None"): "the own is whole",
    ("consensus", "Compressed(codec=RandomK"): "each client says other places",
    ("consensus", "codec=Qsgd"): "each client rounds in its own way",
    ("consensus", "Choco(codec=RandomK"): "the public copies differ at first",
    ("consensus", "DeepSqueeze(codec=RandomK"): "each client says other places",
    ("consensus", "attack=SignFlip"): "a lie is another model",
    ("consensus", "attack=Noise"): "a lie is another model",
    ("consensus", "attack=Inconsistent"): "a lie is another model",
    ("failure", "DeepSqueeze(codec=Parts"): "who failed has left out other parts",
    ("failure", "Choco("): "the public copy of who was away is another at first",
}


def exempt(what, average):
    """Return whether a rule cannot hold something."""
    return any(p == what and part in name_of(average) for p, part in BUT)


N = 6
GRAPH = nx.circulant_graph(N, [1, 2])
GRAPH.remove_edge(0, 1)  # degrees differ; 0 and 1 have 3 neighbours, others 4
LOSSY = drop_links(nx.complete_graph(N), 0.2, seed=0)
X = np.random.default_rng(0).normal(size=(N, 7))


def on_arrays(average, rows, schedule, rounds=2):
    """Return the rows after some rounds of averaging."""
    steps = averaging_rounds(rows, schedule, average=average)
    return [next(steps)[0] for _ in range(rounds)][-1]


def test_the_table_has_all_that_the_faces_have():
    named = " ".join(map(name_of, AVERAGES))
    for face in (gossiplib.protocols, gossiplib.core.averaging):
        for name in face.__all__:
            thing = getattr(face, name)
            plain = inspect.isfunction(thing) and {"neighbours", "weights"} <= {
                *inspect.signature(thing).parameters
            }
            if is_dataclass(thing):  # or it is a discover function
                plain = "weights" in inspect.signature(thing.__call__).parameters
            if plain:
                assert f"{name}(" in named or f".{name}" in named
                assert f"{name}`" in gossiplib.protocols.__doc__
    assert len({*map(name_of, AVERAGES)}) == len(AVERAGES)
    for what, part in BUT:
        assert any(part in name_of(average) for average in AVERAGES), (what, part)


@EACH
def test_it_says_what_it_is_and_travels(average):
    copy = pickle.loads(pickle.dumps(average))
    assert copy == average and name_of(copy) == name_of(average)
    if is_dataclass(average):
        assert hash(copy) == hash(average)
        assert repr(copy) == repr(average) and repr(average).startswith(
            type(average).__name__
        )
        with pytest.raises(AttributeError):
            average.other = 1
    assert "0x" not in name_of(average)


def by_messages(average, schedule, initial, rounds=2):
    """Return the result of as many rounds on Flower, where nothing is learned."""
    grid = LocalGrid(gossip(still_app(), average=average), N)
    return Gossip(schedule, evaluate_every=0).start(grid, initial, rounds)


@EACH
def test_a_consensus_is_kept(average):
    same, first = np.tile(X[0], (N, 1)), X[0, :3]
    result = by_messages(average, GRAPH, ArrayRecord([first]))
    assert not result.lost
    for found, start in (
        (on_arrays(average, same, GRAPH), same),
        (result.models(), first),
    ):
        kept = np.allclose(found, start, rtol=0, atol=1e-12)
        assert kept == (not exempt("consensus", average))


@EACH
def test_a_consensus_is_kept_where_links_are_lost(average):
    """And where a rule keeps none, both engines still agree on what it makes."""
    first = X[0, :3]
    result = by_messages(average, LOSSY, ArrayRecord([first]), rounds=6)
    rows = on_arrays(average, np.tile(first, (N, 1)), LOSSY, rounds=6)
    assert not result.lost
    assert np.allclose(rows, result.models(), rtol=0, atol=1e-12)
    if not exempt("consensus", average):
        assert np.allclose(rows, first, rtol=0, atol=1e-12)


@EACH
def test_a_consensus_is_kept_where_a_client_fails(average):
    """Shares of those that came make one whole."""
    app = ClientApp()

    @app.train()
    def train(message, context):
        t = message.content["config"]["server-round"]
        if (context.node_config["partition-id"], t) == (2, 1):
            raise ArithmeticError("no")
        metrics = MetricRecord({"num-examples": 1})
        content = {"arrays": message.content["arrays"], "metrics": metrics}
        return Message(RecordDict(content), reply_to=message)

    first = X[0, :3]
    grid = LocalGrid(gossip(app, average=average), N)
    result = Gossip(GRAPH, evaluate_every=0).start(grid, ArrayRecord([first]), 2)
    assert [loss[:3] for loss in result.lost] == [(1, 2, "train")]
    if not exempt("consensus", average):
        kept = np.allclose(result.models(), first, rtol=0, atol=1e-12)
        assert kept == (not exempt("failure", average))


@EACH
def test_who_has_no_neighbour_keeps_its_model(average):
    cycle = nx.cycle_graph(N - 1)
    cycle.add_node(N - 1)
    assert np.array_equal(on_arrays(average, X, lambda t: cycle)[-1], X[-1])
    result = by_messages(average, lambda t: cycle, zeros())
    assert np.array_equal(result.models()[-1], vector(N - 1))
    own, context = models(1, ())[0], in_round(3)
    if hasattr(average, "send"):
        average.send(own, context)
    assert alike(average(own, [], np.ones(1), context), own)


def models(count, batch, seed=0):
    """Return models of three data types."""
    rng = np.random.default_rng(seed)
    return [
        [
            rng.normal(size=(*batch, 4, 3)).astype("f4"),
            rng.normal(size=(*batch, 5)),
            rng.integers(9, size=batch),
        ]
        for _ in range(count)
    ]


@EACH
def test_data_types_inputs_and_what_each_of_many_gets(average):
    """Many clients at once get what each gets alone, in data types and shapes too."""
    ids, senders = np.array([7, 2, 12]), np.array([[1, 3, 1], [4, 1, 5], [6, 9, 8]])
    own, *others = models(4, (3,))
    weights = np.random.default_rng(1).dirichlet(np.ones(4), size=3).T

    def averaged(at):
        def some(model):
            picked = [np.array(array[at]) for array in model]
            for array in picked:
                array.flags.writeable = False
            return picked

        def sent(model, context):
            send = getattr(average, "send", None)
            return send(some(model), context) if send else some(model)

        two = np.full(3, 2)[at]
        now = in_round(ids[at], senders=senders[:, at], receivers=two)
        sent(own, now)
        pairs = zip(others, senders[:, at], strict=True)
        arrived = [sent(m, in_round(j, receivers=two)) for m, j in pairs]
        return average(some(own), arrived, weights[:, at], now)

    together = averaged(slice(None))
    assert [(a.dtype, a.shape) for a in together] == [(a.dtype, a.shape) for a in own]
    for i in range(3):
        each = [np.asarray(array[i]) for array in together]
        assert alike(each, averaged(i), rtol=1e-6)


TASK = digits(N, partition="dealt", examples=20, dtype=torch.float64)


@EACH
def test_both_engines_agree_and_go_on_from_a_checkpoint(average, tmp_path):
    app, start = gossip(TASK.client_app(), average=average), TASK.initial_arrays()
    rare = {"evaluate_every": 0, "observe_every": 0}

    def flower(num_rounds, path=None, resume=False):
        strategy = Gossip(GRAPH, **rare, checkpoint=path)
        go = functools.partial(strategy.resume, path) if resume else strategy.start
        return go(LocalGrid(app, N), start, num_rounds)

    def arrays(num_rounds, path=None, resume=False):
        how = {
            "average": average,
            "checkpoint": path,
            "resume": path if resume else None,
        }
        return gossip_learning(TASK, GRAPH, num_rounds, **rare, **how)

    found = []
    for run in (flower, arrays):
        path = tmp_path / run.__name__
        run(1, path)
        found += [run(2), run(2, path, resume=True)]
    whole, resumed, stacked, resumed_stacked = (result.models() for result in found)
    assert not any(r.lost for r in found)
    assert np.array_equal(whole, resumed)
    assert np.array_equal(stacked, resumed_stacked)
    assert np.abs(whole - stacked).max() < 1e-9
    assert found[0].bytes == found[2].bytes
