"""The solutions pass the checks of the exercises, and plausible mistakes do not."""

import importlib.util
import math
from functools import cache

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from scipy import stats

from gossiplib.asynchronous import merging, network
from gossiplib.classroom.checking import CHECKS, checks_of, predicts, verdict
from gossiplib.core import averaging, mixing, topology
from gossiplib.core.client import choose
from gossiplib.core.topology import named
from gossiplib.protocols import privacy, robust
from gossiplib.protocols.codecs import Qsgd, RandomK, TopK
from gossiplib.protocols.neighbours import LikeModels
from gossiplib.vectorized.engine import gossip_learning
from notebooks import ROOT, find, function, read

SOLUTIONS = sorted((ROOT / "notebooks" / "solutions").glob("*.py"))
EXERCISES = list(checks_of())
RING = named("ring", 16)
REGULAR = named("regular", 16, seed=0)
SIZE, TORUS_RATE = 2600, 0.8828

# What a hint must not say, for the exercises whose answer can be said in a word.
ANSWER_IN_WORDS = {
    "00.1": ("11", "eleven"),
    "00.2": ("torus", "hypercube", "exponential", "regular"),
    "00.3": ("3", "three"),
    "01.1": (str(2 * 1000 * 50 * SIZE),),
    "01.4": ("15", "fifteen"),
    "02.1": ("metropolis", "identity", "eye"),
    "02.2": ("kantor", "random"),
    "02.3": ("54",),
    "02.4": ("0.25", "1/4", "quarter"),
    "03.1": ("56",),
    "03.2": ("sum to 0", "every three"),
    "03.3": ("three rounds", "3 rounds"),
    "04.2": ("0.45", "0.15"),
    "09.1": ("0.58", "3/4"),
    "09.2": ("digit", "exponential", "one-peer"),
    "08.1": ("0.375", "3/8"),
    "08.3": ("1/3", "0.33", "third"),
    "07.3": ("[0,", "4]"),
    "07.4": ("0.69", "ln 2", "3.4"),
    "10.4": ("84",),
    "11.3": ("mean", "packbits"),
    "11.4": ("seed",),
    "12.1": ("4.9", "4.899", "24", "√24"),
    "13.2": ("513",),
    "13.3": ("view", "int64"),
    "13.5": ("star",),
    "14.1": ("138",),
    "16.2": ("738", "123"),
    "16.4": ("293", "294"),
    "05.3": ("exponential", "matching"),
    "17.1": ("0.25", "1/4", "quarter"),
    "18.1": ("four", "five", "4"),
    "18.2": ("14", "fourteen"),
    "18.4": ("mvmptp",),
}


