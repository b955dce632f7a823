"""Flower's records as bytes, and back: for the network and the disk, without pickle.

A RecordDict becomes one msgpack message, its arrays in the NPY format. Whoever reads
one gets numbers, texts, bytes and arrays, whatever the sender wrote, or a ValueError.
What the records mean, and whether their shapes fit, is for the reader to check.
"""

import io
import math
import re

import msgpack
import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

__all__ = ["dump", "load"]

#: The header that `dump` writes, and no other: nothing of it is evaluated.
_HEADER = re.compile(
    r"\{'descr': '([<>|][biufc]\d{1,2})', 'fortran_order': (True|False), "
    r"'shape': \(((?:\d{1,18}, ?)*(?:\d{1,18})?)\), \} *\n"
)

_KINDS = {"arrays": ArrayRecord, "config": ConfigRecord, "metrics": MetricRecord}


def dump(content: RecordDict) -> bytes:
    """Return records as bytes.

    Parameters
    ----------
    content : flwr.app.RecordDict
        Its arrays are numpy's, of numbers or truth values.

    Raises
    ------
    ValueError
        If there are other arrays, or whole numbers of more than 64 bits.
    """
    packed = {}
    for name, record in content.items():
        kind = next(k for k, kept in _KINDS.items() if isinstance(record, kept))
        values = dict(record)
        if kind == "arrays":
            values = {k: _npy(array.numpy()) for k, array in record.items()}
        packed[name] = [kind, values]
    try:
        return msgpack.packb(packed)
    except OverflowError as error:
        raise ValueError(f"these records cannot be kept: {error}") from error


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
    if array.dtype.kind not in "biufc":  # as `load` takes no other
        raise ValueError(f"arrays of {array.dtype} are not accepted")
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version=(1, 0), allow_pickle=False)
    return file.getvalue()


def _array(npy: bytes) -> np.ndarray:
    """Read an array whose size is that of the bytes that came."""
    end = 10 + int.from_bytes(npy[8:10], "little")
    header = _HEADER.fullmatch(npy[10:end].decode("latin1"))
    if npy[:8] != b"\x93NUMPY\x01\x00" or header is None:
        raise ValueError("an array is not in the NPY format that `dump` writes")
    dtype, fortran, lengths = header.groups()
    shape = tuple(int(length) for length in re.findall(r"\d+", lengths))
    dtype = np.dtype(dtype)
    if math.prod(shape) * dtype.itemsize != len(npy) - end:
        raise ValueError(f"an array of shape {shape} has {len(npy) - end} bytes")
    values = np.frombuffer(npy[end:], dtype)
    return values.reshape(shape, order="F" if fortran == "True" else "C")
