"""Token accounts, against Danner and Jelasity's formulas and against theory."""

import pickle

import numpy as np
import pytest

from gossiplib.asynchronous.network import (
    GeneralizedTokenAccount,
    NetworkModel,
    RandomizedTokenAccount,
    SimpleTokenAccount,
    Traffic,
)

#: account, tokens -> proactive, reactive to a useful message, to a useless one. By hand
#: from the formulas of the paper's sections on the three strategies.
BY_HAND = [
    (SimpleTokenAccount(0), 0, 1, 0, 0),
    (SimpleTokenAccount(3), 0, 0, 0, 0),
    (SimpleTokenAccount(3), 2, 0, 1, 1),
    (SimpleTokenAccount(3), 3, 1, 1, 1),
    (GeneralizedTokenAccount(10, 1), 7, 0, 7, 3),  # A = 1: all tokens at once; ⌊7/2⌋
    (GeneralizedTokenAccount(10, 10), 10, 1, 1, 0),  # A = C: one; ⌊19/20⌋
    (GeneralizedTokenAccount(10, 5), 0, 0, 0, 0),  # ⌊4/5⌋
    (GeneralizedTokenAccount(10, 5), 1, 0, 1, 0),  # ⌊5/5⌋; ⌊5/10⌋
    (GeneralizedTokenAccount(10, 5), 6, 0, 2, 1),  # ⌊10/5⌋; ⌊10/10⌋
    (RandomizedTokenAccount(20, 10), 8, 0, 0.8, 0),
    (RandomizedTokenAccount(20, 10), 9, 0, 0.9, 0),
    (RandomizedTokenAccount(20, 10), 12, 3 / 11, 1.2, 0),
    (RandomizedTokenAccount(20, 10), 20, 1, 2, 0),
]


