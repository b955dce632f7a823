"""Protocols with memory, where messages are lost: they find back, or count the loss."""

from collections import Counter
from dataclasses import dataclass

import networkx as nx
import numpy as np
import pytest
import torch
from contexts import in_round
from flwr.app import ArrayRecord, RecordDict
from flwr.clientapp import ClientApp

from faults import shows
from gossiplib.core import mixing
from gossiplib.core.client import gossip
from gossiplib.core.grid import LocalGrid
from gossiplib.core.server import Gossip
from gossiplib.core.topology import churn, drop_links
from gossiplib.protocols.codecs import Parts, Qsgd, RandomK, TopK
from gossiplib.protocols.compressed import Choco, Compressed, Partial, Shared
from gossiplib.protocols.push_sum import PushSum
from gossiplib.system.records import unpack
from gossiplib.tasks.task import digits
from gossiplib.vectorized.averaging import Exchange, mixing_matrix
from gossiplib.vectorized.engine import gossip_learning
from toy_apps import still_app, vector, zeros

RING, N, WHEN, WHO = nx.cycle_graph(6), 6, 5, 1
W = mixing.metropolis(RING)


# CHOCO --------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", [TopK(0.3), RandomK(0.3), Qsgd(3)], ids=str)
def test_who_is_sure_has_the_sum_of_its_neighbours_copies(codec):
    """Whatever was lost; and in the fifth quiet round all are sure, and terse.

    Messages get lost one way; clients are away, answer too late, forget all, or fail.
    """
    choco, rng = Choco(codec, 0.3), np.random.default_rng(0)
    states = [RecordDict() for _ in range(N)]
    models = [[rng.normal(size=8)] for _ in range(N)]
    checked = Counter()
    for t in range(1, 121):
        rough = t % 20 < 12  # and then eight quiet rounds
        words = ["", "away", "late", "forgets", "fails"]
        happens = rng.choice(words, N) if rough else [""] * N
        said, heard = {}, {}
        for i in range(N):
            if happens[i] == "forgets":
                states[i] = RecordDict()
            if happens[i] != "away":
                said[i] = choco.send(models[i], in_round(i, t, state=states[i]))
            if happens[i] == "late":
                del said[i]
        for i in said:
            lost = rng.random(N) < (0.2 if rough else 0)
            near = [j for j in RING[i] if j in said and not lost[j]]
            state, weights = RecordDict({**states[i]}), W[i, [i, *near]]
            weights[0] = 1 - weights[1:].sum()
            now = in_round(i, t, senders=near, state=state)
            mixed = choco(models[i], [said[j] for j in near], weights, now)
            if happens[i] != "fails":
                models[i], states[i], heard[i] = mixed, state, near
        copies = {
            i: unpack(states[i]["choco.said"])[0]
            for i in range(N)
            if "choco.said" in states[i]
        }
        for i, near in heard.items():
            total, *_, doubts = unpack(states[i]["choco.heard"])
            if not doubts:
                checked[rough] += 1
                expected = sum((W[i, j] * copies[j] for j in near), np.zeros(8))
                assert np.allclose(total, expected, rtol=0, atol=1e-12)
        if t % 20 >= 16:
            assert [len(said[i]) for i in range(N)] == [2] * N
    assert checked[True] > 50 and checked[False] > 200


def failing(fault):
    """Return still_app, with a fault in the round WHEN at the client WHO."""
    app, inner = ClientApp(), still_app()

    @app.train()
    def train(message, context):
        t, i = (
            message.content["config"]["server-round"],
            context.node_config["partition-id"],
        )
        reply = inner(message, context)
        if (t, i) == (WHEN, WHO):
            if fault == "raises":
                raise RuntimeError("the disk is full")
            if fault == "none":
                return None
            if fault == "nan":
                reply.content["arrays"] = ArrayRecord([np.full(3, np.nan)])
        return reply

    return app


@dataclass(frozen=True)
class Faulty(Choco):
    """CHOCO with a fault in the round WHEN at the client WHO, sending or averaging."""

    fault: str = ""

    def send(self, model, context):
        """Return the message, or one that makes no sense."""
        message = super().send(model, context)
        if self._is_now(context, "short"):
            return message[:1]
        return [*message, np.ones(2)] if self._is_now(context, "long") else message

    def __call__(self, own, neighbours, weights, context):
        """Average, or fail to."""
        if self._is_now(context, "average"):
            raise RuntimeError("no memory")
        return super().__call__(own, neighbours, weights, context)

    def _is_now(self, context, fault):
        now = (context.server_round, int(context.clients))
        return self.fault == fault and now == (WHEN, WHO)


