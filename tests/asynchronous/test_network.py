"""Messages on their way: who sends, who answers, what the network does."""

import itertools

import networkx as nx
import numpy as np
import pytest
from scipy import stats

from gossiplib.asynchronous.network import NetworkModel, Traffic


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
    pairs = {(s, r) for _, _, s, r in arrived}
    possible = graph or nx.complete_graph(30)
    assert pairs <= set(possible.to_directed().edges)
    # 50 messages of each client: to both neighbours, and to most of 29 others.
    assert len(pairs) > (59 if graph else 30 * 20)
    count = np.bincount([r for *_, r in arrived], minlength=30)
    assert stats.chisquare(count).pvalue > 1e-3


def test_timers_are_spread_over_the_slots_and_do_not_move():
    left, _ = journal(Traffic(1000, 0, slots=5), 3)
    when = [{s: now % 5 for now, _, s in left if (now - 1) // 5 == t} for t in range(3)]
    assert when[0] == when[1] == when[2]
    assert stats.chisquare(np.bincount(list(when[0].values()))).pvalue > 1e-3


def test_messages_take_one_to_delay_slots():
    left, arrived = journal(Traffic(200, 0, network=NetworkModel(delay=4)), 60)
    at = {number: now for now, number, _ in left}
    took = [now - at[number] + 1 for now, number, *_ in arrived]
    counts = np.bincount(took)[1:]
    assert len(counts) == 4 and stats.chisquare(counts).pvalue > 1e-3
    assert len(left) - len(arrived) < 600  # only those of the last slots are on the way


def test_messages_are_lost_with_the_probability_given():
    left, arrived = journal(Traffic(200, 0, network=NetworkModel(drop=0.3)), 50)
    lost = len(left) - len(arrived)
    assert stats.binomtest(lost, len(left), 0.3).pvalue > 1e-3


def test_who_is_offline_neither_sends_nor_hears():
    traffic = Traffic(200, 0, network=NetworkModel(online=0.6))
    left, arrived = journal(traffic, 50)
    assert stats.binomtest(len(left), 50 * 200, 0.6).pvalue > 1e-3
    assert stats.binomtest(len(arrived), len(left), 0.6).pvalue > 1e-3
    senders = {(now, s) for now, _, s in left}
    assert {(now, r) for now, *_, r in arrived} <= senders  # in a cycle of one slot


def whole_sessions(here):
    """Return lengths of sessions and of breaks, of those with a begin and an end."""
    runs = [[], []]
    for client in here.T:
        changes = np.flatnonzero(np.diff(client.astype(int))) + 1
        for start, end in itertools.pairwise(changes):
            runs[int(client[start])].append(end - start)
    return np.array(runs[1]), np.array(runs[0])


@pytest.mark.parametrize(("share", "length"), [(0.5, 20), (0.8, 8), (0.2, 1.5)])
def test_sessions_have_the_share_online_and_the_length_that_are_stated(share, length):
    network = NetworkModel(online=share, session=length)
    traffic = Traffic(400, 0, network=network)
    here = np.zeros((1000, 400), dtype=bool)
    for t in range(1000):
        for _ in traffic.slots(t + 1):
            here[t, traffic.leave()] = True  # all that are online send
    # At any time, also at the start: the share. Clients are independent of each other.
    for t in (0, 1, 5, 999):
        assert stats.binomtest(int(here[t].sum()), 400, share).pvalue > 1e-3
    by_client = here.mean(axis=0)
    error = by_client.std(ddof=1) / np.sqrt(400)
    assert abs(by_client.mean() - share) < 3.5 * error < 0.02
    sessions, breaks = whole_sessions(here)
    for found, mean in ((sessions, length), (breaks, length * (1 - share) / share)):
        assert found.mean() == pytest.approx(mean, rel=0.03)
        spread = np.sqrt(mean * (mean - 1))  # of the geometric distribution
        assert found.std() == pytest.approx(spread, rel=0.06)


def test_sessions_of_the_length_that_chance_has_are_drawn_afresh():
    afresh = Traffic(200, 0, network=NetworkModel(online=0.75))
    same = Traffic(200, 0, network=NetworkModel(online=0.75, session=4))
    assert journal(afresh, 30) == journal(same, 30)  # 1 / (1 - 0.75)


@pytest.mark.parametrize("drop", [0.0, 0.5])
@pytest.mark.parametrize("delay", [1, 9])
def test_faults_change_no_receivers(drop, delay):
    # Clients that always send at their timers: what arrives cannot change who sends.
    left, plain = journal(Traffic(50, 3, slots=3), 10)
    faulty = Traffic(50, 3, slots=3, network=NetworkModel(drop=drop, delay=delay))
    left_too, arrived = journal(faulty, 10)
    assert left_too == left
    to_whom = {message[1:] for message in plain}  # number, sender, receiver
    came = {message[1:] for message in arrived}
    assert came <= to_whom and len(came) == len(arrived) > 100
    assert delay > 1 or set(arrived) <= set(plain)  # nor when they arrive
    assert (came < to_whom) == (drop > 0 or delay > 1)


def test_faults_change_no_order_of_arrival():
    # Two leaves and the centre of a star send. Where none is late, in spite of the
    # delay, the leaves' messages must reach the centre in the same order as without.
    def first_slot(seed, **faults):
        traffic = Traffic(
            3, seed, graph=nx.star_graph(2), network=NetworkModel(**faults)
        )
        return [message for _, *message in journal(traffic, 1)[1]]

    pairs = [(first_slot(s), first_slot(s, delay=2)) for s in range(100)]
    punctual = [(plain, late) for plain, late in pairs if len(late) == 3]
    assert len(punctual) > 5  # one in eight
    assert all(plain == late for plain, late in punctual)
    assert len({plain[0][0] for plain, _ in punctual}) > 1


def test_arrivals_go_in_waves_in_a_random_order():
    star, firsts = nx.star_graph(5), set()
    for seed in range(50):
        traffic = Traffic(6, seed, graph=star)
        next(traffic.slots(1))
        assert traffic.leave().tolist() == list(range(6))
        waves = list(traffic.arrive())
        assert [len(to) for *_, to in waves] == [2, 1, 1, 1, 1]
        assert all(to[0] == 0 for *_, to in waves)  # from each leaf, one after another
        assert sorted(k for numbers, *_ in waves for k in numbers) == list(range(6))
        assert all((numbers == senders).all() for numbers, senders, _ in waves)
        firsts.add(int(waves[0][1][0]))
    assert firsts == {1, 2, 3, 4, 5}
    nobody = Traffic(6, 0, graph=star, network=NetworkModel(drop=1.0))
    for _ in nobody.slots(1):
        nobody.leave()
        assert list(nobody.arrive()) == []


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"delay": 0}, "delay must be a whole number, at least 1"),
        ({"drop": 1.5}, "drop is a probability, from 0 to 1; got 1.5"),
        ({"online": -1}, "online is a probability"),
        ({"session": 5}, "online 1.0 leaves nobody to come and go"),
        ({"online": 0.5, "session": 0.9}, "at least 1 cycles, and finite"),
        ({"online": 0.9, "session": 8}, "at least 9 cycles"),
        ({"online": 0.5, "session": "long"}, "session must be a number"),
    ],
)
def test_bad_networks(wrong, says):
    with pytest.raises(ValueError, match=says):
        NetworkModel(**wrong)
