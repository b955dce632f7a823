"""What each discover function must hold, in one table; and what single ones promise.

Oracles: counting by hand, brute force over all cliques, the variance that theory gives.
"""

import inspect
from itertools import combinations

import networkx as nx
import numpy as np
import pytest
from contexts import in_round
from flwr.app import ConfigRecord, Context, RecordDict
from scipy import stats
from sklearn.datasets import load_digits

import gossiplib.core
import gossiplib.protocols
from gossiplib.core.averaging import SoftmaxDistance, name_of
from gossiplib.core.client import accept_all, choose, gossip
from gossiplib.core.grid import LocalGrid
from gossiplib.core.server import Gossip
from gossiplib.protocols.codecs import TopK
from gossiplib.protocols.compressed import Compressed
from gossiplib.protocols.labels import d_cliques, tell_labels
from gossiplib.protocols.neighbours import LikeLabels, LikeModels, UnlikeLabels
from gossiplib.tasks.task import Task, digits
from gossiplib.vectorized.engine import gossip_learning
from toy_apps import drifting_app, still_app, zeros

N, K = 8, 3
TOLD = np.random.default_rng(0).integers(0, 9, size=(N, 4))
#: Name -> how to make it afresh, and how many it takes.
DISCOVERS = {
    "accept_all": (lambda: accept_all, N),
    "choose": (lambda: choose(K, seed=1), K),
    "LikeModels": (lambda: LikeModels(K, explore=0.3, seed=1), K),
    "LikeLabels": (lambda: LikeLabels(TOLD, K), K),
    "UnlikeLabels": (lambda: UnlikeLabels(TOLD, K), K),
}
EACH = pytest.mark.parametrize("name", DISCOVERS)


def by(client=0, state=None):
    """Return the Context of a client, with a state to keep things in."""
    kept = RecordDict() if state is None else state
    return Context(0, 0, {"partition-id": client, "num-partitions": N}, kept, {})


def test_the_table_has_all_that_the_faces_have():
    for face in (gossiplib.protocols, gossiplib.core):
        for name in face.__all__:
            thing = getattr(face, name)
            call = thing.__call__ if inspect.isclass(thing) else thing
            if not inspect.isfunction(call):
                continue
            takes = inspect.signature(call)
            if "candidates" in takes.parameters or "Discover" in str(
                takes.return_annotation
            ):
                assert name in DISCOVERS
                assert f"`{name}`" in gossiplib.protocols.__doc__


@EACH
@pytest.mark.parametrize("candidates", [[], [5], [6, 2], [7, 1, 4, 2, 6, 3, 5]])
def test_it_chooses_among_the_candidates_the_same_again(name, candidates):
    make, most = DISCOVERS[name]
    for server_round in (1, 2, 9):
        offered = [*candidates]
        found = [list(make()(offered, server_round, by())) for _ in range(2)]
        assert found[0] == found[1] and offered == candidates
        assert len({*found[0]}) == len(found[0]) == min(most, len(candidates))
        assert {*found[0]} <= {*candidates}
        assert all(type(j) is int for j in found[0])


@EACH
def test_it_works_in_a_run_and_alone(name):
    make, most = DISCOVERS[name]
    app = gossip(drifting_app(), discover=make())
    schedule = nx.complete_graph(N - 1)
    schedule.add_node(N - 1)  # who has nobody to hear
    strategy = Gossip(lambda t: schedule, discover_every=1)
    result = strategy.start(LocalGrid(app, N), zeros(), 3)
    assert not result.lost
    assert result.messages == dict.fromkeys((1, 2, 3), (N - 1) * min(most, N - 2))
    assert np.array_equal(result.models()[-1], 3 * N * np.arange(1.0, 4.0))


