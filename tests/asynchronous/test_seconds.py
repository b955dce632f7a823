"""Seconds of rounds against sums by hand, and paces against a loop over clients."""

import networkx as nx
import numpy as np
import pytest
import torch
from test_network import journal

from gossiplib.asynchronous.engine import gossip_cycles
from gossiplib.asynchronous.merging import Learner, Linear, hinge, merge_update
from gossiplib.asynchronous.network import NetworkModel, Traffic
from gossiplib.asynchronous.seconds import Devices, Pace
from gossiplib.core.topology import one_peer_exponential
from gossiplib.tasks.task import spambase


def devices(compute, latency=0.0, bandwidth=1e9):
    one = np.ones(len(compute))
    return Devices(np.array(compute), latency * one, bandwidth * one)


def test_the_stragglers_seconds_are_those_of_a_count_by_hand():
    # 0 - 1 - 2 - 3, and 0 is slow. A message of 10 bytes takes 0.5 s, and 1 s more for
    # each copy. Round 1: client 1 has its own model at 2 s, that of 0 at 5 + 1.5, that
    # of 2 at 2 + 2.5: 6.5. Client 2 has the latest of 2, 2 + 2.5 and 2 + 1.5: 4.5, ...
    slow = devices([5.0, 2, 2, 2], latency=0.5, bandwidth=10.0)
    by_hand = [
        [0, 0, 0, 0],
        [5, 6.5, 4.5, 4.5],  # 0 hears 1 at 4.5, and is done at 5
        [11, 11.5, 11, 9],  # 0: 6.5 + 2 + 2.5; 1: 5 + 5 + 1.5; 2: from 1; 3: 2 at 9
        [16, 17.5, 16, 15.5],  # 0: own 16, 1 at 16; 1: 0 at 17.5; 2: 1 at 16; 3: 2
    ]
    ends = slow.rounds(nx.path_graph(4), 3, size=10)
    assert ends.tolist() == by_hand


def test_a_slow_client_is_felt_one_hop_farther_in_each_round():
    ends = devices([5.0] + [1.0] * 9).rounds(nx.cycle_graph(10), 20, size=0)
    hops = np.minimum(np.arange(10), 10 - np.arange(10))
    for r in range(1, 21):  # the rounds before the news came, 1 s each; then 5 s
        late = np.where(hops == 0, 5 * r, 5 * (r - hops + 1) + hops - 1)
        assert ends[r].tolist() == np.where(hops > r, r, late).tolist()


def test_a_schedule_is_asked_for_each_round():
    one = devices(np.ones(4), bandwidth=1.0)
    ends = one.rounds(one_peer_exponential(4), 2, size=3)
    assert ends.tolist() == [[0] * 4, [4] * 4, [8] * 4]  # one copy, in each round
    assert one.rounds(nx.complete_graph(4), 1, size=3)[1].tolist() == [10] * 4


def test_a_server_waits_for_those_that_it_has_chosen():
    some = Devices(np.array([1.0, 9, 2]), np.array([0.5, 0, 0]), np.array([4.0, 40, 1]))
    # The server's 10 bytes a second are shared: 10/3 each, then 5 each, then 10.
    ends = some.server_rounds([np.arange(3), np.array([0, 2]), np.array([1])], 20, 10)
    first = max(2 * (0.5 + 6) + 1, 2 * 6 + 9, 2 * 20 + 2)
    second = max(2 * (0.5 + 5) + 1, 2 * 20 + 2)
    assert ends.tolist() == [0, first, first + second, first + second + 2 * 2 + 9]


def test_times_become_slots_rounded_up():
    some = Devices(np.array([0.3, 1.01]), np.array([0.1, 0]), np.array([10.0, 1]))
    training, transfer = some.pace(size=2, slot=0.1)
    assert training.tolist() == [3, 11] and transfer.tolist() == [3, 20]


def test_what_takes_no_time_takes_a_slot():
    some = Devices(np.array([1e-12, 0.4]), np.zeros(2), np.array([1e15, 1e15]))
    training, transfer = some.pace(size=1, slot=0.1)
    assert training.tolist() == [1, 4] and transfer.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("numbers", "says"),
    [
        (([1.0, 1], [1.0], [1.0, 1]), "as many"),
        (([0.0, 1], [1.0, 1], [1.0, 1]), "above 0"),
        (([1.0, 1], [0.0, np.inf], [1.0, 1]), "finite"),
        (([1.0, 1], [0.0, -1], [1.0, 1]), "not negative"),
    ],
)
def test_bad_devices(numbers, says):
    with pytest.raises(ValueError, match=says):
        Devices(*map(np.array, numbers))


