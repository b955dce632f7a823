"""Models as Flower sends them."""

import io

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict

from gossiplib.core import models
from gossiplib.system import records

ODD = {
    "0-d": np.array(3.5, "f4"),
    "counter": np.array(7),
    "empty": np.zeros((0, 3)),
    "half empty": np.zeros((2, 0, 1), "f2"),
    "Fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "transposed": np.arange(24.0).reshape(2, 3, 4).T,
    "strided": np.arange(12.0).reshape(3, 4)[::2, ::-2],
    "big-endian": np.array([1, 2, 300], ">i2"),
    "float16": np.array([1e-7, 65504], "f2"),
    "flags": np.array([True, False]),
    "unsigned": np.array([255], "u1"),
}


@pytest.mark.parametrize("name", ODD)
def test_unpack_and_pack_keep_every_array_as_it_is(name):
    record = ArrayRecord([np.asarray(ODD[name]), np.ones(2)])
    for unpacked in (
        records.unpack(record),
        records.unpack(records.pack(records.unpack(record), like=record)),
    ):
        for ours, flowers in zip(unpacked, record.to_numpy_ndarrays(), strict=True):
            assert ours.dtype == flowers.dtype and ours.shape == flowers.shape
            assert np.array_equal(ours, flowers)
            assert not ours.flags.writeable


def test_pack_takes_the_names_and_scalars_too():
    like = ArrayRecord({"w": Array(np.zeros(2)), "count": Array(np.array(0))})
    packed = records.pack([np.ones(2), np.float64(3)], like)
    assert list(packed) == ["w", "count"]
    assert packed["count"].shape == () and packed["count"].numpy() == 3
    with pytest.raises(ValueError, match="shorter"):
        records.pack([np.ones(2)], like)


def test_unpack_runs_no_code_that_comes_with_an_array():
    file = io.BytesIO()
    np.save(file, np.array([print], dtype=object), allow_pickle=True)
    hostile = Array("object", (1,), "numpy.ndarray", file.getvalue())
    with pytest.raises(ValueError, match="Python objects"):
        records.unpack(ArrayRecord({"w": hostile}))


@pytest.mark.parametrize("data", [b"", b"\x93NUMPY", b"garbage" * 20])
def test_unpack_refuses_what_is_no_array(data):
    record = ArrayRecord({"w": Array("float64", (2,), "numpy.ndarray", data)})
    with pytest.raises((ValueError, EOFError)):
        records.unpack(record)


def test_unpack_refuses_an_array_cut_short():
    data = Array(np.ones(5)).data[:-8]
    record = ArrayRecord({"w": Array("float64", (5,), "numpy.ndarray", data)})
    with pytest.raises(ValueError):
        records.unpack(record)


def test_only_arrays_takes_the_one_record():
    record = ArrayRecord([np.ones(2)])
    content = RecordDict({"any name": record, "metrics": MetricRecord()})
    assert records.only_arrays(content) is record
    with pytest.raises(ValueError, match="holds 0"):
        records.only_arrays(RecordDict())


def test_bytes_and_vectors():
    mask = np.array([0.5, -np.inf])
    record = ArrayRecord([np.ones((2, 3), "f4"), np.array(7), mask, np.array([2 + 3j])])
    assert records.array_bytes(record) == sum(len(a.data) for a in record.values())
    assert records.flat(record).tolist() == [1] * 6 + [0.5, 0, 2, 3]
    assert records.flat(record).dtype == np.float64
    assert records.flat(ArrayRecord()).shape == (0,)


def test_mean_arrays_keeps_names_shapes_and_data_types():
    three = [
        ArrayRecord({"w": Array(np.full(2, x, "f2")), "n": Array(np.array(n))})
        for x, n in [(60000, 1), (60000, 2), (30000, 2)]
    ]
    mean = models.mean_arrays(three)
    assert list(mean) == ["w", "n"]
    assert mean["w"].numpy().tolist() == [np.float16(50000)] * 2  # its sum overflows
    assert mean["n"].numpy() == 2 and mean["n"].dtype == "int64"