@EACH
def test_it_goes_on_from_a_checkpoint_to_the_bit(name, tmp_path):
    make, _ = DISCOVERS[name]
    task, whole = digits(N, alpha=1.0), nx.complete_graph(N)

    def play(rounds, go="start", *first):
        app = gossip(task.client_app(), discover=make())
        strategy = Gossip(whole, discover_every=2, checkpoint=tmp_path / "run.zip")
        start = getattr(strategy, go)
        return start(*first, LocalGrid(app, N), task.initial_arrays(), rounds)

    play(5)
    resumed = play(8, "resume", tmp_path / "run.zip")
    straight = play(8)
    assert np.array_equal(resumed.models(), straight.models())
    assert resumed.messages == straight.messages


# What a client hears.


class Listener:
    """Takes all, and writes down what it hears; it fails when it is told to."""

    def __init__(self, fail=False):
        self.heard, self.fail = [], fail

    def hear(self, own, neighbours, context):
        if self.fail:
            raise LookupError("what was that?")
        models = [model[0].copy() for model in neighbours]
        senders, t = context.senders.tolist(), context.server_round
        self.heard.append((int(context.clients), t, senders, own[0].copy(), models))

    def __call__(self, candidates, server_round, context):
        return candidates


def test_hear_is_told_who_sent_which_model_before_they_are_averaged():
    ears = Listener()
    grid = LocalGrid(gossip(still_app(), discover=ears), 4)
    result = Gossip(nx.path_graph(4), evaluate_every=0).start(grid, zeros(), 1)
    assert not result.lost
    start = [np.random.default_rng(i).normal(size=3) for i in range(4)]
    assert [one[:3] for one in ears.heard] == [
        (0, 1, [1]),
        (1, 1, [0, 2]),
        (2, 1, [1, 3]),
        (3, 1, [2]),
    ]
    for client, _, senders, own, models in ears.heard:
        assert np.array_equal(own, start[client])
        assert np.array_equal(models, [start[j] for j in senders])


def test_a_hear_that_fails_is_named_and_changes_nothing():
    app = gossip(still_app(), discover=Listener(fail=True))
    result = Gossip(nx.path_graph(3)).start(LocalGrid(app, 3), zeros(), 1)
    assert [loss[2] for loss in result.lost] == 3 * ["train.average"]
    assert "LookupError: what was that?" in result.lost[0].reason
    assert np.array_equal(
        result.models(), [np.random.default_rng(i).normal(size=3) for i in range(3)]
    )


def test_hear_cannot_change_what_is_averaged():
    """It is refused, and neither the own model nor one that came has changed."""
    for mine in (True, False):

        class Writer(Listener):
            def hear(self, own, neighbours, context, mine=mine):
                (own if mine else neighbours[0])[0][...] = 0

        app = gossip(drifting_app(), discover=Writer())
        result = Gossip(nx.path_graph(2)).start(LocalGrid(app, 2), zeros(), 1)
        assert [loss[2] for loss in result.lost] == 2 * ["train.average"]
        assert "read-only" in result.lost[0].reason
        assert all(np.any(model) for model in result.models())


def test_who_does_not_hear_keeps_its_state_all_the_same():
    def discover(candidates, server_round, context):
        context.state["calls"] = ConfigRecord({"at": server_round})
        SEEN.append(dict(context.state["calls"]))
        return candidates

    SEEN = []
    app = gossip(still_app(), discover=discover)
    strategy = Gossip(nx.path_graph(2), discover_every=1)
    strategy.start(LocalGrid(app, 2), zeros(), 3)
    assert SEEN == [{"at": t} for t in (1, 1, 2, 2, 3, 3)]


def test_who_hears_models_needs_neighbours_that_send_models():
    with pytest.raises(ValueError, match="would hear models, but Compressed"):
        gossip(still_app(), average=Compressed(TopK(0.5)), discover=LikeModels(2))


# By models.


