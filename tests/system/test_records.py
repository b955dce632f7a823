"""Records as bytes: what is written is read, and nothing else is."""

import struct
import tracemalloc

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp

from gossiplib.system.encoding import dump, load
from gossiplib.system.records import as_array

settings.register_profile("quiet", database=None, derandomize=True, deadline=None)
settings.load_profile("quiet")

DTYPES = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(),  # of either byte order
    hnp.unsigned_integer_dtypes(),
    hnp.floating_dtypes(),
    hnp.complex_number_dtypes(),
)
ARRAYS = st.builds(
    lambda array, order: np.asarray(array, order=order),
    DTYPES.flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0))
    ),
    st.sampled_from("CF"),
)
NUMBERS = st.one_of(st.integers(-(2**63), 2**63 - 1), st.floats())
SINGLE = (NUMBERS, st.text(), st.binary(), st.booleans())
LISTS = (st.integers(-(2**63), 2**63 - 1), st.floats(), *SINGLE[1:])
VALUES = st.one_of(*SINGLE, *(st.lists(one, max_size=3) for one in LISTS))
RECORDS = st.one_of(
    st.dictionaries(st.text(), ARRAYS, max_size=3).map(
        lambda arrays: ArrayRecord({k: Array(v) for k, v in arrays.items()})
    ),
    st.dictionaries(st.text(), VALUES, max_size=3).map(ConfigRecord),
    st.dictionaries(st.text(), NUMBERS, max_size=3).map(MetricRecord),
)


def entry(what, name="", data=b"", shape=(), order=b"C", *, claims=None):
    """Return a record or a value as bytes, which may claim another length of data."""
    name, size = name.encode(), len(data) if claims is None else claims
    axes = struct.pack(f"<{len(shape)}Q", *shape)
    head = struct.pack("<7scBIQ", what.encode(), order, len(shape), len(name), size)
    return head.ljust(64, b"\0") + name + axes + data


def array(dtype="<f8", shape=(1,), data=bytes(8), order=b"C", **claims):
    """Return records with one array, about which they may lie."""
    return entry("arrays", "a") + entry(dtype, "x", data, shape, order, **claims)


@given(ARRAYS)
def test_an_array_is_written_as_flower_writes_it(values):
    assert as_array(values) == Array(values)


def test_an_array_of_objects_is_written_by_neither():
    for write in (as_array, Array):
        with pytest.raises(ValueError, match="[Oo]bject"):
            write(np.array([{}]))


@given(st.dictionaries(st.text(), RECORDS, max_size=3))
def test_what_is_written_is_read(records):
    content = RecordDict(records)
    again = load(dump(content))
    assert list(again) == list(content)
    for name, record in content.items():
        assert type(again[name]) is type(record)
        assert list(again[name]) == list(record)
        for key, value in record.items():
            if isinstance(record, ArrayRecord):
                one, other = again[name][key].numpy(), value.numpy()
                assert one.dtype == other.dtype and one.shape == other.shape
                assert one.tobytes() == other.tobytes()  # NaN and -0.0, to the bit
                assert one.flags.fnc == other.flags.fnc
            else:
                assert type(again[name][key]) is type(value)
                assert repr(again[name][key]) == repr(value)


@given(st.binary(max_size=300))
def test_other_bytes_are_a_value_error(data):
    refuses_or_reads(data)


WHAT = st.one_of(
    st.sampled_from(["arrays", "config", "metrics", "text", "bytes", "list", "<U2"]),
    DTYPES.map(lambda dtype: dtype.str),
    st.text("<>|bfiO0123456789", max_size=4),
)
ENTRIES = st.builds(
    entry,
    WHAT,
    st.text("ab", max_size=1),
    st.binary(max_size=16) | WHAT.map(entry),
    st.lists(st.integers(0, 3) | st.integers(0, 2**64 - 1), max_size=70),
    st.sampled_from([b"C", b"F", b"A", b"\xff"]),
    claims=st.none() | st.integers(0, 2**64 - 1),
)


@given(st.lists(ENTRIES, max_size=4), st.sampled_from(["arrays", "config", "metrics"]))
@settings(max_examples=200)
def test_other_entries_are_read_or_a_value_error(entries, kind):
    refuses_or_reads(entry(kind, "of") + b"".join(entries))


@given(st.data())
@settings(max_examples=200)
def test_bytes_that_were_altered_are_read_or_a_value_error(data):
    records = {
        "gossip": ConfigRecord({"round": 3}),
        "a": ArrayRecord([np.ones((2, 3))]),
    }
    changed = bytearray(dump(RecordDict(records)))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(changed) - 1))
        changed[place] = data.draw(st.integers(0, 255))
    refuses_or_reads(bytes(changed[: data.draw(st.integers(0, len(changed)))]))


def refuses_or_reads(data: bytes) -> None:
    """Let `load` read the bytes; a ValueError, and eight times the memory, at most."""
    tracemalloc.start()
    try:
        load(data)
    except ValueError:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 100_000 + 8 * len(data)


