"""Masked sums: Python's integers, the plain mean, and what one lost message leaves."""

import networkx as nx
import numpy as np
import pytest
from contexts import flat, in_round
from flwr.app import ArrayRecord
from scipy import stats

from gossiplib.core import mixing
from gossiplib.core.averaging import weighted_mean
from gossiplib.core.client import gossip
from gossiplib.core.grid import LocalGrid
from gossiplib.core.server import Gossip
from gossiplib.core.topology import drop_links
from gossiplib.protocols.masked import Masked
from gossiplib.tasks.task import digits
from gossiplib.vectorized.consensus import averaging_rounds
from gossiplib.vectorized.engine import gossip_learning
from toy_apps import still_app

N, MASKED = 12, Masked(4, seed=3)
X = np.random.default_rng(0).normal(size=(N, 50))


def context(client, server_round=1, senders=()):
    now = in_round(client, server_round, senders=senders)
    now.node_config["num-partitions"] = N
    return now


def messages(rows, group, server_round=1, masked=MASKED):
    return {j: masked.send([rows[j]], context(j, server_round))[0] for j in group}


def test_groups_part_the_clients_and_change():
    for n, size in ((12, 4), (13, 4), (3, 3), (100, 7)):
        masked = Masked(size, seed=1)
        groups = masked.groups(n, 1)
        assert sorted(sum(groups, [])) == list(range(n))
        assert all(size <= len(group) < 2 * size for group in groups)
        parts = map(sorted, nx.connected_components(masked.schedule(n)(1)))
        assert sorted(parts) == sorted(groups)
    assert MASKED.groups(N, 1) != MASKED.groups(N, 2)
    for group in MASKED.groups(N, 1):
        W = mixing.metropolis(MASKED.schedule(N)(1))
        assert np.allclose(W[np.ix_(group, group)], 1 / 4)


def test_masks_cancel_to_the_last_bit():
    """The sum of what is sent is that of the terms, in Python's own integers."""
    for group in MASKED.groups(N, 1):
        sent = messages(X, group)
        for k in range(X.shape[1]):
            total = sum(int(y[k]) for y in sent.values())
            terms = sum(round(float(X[j, k]) * 2**40) for j in group)
            assert total % 2**64 == terms % 2**64


def test_a_message_by_itself_is_uniform_whatever_is_sent():
    rows = np.zeros((N, 20_000))
    group = MASKED.groups(N, 1)[0]
    for level in (0.0, 1e5):
        for y in messages(rows + level, group).values():
            assert stats.kstest(y / 2.0**64, "uniform").pvalue > 1e-3
    hidden = messages(rows, group)
    first, second, third, _ = (hidden[j] for j in group)  # three do not cancel
    left = first + second + third
    assert stats.kstest(left / 2.0**64, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(first / 2.0**64, second / 2.0**64)[0, 1]) < 0.03


def test_secrets_change_with_the_round():
    group = MASKED.groups(N, 1)[0]
    again = [t for t in range(2, 400) if group in MASKED.groups(N, t)]
    assert again  # the same group meets again
    one, two = messages(X, group), messages(X, group, again[0])
    assert not np.any(one[group[0]] == two[group[0]])


def test_a_mask_that_is_used_twice_hides_nothing():
    """Two messages differ as their models do: so each run needs a seed of its own."""
    group = MASKED.groups(N, 1)[0]
    one, two = messages(X, group), messages(2 * X, group)
    differences = {j: (two[j] - one[j]).view(np.int64) * 2.0**-40 for j in group}
    assert all(np.abs(differences[j] - X[j]).max() < 1e-11 for j in group)
    other = messages(2 * X, group, masked=Masked(4, seed=4))
    assert not any(np.any(one[j] == other[j]) for j in group if j in other)


def plain(rows, rounds):
    """Return the plain mean of each group, by numpy."""
    rows = rows.copy()
    for t in range(1, rounds + 1):
        for group in MASKED.groups(N, t):
            rows[group] = rows[group].mean(axis=0)
    return rows