def test_all_are_heard_once_and_then_the_nearest_and_a_share_is_left_to_chance():
    """Distances are Euclid's over all arrays, measured when a client was heard last."""
    state = RecordDict()
    model = lambda x: [np.full((2, 2), x), np.array([x], dtype=np.float32)]  # noqa: E731
    discover, now = (
        LikeModels(2),
        in_round(0, senders=[3, 1, 2], state=state),
    )
    discover.hear(model(0.0), [model(3.0), model(-1.0), model(2.0)], now)
    want = {"3": 3 * 5**0.5, "1": 5**0.5, "2": 2 * 5**0.5}
    assert dict(state["distances"]) == pytest.approx(want)
    heard, everybody = [1, 2, 3], [1, 2, 3, 4, 5, 6, 7]
    assert discover(heard, 2, by(0, state)) == [1, 2]
    assert {*discover(everybody, 2, by(0, state))} < {4, 5, 6, 7}
    assert [{*discover([2, 3, 1, 5], t, by(0, state))} for t in (2, 3)] == 2 * [{1, 5}]
    again = in_round(0, 2, senders=[1], state=state)
    discover.hear(model(0.0), [model(9.0)], again)
    assert discover(heard, 3, by(0, state)) == [2, 3]

    others = [4, 5, 6, 7]
    far = in_round(0, 3, senders=others, state=state)
    discover.hear(model(0.0), [model(20.0 + j) for j in others], far)
    curious = LikeModels(2, explore=0.25)
    drawn = [curious(everybody, t, by(0, state)) for t in range(2000)]
    share = np.mean([len({*d} - {2, 3}) / 2 for d in drawn])
    # A place of chance goes to any but those taken: to 2 or 3 now and then.
    one, both = 2 * 0.25 * 0.75, 0.25**2
    theory = one / 2 * 5 / 6 + both * 5 / 7
    assert abs(share - theory) < 4 * np.sqrt(0.2 / 4000)


def test_likeness_is_over_what_is_learned_as_the_consensus_distance():
    """Counters do not count, nor what a mask of infinite values hides."""
    state = RecordDict()
    own = [np.array([1.0, -np.inf]), np.array([3j]), np.array(7)]
    other = [np.array([4.0, -np.inf]), np.array([7j]), np.array(900)]
    LikeModels(2).hear(own, [other], in_round(0, 1, senders=[5], state=state))
    assert dict(state["distances"]) == {"5": 5.0}


@pytest.mark.parametrize(
    ("options", "what"),
    [({"k": 0}, "k must be"), ({"k": 2, "explore": 1.5}, "explore")],
)
def test_likeness_by_impossible_numbers(options, what):
    with pytest.raises(ValueError, match=what):
        LikeModels(**options)


def camps(seed):
    """Return a task in which clients 8 to 15 give the digits other names."""
    x, y = load_digits(return_X_y=True)
    task = Task(x / 16, y, 16, partition="iid", holdout=0.2, seed=seed)
    rows = task.parts.index[task.parts.starts[8] : task.parts.starts[16]]
    task.y[rows] = (task.y[rows] + 5) % 10
    return task


class Watched(LikeModels):
    """Writes down who is nearest of those that it has heard."""

    def __call__(self, candidates, server_round, context):
        known = dict(context.state.get("distances", {}))
        near = sorted(known, key=known.get)[: self.k]
        friends = [
            int(j) // 8 == context.node_config["partition-id"] // 8 for j in near
        ]
        SHARES.setdefault(server_round, []).append(np.mean(friends or 0))
        return super().__call__(candidates, server_round, context)


SHARES: dict[int, list[float]] = {}


def test_likeness_finds_the_camps():
    """From round 8 on nine of ten nearest are friends: in 3 of 4 seeds, or more."""
    found = 0
    for seed in range(4):
        SHARES.clear()
        task = camps(seed)
        discover = Watched(4, seed=seed)
        app = gossip(task.client_app(batch_size=64, lr=1.0), discover=discover)
        strategy = Gossip(
            nx.complete_graph(16), discover_every=1, evaluate_every=0, observe_every=0
        )
        strategy.start(LocalGrid(app, 16), task.initial_arrays(), 9)
        assert np.mean(SHARES[2]) < 0.7  # those of the first draw
        found += np.mean(SHARES[8]) >= 0.9
    assert found >= 3