@cache
def solution(number):
    """Load the solutions of a notebook. Its name begins with a digit: no `import`."""
    (path,) = (p for p in SOLUTIONS if p.stem.startswith(number))
    spec = importlib.util.spec_from_file_location(f"solution_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def digits_run(schedule, rounds):
    """Run the clients of notebook 00 as arrays, and evaluate the last round only."""
    task = solution("00").task
    measure = {"evaluate_every": 0, "observe_every": rounds}
    return gossip_learning(
        task, schedule, rounds, evaluate_fn=task.evaluate_fn, **measure
    )


def fedavg_run(share, rounds):
    return solution("01").run(share, rounds)


def losing(share, *, again=False, shares=False, for_good=False, by=None):
    """Return a round that loses messages: the same each time, or for good, or ..."""

    def lossy_round(grid, heard, W, t, first=None):
        rng = np.random.default_rng(0 if again else t)
        luck = rng.random(99_999)
        came = {i: [j for j in heard[i] if rng.random() >= share] for i in heard}
        if by is not None:  # what is lost goes together
            came = {i: [j for j in heard[i] if luck[by(i, j)] >= share] for i in heard}
        if for_good:
            heard.update(came)
        if shares:  # what is lost goes to those that came
            W = W.copy()
            for i, near in came.items():
                W[i, near] *= (1 - W[i, i]) / W[i, near].sum() if near else 1
        return solution("05").gossip_round(grid, came, W, t, first)

    return lossy_round


def asks_who_is_away(grid, heard, W, t, first=None):
    here = sorted(map(int, random_half()))
    return solution("05").gossip_round(grid, {i: heard[i] for i in here}, W, t, first)


def by_the_sum_of_distances(own, neighbours, weights, context):
    """Leave out whom the arrays' distances, added up, call the farthest."""

    def far(model):
        return sum(np.linalg.norm(a - b) for a, b in zip(own, model, strict=True))

    kept = sorted(neighbours, key=far)[:-1]
    return [np.mean(layer, axis=0) for layer in zip(own, *kept, strict=True)]


def lazy(W):
    return (np.eye(len(W)) + W) / 2


def extra(before=lazy, *, gradients=True, in_place=False):
    """Return a round of EXTRA, or of something like it."""

    def step(x, memory, W, gradient, eta):
        g = gradient(x)
        if memory is None:
            return W @ x - eta * g, (x.copy(), g)
        old, old_g = memory
        new = x + W @ x - before(W) @ old - eta * (g - old_g if gradients else g)
        memory = x.copy(), g
        if in_place:
            x[:] = new
        return new, memory

    return step


def coin():
    return np.flatnonzero(np.random.default_rng().random(16) < 0.5)


def random_half():
    return np.random.default_rng().permutation(16)[:8]


def halving(draw, *, among=True, alone=False):
    """Return a round of those who are drawn; they may hear others too, or nobody."""

    def half_round(grid, heard, W, t, first=None):
        here = sorted(map(int, draw()))
        near = {i: [j for j in heard[i] if j in here or not among] for i in here}
        if alone:
            near = {i: [] for i in here}
        if among:
            return solution("05").gossip_round(grid, near, W, t, first)
        told, send = ConfigRecord({"server-round": t}), solution("05").send
        call = {"config": told, "gossip": told, "arrays": first}
        send(grid, "train", dict.fromkeys(here, call))
        for i in here:
            weights = [float(W[i, j]) for j in near[i]]
            about = {"senders": near[i], "weights": [1 - sum(weights), *weights]}
            sent = {"gossip": ConfigRecord(about)} | {str(j): first for j in near[i]}
            send(grid, "train.average", {i: sent})

    return half_round


def most_links(graph):
    return max(degree for _, degree in graph.degree)


def half_of(weights):
    """Return a lazy version of a rule for weights."""
    return lambda graph: (np.eye(len(graph)) + weights(graph)) / 2


def one_peer_of_12():
    schedule = topology.one_peer_exponential(12)
    return [mixing.uniform(schedule(t)) for t in range(1, 5)]


def squared_distance(own, model):
    return sum(((a - b) ** 2).sum() for a, b in zip(own, model, strict=True))


def careless(own, neighbours, weights, context, *, distance=squared_distance, pick=max):
    """Leave out one neighbour and take the mean; forget that there may be none."""
    out = pick(range(len(neighbours)), key=lambda k: distance(own, neighbours[k]))
    kept = [own, *neighbours[:out], *neighbours[out + 1 :]]
    return [sum(arrays) / len(kept) for arrays in zip(*kept, strict=True)]


def plain_mean(own, neighbours, weights, context):
    return [np.mean(layer, axis=0) for layer in zip(own, *neighbours, strict=True)]


def mean_of(own, neighbours, weights):
    return averaging.weighted_mean(own, neighbours, weights)


def mean_without_the_own(own, neighbours, weights):
    others = zip(*neighbours, strict=True)
    scaled = np.divide(weights[1:], sum(weights[1:]))
    return [np.tensordot(scaled, layer, 1) for layer in others]


def leaves_out_the_nearest(own, neighbours, weights, context):
    return careless(own, neighbours, weights, context, pick=min)


def by_the_first_array(own, neighbours, weights, context):
    if not neighbours:
        return own

    def distance(a, b):
        return squared_distance(a[:1], b[:1])

    return careless(own, neighbours, weights, context, distance=distance)


def with_the_given_weights(own, neighbours, weights, context):
    if not neighbours:
        return own
    out = int(np.argmax([squared_distance(own, model) for model in neighbours]))
    w = np.delete(weights, 1 + out)
    kept = [own, *neighbours[:out], *neighbours[out + 1 :]]
    return averaging.weighted_mean(own, kept[1:], w / w.sum())


def keeps_a_lone_neighbour(own, neighbours, weights, context):
    if len(neighbours) < 2:
        return plain_mean(own, neighbours, weights, context)
    return careless(own, neighbours, weights, context)


def by_distance(candidates, context):
    me = context.node_config["partition-id"]
    return sorted(candidates, key=lambda other: abs(other - me))


def rounds_on_the_torus():
    W = mixing.metropolis(named("torus", 64))
    return mixing.rounds_to_consensus(W, tolerance=1e-3)


def hear(*hops):
    return solution("03").hear(*hops)


def shuffled_ring(server_round):
    places = np.random.default_rng(server_round).permutation(16).tolist()
    return nx.relabel_nodes(RING, dict(enumerate(places)))


def by_own_size(graph, sizes):
    linked = nx.to_numpy_array(graph, nodelist=range(len(graph)))
    W = (linked + np.eye(len(graph))) * sizes[:, None]
    return W / W.sum(axis=1, keepdims=True)


def without_itself(graph, sizes):
    W = nx.to_numpy_array(graph, nodelist=range(len(graph))) * sizes
    return W / W.sum(axis=1, keepdims=True)


def verdict_by(*, times=1.0, paired=True, only_the_end=False, two_sided=False):
    """Return a judge of curves that makes a mistake."""

    def judge(a, b):
        gap = b - a
        spread = stats.sem(gap, axis=0)
        if not paired:
            spread = stats.sem(a, axis=0) + stats.sem(b, axis=0)
        shift = np.abs(gap.mean(axis=0)) if two_sided else gap.mean(axis=0)
        behind = shift > times * stats.t.ppf(0.975, len(gap) - 1) * spread
        if only_the_end:
            return "worse" if behind[-1] else "same"
        return "worse" if behind[-1] else "later" if behind.any() else "same"

    return judge


def squared_sum(array):
    return (array**2).sum()


def norm(model):
    return sum(map(squared_sum, model))


def sum_of_norms(model):
    return sum(map(np.linalg.norm, model))


def adopt(key, *, own=True, rounds=3):
    """Return an average function that adopts models in the first rounds."""

    def average(mine, neighbours, weights, context):
        if context.server_round > rounds:
            return averaging.weighted_mean(mine, neighbours, weights)
        return max([mine, *neighbours] if own else neighbours, key=key)

    return average


def stacked_hits(X, x, y):
    weights = X[:, :640].unflatten(1, (10, 64))
    logits = torch.einsum("cof,mf->cmo", weights, x) + X[:, None, 640:]
    return (logits.argmax(dim=2) == y).float()


def unnormalised(W, X, online):
    mixed = X.copy()
    mixed[online] = W[np.ix_(online, online)] @ X[online]
    return mixed


def renormalised(W, X, online):
    mixed, V = X.copy(), W[np.ix_(online, online)]
    mixed[online] = V / V.sum(axis=1, keepdims=True) @ X[online]
    return mixed


def by_columns(W, X, online):
    links = W * np.outer(online, online)
    np.fill_diagonal(links, 0)
    return links @ X + (1 - links.sum(axis=0))[:, None] * X


def in_place(W, X, online):
    W *= np.outer(online, online)
    W += np.diag(1 - W.sum(axis=1))
    return W @ X


def by_age(divide):
    """Return a create function that merges with the shares that `divide` gives."""

    def create(received, before, update):
        share = divide(received.age, before.age)[:, None]
        w = share * received.w + (1 - share) * before.w
        return update(merging.Linear(w, np.maximum(received.age, before.age)))

    return create


def update_twice(received, before, update):
    create = solution("10").merge_by_age()[0]
    return update(create(received, before, update))


def young(received, before, update):
    def younger(models):
        return update(models._replace(age=np.minimum(received.age, before.age)))

    return solution("10").merge_by_age()[0](received, before, younger)


def account(proactive, reactive):
    """Return an account of these functions of the balance."""
    functions = {
        "proactive": staticmethod(proactive),
        "reactive": staticmethod(lambda tokens, useful: reactive(tokens)),
    }
    return type("Account", (), functions)


def if_useful(proactive, reactive):
    """Return an account that answers useful messages alone."""
    functions = {
        "proactive": staticmethod(proactive),
        "reactive": staticmethod(lambda t, useful: np.where(useful, reactive(t), 0)),
    }
    return type("Account", (), functions)


def full_at(capacity):
    return lambda tokens: (tokens >= capacity) * 1.0


def one_if_any(tokens):
    return (tokens > 0) * 1.0


def signs(size_of, pack=np.packbits):
    """Return a codec of notebook 11 that says signs and one magnitude."""

    def encode(x):
        return [np.array([size_of(x)]), pack(x > 0)]

    def decode(message, size):
        bits = message[1] if pack is not np.packbits else np.unpackbits(message[1])
        return message[0] * (2.0 * bits[:size] - 1)

    return [encode, decode]


def tenth(places, *, tell=False):
    """Return a codec of notebook 11 that says the numbers at some places."""

    def encode(x, server_round):
        at = places(len(x), server_round)
        return [at, x[at]] if tell else [x[at]]

    def decode(message, size, server_round):
        x = np.zeros(size)
        x[message[0] if tell else places(size, server_round)] = message[-1]
        return x

    return [encode, decode]


def drawn(size, seed):
    return np.random.default_rng(seed).choice(size, size // 10, replace=False)


def remembered_tenth():
    """Return a codec of notebook 11 whose two sides share a variable."""
    last = {}

    def encode(x, server_round):
        last["at"] = drawn(len(x), FRESH)
        return [x[last["at"]]]

    def decode(message, size, server_round):
        x = np.zeros(size)
        x[last["at"]] = message[0]
        return x

    return [encode, decode]


FRESH = np.random.default_rng(0)


WRONG = [
    ("00.1", "counts twice", lambda: [5 + 4 * 3]),
    ("00.1", "all", lambda: [16]),
    ("00.1", "without client 0", lambda: [10]),
    ("00.1", "neighbours' neighbours alone", lambda: [6]),
    ("00.2", "too slow a graph", lambda: [digits_run(RING, 20)]),
    ("00.2", "too dear a graph", lambda: [digits_run(named("torus", 16), 20)]),
    ("00.2", "too few rounds", lambda: [digits_run(named("torus", 16), 2)]),
    ("00.2", "the graph, no result", lambda: [named("torus", 16)]),
    ("00.1", "a word", lambda: ["ten"]),
    ("00.3", "nothing new", lambda: ["same", "same", 3]),
    ("00.3", "both better", lambda: ["larger", "larger", 3]),
    ("00.3", "gossip adds the same", lambda: ["larger", "same", 3]),
    ("00.3", "numbers", lambda: [0.86, 0.07, 3]),
    ("00.3", "all digits, not those that are new", lambda: ["larger", "smaller", 10]),
    ("00.3", "a sentence", lambda: ["larger", "smaller", "all digits"]),
    ("01.1", "one way only", lambda: [1000 * 50 * SIZE, SIZE, 1000, 50]),
    ("01.1", "one round only", lambda: [2 * 1000 * SIZE, SIZE, 1000, 50]),
    ("01.1", "models, not bytes", lambda: [2 * 1000 * 50, SIZE, 1000, 50]),
    ("01.1", "kilobytes", lambda: [2 * 50 * SIZE, SIZE, 1000, 50]),
    ("01.2", "numbers, no run", lambda: [0.5, 0.95]),
    ("01.2", "all clients", lambda: fedavg_run(1.0, 1)),
    ("01.2", "too few rounds", lambda: fedavg_run(0.25, 2)),
    ("01.1", "the formula", lambda: ["2 * n * size", SIZE, 1000, 50]),
    ("01.3", "of a ring", lambda: [lambda graph, size: 4 * size]),
    ("01.3", "one way only", lambda: [lambda graph, size: size * most_links(graph)]),
    ("01.3", "all clients", lambda: [lambda graph, size: 4 * size * len(graph.edges)]),
    ("01.3", "a server's", lambda: [lambda graph, size: 2 * size * len(graph)]),
    ("01.4", "nobody is missed", lambda: ["same", "same", 15]),
    ("01.4", "all are missed", lambda: ["lower", "lower", 15]),
    ("01.4", "the leaf is missed", lambda: ["same", "lower", 15]),
    ("01.4", "numbers", lambda: [-0.08, 0.0, 15]),
    ("01.4", "one part more", lambda: ["lower", "same", 16]),
    ("01.4", "a sentence", lambda: ["lower", "same", "they are alone"]),
    ("02.1", "not lazy", lambda: [mixing.metropolis]),
    ("02.1", "not symmetric", lambda: [half_of(mixing.uniform)]),
    ("02.1", "nobody listens", lambda: [lambda graph: np.eye(len(graph))]),
    ("02.1", "sums to 1/2", lambda: [lambda graph: mixing.metropolis(graph) / 2]),
    ("02.2", "too many links", lambda: [named("torus", 16)]),
    ("02.2", "too slow", lambda: [RING]),
    ("02.2", "ring and chords", lambda: [nx.circulant_graph(16, [1, 8])]),
    ("02.2", "directed", lambda: [named("exponential", 16)]),
    ("02.3", "rounded down", lambda: [53]),
    ("02.3", "one more", lambda: [55]),
    ("02.3", "the estimate", lambda: [53.5]),
    ("02.4", "links help", lambda: ["larger", "larger", 0.25]),
    ("02.4", "links do not matter", lambda: ["same", "same", 0.25]),
    ("02.4", "on the ring it does not matter", lambda: ["same", "larger", 0.25]),
    ("02.4", "gaps", lambda: [0.044, 0.051, 0.25]),
    ("02.4", "the weight of before", lambda: ["smaller", "larger", 1 / 3]),
    ("02.4", "a sentence", lambda: ["smaller", "larger", "it listens less"]),
    ("03.1", "rounded down", lambda: [55, TORUS_RATE]),
    ("03.1", "one more", lambda: [57, TORUS_RATE]),
    ("03.1", "not rounded", lambda: [math.log(1e-3, TORUS_RATE), TORUS_RATE]),
    ("03.2", "all equal", lambda: [np.ones(15)]),
    ("03.2", "to and fro", lambda: [[1, -1] * 7 + [0]]),
    ("03.2", "the slow wave", lambda: [np.cos(2 * np.pi * np.arange(15) / 15)]),
    ("03.2", "for 16", lambda: [[1, 0, -1] * 5 + [0]]),
    ("03.3", "one-peer", lambda: [one_peer_of_12()]),
    ("03.3", "hears all", lambda: [[np.full((12, 12), 1 / 12)]]),
    ("03.3", "for 16", lambda: [[np.eye(16)]]),
    ("03.4", "lazy is more", lambda: ["more", "same", 1.41]),
    ("03.4", "as many more", lambda: ["fewer", "more", 1.41]),
    ("03.4", "fewer of a longer ring", lambda: ["fewer", "fewer", 1.41]),
    ("03.4", "twice as many", lambda: ["fewer", "same", 2.0]),
    ("03.4", "not one of the words", lambda: ["less", "same", 1.41]),
    ("03.4", "a sentence", lambda: ["fewer", "same", "the root"]),
    ("04.1", "all alike", lambda: [lambda o, ns, w: plain_mean(o, ns, w, None)]),
    ("04.1", "the neighbours alone", lambda: [mean_without_the_own]),
    ("04.1", "the first array alone", lambda: [lambda o, ns, w: mean_of(o, ns, w)[:1]]),
    ("04.1", "one array of all", lambda: [lambda o, ns, w: mean_of(o, ns, w)[0]]),
    ("04.1", "the own weight last", lambda: [lambda o, ns, w: mean_of(o, ns, w[::-1])]),
    ("04.2", "listens to who differs", lambda: [[0.4, 0.15, 0.45]]),
    ("04.2", "no share for its own", lambda: [[0.4, 0.75, 0.25]]),
    ("04.2", "by 1 - distance", lambda: [[0.4, 0.6 * 0.9 / 1.6, 0.6 * 0.7 / 1.6]]),
    ("04.2", "the own last", lambda: [[0.45, 0.15, 0.4]]),
    ("04.2", "the own left out", lambda: [[0.75, 0.25]]),
    ("04.4", "leaves nobody out", lambda: [plain_mean]),
    ("04.4", "leaves out the nearest", lambda: [leaves_out_the_nearest]),
    ("04.4", "by the first array", lambda: [by_the_first_array]),
    ("04.4", "the given weights", lambda: [with_the_given_weights]),
    ("04.4", "by the sum of distances", lambda: [by_the_sum_of_distances]),
    ("04.4", "keeps a lone neighbour", lambda: [keeps_a_lone_neighbour]),
    ("04.3", "the first two", lambda: [lambda c, t, context: c[:2]]),
    ("04.3", "the smallest two", lambda: [lambda c, t, context: sorted(c)[:2]]),
    ("04.3", "takes all", lambda: [lambda c, t, context: c]),
    ("04.3", "takes one", lambda: [lambda c, t, context: by_distance(c, context)[:1]]),
    ("04.3", "farthest", lambda: [lambda c, t, context: by_distance(c, context)[-2:]]),
    ("04.3", "by chance", lambda: [choose(2, seed=0)]),
    ("04.5", "as on all images", lambda: [1, "all"]),
    ("04.5", "half for the copy", lambda: [2, "half"]),
    ("04.5", "a copy has nothing to say", lambda: [2, "none"]),
    ("04.5", "weights", lambda: [0.49, 0.5]),
    ("05.1", "loses nothing", lambda: [solution("05").gossip_round]),
    ("05.1", "the same each time", lambda: [losing(0.1, again=True)]),
    ("05.1", "half", lambda: [losing(0.5)]),
    ("05.1", "seven in a hundred", lambda: [losing(0.06)]),
    ("05.1", "all of a client", lambda: [losing(0.1, by=lambda i, j: i)]),
    ("05.1", "both ways", lambda: [losing(0.1, by=lambda i, j: 99 * i * j + i + j)]),
    ("05.1", "weights of what came", lambda: [losing(0.1, shares=True)]),
    ("05.1", "for good", lambda: [losing(0.1, for_good=True)]),
    ("05.2", "all", lambda: [solution("05").gossip_round]),
    ("05.2", "always the first", lambda: [halving(lambda: range(8))]),
    ("05.2", "each with a chance", lambda: [halving(coin)]),
    ("05.2", "hears who is away", lambda: [halving(random_half, among=False)]),
    ("05.2", "asks who is away", lambda: [asks_who_is_away]),
    ("05.2", "nobody is heard", lambda: [halving(random_half, alone=True)]),
    ("05.3", "the ring", lambda: [lambda t: RING]),
    ("05.3", "four neighbours", lambda: [lambda t: REGULAR]),
    ("05.3", "pairs of a ring", lambda: [topology.random_matching(RING)]),
    ("05.4", "epochs do not count", lambda: ["same", "smaller"]),
    ("05.4", "more training, more agreement", lambda: ["smaller", "smaller"]),
    ("05.4", "data do not count", lambda: ["larger", "same"]),
    ("05.4", "more to agree on", lambda: ["larger", "larger"]),
    ("05.4", "numbers", lambda: [0.45, 0.23]),
    ("06.1", "those who have", lambda: [4]),
    ("06.1", "of another digit", lambda: [8]),
    ("06.2", "the last word", lambda: [verdict_by(only_the_end=True)]),
    ("06.2", "no interval", lambda: [verdict_by(times=0)]),
    ("06.2", "the normal's 1.96", lambda: [verdict_by(times=1.96 / 2.776)]),
    ("06.2", "each by itself", lambda: [verdict_by(paired=False)]),
    ("06.2", "ahead is not the same", lambda: [verdict_by(two_sided=True)]),
    ("06.2", "a number", lambda: [lambda a, b: (b - a).mean()]),
    ("06.3", "uniform", lambda: [lambda graph, sizes: mixing.uniform(graph)]),
    ("06.3", "own size", lambda: [by_own_size]),
    ("06.3", "not itself", lambda: [without_itself]),
    ("06.4", "as above", lambda: [1.0, 60]),
    ("06.4", "too late", lambda: [0.01, 60]),
    ("06.4", "too soon", lambda: [0.5, 20]),
    ("06.4", "the best in the long run", lambda: [0.1, 60]),
    ("06.4", "ended too low", lambda: [0.3, 60]),
    ("06.4", "too long", lambda: [0.1, 1000]),
    ("06.5", "no difference", lambda: ["same", "same"]),
    ("06.5", "worse on the star", lambda: ["worse", "same"]),
    ("06.5", "also on the ring", lambda: ["better", "better"]),
    ("06.5", "other words", lambda: ["0.47", "0.50"]),
    ("08.1", "at the optimum", lambda: [0.0]),
    ("08.1", "of client 0", lambda: [-0.375]),
    ("08.1", "at its own optimum", lambda: [1.0]),
    ("08.1", "weights 1/3", lambda: [0.1 / (1 - 0.7 / 3)]),
    ("08.1", "steps after averaging", lambda: [0.3 / (1 / 3 + 0.3)]),
    ("08.2", "plain", lambda: [lambda x, m, W, g, eta: (W @ x - eta * g(x), 0)]),
    ("08.2", "is not lazy", lambda: [extra(lambda W: W)]),
    ("08.2", "forgets its gradient", lambda: [extra(gradients=False)]),
    ("08.2", "changes the models", lambda: [extra(in_place=True)]),
    ("08.3", "half", lambda: [0.5]),
    ("08.3", "no laziness", lambda: [0.0]),
    ("08.3", "nearly", lambda: [0.34]),
    ("08.3", "from -1/3 to 0", lambda: [0.25]),
    (
        "08.4",
        "tracking depends on the step",
        lambda: ["larger", "larger", "same", "smaller"],
    ),
    ("08.4", "momentum amplifies", lambda: ["larger", "same", "smaller", "smaller"]),
    ("08.4", "order does not matter", lambda: ["larger", "same", "same", "same"]),
    ("08.4", "other words", lambda: ["more", "same", "same", "less"]),
    ("08.5", "always averages", lambda: [averaging.weighted_mean]),
    ("08.5", "largest array", lambda: [adopt(lambda m: max(map(squared_sum, m)))]),
    ("08.5", "never the own", lambda: [adopt(norm, own=False)]),
    ("08.5", "adopts for ever", lambda: [adopt(norm, rounds=99)]),
    ("08.5", "two rounds", lambda: [adopt(norm, rounds=2)]),
    ("08.5", "sum of norms", lambda: [adopt(sum_of_norms)]),
    ("10.1", "the start is full", lambda: [120, 30]),
    ("10.1", "saves nothing", lambda: [100, 10]),
    ("10.1", "no new tokens", lambda: [100, 20]),
    ("10.1", "never a full account", lambda: [80, 30]),
    ("10.1", "one too many", lambda: [100, 31]),
    ("10.2", "no ages", lambda: [merging.merge_update]),
    ("10.2", "update-merge", lambda: [merging.update_merge]),
    ("10.2", "0 / 0", lambda: [by_age(lambda a, b: a / (a + b))]),
    ("10.2", "never an even share", lambda: [by_age(lambda a, b: (a > b) * 1.0)]),
    ("10.2", "younger counts more", lambda: [by_age(lambda a, b: b / (a + b + 1e-9))]),
    ("10.2", "updates twice", lambda: [update_twice]),
    ("10.2", "as old as the younger", lambda: [young]),
    ("10.4", "waits for all from the start", lambda: [15, 100, 100]),
    ("10.4", "never hears of it", lambda: [3, 20, 100]),
    ("10.4", "one hop more", lambda: [3, 80, 100]),
    ("10.4", "one hop less", lambda: [3, 88, 100]),
    ("10.4", "a server like neighbours", lambda: [3, 84, 84]),
    ("10.4", "in words", lambda: ["three", 84, 100]),
    ("10.3", "plain", lambda: [network.SimpleTokenAccount(0)]),
    ("10.3", "too large", lambda: [network.SimpleTokenAccount(20)]),
    ("10.3", "all tokens at once", lambda: [network.GeneralizedTokenAccount(12, 1)]),
    ("10.3", "not each period", lambda: [network.RandomizedTokenAccount(12, 6)]),
    ("10.3", "answers alone", lambda: [account(full_at(99), one_if_any)]),
    ("10.3", "never answers", lambda: [account(full_at(12), np.zeros_like)]),
    ("10.3", "simple", lambda: [network.SimpleTokenAccount(12)]),
    ("10.3", "answers all", lambda: [network.GeneralizedTokenAccount(12, 6)]),
    ("10.3", "one answer of many", lambda: [if_useful(full_at(12), one_if_any)]),
    ("11.1", "heads suit their clients", lambda: ["higher", "lower"]),
    ("11.1", "no difference", lambda: ["same", "same"]),
    ("11.1", "worse everywhere", lambda: ["lower", "lower"]),
    ("11.1", "numbers", lambda: [0.0, -0.3]),
    ("11.2", "few levels", lambda: [Qsgd(31), 1.0]),
    ("11.2", "many levels", lambda: [Qsgd(256), 1.0]),
    ("11.2", "small steps", lambda: [Qsgd(63), 0.6]),
    ("11.2", "the largest tenth", lambda: [TopK(0.1), 0.3]),
    ("11.2", "diverges", lambda: [RandomK(0.1), 1.0]),
    ("11.2", "no codec", lambda: [63, 1.0]),
    ("11.3", "magnitude 1", lambda: signs(lambda x: 1.0)),
    ("11.3", "the largest magnitude", lambda: signs(lambda x: np.abs(x).max())),
    ("11.3", "a byte each", lambda: signs(lambda x: np.abs(x).mean(), np.uint8)),
    ("11.3", "no signs", lambda: [lambda x: [x.mean()], lambda m, n: np.full(n, *m)]),
    ("11.4", "tells the places", lambda: tenth(drawn, tell=True)),
    ("11.4", "always the same", lambda: tenth(lambda n, t: drawn(n, 0))),
    ("11.4", "no common seed", lambda: tenth(lambda n, t: drawn(n, FRESH))),
    ("11.4", "in turn", lambda: tenth(lambda n, t: np.arange(t % 10, n, 10))),
    ("11.4", "the sender remembers", lambda: remembered_tenth()),
    ("11.5", "all as naive", lambda: ["larger", "larger", "larger"]),
    ("11.5", "nothing changes", lambda: ["same", "same", "same"]),
    ("11.5", "few numbers suffer", lambda: ["same", "larger", "larger"]),
    ("11.5", "numbers", lambda: [1.0, 1.2, 14.0]),
    ("14.1", "X once", lambda: [int(8e9 / (2 * 4 * 4810))]),
    ("14.1", "float64", lambda: [int(8e9 / (3 * 8 * 4810))]),
    ("14.2", "counts", lambda: [lambda X, x, y: stacked_hits(X, x, y).sum(1)]),
    ("14.2", "losses", lambda: [lambda X, x, y: X[:, 0]]),
    ("14.2", "one for all", lambda: [lambda X, x, y: X.mean()]),
    ("14.2", "by example", lambda: [lambda X, x, y: stacked_hits(X, x, y).mean(0)]),
    ("14.3", "all online", lambda: [lambda W, X, online: W @ X]),
    ("14.3", "rows that do not sum to 1", lambda: [unnormalised]),
    ("14.3", "scaled to 1", lambda: [renormalised]),
    ("14.3", "columns", lambda: [by_columns]),
    ("14.3", "in place", lambda: [in_place]),
    ("14.2", "a list", lambda: [lambda X, x, y: [0.5] * len(X)]),
    ("14.4", "neighbours do not matter", lambda: ["same", "same"]),
    ("14.4", "a larger ring is slower", lambda: ["lower", "lower"]),
    ("14.4", "more know more", lambda: ["lower", "higher"]),
    ("14.4", "numbers", lambda: [-0.09, 0.0]),
]


# Notebook 07.


def fair(by="senders", kept=True, own=True):
    """Return a fair discover function with a mistake."""

    class Fair:
        def __init__(self):
            self.state = {}

        def counts(self, context):
            state = context.state if kept else self.state
            return dict(state.get("heard", {})), state

        def hear(self, model, neighbours, context):
            if by == "senders":
                self.count(context, context.senders)

        def count(self, context, clients):
            counts, state = self.counts(context)
            for j in clients:
                counts[str(j)] = counts.get(str(j), 0) + 1
            state["heard"] = ConfigRecord(counts)

        def __call__(self, candidates, server_round, context):
            counts, _ = self.counts(context)
            key = lambda j: counts.get(str(j), 0)  # noqa: E731
            chosen = sorted(candidates, key=key, reverse=not own)[:2]
            if by == "chosen":
                self.count(context, chosen)
            return chosen

    return Fair()


WRONG += [
    ("07.1", "equal weights", lambda: [0]),
    ("07.1", "those who differ", lambda: [4]),
    ("07.1", "as in the notebook", lambda: [-2]),
    ("07.1", "too choosy", lambda: [-6]),
    ("07.1", "words", lambda: ["-4"]),
    ("07.2", "the class", lambda: [type(fair())]),
    ("07.2", "does not hear", lambda: [choose(2)]),
    ("07.2", "never counts", lambda: [fair(by="nothing")]),
    ("07.2", "whom it chose", lambda: [fair(by="chosen")]),
    ("07.2", "in the object", lambda: [fair(kept=False)]),
    ("07.2", "those heard most", lambda: [fair(own=False)]),
    ("07.2", "by likeness", lambda: [LikeModels(2)]),
    ("07.3", "those alike", lambda: [[0, 1, 2]]),
    ("07.3", "numbers of others", lambda: [[1, 3, 4]]),
    ("07.3", "two", lambda: [[0, 3]]),
    ("07.3", "one twice", lambda: [[0, 3, 3]]),
    ("07.4", "Laplace without steps", lambda: [math.sqrt(2) / 2, 5 * math.sqrt(2) / 2]),
    ("07.4", "variance of 2", lambda: [0.96, 4.81]),
    ("07.4", "spent once", lambda: [math.log(2), math.log(2)]),
    ("07.4", "root of five", lambda: [math.log(2), math.sqrt(5) * math.log(2)]),
    ("07.4", "words", lambda: ["ln 2", "5 ln 2"]),
    ("07.5", "more is better", lambda: ["better", "better"]),
    ("07.5", "all alike", lambda: ["worse", "same"]),
    ("07.5", "the other way", lambda: ["better", "worse"]),
    ("07.5", "numbers", lambda: [-0.2, 0.2]),
]


# Notebook 09.


def of_digits(*digits):
    """Return meetings of those whose numbers differ in one binary digit, in turn."""
    return [(i, i | digit) for digit in digits for i in range(16) if not i & digit]


def rotations(n, rounds):
    return [(i, (i + 2**k) % n) for k in range(rounds) for i in range(n)]


def push_by_a_matrix(s, w, to):
    P = np.eye(len(s)) / 2
    P[to, np.arange(len(s))] += 1 / 2
    return P @ s, P @ w


def keeps_the_last_share(s, w, to):
    new_s, new_w = s / 2, w / 2
    new_s[to] += s / 2
    new_w[to] += w / 2
    return new_s, new_w


def pushes_in_place(s, w, to):
    for values in (s, w):
        half = values / 2
        values -= half
        np.add.at(values, to, half)
    return s, w


def pushes_all(s, w, to):
    return tuple(np.bincount(to, values, minlength=len(s)) for values in (s, w))


ONE_OF_TWENTY = [1] + [0] * 19

WRONG += [
    ("09.1", "between nothing and all calls", lambda: [(1 + 0.3033) / 2]),
    ("09.1", "half a cycle", lambda: [0.3033**0.5]),
    ("09.1", "random pairs, half of them", lambda: [math.exp(-1 / 2)]),
    ("09.1", "the own call alone", lambda: [3 / 4]),
    ("09.1", "in percent", lambda: [58.4]),
    ("09.2", "too many", lambda: [of_digits(1, 2, 4, 8, 8)]),
    ("09.2", "three digits", lambda: [of_digits(1, 2, 4)]),
    ("09.2", "around the circle", lambda: [rotations(16, 2)]),
    ("09.2", "with itself", lambda: [[(0, 0)]]),
    ("09.2", "a client too many", lambda: [[(15, 16)]]),
    ("09.3", "as on the complete graph", lambda: ["same", "same", 0.2]),
    ("09.3", "less at once", lambda: ["less", "less", 0.2]),
    ("09.3", "more later", lambda: ["same", "more", 0.2]),
    ("09.3", "numbers", lambda: [0.02, 0.004, 0.2]),
    ("09.3", "all of it", lambda: ["same", "less", 1.0]),
    ("09.3", "a share of all variance", lambda: ["same", "less", 0.004]),
    ("09.3", "a sentence", lambda: ["same", "less", "they are alike"]),
    ("09.4", "the last one counts", lambda: [keeps_the_last_share]),
    ("09.4", "in place", lambda: [pushes_in_place]),
    ("09.4", "keeps nothing", lambda: [pushes_all]),
    ("09.5", "an average", lambda: [ONE_OF_TWENTY, [1] * 20]),
    ("09.5", "all alike", lambda: [[1] * 20, [1] * 20]),
    ("09.5", "knows n already", lambda: [[20] * 20, [1] * 20]),
    ("09.5", "no weight", lambda: [[1] * 20, [0] * 20]),
    ("09.5", "numbered", lambda: [list(range(20)), ONE_OF_TWENTY]),
    ("09.5", "a client too few", lambda: [[1] * 19, [1] + [0] * 18]),
]


# Notebook 12.


NOT_CUT = [(5, 0), (1, 8), (2, 9)]
TOGETHER = [(0, 8), (0, 9), (2, 8)]


def two_groups(*links):
    """Return the two groups of notebook 12, with more links."""
    graph = nx.barbell_graph(5, 1)
    graph.add_edges_from(links)
    return graph


def weiszfeld(steps, floor, *, norm=squared_distance):
    """Return a geometric median by some steps, with a smallest distance."""

    def average(own, neighbours, weights, context):
        models = [own, *neighbours]
        x = plain_mean(own, neighbours, weights, context)
        for _ in range(steps):
            with np.errstate(all="ignore"):
                far = [np.maximum(np.sqrt(norm(x, model)), floor) for model in models]
                w = 1 / np.array(far)
                x = [
                    sum(a * b for a, b in zip(w, layer, strict=True)) / w.sum()
                    for layer in zip(*models, strict=True)
                ]
        return x

    return average


def coordinate_median(own, neighbours, weights, context):
    return [np.median(layer, axis=0) for layer in zip(own, *neighbours, strict=True)]


WRONG += [
    ("12.1", "leaves nobody out", lambda: [90, 180 / 11, 140 / 11]),
    ("12.1", "leaves one out", lambda: [50, 100 / 11, 140 / 11]),
    ("12.1", "leaves three out", lambda: [3, 6 / 11, 140 / 11]),
    ("12.1", "no weights", lambda: [4, 8, 140]),
    ("12.1", "one arrow", lambda: [4, 4 / 11, 90 / 11]),
    ("12.1", "the mean of the two", lambda: [4, 8 / 11, 70]),
    ("12.2", "no link more", lambda: [two_groups(), two_groups(*TOGETHER)]),
    ("12.2", "two links", lambda: [two_groups((0, 10), (1, 9)), two_groups(*TOGETHER)]),
    (
        "12.2",
        "client 5 forgotten",
        lambda: [two_groups((0, 10), (1, 9), (2, 8)), two_groups(*TOGETHER)],
    ),
    (
        "12.2",
        "two at one client",
        lambda: [two_groups((0, 10), (0, 9), (5, 1)), two_groups(*TOGETHER)],
    ),
    (
        "12.2",
        "at the old contacts",
        lambda: [two_groups((4, 6), (0, 10), (5, 0)), two_groups(*TOGETHER)],
    ),
    ("12.2", "too many links", lambda: [nx.complete_graph(11), two_groups(*TOGETHER)]),
    ("12.2", "another graph", lambda: [named("regular", 11), two_groups(*TOGETHER)]),
    ("12.2", "directed", lambda: [named("exponential", 11), two_groups(*TOGETHER)]),
    ("12.2", "one graph for both", lambda: [two_groups(*NOT_CUT)] * 2),
    ("12.2", "the other for both", lambda: [two_groups(*TOGETHER)] * 2),
    (
        "12.2",
        "three single links",
        lambda: [two_groups(*NOT_CUT), two_groups((0, 10), (1, 9), (2, 8))],
    ),
    (
        "12.2",
        "all voices at one client",
        lambda: [two_groups(*NOT_CUT), two_groups((4, 6), (4, 7), (4, 8))],
    ),
    (
        "12.2",
        "two links are not enough",
        lambda: [two_groups(*NOT_CUT), two_groups((4, 6), (4, 7))],
    ),
    ("12.3", "the mean", lambda: [plain_mean]),
    ("12.3", "the median of each number", lambda: [coordinate_median]),
    ("12.3", "one step", lambda: [weiszfeld(1, 1e-9)]),
    ("12.3", "NaN", lambda: [weiszfeld(500, 0)]),
    ("12.3", "squares", lambda: [weiszfeld(500, 1e-9, norm=lambda a, b: 1)]),
    (
        "12.3",
        "by the first array",
        lambda: [
            weiszfeld(500, 1e-9, norm=lambda a, b: squared_distance(a[:1], b[:1]))
        ],
    ),
    ("12.4", "half are enough", lambda: [6, 3, 1]),
    ("12.4", "the median as f = 1", lambda: [1, 3, 1]),
    ("12.4", "f at both ends", lambda: [5, 6, 1]),
    ("12.4", "clipping shortens all", lambda: [5, 3, 10]),
    ("12.4", "rules, not numbers", lambda: ["median", "trimmed", "clipped"]),
    ("12.5", "a stamp is a stamp", lambda: ["same", "less", "same"]),
    ("12.5", "one is enough", lambda: ["less", "same", "same"]),
    ("12.5", "twice as many", lambda: ["less", "less", "more"]),
    ("12.5", "the middle is seen more", lambda: ["more", "less", "same"]),
    ("12.5", "shares", lambda: [0.3, 0.6, 1.0]),
]

# Notebook 13.


def image_by(number):
    """Return a function that divides the first row by some number of it."""
    return lambda dW: dW[0] / number(dW[0])


def floats(message):
    return message.view(np.int64) * 2.0**-40


RING_BEHIND_ONE = nx.cycle_graph(range(1, 16))
RING_BEHIND_ONE.add_edge(0, 1)
WRONG += [
    ("13.1", "the largest number", lambda: [lambda dW: dW[0] / dW[0].max()]),
    ("13.1", "the size of the largest", lambda: [image_by(lambda r: np.abs(r).max())]),
    ("13.1", "one sign for all", lambda: [image_by(np.min)]),
    ("13.1", "all rows", lambda: [lambda dW: dW / np.abs(dW).max()]),
    ("13.1", "the mean of all", lambda: [lambda dW: np.abs(dW.sum(axis=0))]),
    ("13.2", "with all three masks", lambda: [(412 + 345 + 871 + 230) % 1000]),
    ("13.2", "the other sign", lambda: [(412 - 871 - 230) % 1000]),
    ("13.2", "no modulus", lambda: [412 + 871 + 230]),
    ("13.2", "one mask", lambda: [(412 + 871) % 1000]),
    ("13.3", "no units", lambda: [lambda one, two: (two - one).view(np.int64)]),
    ("13.3", "no sign", lambda: [lambda one, two: (two - one) * 2.0**-40]),
    ("13.3", "floats first", lambda: [lambda one, two: floats(two) - floats(one)]),
    ("13.3", "one minus two", lambda: [lambda one, two: floats(one - two)]),
    ("13.3", "a sum", lambda: [lambda one, two: floats(two + one)]),
    ("13.4", "one message", lambda: [privacy.noise_std(2, 1, 1e-5)]),
    ("13.4", "ε/20 by the formula", lambda: [privacy.noise_std(2, 1 / 20, 1e-5)]),
    ("13.4", "a little too much", lambda: [solution("13").noise_for_twenty()[0] * 1.1]),
    ("13.5", "the ring", lambda: [named("ring", 16)]),
    ("13.5", "the 4-regular graph", lambda: [named("regular", 16, seed=0)]),
    ("13.5", "in the middle of the star", lambda: [nx.star_graph(15)]),
    ("13.5", "a ring behind one neighbour", lambda: [RING_BEHIND_ONE]),
    ("13.5", "alone", lambda: [nx.empty_graph(16)]),
    ("13.5", "too few", lambda: [nx.star_graph([1, 0, *range(2, 15)])]),
]

# Notebook 15.


def prepared(*, fill=0.0, scale="std", words=True, order="alphabet", label="sick"):
    """Prepare a table as 15.1 asks, or otherwise."""

    def prepare(table):
        y = np.unique(table["sick"], return_inverse=True)[1]
        if order == "as they come":
            y = pd.factorize(table["sick"])[0]
        table = table.drop(columns=label)
        numbers = table.select_dtypes("number")
        spread = numbers.std(ddof=0) if scale == "1/n" else numbers.std()
        if scale == "the gaps' own":  # filled after the scale is taken
            numbers = ((numbers - numbers.mean()) / spread).fillna(fill)
        elif fill is not None:
            numbers = numbers.fillna(numbers.mean() if fill == 0 else fill)
            spread = numbers.std(ddof=0) if scale == "1/n" else numbers.std()
            numbers = (numbers - numbers.mean()) / spread
        others = table.select_dtypes(exclude="number")
        if not words:
            return numbers.to_numpy(), y
        return np.hstack([numbers, pd.get_dummies(others, dtype=float)]), y

    return prepare


def of_pandas(table):
    """Return a DataFrame, in which words are True and False."""
    words = pd.get_dummies(table.drop(columns="sick").select_dtypes(exclude="number"))
    x, y = prepared(words=False)(table)
    numbers = pd.DataFrame(x, index=table.index)
    return pd.concat([numbers, words], axis=1), y


def spoils_the_table(table):
    x, y = prepared()(table)
    table.pop("sick")
    return x, y


def pooled_by(mean, variance):
    """Return 15.2 with another mean, or another variance, of shares, means, ..."""

    def pooled(counts, means, variances):
        share = counts / counts.sum()
        mu = mean(share, means)
        return mu, variance(share, means, variances, mu)

    return pooled


def weighted(share, means):
    return share @ means


def regression_by(*, steps=20, intercept=True, mean=True, forget=False):
    """Return 15.3 with a mistake."""

    def regression(parts):
        app = ClientApp()

        @app.train()
        def train(message, context):
            x, y = parts[context.node_config["partition-id"]]
            w, b = message.content["arrays"].to_numpy_ndarrays()
            if forget:
                w, b = np.zeros_like(w), np.zeros_like(b)
            for _ in range(steps):
                error = (x @ w + b - y) / (len(y) if mean else 10)
                w, b = w - 0.1 * x.T @ error, b - 0.1 * intercept * error.sum()
            arrays, metrics = ArrayRecord([w, b]), MetricRecord({"num-examples": 1})
            content = RecordDict({"arrays": arrays, "metrics": metrics})
            return Message(content, reply_to=message)

        return app

    return regression


WRONG += [
    ("15.1", "leaves the gaps", lambda: [prepared(fill=None)]),
    ("15.1", "fills with a number", lambda: [prepared(fill=1.0)]),
    ("15.1", "1/n", lambda: [prepared(scale="1/n")]),
    ("15.1", "fills after scaling", lambda: [prepared(scale="the gaps' own")]),
    ("15.1", "no words", lambda: [prepared(words=False)]),
    ("15.1", "classes as they come", lambda: [prepared(order="as they come")]),
    ("15.1", "spoils the table", lambda: [spoils_the_table]),
    ("15.1", "the label among the words", lambda: [prepared(label=[])]),
    (
        "15.1",
        "words as they are",
        lambda: [lambda t: (t.drop(columns="sick"), t["sick"])],
    ),
    (
        "15.1",
        "words in x",
        lambda: [lambda t: (t.drop(columns="sick"), prepared()(t)[1])],
    ),
    (
        "15.2",
        "all clients weigh alike",
        lambda: [pooled_by(lambda s, m: m.mean(0), lambda s, m, v, mu: v.mean(0))],
    ),
    (
        "15.2",
        "the mean of the variances",
        lambda: [pooled_by(weighted, lambda s, m, v, mu: s @ v)],
    ),
    (
        "15.2",
        "the means weigh alike",
        lambda: [pooled_by(weighted, lambda s, m, v, mu: s @ v + m.var(axis=0))],
    ),
    (
        "15.2",
        "the variance of the means",
        lambda: [pooled_by(weighted, lambda s, m, v, mu: s @ (m - mu) ** 2)],
    ),
    ("15.3", "one step", lambda: [regression_by(steps=1)]),
    ("15.3", "no intercept", lambda: [regression_by(intercept=False)]),
    ("15.3", "a sum", lambda: [regression_by(mean=False)]),
    ("15.3", "begins anew", lambda: [regression_by(forget=True)]),
    ("15.3", "no app", lambda: [lambda parts: None]),
    ("15.4", "gossip as FedAvg", lambda: ["larger", "larger", "same", "larger"]),
    ("15.4", "FedAvg as gossip", lambda: ["same", "same", "same", "larger"]),
    ("15.4", "more messages", lambda: ["larger", "same", "larger", "larger"]),
    ("15.4", "as many bytes", lambda: ["larger", "same", "same", "same"]),
]

# Notebook 16.


def newest(heartbeats, now, interval):
    """Take the newest heartbeat, also one that is not known yet."""
    return bool(heartbeats) and now - max(heartbeats) <= 2 * interval


def last(heartbeats, now, interval):
    known = [t for t in heartbeats if t <= now]
    return bool(known) and now - known[-1] <= 2 * interval


def online(times=2.0, strictly=False):
    def is_online(heartbeats, now, interval):
        known = [t for t in heartbeats if t <= now]
        if not known:
            return False
        age = now - max(known)
        return age < times * interval if strictly else age <= times * interval

    return is_online


def needs_one(heartbeats, now, interval):
    return now - max(t for t in heartbeats if t <= now) <= 2 * interval


def before_now(heartbeats, now, interval):
    return any(0 < now - t <= 2 * interval for t in heartbeats)


TO_ALL = {(a, b) for a in ("supernode", "flwr") for b in ("superlink", "supernode")}
WRONG += [
    ("16.1", "both ways", lambda: [{("supernode", "superlink")} | TO_ALL]),
    ("16.1", "the server calls", lambda: [{("superlink", "supernode")}]),
    ("16.1", "the laptop listens", lambda: [{("superlink", "flwr")}]),
    ("16.1", "no laptop", lambda: [{("supernode", "superlink")}]),
    ("16.1", "other words", lambda: [{("hospital", "superlink")}]),
    ("16.2", "rounds alone", lambda: [6 * 120]),
    ("16.2", "one phase a round", lambda: [6 * 63]),
    ("16.2", "no discovery", lambda: [6 * 122]),
    ("16.2", "discovers in each round", lambda: [6 * (1 + 60 * 3 + 1)]),
    ("16.2", "phases", lambda: [123]),
    ("16.3", "newest of all", lambda: [newest]),
    ("16.3", "last in the list", lambda: [last]),
    ("16.3", "one interval", lambda: [online(1.0)]),
    ("16.3", "strictly", lambda: [online(strictly=True)]),
    ("16.3", "not just now", lambda: [before_now]),
    ("16.4", "hours", lambda: [math.sqrt(2 * 2 * 6)]),
    ("16.4", "no 2", lambda: [math.sqrt(2 * 6 * 3600)]),
    ("16.4", "every hour", lambda: [3600]),
    ("16.5", "a checkpoint has all", lambda: ["equal", "equal", "equal"]),
    ("16.5", "a round again", lambda: ["different", "different", "equal"]),
    ("16.5", "models alone", lambda: ["equal", "different", "different"]),
    ("16.5", "truth values", lambda: [True, False, True]),
]

# Mistakes for which the hint is an error that the answer itself raises.
RAISES = [
    (
        "10.3",
        "spends what it lacks",
        lambda: [account(full_at(10), np.ones_like)],
        "spends 1 tokens; the balance is 0",
    ),
    ("16.3", "never heard of", lambda: [needs_one], "empty"),
    ("04.4", "no neighbours", lambda: [careless], "empty"),
    ("05.3", "other clients", lambda: [topology.one_peer_exponential(8)], "missing"),
]

# Other right answers than those in the solutions.
RIGHT_TOO = [
    ("07.1", "less choosy", lambda: [-3]),
    ("07.2", "the last of those", lambda: [fair()]),
    ("07.3", "of numpy", lambda: [np.array(solution("07").best_of_ten()[0][::-1])]),
    ("07.4", "not rounded", lambda: [math.log(2), 5 * math.log(2)]),
    ("10.1", "of numpy", lambda: [np.float64(100), np.int64(30)]),
    ("10.3", "one answer", lambda: [if_useful(full_at(5), one_if_any)]),
    (
        "02.1",
        "far lazier",
        lambda: [lambda g: 0.9 * np.eye(9) + mixing.metropolis(g) / 10],
    ),
    ("02.3", "of numpy", lambda: [np.int64(54)]),
    ("02.2", "Möbius-Kantor", lambda: [nx.moebius_kantor_graph()]),
    ("03.1", "by gossiplib", lambda: [rounds_on_the_torus(), TORUS_RATE]),
    ("03.2", "other numbers", lambda: [np.tile([5.0, 3.0, -1.0], 5)]),
    ("03.3", "other digits", lambda: [[hear(6), hear(4, 8), hear(3)]]),
    ("03.4", "computed", lambda: ["fewer", "same", 1.4412]),
    ("09.1", "measured", lambda: [np.float64(0.5803)]),
    ("09.2", "digits from the left", lambda: [of_digits(8, 4, 2, 1)]),
    ("09.3", "measured roughly", lambda: ["same", "less", 0.25]),
    ("09.4", "by a matrix", lambda: [push_by_a_matrix]),
    ("09.5", "of numpy", lambda: [np.ones(20), np.eye(20)[0]]),
    (
        "04.3",
        "a tuple",
        lambda: [lambda c, t, context: tuple(by_distance(c, context)[:2])],
    ),
    ("05.1", "by the matrix", lambda: [losing(0.1)]),
    ("05.2", "evens and odds", lambda: [halving(random_half)]),
    ("05.3", "pairs", lambda: [topology.random_matching(named("complete", 16))]),
    ("05.3", "ring, other places", lambda: [shuffled_ring]),
]
RIGHT_TOO += [
    ("12.1", "rounded", lambda: [4.0, 0.727, 12.7]),
    ("11.2", "a shorter step", lambda: [Qsgd(50), 0.9]),
    (
        "12.2",
        "from the other side",
        lambda: [
            two_groups((5, 8), (7, 1), (10, 3)),
            two_groups((9, 1), (9, 4), (7, 0)),
        ],
    ),
    ("12.3", "Weiszfeld, other floor", lambda: [weiszfeld(2000, 1e-12)]),
    ("16.1", "a list", lambda: [[("flwr", "superlink"), ("supernode", "superlink")]]),
    ("16.4", "rounded", lambda: [294]),
]


def heard_at_all(messages, peer, time):
    """Return who has influenced a peer, as if messages waited for each other."""
    known = {peer}
    for _ in messages:
        known |= {m[0] for m in messages if m[1] in known and m[3] <= time}
    return known


def heard_directly(messages, peer, time):
    return {peer} | {m[0] for m in messages if m[1] == peer and m[3] <= time}


def by_arrival(messages, peer, time):
    """Return who has influenced a peer, if a message told all until it arrives."""
    known = {peer}
    for sender, receiver, _, received in messages:
        if receiver == peer and received <= time:
            earlier = [m for m in messages if m[3] < received]
            known |= by_arrival(earlier, sender, received)
    return known


def to_the(choose, far=2):
    """Return a rule for skipping that asks the slowest, the fastest, or another."""

    def rule(mine, newest):
        there = choose(newest.values()) if newest else mine
        return there if there >= mine + far else mine

    return rule


def fresh_by(later, back=math.inf):
    """Return a rule for stamps that knows the last few processes, or one of 17.2."""

    def rule(taken, new):
        starts = [*dict.fromkeys(start for start, _ in taken)]
        if starts and new[0] == starts[-1]:
            return later(new[1], taken[-1][1])
        return new[0] not in starts[-min(back, len(starts)) :]

    return rule


WRONG += [
    ("17.1", "believes it", lambda: [1 / 2]),
    ("17.1", "all of it", lambda: [1.0]),
    ("17.1", "its neighbours only", lambda: [1 / 3]),
    ("17.1", "a higher degree", lambda: [1 / 5]),
    (
        "17.2",
        "the count alone",
        lambda: [lambda taken, new: not taken or new[1] > taken[-1][1]],
    ),
    ("17.2", "the next one", lambda: [lambda taken, new: new[1] == len(taken) + 1]),
    ("17.2", "another one", lambda: [lambda taken, new: new not in taken]),
    (
        "17.2",
        "starts in order",
        lambda: [lambda taken, new: not taken or new > max(taken)],
    ),
    ("17.2", "repeated ones too", lambda: [fresh_by(lambda a, b: a >= b)]),
    ("17.2", "one start back", lambda: [fresh_by(lambda a, b: a > b, back=2)]),
    ("17.2", "all", lambda: [lambda taken, new: True]),
    ("17.3", "the fastest", lambda: [to_the(max)]),
    ("17.3", "a round is far", lambda: [to_the(min, 1)]),
    ("17.3", "three are far", lambda: [to_the(min, 3)]),
    ("17.3", "never", lambda: [lambda mine, newest: mine]),
    ("17.3", "back", lambda: [lambda mine, newest: min(newest.values(), default=mine)]),
    ("17.4", "no order", lambda: [heard_at_all]),
    ("17.4", "neighbours alone", lambda: [heard_directly]),
    ("17.4", "when it arrives", lambda: [by_arrival]),
    ("17.4", "itself", lambda: [lambda messages, peer, time: {peer}]),
    ("17.5", "all are refused", lambda: ["refused"] * 4),
    ("17.5", "no loss", lambda: ["refused", "taken", "refused", "refused"]),
    ("17.5", "not ahead", lambda: ["refused", "refused", "taken", "refused"]),
    ("17.5", "any degree", lambda: ["taken", "taken", "taken", "refused"]),
    ("17.5", "the true one is known", lambda: ["refused", "taken", "taken", "taken"]),
    ("17.5", "truth values", lambda: [False, True, True, False]),
]
RIGHT_TOO += [("15.1", "a table of pandas", lambda: [of_pandas])]
RIGHT_TOO += [("17.1", "rounded", lambda: [0.25])]


# Notebook 18.


def printed(name):
    """Return the source of an entry that the notebook prints."""
    return function(read(*find(ROOT, ["18"])), name)


def trimmed(most, *, axis=0, dtype=True, ends=(1, 1)):
    """Trim up to `most` values at each end."""

    def average(own, neighbours, weights, context):
        k = 1 + len(neighbours)
        low, high = (end * min(most, (k - 1) // 2) for end in ends)
        layers = [np.sort(x, axis=0) for x in zip(own, *neighbours, strict=True)]
        means = [layer[low : k - high].mean(axis=axis) for layer in layers]
        return means if not dtype else [m.astype(np.float32) for m in means]

    return average


def trims_in_place(own, neighbours, weights, context):
    mixed = trimmed(2)(own, neighbours, weights, context)
    for array, mean in zip(own, mixed, strict=True):
        array[...] = mean
    return own


def in_float64(own, neighbours, weights, context):
    wide = [[a.astype(np.float64) for a in model] for model in (own, *neighbours)]
    return trimmed(2, dtype=False)(wide[0], wide[1:], weights, context)


WRONG += [
    ("18.1", "as many", lambda: [4]),
    ("18.1", "an even number of models", lambda: [7]),
    ("18.1", "too many", lambda: [9]),
    ("18.1", "not whole", lambda: [8.5]),
    ("18.2", "without losses", lambda: [8]),
    ("18.2", "one way", lambda: [20]),
    ("18.2", "not whole", lambda: [10.3]),
    ("18.2", "one end", lambda: [9]),
    ("18.3", "the mean", lambda: [trimmed(0)]),
    ("18.3", "one at each end", lambda: [trimmed(1)]),
    ("18.3", "the median", lambda: [trimmed(9)]),
    ("18.3", "the largest alone", lambda: [trimmed(2, ends=(0, 1))]),
    ("18.3", "another axis", lambda: [trimmed(2, axis=-1)]),
    ("18.3", "in place", lambda: [trims_in_place]),
    ("18.3", "float64", lambda: [in_float64]),
    ("18.4", "verify finds all", lambda: ["vvvvvvv"]),
    ("18.4", "merge runs entries", lambda: ["mmmptpv"]),
    ("18.4", "merge knows who wrote it", lambda: ["mvmmtpv"]),
    ("18.4", "verify knows who wrote it", lambda: ["mvmvtpv"]),
    ("18.4", "verify reads programs", lambda: ["mvmptvv"]),
    ("18.4", "any seeds will do", lambda: ["mvvptpv"]),
    ("18.4", "verify knows chance", lambda: ["mvmpvpv"]),
    ("18.4", "other seeds show a global variable", lambda: ["mvmpttv"]),
    ("18.4", "a row is a row", lambda: ["mvmptpp"]),
    ("18.4", "chance on the open board alone", lambda: ["mvmptpt"]),
    ("18.4", "too few", lambda: ["mv"]),
    ("18.5", "the start", lambda: [printed("start")]),
    ("18.5", "the last one printed", lambda: [printed("together")]),
]
RAISES += [
    ("18.3", "of gossiplib", lambda: [robust.TrimmedMean(2)], "more links"),
    ("18.5", "a plan", lambda: [3], "written in a cell"),
]
RIGHT_TOO += [
    ("18.1", "of numpy", lambda: [np.int64(8)]),
    ("18.4", "with spaces", lambda: ["M V M P T P V"]),
]


def cases(*rows):
    return [pytest.param(*row, id=f"{row[0]} {row[1]}") for row in rows]


def test_each_notebook_has_solutions_and_each_exercise_one():
    assert [p.stem for p in SOLUTIONS] == [p.stem for p in find(ROOT)]
    answers = {p.stem[:2]: list(solution(p.stem[:2]).ANSWERS) for p in SOLUTIONS}
    assert all(e.startswith(number) for number in answers for e in answers[number])
    assert sorted(e for exercises in answers.values() for e in exercises) == EXERCISES


@pytest.mark.parametrize("exercise", EXERCISES)
def test_is_in_the_notebook_of_its_number(exercise):
    (path,) = find(ROOT, [exercise[:2]])
    code = [c.source for c in read(path).cells if c.cell_type == "code"]
    assert sum(f'check("{exercise}"' in source for source in code) == 1


@pytest.mark.parametrize("exercise", EXERCISES)
def test_is_not_answered_by_a_placeholder(exercise):
    assert verdict(exercise, None) == "not answered yet."


@pytest.mark.parametrize("exercise", EXERCISES)
def test_solution_is_right(exercise):
    answer = solution(exercise[:2]).ANSWERS[exercise]
    assert verdict(exercise, *answer()).startswith("right!")


@pytest.mark.parametrize(("exercise", "idea", "answer"), cases(*RIGHT_TOO))
def test_other_answer_is_right_too(exercise, idea, answer):
    assert verdict(exercise, *answer()).startswith("right!")


@pytest.mark.parametrize(("exercise", "mistake", "answer"), cases(*WRONG))
def test_mistake_gets_a_hint_that_does_not_leak(exercise, mistake, answer):
    said = verdict(exercise, *answer())
    assert said.startswith("not yet. ")
    leaks = [w for w in ANSWER_IN_WORDS.get(exercise, ()) if w in said.casefold()]
    assert leaks == []


@pytest.mark.parametrize(("exercise", "mistake", "answer", "part"), cases(*RAISES))
def test_mistake_that_raises_is_told_so(exercise, mistake, answer, part):
    said = verdict(exercise, *answer())
    assert said.startswith("your answer raised ") and part in said


@pytest.mark.parametrize(
    ("exercise", "part"), [("02.9", "02.1, 02.2, 02.3, 02.4"), ("2.1", "none")]
)
def test_what_is_no_exercise_is_named(exercise, part):
    with pytest.raises(ValueError, match=f"no exercise '{exercise}'; there are {part}"):
        verdict(exercise, None)


def test_a_truth_is_measured_once_and_only_for_words(monkeypatch):
    monkeypatch.setitem(CHECKS, "99.1", None)  # and is taken out again
    measured = []

    told = "{0:+.1f} above and {1:+.1f} below, {2} in all."

    @predicts("99.1", "up", "down", "Look up.", "Look down.", same=0.1, told=told)
    def changes():
        measured.append("once")
        return [0.2, -0.2, 7]

    assert verdict("99.1", "over", "under").startswith("not yet. Each answer is")
    assert measured == []
    assert verdict("99.1", "same", "down") == "not yet. Look up."
    assert verdict("99.1", "up", "up") == "not yet. Look down."
    assert (
        verdict("99.1", "up", "down") == "right! +0.2 above and -0.2 below, 7 in all."
    )
    assert len(measured) == 1


def test_each_exercise_has_mistakes():
    assert {row[0] for row in WRONG} == set(EXERCISES)
