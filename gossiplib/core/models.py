"""Models and records as Flower sends them: reading, checking, measuring, as bytes.

A model is an ArrayRecord, or the list of its arrays; end to end they are one vector,
`ravel`, and `unravel` takes it apart again. `dump` makes bytes of records, for the
network and the disk, without pickle. Whoever reads them with `load` gets numbers,
texts, bytes and arrays, whatever the sender wrote, or a ValueError. What the records
mean, and whether their shapes fit, is for the reader to check.
"""

import functools
import io
import math
import re
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, TypeVar

import msgpack
import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from gossiplib.core.averaging import Model, as_dtype, check_model

__all__ = [
    "Shapes",
    "array_bytes",
    "array_records",
    "check_arrays",
    "check_initial",
    "dump",
    "flat",
    "load",
    "mean_arrays",
    "only_arrays",
    "pack",
    "ravel",
    "unpack",
    "unravel",
    "whole",
    "wholes",
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
    """Return a model as an ArrayRecord, with the names of another.

    Parameters
    ----------
    model : list of numpy.ndarray
        Its arrays.
    like : flwr.app.ArrayRecord
        A record with as many.
    """
    arrays = ArrayRecord()
    for name, array in zip(like, model, strict=True):
        arrays[name] = Array(np.asarray(array))
    return arrays


def whole(record: ConfigRecord, key: str) -> int:
    """Return a whole number of a record; raise ValueError where there is none."""
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{key} must be a whole number; got {value!r}")
    return value


def wholes(record: ConfigRecord, key: str) -> list[int]:
    """Return a list of whole numbers of a record; raise ValueError if there is none."""
    value = record.get(key)
    if not isinstance(value, list) or not all(type(v) is int for v in value):
        raise ValueError(f"{key} must be a list of whole numbers; got {value!r}")
    return [int(v) for v in value]


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
    """Return the arrays of a model, end to end, as one vector, float64."""
    return ravel([array.astype(np.float64) for array in unpack(arrays)])


def mean_arrays(models: list[ArrayRecord]) -> ArrayRecord:
    """Return the mean of models, in the data types of the first."""
    layers = zip(*map(unpack, models), strict=True)
    mean = [
        as_dtype(np.asarray(np.mean(layer, axis=0, dtype=np.float64)), layer[0].dtype)
        for layer in layers
    ]
    return pack(mean, models[0])


#: numpy.ndarray or torch.Tensor.
Rows = TypeVar("Rows", bound=Any)
#: Names of a model's arrays, in order, and their shapes.
Shapes: TypeAlias = Mapping[str, tuple[int, ...]]


def ravel(model: Model, batch: tuple[int, ...] = ()) -> np.ndarray:
    """Return a model as one vector, all its arrays end to end.

    Parameters
    ----------
    model : list of numpy.ndarray
        Arrays of the shapes ``(*batch, ...)``.
    batch : tuple of int
        The axis of many clients, see `RoundContext.batch`; () for one model.

    Returns
    -------
    numpy.ndarray
        Shape ``(*batch, parameters)``, of a data type that holds all.
    """
    parts = [np.reshape(array, (*batch, -1)) for array in model]
    return np.concatenate(parts, axis=-1) if parts else np.empty((*batch, 0))


def unravel(rows: Rows, shapes: Shapes) -> dict[str, Rows]:
    """Take vectors apart, the inverse of `ravel`.

    Parameters
    ----------
    rows : numpy.ndarray or torch.Tensor
        Models, shape ``(*batch, parameters)``.
    shapes : mapping
        Names of a model's arrays, in order, and their shapes.

    Returns
    -------
    dict
        Name -> view of `rows`, shape ``(*batch, *shape)``, in the type of `rows`.
    """
    arrays, start = {}, 0
    for name, shape in shapes.items():
        stop = start + math.prod(shape)
        arrays[name] = rows[..., start:stop].reshape((*rows.shape[:-1], *shape))
        start = stop
    return arrays


_KINDS = {"arrays": ArrayRecord, "config": ConfigRecord, "metrics": MetricRecord}


def dump(content: RecordDict) -> bytes:
    """Return records as bytes: one msgpack message, of numbers, texts and raw arrays.

    Parameters
    ----------
    content : flwr.app.RecordDict
        Its arrays are numpy's, of numbers or truth values.

    Returns
    -------
    bytes
        Record by record, in order; the same records make the same bytes. Arrays keep
        data type, byte order and Fortran order.

    Raises
    ------
    ValueError
        If there are other arrays, or whole numbers of more than 64 bits.
    """
    packed = {}
    for name, record in content.items():
        kind = next(k for k, kept in _KINDS.items() if isinstance(record, kept))
        values: dict[str, object] = {**record}
        if isinstance(record, ArrayRecord):
            values = {key: _parts(array.numpy()) for key, array in record.items()}
        packed[name] = kind, values
    try:
        data: bytes = msgpack.packb(packed)
    except OverflowError as error:
        raise ValueError(f"these records cannot be kept: {error}") from error
    return data


def load(data: bytes) -> RecordDict:
    """Return the records that `dump` made bytes of.

    Memory stays in proportion to the length of `data`, whatever it claims to hold.

    Parameters
    ----------
    data : bytes
        From the network or the disk, from whomever.

    Returns
    -------
    flwr.app.RecordDict
        The records, in order.

    Raises
    ------
    ValueError
        If the bytes are anything else.
    """
    try:
        content = RecordDict()
        for name, (kind, values) in msgpack.unpackb(data).items():
            if kind == "arrays":
                values = {k: Array(_array(*parts)) for k, parts in values.items()}
            content[name] = _KINDS[kind](values)
        return content
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise ValueError(f"these bytes are not records: {error!r}") from error


def _parts(array: np.ndarray) -> list[object]:
    if array.dtype.kind not in "biufc":  # as `load` takes no other
        raise ValueError(f"arrays of {array.dtype} are not accepted")
    order: Literal["C", "F"] = "F" if array.flags.fnc else "C"
    return [array.dtype.str, array.shape, order, array.tobytes(order)]


def _array(
    dtype: str, shape: list[int], order: Literal["C", "F"], data: bytes
) -> np.ndarray:
    """Read an array whose size is that of the bytes that came."""
    if not re.fullmatch("[<>|][biufc][0-9]{1,2}", dtype) or min(shape, default=0) < 0:
        raise ValueError(f"there is no array of {dtype} and shape {shape}")
    return np.frombuffer(data, dtype).reshape(shape, order=order)