CALLS = {"raises": "train", "none": "train", "nan": "train"}


@shows(
    "memory",
    "LocalGrid",
    "CHOCO: whole again two rounds after; push-sum: weight counted",
)
@pytest.mark.parametrize("fault", ["raises", "none", "nan", "average", "short", "long"])
def test_a_client_that_fails_once_is_back_two_rounds_later(fault):
    codec, step, rare = Qsgd(15), 0.5, {"evaluate_every": 0, "observe_every": 0}
    app = gossip(failing(fault), average=Faulty(codec, step, fault))
    result = Gossip(RING, **rare).start(LocalGrid(app, N), zeros(), 60)
    call = CALLS.get(fault, "train.average")
    assert {(loss.round, loss.call) for loss in result.lost} == {(WHEN, call)}
    # Both neighbours fail to read a letter; they average with others all the same.
    assert len(result.lost) == (2 if fault in ("short", "long") else 1)
    # A message is ‖x‖ and three symbols of 5 bits, with two headers; twelve a round.
    usual = 12 * (2 * 128 + 8 + 2)
    unlike = {t for t, size in result.bytes.items() if size != usual}
    assert unlike <= set(range(WHEN, WHEN + 5))
    assert result.consensus_distance[60] < 1e-4
    start = np.stack([vector(i) for i in range(N)])
    off = np.abs(result.models().mean(axis=0) - start.mean(axis=0)).max()
    assert off < 0.1 * np.ptp(start, axis=0).max()


ONE_WAY = nx.DiGraph([(0, 1), (1, 2), (2, 0), (2, 1), (3, 0), (4, 3), (5, 4), (0, 5)])
SCHEDULES = {
    "lost links": drop_links(RING, 0.2, seed=2),
    "churn": churn(nx.complete_graph(N), 0.6, seed=1),
    "one way": drop_links(ONE_WAY, 0.2, seed=0),
}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("codec", [TopK(0.1), Qsgd(15)], ids=str)
def test_both_engines_agree_where_copies_are_sent_and_go_on_from_a_checkpoint(
    name, codec, tmp_path
):
    task = digits(N, partition="dealt", examples=20, dtype=torch.float64)
    schedule, average = SCHEDULES[name], Choco(codec, 0.3)
    app, start = gossip(task.client_app(), average=average), task.initial_arrays()
    plan = {"weights": mixing.uniform, "evaluate_every": 0, "observe_every": 0}
    path = tmp_path / "kept"
    strategy = Gossip(schedule, **plan, checkpoint=path)
    strategy.start(LocalGrid(app, N), start, 4)
    flower = strategy.resume(path, LocalGrid(app, N), start, 8)
    arrays = gossip_learning(task, schedule, 8, average=average, **plan)
    gossip_learning(task, schedule, 4, average=average, **plan, checkpoint=path)
    resumed = gossip_learning(task, schedule, 8, average=average, **plan, resume=path)
    assert not flower.lost and not arrays.lost
    assert np.abs(flower.models() - arrays.models()).max() < 1e-9
    assert np.array_equal(resumed.models(), arrays.models())
    assert flower.bytes == arrays.bytes == resumed.bytes
    assert len({arrays.bytes[t] / arrays.messages[t] for t in arrays.bytes}) > 2