def test_likeness_pays_on_the_camps_for_who_stops_exploring():
    """Against clients alone, after 30 rounds; exploring for ever gains not half."""
    options = {"evaluate_every": 30, "observe_every": 0}

    def accuracy(result):
        return result.evaluate_metrics_clientapp[30]["accuracy"]

    gains = []
    for seed in range(3):
        task = camps(seed)
        alone = gossip_learning(
            task, lambda t: nx.empty_graph(16), 30, batch_size=64, lr=1.0, **options
        )
        for explore in (0, 0.25):
            discover = LikeModels(4, explore=explore, seed=seed)
            app = gossip(task.client_app(batch_size=64, lr=1.0), discover=discover)
            strategy = Gossip(nx.complete_graph(16), discover_every=1, **options)
            heard = strategy.start(LocalGrid(app, 16), task.initial_arrays(), 30)
            gains.append(accuracy(heard) - accuracy(alone))
    assert np.min(gains[::2]) > 0.04, gains
    assert np.mean(gains[1::2]) < 0.5 * np.mean(gains[::2]), gains


def test_the_oracle_is_never_beaten_by_who_knows_less():
    """Averaging within one's camp alone, against ways that do not know the camps."""
    both = nx.disjoint_union(nx.complete_graph(8), nx.complete_graph(8))
    everybody, nobody = nx.complete_graph(16), nx.empty_graph(16)
    margins = []
    for seed in range(3):
        task = camps(seed)
        rules = [{}, {}] + [
            {"average": SoftmaxDistance(task.predict, self_weight=w, alpha=a)}
            for w, a in ((0.5, -4), (0.2, -4), (0.5, -2), (0.5, 4))
        ]
        graphs = [nobody] + 5 * [everybody]
        runs = [({}, both), *zip(rules, graphs, strict=True)]
        learned = [
            gossip_learning(
                task,
                lambda t, graph=graph: graph,
                20,
                batch_size=64,
                lr=1.0,
                evaluate_every=10,
                observe_every=0,
                **options,
            ).evaluate_metrics_clientapp
            for options, graph in runs
        ]
        best, *others = ([m["accuracy"] for m in run.values()] for run in learned)
        margins.append(best - np.max(others, axis=0))
    assert np.min(margins) > 0.03, margins


# By labels.


def test_labels_by_hand():
    told = np.array([[8, 0], [0, 4], [9, 1], [1, 1], [-3, 5]])
    everybody = [1, 2, 3, 4]
    assert LikeLabels(told, 2)(everybody, 1, by()) == [2, 3]
    # The mean of all is (.48, .52): with 1 or 4, 0 comes to (.5, .5); then each hurts.
    assert UnlikeLabels(told, 1)(everybody, 1, by()) == [1]
    assert UnlikeLabels(told, 2)(everybody, 1, by()) == [1, 3]
    told[3] = 0  # who holds nothing, or tells so, counts as even
    assert LikeLabels(told, 2)(everybody, 1, by()) == [2, 3]
    assert UnlikeLabels(told, 2)(everybody, 1, by()) == [1, 3]


def shares(told):
    """Return shares of classes, written once more; who tells nothing counts as even."""
    out = []
    for row in np.maximum(told, 0):
        even = np.full(len(row), 1 / len(row))
        out.append(row / row.sum() if row.sum() else even)
    return np.array(out)


def skews(told, cliques):
    p = shares(told)
    return [np.abs(p[list(c)].mean(axis=0) - p.mean(axis=0)).sum() for c in cliques]


def test_d_cliques_in_small_are_the_best_there_are():
    """Brute force over all ways to make two cliques of six clients; the best of tries.

    Greedy swaps may end in what no swap improves: so it is held that they end there,
    and that of a few tries one is the best of all.
    """
    for case in range(5):
        told = np.random.default_rng(case).integers(0, 9, size=(6, 3))
        halves = [(0, *two) for two in combinations(range(1, 6), 2)]
        pairs = [(half, tuple(sorted({*range(6)} - {*half}))) for half in halves]
        sums = {frozenset(pair): sum(skews(told, pair)) for pair in pairs}
        ends = set()
        for seed in range(6):
            one, other = d_cliques(told, 3, seed=seed).graph["cliques"]
            end = sums[frozenset((tuple(one), tuple(other)))]
            for a in one:
                for b in other:
                    swapped = (
                        tuple(sorted({*one} - {a} | {b})),
                        tuple(sorted({*other} - {b} | {a})),
                    )
                    assert sums[frozenset(swapped)] > end - 1e-9
            ends.add(round(end, 9))
        assert min(ends) == pytest.approx(min(sums.values()))