@pytest.mark.parametrize("row", BY_HAND)
def test_accounts_are_those_of_the_paper(row):
    account, tokens, proactive, useful, useless = row
    balance = np.array([tokens, tokens])
    assert np.allclose(account.proactive(balance), proactive)
    answers = account.reactive(balance, np.array([True, False]))
    assert np.allclose(answers, [useful, useless])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (
            lambda: SimpleTokenAccount(-1),
            "capacity must be a whole number, at least 0; got -1",
        ),
        (lambda: SimpleTokenAccount(2.5), "got 2.5"),
        (
            lambda: GeneralizedTokenAccount(0, 1),
            "capacity must be a whole number, at least 1",
        ),
        (
            lambda: GeneralizedTokenAccount(5, 6),
            "reactivity must be a whole number, 1 to 5; got 6",
        ),
        (lambda: RandomizedTokenAccount(5, 0), "reactivity"),
    ],
)
def test_bad_accounts(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_accounts_and_networks_are_equal_if_their_numbers_are():
    for one in (*ACCOUNTS, NetworkModel(drop=0.5, delay=15)):
        assert pickle.loads(pickle.dumps(one)) == one == eval(repr(one))
        assert hash(one) == hash(eval(repr(one)))
    assert SimpleTokenAccount(1) != GeneralizedTokenAccount(1, 1)


def run(account, cycles, n=200, slots=10, network=None, useful=1.0, seed=0):
    """Return messages sent (cycles, n), balances after each cycle, and the traffic."""
    traffic = Traffic(
        n, seed, slots=slots, account=account, network=network or NetworkModel()
    )
    rng = np.random.default_rng(seed)
    sent, tokens = [], []
    for t in range(1, cycles + 1):
        for _ in traffic.slots(t):
            traffic.leave()
            for _, _, receivers in traffic.arrive():
                traffic.react(receivers, rng.random(len(receivers)) < useful)
            assert traffic.tokens.min() >= 0
            assert traffic.tokens.max() <= account.capacity
        sent.append(traffic.sent.copy())
        tokens.append(traffic.tokens.copy())
    return np.array(sent), np.array(tokens), traffic


ACCOUNTS = [
    SimpleTokenAccount(0),
    SimpleTokenAccount(10),
    GeneralizedTokenAccount(10, 1),
    GeneralizedTokenAccount(20, 10),
    RandomizedTokenAccount(20, 10),
    RandomizedTokenAccount(10, 1),
]


@pytest.mark.parametrize("account", ACCOUNTS, ids=str)
@pytest.mark.parametrize("network", [None, NetworkModel(drop=0.5, delay=15)])
def test_no_client_sends_more_than_its_tokens_allow(account, network):
    sent, tokens, traffic = run(account, 100, network=network, useful=0.7)
    total = sent.cumsum(axis=0)
    periods = np.arange(1, 101)[:, None]
    assert (total <= periods).all()  # the account begins empty
    for width in (1, 2, 5, 20, 50):  # in any window: one a period, and what was saved
        assert (total[width:] - total[:-width] <= width + account.capacity).all()
    # Each period's token was spent, is saved, or pays an answer that leaves next.
    assert np.array_equal(total[-1] + tokens[-1] + traffic.owed, np.full(200, 100))
    # So the rate never falls below one a period by more than what can be saved.
    assert (total + traffic.owed >= periods - account.capacity)[-1].all()


@pytest.mark.parametrize(("capacity", "reactivity"), [(20, 10), (40, 5), (10, 2)])
def test_the_balance_of_a_randomised_account_is_that_of_the_mean_field(
    capacity, reactivity
):
    # In equilibrium a client receives one message a period. What it gains at its timer,
    # 1 - (a - A + 1) / (C - A + 1), it spends on answers, a / A: a = A C / (C + 1).
    account = RandomizedTokenAccount(capacity, reactivity)
    _, tokens, _ = run(account, 300, n=500)
    theory = reactivity * capacity / (capacity + 1)
    assert tokens[150:].mean() == pytest.approx(theory, rel=0.06)


@pytest.mark.parametrize("slots", [1, 5, 10])
def test_the_balance_is_that_of_the_share_of_useful_messages_that_was_measured(slots):
    # Answers are to useful messages only, a share u: 1 - proactive(a) = u a / A, so
    # a = A C / (A + u (C - A + 1)). Ages are those of models on a random walk.
    capacity, reactivity, n, cycles = 20, 10, 500, 100
    account = RandomizedTokenAccount(capacity, reactivity)
    traffic = Traffic(n, 0, slots=slots, account=account)
    age, mail, useful, tokens = np.zeros(n), [], [], []
    for t in range(1, cycles + 1):
        for _ in traffic.slots(t):
            mail += age[traffic.leave()].tolist()
            for numbers, _, receivers in traffic.arrive():
                came = np.array([mail[k] for k in numbers])
                heard = came >= age[receivers]
                age[receivers] = came + 1
                traffic.react(receivers, heard)
                useful += heard.tolist() if t > 30 else []
        tokens += [traffic.tokens.mean()] if t > 30 else []
    u = np.mean(useful)
    assert 0.5 < u < 0.9  # the faster messages travel, the more are useful
    theory = reactivity * capacity / (reactivity + u * (capacity - reactivity + 1))
    assert np.mean(tokens) == pytest.approx(theory, rel=0.03)
    all_useful = reactivity * capacity / (capacity + 1)
    assert np.mean(tokens) > 1.05 * all_useful  # which is not what was measured


def test_if_nothing_arrives_clients_send_at_the_rate_of_their_timers():
    sent, _, _ = run(GeneralizedTokenAccount(5, 2), 40, network=NetworkModel(drop=1.0))
    assert (sent[:5] == 0).all()  # they save five tokens first
    assert (sent[5:] == 1).all()


def test_an_account_that_overdraws_is_named():
    class Greedy(SimpleTokenAccount):
        def reactive(self, tokens, useful):
            return tokens + 1.0

    with pytest.raises(ValueError, match="Greedy.* spends 1 tokens; the balance is 0"):
        run(Greedy(0), 1)