def test_where_links_go_one_way_what_is_asked_is_passed_on():
    """Client 0 misses a letter of client 3, which hears it through 5 and 4 alone."""

    def schedule(t):
        graph = ONE_WAY.copy()
        graph.remove_edges_from([(3, 0)] if t == WHEN else [])
        return graph

    app = gossip(still_app(), average=Choco(TopK(1), 1.0))
    plan = {"weights": mixing.uniform, "evaluate_every": 0, "observe_every": 0}
    result = Gossip(schedule, **plan).start(LocalGrid(app, N), zeros(), 200)
    size = {t: result.bytes[t] // result.messages[t] for t in result.bytes}
    usual = 2 * 128 + 3 * (1 + 8)  # two headers, places, numbers
    unlike = {t for t in size if size[t] != usual}
    assert min(unlike) == WHEN + 1 and max(unlike) <= WHEN + 20
    assert result.consensus_distance[200] < 1e-9


# Letters that make no sense -----------------------------------------------------------

OWN = [np.random.default_rng(9).normal(size=(4, 3)), np.arange(5.0)]
SENDING = [
    Compressed(TopK(0.5)),
    Compressed(Qsgd(7, unbiased=True), 0.3),
    Partial(Parts(3)),
    Choco(Qsgd(7), 0.3),
    Shared([0]),
    PushSum(),
]
LETTERS = {
    "nothing": lambda message: [],
    "too few": lambda message: message[:-1],
    "too many": lambda message: [*message, np.ones(2)],
    "another shape": lambda message: [*message[:-1], message[-1][..., None, None]],
    "longer": lambda message: [*message[:-1], np.append(message[-1], [1, 1])],
}


@pytest.mark.parametrize("average", SENDING, ids=lambda a: type(a).__name__)
@pytest.mark.parametrize("letter", LETTERS)
def test_a_letter_that_makes_no_sense_counts_as_lost(average, letter):
    """The average is that of the others, and its weight is the client's own."""
    models = [[a + k for a in OWN] for k in range(4)]
    sent = [average.send(m, in_round(k, receivers=3)) for k, m in enumerate(models)]

    def averaged(messages, weights, senders):
        state = RecordDict()
        average.send(models[0], in_round(0, receivers=3, state=state))
        now = in_round(0, senders=senders, state=state)
        return average(models[0], messages, np.array(weights), now), now

    bad = LETTERS[letter](sent[2])
    found, now = averaged([sent[1], bad, sent[3]], [0.4, 0.1, 0.2, 0.3], [1, 2, 3])
    expected, _ = averaged([sent[1], sent[3]], [0.6, 0.1, 0.3], [1, 3])
    for a, b in zip(found, expected, strict=True):
        assert np.allclose(a, b, rtol=0, atol=1e-15)
    assert list(now.unread) == [2] and now.unread[2]


# Push-sum -----------------------------------------------------------------------------


def test_push_sum_counts_the_weight_that_is_lost():
    """Against s and w in plain numpy: two shares for a client that fails are lost."""
    P = np.zeros((N, N))  # each gives a third to either neighbour
    for i in range(N):
        P[[i, *RING[i]], i] = 1 / 3
    s, w = np.stack([vector(i) for i in range(N)]), np.ones(N)
    lost = 0.0
    for t in range(1, 61):
        if t == WHEN:
            Q = P.copy()
            Q[WHO] = 0  # it hears nothing
            Q[:, WHO] = np.eye(N)[WHO]  # nor does it give anything
            lost = w.sum() - (Q @ w).sum()
            s, w = Q @ s, Q @ w
        else:
            s, w = P @ s, P @ w
    app = gossip(failing("raises"), average=PushSum())
    result = Gossip(RING, evaluate_every=0).start(LocalGrid(app, N), zeros(), 60)
    assert np.allclose(result.models(), s.sum(axis=0) / w.sum(), rtol=0, atol=1e-6)
    weight = result.train_metrics_clientapp
    assert lost > 0.5 and np.isclose(N * (1 - weight[60]["push-sum-weight"]), lost)
    assert np.isclose(weight[WHEN - 1]["push-sum-weight"], 1)


def test_push_sum_on_arrays_counts_it_too():
    graph = nx.star_graph(N - 1)
    exchange = Exchange(PushSum(), {"x": (3,)}, N, 100)
    X = torch.tensor(np.stack([vector(i) for i in range(N)]))
    here = np.arange(N) != WHO
    for t, some in ((1, here), (2, here | True)):
        list(exchange(X, mixing_matrix(graph, mixing.uniform), some, t))
    # The centre gives a sixth to each of five, and to one of them in vain.
    assert np.isclose(exchange.metrics["push-sum-weight"].sum(), N - 1 / 6)


def test_push_sum_bears_that_all_is_lost_for_long():
    push, state, x = PushSum(), RecordDict(), [np.arange(3.0)]
    for t in range(1, 1300):
        *_, share = push.send(x, in_round(0, t, receivers=1, state=state))
    assert share > 0
    now = in_round(0, t, senders=[1], state=state)
    (found,) = push(x, [[x[0] + 2, share]], np.array([0.5, 0.5]), now)
    assert np.allclose(found, x[0] + 1)
