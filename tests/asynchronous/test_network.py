"""Messages on their way: who sends, who answers, what the network does."""

import networkx as nx
import numpy as np
import pytest
from scipy import stats

from gossiplib.asynchronous.network import Network, Traffic, arrivals


def journal(traffic, cycles, react=None):
    """Return each message that left and arrived: (slot, number, sender, receiver)."""
    left, arrived = [], []
    for t in range(1, cycles + 1):
        for now in traffic.slots(t):
            for sender in traffic.leave().tolist():
                left.append((now, len(left), sender))
            for wave in traffic.arrive():
                arrived += [(now, *message) for message in zip(*wave, strict=True)]
                traffic.react(wave[2], np.ones(len(wave[2]), dtype=bool))
    return left, arrived


class OneStarts:
    """An account: all save three tokens; then client 0 sends once; all answer."""

    def __init__(self):
        self.calls = 0

    def proactive(self, tokens):
        self.calls += 1
        sends = np.zeros(len(tokens))
        sends[0] = self.calls == 4
        return sends

    def reactive(self, tokens, useful):
        return np.ones(len(tokens))


def test_the_receiver_answers_not_the_sender():
    # On a one-way ring, a message that everybody answers goes around: 0, 1, 2, ...
    # If the answer left from the sender, client 0 would write to client 1 for ever.
    ring = nx.cycle_graph(12, create_using=nx.DiGraph)
    traffic = Traffic(12, 0, graph=ring, account=OneStarts())
    left, arrived = journal(traffic, 3 + 10)
    assert [sender for _, _, sender in left] == list(range(10))
    assert [(s, r) for _, _, s, r in arrived] == [(i, i + 1) for i in range(10)]
    assert [slot for slot, *_ in arrived] == list(range(4, 14))  # one hop a slot
    assert traffic.tokens.tolist() == [12] + 9 * [12] + [12, 13]


def test_the_sender_of_an_answer_pays_for_it():
    ring = nx.cycle_graph(12, create_using=nx.DiGraph)
    traffic = Traffic(12, 0, graph=ring, account=OneStarts())
    journal(traffic, 5)  # client 0 sent at its timer, in cycle 4; 1 answered in 5
    assert traffic.sent.tolist() == [0, 1] + 10 * [0]
    # Client 1 paid for its answer, and client 2 for the one that leaves next.
    assert traffic.tokens.tolist() == [4, 4, 4] + 9 * [5]


@pytest.mark.parametrize("graph", [None, nx.cycle_graph(30)])
def test_each_client_sends_once_a_cycle_to_a_random_neighbour(graph):
    left, arrived = journal(Traffic(30, 1, graph=graph, slots=7), 50)
    for t in range(50):
        slots = range(7 * t + 1, 7 * t + 8)
        assert sorted(s for now, _, s in left if now in slots) == list(range(30))
    assert len(arrived) == len(left) == 1500
    assert all(s != r for _, _, s, r in arrived)
    if graph is not None:
        assert all(graph.has_edge(s, r) for _, _, s, r in arrived)
    pairs = {(s, r) for _, _, s, r in arrived}
    assert len(pairs) == (60 if graph is not None else len(pairs))
    count = np.bincount([r for *_, r in arrived], minlength=30)
    assert stats.chisquare(count).pvalue > 1e-3


def test_timers_are_spread_over_the_slots_and_do_not_move():
    left, _ = journal(Traffic(1000, 0, slots=5), 3)
    when = [{s: now % 5 for now, _, s in left if (now - 1) // 5 == t} for t in range(3)]
    assert when[0] == when[1] == when[2]
    assert stats.chisquare(np.bincount(list(when[0].values()))).pvalue > 1e-3


def test_messages_take_one_to_delay_slots():
    left, arrived = journal(Traffic(200, 0, network=Network(delay=4)), 60)
    at = {number: now for now, number, _ in left}
    took = [now - at[number] + 1 for now, number, *_ in arrived]
    counts = np.bincount(took)[1:]
    assert len(counts) == 4 and stats.chisquare(counts).pvalue > 1e-3
    assert len(left) - len(arrived) < 600  # only those of the last slots are on the way


def test_messages_are_lost_with_the_probability_given():
    left, arrived = journal(Traffic(200, 0, network=Network(drop=0.3)), 50)
    lost = len(left) - len(arrived)
    assert stats.binomtest(lost, len(left), 0.3).pvalue > 1e-3


def test_who_is_offline_neither_sends_nor_hears():
    traffic = Traffic(200, 0, network=Network(online=0.6))
    left, arrived = journal(traffic, 50)
    assert stats.binomtest(len(left), 50 * 200, 0.6).pvalue > 1e-3
    assert stats.binomtest(len(arrived), len(left), 0.6).pvalue > 1e-3
    senders = {(now, s) for now, _, s in left}
    assert {(now, r) for now, *_, r in arrived} <= senders  # in a cycle of one slot


def test_faults_change_no_receivers():
    _, plain = journal(Traffic(50, 3, slots=3), 10)
    _, dropped = journal(Traffic(50, 3, slots=3, network=Network(drop=0.5)), 10)
    assert set(dropped) < set(plain)


def test_arrivals_go_in_waves_in_a_random_order():
    receivers = np.array([3, 1, 3, 3, 0, 1])
    firsts = set()
    for seed in range(50):
        waves = list(arrivals(receivers, np.random.default_rng(seed)))
        assert [to.tolist() for _, to in waves] == [[0, 1, 3], [1, 3], [3]]
        assert all((receivers[places] == to).all() for places, to in waves)
        places = np.concatenate([places for places, _ in waves])
        assert sorted(places) == list(range(6))
        firsts.add(waves[0][0][2])
    assert firsts == {0, 2, 3}
    assert list(arrivals(receivers[:0], np.random.default_rng(0))) == []