def test_graphs_of_others_than_these_clients():
    for graph in (nx.cycle_graph(5), nx.cycle_graph([0, 1, 2, 9])):
        with pytest.raises(ValueError, match="must be the clients 0..3"):
            devices(np.ones(4)).rounds(graph, 1, size=1)
    with pytest.raises(TypeError, match="networkx"):
        devices(np.ones(4)).rounds(lambda t: None, 1, size=1)


PACE = Pace(np.array([3, 5, 4, 20, 1, 7, 3, 6]), np.array([1, 4, 2, 9, 1, 3, 2, 1]))


def test_each_client_sends_whenever_it_has_trained():
    left, arrived = journal(Traffic(8, 0, slots=10, pace=PACE), 40)
    for i, training in enumerate(PACE.training):
        mine = [now for now, _, s in left if s == i]
        assert mine == list(range(mine[0], 401, training)) and mine[0] <= training
        given = [now for now, *_, r in arrived if r == i]
        assert len(set(given)) == len(given)  # one model, one training
        assert {(now + 1 - mine[0]) % training for now in given} <= {0}


def test_who_does_not_wait_is_as_a_loop_over_its_trainings():
    # Client by client, training by training: what it was sent last, of all that came
    # before it began, is merged and trained on, and leaves when that is done.
    task = spambase(8, partition="dealt", examples=5, holdout=0, dtype=torch.float64)
    left, arrived = journal(Traffic(8, 3, slots=10, pace=PACE), 20)
    to = {number: r for _, number, _, r in arrived}
    learn = Learner(task, hinge, 0.01)
    blank = Linear(np.zeros((1, 57)), np.zeros(1))
    newest, before, mail = [blank] * 8, [blank] * 8, {}
    starts = {i: min(now for now, _, s in left if s == i) for i in range(8)}
    for now in range(1, 201):
        for number, i in [(k, s) for at, k, s in left if at == now]:
            mail[number] = newest[i], now + PACE.transfer[i] - 1
        for i in range(8):  # that end a training with this slot
            end = now + 1 - starts[i]
            if end < 0 or end % PACE.training[i] or now < PACE.training[i]:
                continue
            begin = now + 1 - PACE.training[i]
            came = [
                number
                for number, (_, there) in mail.items()
                if begin - PACE.training[i] < there <= begin and to.get(number) == i
            ]
            if came:
                model = mail[max(came)][0]
                update = lambda m, i=i: learn(np.array([i]), m)  # noqa: E731
                newest[i] = merge_update(model, before[i], update)
                before[i] = model
    expected = np.array([np.append(m.w[0], m.age) for m in newest])
    run = gossip_cycles(task, 20, lam=0.01, seed=3, slots=10, pace=PACE)
    assert expected[:, -1].min() >= 5
    assert np.allclose(run.models(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("pace", "says"),
    [
        (Pace(np.ones(3, int), np.ones(4, int)), "not one training for each of 4"),
        (Pace(np.ones(4, int), np.array([1, 1, 0, 2])), "the least transfer"),
        (Pace(np.ones(4), np.ones(4, int)), "the least training must be a whole"),
    ],
)
def test_bad_paces(pace, says):
    with pytest.raises(ValueError, match=says):
        Traffic(4, 0, network=NetworkModel(), pace=pace)


def test_a_pace_of_lists_is_that_of_arrays():
    told = [PACE, tuple(array.tolist() for array in PACE)]
    ways = [Traffic(8, 0, slots=4, pace=pace) for pace in told]
    sent = [
        [way.leave().tolist() for t in (1, 2) for _ in way.slots(t)] for way in ways
    ]
    assert sent[0] == sent[1] and any(sent[0])


def test_sizes_and_slots_that_make_no_sense():
    for size in (-1, np.nan, np.inf):
        with pytest.raises(ValueError, match="size of a message"):
            devices(np.ones(4)).rounds(nx.cycle_graph(4), 1, size=size)
    for slot in (0, -1, np.nan):
        with pytest.raises(ValueError, match="slot is in seconds"):
            devices(np.ones(4)).pace(1, slot)
