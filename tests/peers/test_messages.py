"""What a peer's mailbox takes, what it refuses, and who is waited for; who is where."""

import subprocess
import sys
import threading
import tracemalloc

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given, settings, strategies as st

from faults import shows
from gossiplib.peers.addresses import AddressBook
from gossiplib.peers.messages import (
    AHEAD,
    Mailbox,
    PeerMessage,
    Refused,
    decode,
    encode,
)
from gossiplib.system import encoding
from notebooks import ROOT

settings.register_profile("quiet", database=None, derandomize=True, deadline=None)
settings.load_profile("quiet")

SQUARE = np.zeros((2, 2), np.float32)
LIKE = ArrayRecord([SQUARE, np.zeros(3)])
ROUNDS = 10


def model(value: float = 1.0) -> ArrayRecord:
    return ArrayRecord([np.full((2, 2), value, np.float32), np.full(3, float(value))])


ONLY_ROUND = RecordDict({"gossip": ConfigRecord({"round": 1})})
RENAMED = dict(zip("ab", model().values(), strict=True))


def message(t: int = 1, count: int | None = None, **fields) -> bytes:
    """Return a sound message, but for some fields."""
    sound = {"round": t, "degree": 2, "start": 5, "count": count or t}
    return encode(PeerMessage(**sound | {"arrays": model(t)} | fields))


def of_arrays(*arrays: np.ndarray) -> bytes:
    """Return a message whose model has these arrays."""
    return message(arrays=ArrayRecord(list(arrays)))


def mailbox(**options) -> Mailbox:
    """Return the mailbox of a peer with the neighbours 1 and 2."""
    box = Mailbox(
        **{"num_clients": 4, "max_bytes": 10_000, "num_rounds": ROUNDS} | options
    )
    box.expect(LIKE)
    box.link(1)
    box.link(2)
    return box


def refused(box: Mailbox, sender: int, data: bytes) -> str:
    """Return why a message is refused; it is counted, and nothing else happens."""
    before = box.refused.total()
    with pytest.raises(Refused) as reason:
        box.put(sender, data)
    assert box.refused.total() == before + 1
    assert box.refused[str(reason.value)]
    return str(reason.value)


def test_a_message_is_read_as_it_was_written():
    one = decode(message(3))
    assert one.header == {"round": 3, "degree": 2, "start": 5, "count": 3}
    for array, other in zip(one.arrays.values(), model(3).values(), strict=True):
        np.testing.assert_array_equal(array.numpy(), other.numpy(), strict=True)
    assert decode(message(arrays=None)).arrays is None


def test_messages_are_handed_out_round_by_round():
    box = mailbox()
    box.put(1, message(1))
    box.put(1, message(2))
    box.put(2, message(1))
    came = box.collect(1, [1, 2], 9)
    assert {j: one.round for j, one in came.items()} == {1: 1, 2: 1}
    box.put(2, message(2))
    came = box.collect(2, [1, 2], 9)
    assert {j: one.round for j, one in came.items()} == {1: 2, 2: 2}
    assert not box.refused


def test_a_message_that_comes_while_waiting_ends_the_wait():
    box = mailbox()
    box.put(1, message(1))
    threading.Timer(0.05, box.put, (2, message(1))).start()
    assert set(box.collect(1, [1, 2], 60)) == {1, 2}


def test_who_is_silent_is_not_waited_for_until_it_sends_again():
    box = mailbox()
    box.put(1, message(1))
    assert set(box.collect(1, [1, 2], 0.01)) == {1}
    assert box.alive == {1}
    box.put(1, message(2))
    assert set(box.collect(2, [1, 2], 60)) == {1}  # at once
    box.put(2, message(1))
    assert box.alive == {1, 2}
    assert box.refused == {"late": 1}


def test_who_cannot_be_reached_is_not_waited_for():
    box = mailbox()
    box.put(1, message(1))
    threading.Timer(0.05, box.suspect, (2,)).start()
    assert set(box.collect(1, [1, 2], 60)) == {1}


