"""Records as bytes: what is written is read, and nothing else is."""

import tracemalloc

import msgpack
import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp

from gossiplib.system.records import dump, load

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


def message(*parts):
    """Return records with one array, about which they may lie."""
    return msgpack.packb({"arrays": ["arrays", {"x": parts}]})


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


@given(
    st.recursive(
        st.one_of(st.none(), VALUES),
        lambda inner: st.one_of(
            st.lists(inner, max_size=4), st.dictionaries(st.text(), inner, max_size=4)
        ),
    )
)
def test_other_msgpack_is_a_value_error(value):
    refuses_or_reads(msgpack.packb(value))


@given(
    st.one_of(st.text(max_size=8), DTYPES.map(lambda dtype: dtype.str), VALUES),
    st.one_of(st.lists(st.integers(-3, 2**64 - 1) | VALUES, max_size=70), VALUES),
    st.one_of(st.sampled_from("CFAK"), VALUES),
    st.one_of(st.binary(max_size=16), VALUES),
    st.lists(VALUES, max_size=1),
)
def test_other_parts_of_arrays_are_a_value_error(dtype, shape, order, data, more):
    refuses_or_reads(message(dtype, shape, order, data, *more))


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
    """Let `load` read the bytes; no more than a ValueError and little memory."""
    tracemalloc.start()
    try:
        load(data)
    except ValueError:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 500_000 + 1000 * len(data)


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        ("|O", [1]),
        ("|V8", [1]),
        ("|S8", [1]),
        ("<U2", [1]),
        ("<M8", [1]),
        ("<f3", [1]),
        ("f8", [1]),
        ("<f8,<f8", [1]),
        ("(1,)<f8", [1]),
        ("<f8\n", [1]),
        ("<f\u0668", [1]),
        ({"names": ["x"], "formats": ["<f8"]}, [1]),
        ("<f8", [-1]),
        ("<f8", [2]),
        ("<f8", [10**13]),
        ("<f8", [0, 2**64 - 1]),
        ("<f8", [2**32, 2**32]),  # 0 bytes, if 64 bits are all that is counted with
        ("<f8", [1] * 70),
        ("<f8", [1.0]),
        ("<f8", [[1]]),
        ("<f8", "1"),
        ("<f8", "__import__('os')"),
    ],
)
def test_an_array_that_lies_about_itself_is_refused(dtype, shape):
    assert load(message("<f8", [1], "C", bytes(8)))
    with pytest.raises(ValueError, match="these bytes are not records"):
        load(message(dtype, shape, "C", bytes(8)))


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1])
def test_numbers_that_are_too_large_are_a_value_error(value):
    with pytest.raises(ValueError, match="cannot be kept"):
        dump(RecordDict({"config": ConfigRecord({"big": value})}))


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([1], "M8[s]")])
def test_arrays_of_other_things_are_a_value_error(array):
    with pytest.raises(ValueError, match="are not accepted"):
        dump(RecordDict({"arrays": ArrayRecord([array])}))


def test_nesting_costs_no_memory():
    nested = b"\xdd" + (60_000).to_bytes(4, "big")
    data = (nested * 500).ljust(60_000, b"\x00")
    refuses_or_reads(data[:2000])
    with pytest.raises(ValueError, match="these bytes are not records"):
        load(data)
