"""Flower's records as bytes, and back: for the network and the disk, without pickle.

A RecordDict becomes one msgpack message, its arrays in the NPY format. Whoever reads
one gets numbers, texts, bytes and arrays, whatever the sender wrote, or a ValueError.
What the records mean, and whether their shapes fit, is for the reader to check.
"""

import io

import msgpack
import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

__all__ = ["dump", "load"]

_KINDS = {"arrays": ArrayRecord, "config": ConfigRecord, "metrics": MetricRecord}


def dump(content: RecordDict) -> bytes:
    """Return records as bytes.

    Parameters
    ----------
    content : flwr.app.RecordDict
        Its arrays are numpy's, of numbers or truth values.
    """
    packed = {}
    for name, record in content.items():
        kind = next(k for k, kept in _KINDS.items() if isinstance(record, kept))
        values = dict(record)
        if kind == "arrays":
            values = {k: _npy(array.numpy()) for k, array in record.items()}
        packed[name] = [kind, values]
    return msgpack.packb(packed)


def load(data: bytes) -> RecordDict:
    """Return the records that `dump` made bytes of.

    Memory stays in proportion to the length of `data`, whatever it claims to hold.

    Raises
    ------
    ValueError
        If the bytes are anything else.
    """
    try:
        packed = msgpack.unpackb(data)
        content = RecordDict()
        for name, (kind, values) in packed.items():
            if kind == "arrays":
                values = {str(k): Array(_array(npy)) for k, npy in values.items()}
            content[name] = _KINDS[kind](values)
        return content
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"these bytes are not records: {error!r}") from error


def _npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version=(1, 0), allow_pickle=False)
    return file.getvalue()


def _array(npy: bytes) -> np.ndarray:
    """Read an array whose size is that of the bytes that came."""
    file = io.BytesIO(npy)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("an array is not in the NPY format, version 1.0")
    try:
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    except (SyntaxError, RecursionError, MemoryError, OverflowError) as error:
        raise ValueError(f"the header of an array cannot be read: {error}") from error
    if dtype.kind not in "biufc":
        raise ValueError(f"arrays of {dtype} are not accepted")
    if min(shape, default=0) < 0:
        raise ValueError(f"an array has the shape {shape}")
    values = np.frombuffer(npy, dtype, offset=file.tell())
    return values.reshape(shape, order="F" if fortran else "C")