def test_a_neighbour_that_comes_and_goes_takes_no_time_from_another():
    """Neighbour 2 waits for others, and says so if it is asked; 1 is lost and found."""
    box, over = mailbox(), threading.Event()
    timer = threading.Timer(1.0, lambda: box.put(2, message(1)))

    def flicker():
        while not over.wait(0.01):
            box.suspect(1)
            over.wait(0.01)
            box.link(1)
            box.suspect(3)  # whoever waits looks again

    def ask(client, grant):  # the answer takes a moment
        threading.Timer(0.05, lambda: client == 2 and grant(0.0)).start()

    timer.start()
    threading.Thread(target=flicker, daemon=True).start()
    came = box.collect(1, [1, 2], 0.4, 5.0, ask)
    over.set()
    assert set(came) == {2}


def test_who_is_ahead_owes_nothing():
    box = mailbox()
    box.put(1, message(1))
    box.put(2, message(3))
    assert set(box.collect(1, [1, 2], 60)) == {1}
    box.close()
    assert set(box.collect(3, [1, 2], 60)) == {2}


@shows("reordered", "peers", "the older one is refused, and counted")
def test_late_repeated_and_reordered_messages_do_no_harm():
    box = mailbox()
    box.put(1, message(1))
    box.put(2, message(1))
    box.collect(1, [1, 2], 9)
    assert refused(box, 1, message(1)) == "repeated"
    box.put(2, message(1, count=2))
    box.put(1, message(3))
    assert refused(box, 1, message(2)) == "repeated"
    assert refused(box, 1, message(3, count=4)) == "repeated"
    assert box.collect(2, [1, 2], 0.01) == {}
    assert box.refused == {"repeated": 3, "late": 1}


@pytest.mark.parametrize("later", [6, 4])  # no clock decides which of two is the later
def test_a_process_that_starts_anew_counts_anew(later):
    box = mailbox()
    box.put(1, message(5))
    box.put(1, message(6, start=later, count=1))
    assert refused(box, 1, message(7, count=7)) == "repeated"
    assert refused(box, 1, message(6, start=later, count=1)) == "repeated"
    box.put(1, message(7, start=later, count=2))
    assert box.refused == {"repeated": 2}


def test_what_cannot_be_used_begins_no_new_count():
    box = mailbox()
    box.put(1, message(1))
    assert refused(box, 1, message(99, start=6)) == "round"
    box.put(1, message(2))


def test_a_message_of_many_small_arrays_is_refused_early():
    box = mailbox(initial=LIKE)
    box.put(1, message(1))
    many = [np.zeros(0)] * (4 * len(LIKE) + 17)
    assert refused(box, 1, of_arrays(*many)) == "malformed"
    assert refused(box, 2, of_arrays(*many[1:])) == "another layout"
    data = message(1, arrays=ArrayRecord([np.zeros(0)] * 200))
    tracemalloc.start()
    assert refused(mailbox(max_bytes=10**6), 2, data) == "another layout"
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * len(data)