@pytest.mark.parametrize("size", [2, 4, 5, 16])
def test_d_cliques_are_cliques_joined_pair_by_pair(size):
    told = digits(16, alpha=0.1).label_counts()
    graph = d_cliques(told, size, seed=3)
    cliques = graph.graph["cliques"]
    assert sorted(sum(cliques, [])) == list(range(16))
    sizes = [len(clique) for clique in cliques]
    assert max(sizes) <= size and max(sizes) - min(sizes) <= 1
    inside = sum(s * (s - 1) // 2 for s in sizes)
    between = len(cliques) * (len(cliques) - 1) // 2
    assert graph.number_of_edges() == inside + between and nx.is_connected(graph)
    assert nx.utils.graphs_equal(graph, d_cliques(told, size, seed=3))
    extra = [graph.degree(i) - len(c) + 1 for c in cliques for i in c]
    for clique in cliques:
        more = [graph.degree(i) for i in clique]
        assert max(more) - min(more) <= 1
    assert sum(extra) == 2 * between


def test_the_mix_of_a_d_clique_is_nearer_to_that_of_all():
    for seed in range(5):
        told = digits(16, alpha=0.1, seed=seed).label_counts()
        drawn = np.random.default_rng(seed).permutation(16).reshape(4, 4)
        ours = np.mean(skews(told, d_cliques(told, 4, seed=seed).graph["cliques"]))
        assert ours < 0.85 * np.mean(skews(told, drawn))


@pytest.mark.parametrize("size", [1, 17])
def test_cliques_of_an_impossible_size(size):
    with pytest.raises(ValueError, match="size"):
        d_cliques(np.ones((16, 2), int), size)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 3.0])
def test_noise_is_as_theory_says(epsilon):
    """Mean 0, variance 2q/(1-q)², and each whole number as often as scipy says."""
    noise = tell_labels(np.zeros(200_000, int), epsilon=epsilon, seed=5)
    q = np.exp(-epsilon)
    variance = 2 * q / (1 - q) ** 2
    assert abs(noise.mean()) < 4 * np.sqrt(variance / len(noise))
    assert noise.var() == pytest.approx(variance, rel=0.03)
    theory = stats.dlaplace(epsilon)
    assert theory.var() == pytest.approx(variance)
    for z in (0, 1, -2):
        p = theory.pmf(z)
        assert np.mean(noise == z) == pytest.approx(p, abs=4 * np.sqrt(p / len(noise)))


def test_counts_in_the_clear_and_another_draw():
    assert np.array_equal(tell_labels(TOLD), TOLD)
    one, same, other = (tell_labels(TOLD, epsilon=1, seed=s) for s in (0, 0, 1))
    assert np.array_equal(one, same) and not np.array_equal(one, other)
    for epsilon in (0, -1, np.nan):
        with pytest.raises(ValueError, match="epsilon"):
            tell_labels(TOLD, epsilon=epsilon, seed=0)
    with pytest.raises(ValueError, match="needs a seed"):  # a known one hides nothing
        tell_labels(TOLD, epsilon=1)


def test_so_much_noise_that_nothing_is_left():
    noise = tell_labels(np.zeros(1000, int), epsilon=1e-17, seed=0)
    assert np.median(np.abs(noise)) > 1e15


@pytest.mark.parametrize("rule", [LikeLabels, UnlikeLabels])
def test_labels_by_impossible_numbers_and_what_a_checkpoint_sees(rule):
    for k in (0, -1, 1.5):
        with pytest.raises(ValueError, match="k must be"):
            rule(TOLD, k)
    assert name_of(rule(TOLD, 2)) == f"{rule.__name__}(k=2)"
    assert name_of(choose(2)) not in (name_of(choose(3)), name_of(choose(2, seed=1)))