NAMES = [f"{i:x}" for i in range(1000)]
BOMBS = {
    "records": ("", [entry("metrics", n) for n in NAMES]),
    "arrays without numbers": ("arrays", [entry("<f8", n, b"", [0]) for n in NAMES]),
    "arrays of a byte": ("arrays", [entry("|i1", n, b"x") for n in NAMES]),
    "arrays of many axes": (
        "arrays",
        [entry("|i1", n, b"x", [1] * 32) for n in NAMES],
    ),
    "numbers": ("metrics", [entry("<i8", n, b"somewhat") for n in NAMES]),
    "empty lists": ("config", [entry("<u8", n, b"", [0]) for n in NAMES]),
    "wide texts": ("config", [entry("text", n + "\U0001f600") for n in NAMES]),
    "truth values": ("config", [entry("<u8", "x", bytes(8 * 10**5), [10**5])]),
    "whole numbers": ("config", [entry("<i8", "x", b"somewhat" * 10**5, [10**5])]),
    "texts": ("config", [entry("list", "x", entry("text", "", b"ab") * 1000)]),
    "a wide text": ("config", [entry("text", "x", b"a" * 10**5 + b"\xf0\x9f\x98\x80")]),
    "a large array": (
        "arrays",
        [entry("<f8", "x", bytes(8 * 10**5), [10, 10**4], b"F")],
    ),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_what_comes_costs_at_most_eight_times_its_length_in_memory(bomb):
    kind, entries = BOMBS[bomb]
    data = entry(kind, "of") * bool(kind) + b"".join(entries)
    assert load(data)
    refuses_or_reads(data)
    with pytest.raises(ValueError, match="more than"):
        load(data, len(entries) - (not kind))
    assert load(data, len(data) // 64)


@pytest.mark.parametrize(
    "value",
    [
        entry("text", "x", b"\xff" * 10**6),
        entry("text", "\U000e0001" * 10**5) * 2,
        entry("list", "x", entry("list", "x") * 10**4),
    ],
    ids=["no text", "twice", "lists"],
)
def test_what_is_refused_costs_no_more(value):
    data = entry("config", "of") + value
    refuses_or_reads(data)
    with pytest.raises(ValueError, match="these bytes are not records") as refused:
        load(data)
    assert len(str(refused.value)) < 200


def test_lists_in_lists_are_refused():
    data = b""
    for _ in range(3000):
        data = entry("list", "x", data)
    with pytest.raises(ValueError, match="these bytes are not records"):
        load(entry("config", "of") + data)


@pytest.mark.parametrize("error", [MemoryError, RecursionError])
def test_what_cannot_be_held_is_a_value_error(error, monkeypatch):
    def no_room(*_):
        raise error

    monkeypatch.setattr("numpy.frombuffer", no_room)
    with pytest.raises(ValueError, match="these bytes are not records"):
        load(array())


@pytest.mark.parametrize(
    "lie",
    [
        {"dtype": "|O"},
        {"dtype": "|V8"},
        {"dtype": "|S8"},
        {"dtype": "<U2"},
        {"dtype": "<M8"},
        {"dtype": "<f3"},
        {"dtype": "f8"},
        {"dtype": "f8,f8"},
        {"dtype": "<f8\n"},
        {"dtype": "text"},
        {"order": b"A"},
        {"shape": [2]},
        {"shape": [10**13]},
        {"shape": [0, 2**64 - 1]},
        {"shape": [2**32, 2**32]},  # 0 bytes, if 64 bits are all that is counted with
        {"shape": [1] * 70},
        {"claims": 7},
        {"claims": 9},
        {"claims": 2**64 - 1},
    ],
    ids=str,
)
def test_an_array_that_lies_about_itself_is_refused(lie):
    assert load(array())
    with pytest.raises(ValueError, match="these bytes are not records"):
        load(array(**lie))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("config", entry("<f8", "x", bytes(16), [2, 1])),
        ("config", entry("<i8", "x", b"", [2**40, 0])),  # so many empty lists
        ("config", entry("<i4", "x", bytes(4))),
        ("config", entry("|b1", "x", bytes(1))),
        ("config", entry("text", "x", b"\xff")),
        ("config", entry("text", "\x00") + entry("bytes", "\x00")),
        ("metrics", entry("text", "x")),
        ("config", entry("list", "x", entry("text") + entry("bytes"))),
        ("config", entry("config", "of")),  # the record's own name
        ("thing", b""),
        ("text", b""),
    ],
)
def test_a_value_that_no_record_has_is_refused(kind, value):
    with pytest.raises(ValueError, match="these bytes are not records"):
        load(entry(kind, "of") + value)


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1])
def test_numbers_that_are_too_large_are_a_value_error(value):
    with pytest.raises(ValueError, match="cannot be kept"):
        dump(RecordDict({"config": ConfigRecord({"big": value})}))


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([1], "M8[s]")])
def test_arrays_of_other_things_are_a_value_error(array):
    with pytest.raises(ValueError, match="are not accepted"):
        dump(RecordDict({"arrays": ArrayRecord([array])}))