@pytest.mark.parametrize(
    ("sender", "data", "reason"),
    [
        (3, message(), "not a neighbour"),
        (4, message(), "unknown name"),
        (-1, message(), "unknown name"),
        (1, message() + bytes(10_000), "too large"),
        (1, b"", "malformed"),
        (1, message()[:-1], "malformed"),
        (1, encoding.dump(RecordDict()), "malformed"),
        (1, encoding.dump(RecordDict({"arrays": model()})), "malformed"),
        (1, encoding.dump(ONLY_ROUND), "malformed"),
        (1, encoding.dump(RecordDict({"gossip": model()})), "malformed"),
        (1, message(arrays=ConfigRecord()), "malformed"),
        (1, message(t=1, degree="2"), "malformed"),
        (1, message(t=1, degree=True), "malformed"),
        (1, message(t=1, degree=1.5), "malformed"),
        (1, message(t=1, count=-1), "malformed"),
        (1, message(t=1, degree=0), "degree"),
        (1, message(t=1, degree=4), "degree"),
        (1, message(t=0, count=1), "round"),
        (1, message(t=ROUNDS + 1), "round"),
        (1, message(t=2**62), "round"),
        (1, message(arrays=model(np.nan)), "not finite"),
        (1, message(arrays=model(-np.inf)), "not finite"),
        (1, of_arrays(), "another layout"),
        (1, of_arrays(np.zeros(7)), "another layout"),
        (1, of_arrays(np.zeros((2, 2)), np.zeros(3)), "another layout"),
        (1, of_arrays(SQUARE, np.zeros(3, complex)), "another layout"),
        (1, message(arrays=ArrayRecord(RENAMED)), "another layout"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_used_is_refused_and_counted(sender, data, reason):
    box = mailbox()
    assert refused(box, sender, data) == reason
    assert box.collect(1, [1, 2], 0) == {}
    box.put(1, message(2))  # the next sound message is taken


def test_a_message_with_other_records_is_refused():
    content = encoding.load(message())
    content["more"] = MetricRecord({"x": 1.0})
    assert refused(mailbox(), 1, encoding.dump(content)) == "malformed"


def test_before_the_layout_is_known_any_finite_model_is_kept_then_looked_at_again():
    box = Mailbox(4, 10_000, ROUNDS)
    box.link(1)
    box.link(2)
    assert refused(box, 1, message(arrays=model(np.nan))) == "not finite"
    box.put(1, message(arrays=ArrayRecord([np.zeros(7)])))
    box.put(2, message())
    box.expect(LIKE)
    assert set(box.collect(1, [1, 2], 0)) == {2}
    assert box.refused == {"not finite": 1, "another layout": 1}


def test_few_messages_are_kept_of_each_neighbour():
    box = mailbox()
    for t in range(1, ROUNDS + 1):
        box.put(1, message(t))
    assert box.refused == {"no room": ROUNDS - AHEAD}
    assert set(box.collect(ROUNDS, [1], 0)) == {1}


def test_the_rate_of_a_sender_is_limited_and_no_other_s():
    now = [0.0]
    box = mailbox(rate=5.0, clock=lambda: now[0])
    reasons = [refused(box, 1, b"") for _ in range(8)]
    assert reasons == ["malformed"] * 5 + ["too many"] * 3
    box.put(2, message(1))
    now[0] += 0.4  # two more
    assert [refused(box, 1, b"") for _ in range(3)] == ["malformed"] * 2 + ["too many"]
    box.collect(1, [1, 2], 0)  # a round has passed: one more
    assert [refused(box, 1, b"") for _ in range(2)] == ["malformed", "too many"]


def test_a_peer_that_is_far_behind_skips_to_the_slowest_of_its_neighbours():
    box = mailbox()
    assert box.next_round(1) == 1
    box.put(1, message(7))
    assert box.next_round(1) == 1  # nothing is known of client 2
    box.put(2, message(4))
    assert box.next_round(1) == 4
    assert box.next_round(3) == 3  # a round ahead is not far
    box.suspect(2)
    assert box.next_round(3) == 7


def test_one_liar_drags_nobody():
    box = mailbox()
    box.put(1, message(ROUNDS))
    box.put(2, message(2))
    assert box.next_round(1) == 1
    assert set(box.collect(1, [1, 2], 60)) == set()
    assert set(box.collect(2, [1, 2], 60)) == {2}


def test_without_rounds_messages_are_taken_in_turn_and_none_is_late():
    box = mailbox(num_rounds=None)
    for t in (3, 4):
        box.put(1, message(t))
    box.put(2, message(1))
    took = [box.get(0) for _ in range(4)]
    assert [one and (one[0], one[1].round) for one in took] == [
        (1, 3),
        (2, 1),
        (1, 4),
        None,
    ]
    box.put(2, message(999_999))


# What comes may be anything, from anyone ----------------------------------------------

SOUND = [
    message(t, count, start=s) for t in (1, 2, 3) for count in (1, 2, 3) for s in (5, 6)
]


@st.composite
def anything(draw):
    """Return some bytes: sound, altered, cut, or anything."""
    kind = draw(st.sampled_from(["sound", "altered", "cut", "any"]))
    data = bytearray(draw(st.sampled_from(SOUND)))
    if kind == "any":
        return draw(st.binary(max_size=200))
    if kind == "cut":
        return bytes(data[: draw(st.integers(0, len(data)))])
    if kind == "altered":
        for _ in range(draw(st.integers(1, 3))):
            data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data)


@settings(max_examples=150)
@given(st.lists(st.tuples(st.integers(-1, 5), anything()), max_size=12))
def test_whatever_comes_is_taken_whole_or_refused_and_counted(came):
    box = mailbox()
    taken, stamps, last = 0, set(), {1: {0: 0}, 2: {0: 0}}
    for sender, data in came:
        try:
            one = box.put(sender, data)
        except Refused:
            continue
        taken += 1
        stamp = (one.start, one.count)
        before = last[sender]  # start -> count, of the earliest start first
        assert one.count > before.get(one.start, -1)
        assert one.start not in [*before][:-1]
        assert 1 <= one.degree < 4 and 1 <= one.round <= ROUNDS
        before[one.start] = one.count
        stamps.add((sender, stamp))
    assert box.refused.total() == len(came) - taken
    assert box.alive <= box.neighbours == {1, 2}
    assert len(stamps) == taken
    handed = 0
    for t in range(1, ROUNDS + 1):
        for one in box.collect(t, [1, 2], 0).values():
            handed += 1
            assert one.round == t
            for array, like in zip(
                (one.arrays or LIKE).values(), LIKE.values(), strict=True
            ):
                assert array.numpy().shape == like.numpy().shape
                assert array.numpy().dtype == like.numpy().dtype
                assert np.isfinite(array.numpy()).all()
    assert handed <= taken


def test_the_fuzzer_finds_nothing_in_a_moment():
    command = [sys.executable, ROOT / "tests" / "fuzz.py", "1"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert {line.split(":")[0] for line in printed.splitlines()} >= {
        "mailbox",
        "records",
    }


# Who is where -------------------------------------------------------------------------


def test_only_its_own_word_changes_where_a_peer_is():
    book = AddressBook(0, 4)
    book.suggest(1, "here:1")
    book.suggest(1, "there:2")
    assert book.all() == {1: "here:1"}
    book.missed(1)
    book.suggest(1, "there:2")
    assert book.all() == {1: "there:2"}
    book.confirm(1, "[::1]:3")
    book.suggest(1, "there:2")
    book.missed(1)
    assert book.all() == {1: "[::1]:3"}


@pytest.mark.parametrize(
    ("client", "address"),
    [
        (0, "me:1"),
        (4, "a:1"),
        (-1, "a:1"),
        (1, "a"),
        (1, "a:b"),
        (1, "unix:/tmp/x"),
        (1, ""),
        (1, "a:0"),
        (1, "a:65536"),
        (1, "a:\u0661"),
        (1, "::1:1"),
        (1, "[::g]:1"),
        (1, "[::]:1"),
        (1, "[::ffff:0.0.0.0]:1"),
        (1, "0.0.0.0:1"),
        (1, "0:1"),
        (1, 7),
    ],
)
def test_an_address_that_cannot_be_is_not_kept(client, address):
    book = AddressBook(0, 4)
    book.suggest(client, address)
    book.confirm(client, address)
    assert book.all() == {}


def test_a_mask_that_the_first_model_has_may_come_back():
    mask = np.array([0.5, -np.inf])
    box = Mailbox(3, 10**6, 10, initial=ArrayRecord([mask, np.zeros(2)]))
    box.link(1)
    assert box.put(1, message(arrays=ArrayRecord([mask, np.ones(2)]))).round == 1
    other = ArrayRecord([mask, mask])  # where the first model is finite
    with pytest.raises(Refused, match="not finite"):
        box.put(1, message(2, count=2, arrays=other))