def test_it_is_the_mean_of_each_group_on_both_engines():
    steps = averaging_rounds(X, MASKED.schedule(N), average=MASKED)
    stacked = [next(steps)[0] for _ in range(3)][-1]
    assert np.abs(stacked - plain(X, 3)).max() < 1e-11
    task = digits(N, partition="dealt", examples=20)
    schedule, rare = MASKED.schedule(N), {"evaluate_every": 0, "observe_every": 0}
    found = [
        gossip_learning(task, schedule, 3, average=average, **rare).models()
        for average in (weighted_mean, MASKED)
    ]
    app = gossip(task.client_app(), average=MASKED)
    run = Gossip(schedule, **rare).start(
        LocalGrid(app, N), task.initial_arrays(), num_rounds=3
    )
    assert not run.lost
    for models in (found[1], run.models()):
        assert np.abs(models - found[0]).max() < 1e-5


def test_whoever_misses_one_keeps_its_own_model():
    """A sum that lacks one is noise: it must become nobody's model."""
    group = MASKED.groups(N, 1)[0]
    sent = messages(X, group)
    me, *others = group
    lost = others[:-1]

    def mean(senders):
        arrived = [[sent[j]] for j in senders]
        return flat(MASKED([X[me]], arrived, np.full(4, 0.25), context(me, 1, senders)))

    assert np.allclose(mean(others), X[group].mean(axis=0), rtol=0, atol=1e-12)
    assert np.array_equal(mean(lost), X[me])
    garbage = sum((sent[j] for j in lost), start=sent[me])
    assert np.abs(garbage.view(np.int64) * 2.0**-40 / 4).mean() > 1e5
    stranger = next(j for j in range(N) if j not in group)
    sent[stranger] = sent[others[-1]]
    assert np.array_equal(mean([*lost, stranger]), X[me])


def test_a_round_is_skipped_as_often_as_links_are_lost():
    """A client averages if all its three links hold."""
    n, p = 400, 0.1
    masked = Masked(4)
    rows = np.random.default_rng(1).normal(size=(n, 1))
    lossy = drop_links(masked.schedule(n), p, seed=0)
    rounds = averaging_rounds(rows, lossy, average=masked)
    before, kept = rows, []
    for _ in range(10):
        after = next(rounds)[0].copy()
        kept.append((after == before).mean())
        before = after
    share, several = 1 - (1 - p) ** 3, 10 * n / 4
    assert abs(np.mean(kept) - share) < 4 * np.sqrt(share * (1 - share) / several)


def test_a_message_that_is_none_counts_as_lost():
    group = MASKED.groups(N, 1)[0]
    me, *others = group
    sent = messages(X, group)
    arrived = [[sent[j]] for j in others]
    arrived[1] = [X[others[1]]]  # floats: its sender does not mask
    now = context(me, 1, others)
    assert np.array_equal(MASKED([X[me]], arrived, np.full(4, 0.25), now)[0], X[me])
    assert list(now.unread) == [others[1]]


def test_what_it_cannot_hide_it_refuses():
    with pytest.raises(ValueError, match="size must be a whole number, at least 3"):
        Masked(2)
    with pytest.raises(ValueError, match="num_clients"):
        MASKED.groups(3, 1)
    for bad in (np.nan, np.inf, 3e6):
        with pytest.raises(ValueError, match="finite numbers below 2097152"):
            MASKED.send([np.array([1.0, bad])], context(0))
    with pytest.raises(ValueError, match="complex"):
        MASKED.send([np.array([1j])], context(0))


def test_a_consensus_is_kept_on_flower_where_groups_lose_links():
    grid = LocalGrid(gossip(still_app(), average=MASKED), N)
    lossy = drop_links(MASKED.schedule(N), 0.3, seed=1)
    first = ArrayRecord([X[0, :3]])
    run = Gossip(lossy, evaluate_every=0).start(grid, first, num_rounds=4)
    assert not run.lost
    assert np.abs(run.models() - X[0, :3]).max() < 1e-11
