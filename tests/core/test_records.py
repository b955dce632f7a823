"""Records as bytes: what is written is read, and nothing else is."""

import tracemalloc

import msgpack
import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp

from gossiplib.core.models import dump, load

settings.register_profile("quiet", database=None, derandomize=True, deadline=None)
settings.load_profile("quiet")

DTYPES = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(endianness="="),
    hnp.floating_dtypes(endianness="="),
    hnp.complex_number_dtypes(endianness="="),
)
ARRAYS = DTYPES.flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0))
)
NUMBERS = st.one_of(st.integers(0, 2**63 - 1), st.floats(allow_nan=False))
VALUES = st.one_of(NUMBERS, st.text(), st.binary(), st.booleans())
RECORDS = st.one_of(
    st.dictionaries(st.text(), ARRAYS, max_size=3).map(
        lambda arrays: ArrayRecord({k: _array(v) for k, v in arrays.items()})
    ),
    st.dictionaries(st.text(), VALUES, max_size=3).map(ConfigRecord),
    st.dictionaries(st.text(), NUMBERS, max_size=3).map(MetricRecord),
)
HEADER = "{'descr': '%s', 'fortran_order': %s, 'shape': %s, }\n"


def _array(values):
    from flwr.app import Array

    return Array(values)


def message(header: bytes, data: bytes = b"") -> bytes:
    """Return records with one array, whose header may be wrong."""
    npy = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data
    return msgpack.packb({"arrays": ["arrays", {"x": npy}]})


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
                assert one.dtype == other.dtype
                np.testing.assert_array_equal(one, other, strict=True)
            else:
                assert again[name][key] == value


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


@given(st.binary(max_size=80), st.binary(max_size=16))
def test_other_headers_of_arrays_are_a_value_error(header, data):
    refuses_or_reads(message(header, data))


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
        ("|O", "(1,)"),
        ("|V8", "(1,)"),
        ("|S8", "(1,)"),
        ("<U2", "(1,)"),
        ("<M8", "(1,)"),
        ("<f3", "(1,)"),
        ("<f8", "(-1,)"),
        ("<f8", "(2,)"),
        ("<f8", "(10000000000000,)"),
        ("<f8", "(0, 99999999999999999999)"),
        ("<f8", "(%s)" % ("1, " * 70)),
        ("<f8", "(1L,)"),
        ("<f8", "__import__('os')"),
    ],
)
def test_an_array_that_lies_about_itself_is_refused(dtype, shape):
    header = (HEADER % (dtype, "False", shape)).encode()
    with pytest.raises(ValueError, match="these bytes are not records"):
        load(message(header, bytes(8)))


def test_nesting_costs_no_memory():
    nested = b"\xdd" + (60_000).to_bytes(4, "big")
    data = (nested * 500).ljust(60_000, b"\x00")
    refuses_or_reads(data[:2000])
    with pytest.raises(ValueError, match="these bytes are not records"):
        load(data)
