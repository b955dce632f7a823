"""Models as Flower sends them: reading, checking, measuring ArrayRecords."""

import functools
import io

import numpy as np
from flwr.app import Array, ArrayRecord, RecordDict

from gossiplib.core.averaging import as_dtype, check_model

__all__ = [
    "array_bytes",
    "array_records",
    "check_arrays",
    "check_initial",
    "flat",
    "mean_arrays",
    "only_arrays",
    "pack",
    "unpack",
]


def unpack(arrays: ArrayRecord) -> list[np.ndarray]:
    """Return the arrays of a model, read-only.

    The same as `ArrayRecord.to_numpy_ndarrays`, which parses each array's header anew:
    that took more than half of the time that gossip adds to training a small model.
    """
    return [_unpack(array) for array in arrays.values()]


def _unpack(array: Array) -> np.ndarray:
    data = array.data
    end = 10 + int.from_bytes(data[8:10], "little")  # the NPY format, version 1.0
    if data[:8] != b"\x93NUMPY\x01\x00":
        return array.numpy()
    shape, fortran_order, dtype = _header(data[8:end])
    if dtype.hasobject:
        raise ValueError("arrays of Python objects are not accepted")
    values = np.frombuffer(data, dtype, offset=end)
    return values.reshape(shape, order="F" if fortran_order else "C")


@functools.lru_cache(maxsize=1024)
def _header(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype]:
    return np.lib.format.read_array_header_1_0(io.BytesIO(header))


def pack(model: list[np.ndarray], like: ArrayRecord) -> ArrayRecord:
    """Return a model as an ArrayRecord, with the names of another."""
    arrays = ArrayRecord()
    for name, array in zip(like, model, strict=True):
        arrays[name] = Array(np.asarray(array))
    return arrays


def array_records(content: RecordDict) -> list[ArrayRecord]:
    """Return the ArrayRecords in a message."""
    return [r for r in content.values() if isinstance(r, ArrayRecord)]


def only_arrays(content: RecordDict) -> ArrayRecord:
    """Return the one ArrayRecord of a reply; raise ValueError if it is not one."""
    records = array_records(content)
    if len(records) != 1:
        raise ValueError(
            f"the reply must hold one ArrayRecord, the model; it holds {len(records)}"
        )
    return records[0]


def check_arrays(arrays: ArrayRecord, like: ArrayRecord) -> None:
    """Raise ValueError unless a model is finite and has the layout of another."""
    if list(arrays) != list(like):
        raise ValueError(f"its arrays are named {list(arrays)}, not {list(like)}")
    check_model(unpack(arrays), unpack(like))


def check_initial(arrays: ArrayRecord) -> list[np.ndarray]:
    """Return the arrays of a first model; raise an error unless it can be one."""
    if not isinstance(arrays, ArrayRecord):
        kind = type(arrays).__name__
        raise TypeError(f"initial_arrays must be an ArrayRecord, not a {kind}")
    model = unpack(arrays)
    check_model(model, model, whose="initial_arrays:")
    return model


def array_bytes(arrays: ArrayRecord) -> int:
    """Return the bytes of a model's arrays, in the NPY format that Flower sends."""
    return sum(len(array.data) for array in arrays.values())


def flat(arrays: ArrayRecord) -> np.ndarray:
    """Return a model as one vector, float64."""
    parts = [array.ravel().astype(np.float64) for array in unpack(arrays)]
    return np.concatenate(parts) if parts else np.empty(0)


def mean_arrays(models: list[ArrayRecord]) -> ArrayRecord:
    """Return the mean of models, in the data types of the first."""
    layers = zip(*map(unpack, models), strict=True)
    mean = [
        as_dtype(np.mean(layer, axis=0, dtype=np.float64), layer[0].dtype)
        for layer in layers
    ]
    return pack(mean, models[0])
