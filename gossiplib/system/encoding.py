"""Flower's records as bytes, for the network and the disk, without pickle.

Whoever reads bytes with `load` gets numbers, texts, bytes and arrays, whatever the
sender wrote, or a ValueError.
"""

import itertools
import re
import struct
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from gossiplib.system.records import as_array, as_numpy

#: What stands before each record and value: what it is, its order and number of axes,
#: and the bytes of its name and data. The 43 that are free bound the memory of `load`:
#: who sends many small values sends much.
_HEAD = struct.Struct("<7scBIQ43x")

_KINDS = {"arrays": ArrayRecord, "config": ConfigRecord, "metrics": MetricRecord}
_NUMBERS = {bool: "<u8", int: "<i8", float: "<f8"}  # 8 bytes each, for the same reason
_TEXTS: dict[str, Callable[[memoryview], object]]
_TEXTS = {"text": lambda data: str(data, "utf-8"), "bytes": bytes}


def dump(content: RecordDict) -> bytes:
    """Return records as bytes: each record, and behind it its values, one by one.

    A record or value is a head of 64 bytes, its name, its shape and its data. The same
    `content` makes the same bytes. Arrays are of numbers or truth values, and keep data
    type, byte order and Fortran order.

    Raises
    ------
    ValueError
        If there are other arrays, or whole numbers of more than 64 bits.
    """
    pieces: list[bytes] = []
    for name, record in content.items():
        kind = next(k for k, kept in _KINDS.items() if isinstance(record, kept))
        pieces += _entry(kind, name)
        for key, value in record.items():
            pieces += _value_entry(key, value)
    return b"".join(pieces)


def _entry(
    what: str,
    name: str,
    data: bytes = b"",
    shape: tuple[int, ...] = (),
    order: Literal["C", "F"] = "C",
) -> list[bytes]:
    label, axes = name.encode(), struct.pack(f"<{len(shape)}Q", *shape)
    sizes = len(shape), len(label), len(data)
    return [_HEAD.pack(what.encode(), order.encode(), *sizes), label, axes, data]


def _value_entry(name: str, value: Any) -> list[bytes]:
    if isinstance(value, str):
        return _entry("text", name, value.encode())
    if isinstance(value, bytes):
        return _entry("bytes", name, value)
    first = value[0] if isinstance(value, list) and value else value
    if isinstance(first, str | bytes):
        items = itertools.chain.from_iterable(_value_entry("", one) for one in value)
        return _entry("list", name, b"".join(items))
    if isinstance(value, Array):
        array = as_numpy(value)
        if array.dtype.kind not in "biufc":  # as `load` takes no other
            raise ValueError(f"arrays of {array.dtype} are not accepted")
    else:
        kinds = (dtype for kind, dtype in _NUMBERS.items() if isinstance(first, kind))
        try:
            array = np.array(value, next(kinds, "<f8"))
        except OverflowError as error:
            raise ValueError(f"{name} = {value} cannot be kept: {error}") from error
    order: Literal["C", "F"] = "F" if array.flags.fnc else "C"
    return _entry(array.dtype.str, name, array.tobytes(order), array.shape, order)


#: What comes of bytes, or of something else, that somebody has made up.
_WRONG = (
    AttributeError,
    BufferError,
    KeyError,
    MemoryError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
)


def load(data: bytes, most: int | None = None) -> RecordDict:
    """Return the records that `dump` made bytes of, whoever sent or kept the bytes.

    The memory for that is at most eight times the length of `data`, whatever they claim
    to hold: a value is made when all its bytes are there, and no object takes eight
    times as much as its head and data. There may be at `most` so many records and
    values; a list of texts counts once more for each 64 bytes.

    Raises
    ------
    ValueError
        If the bytes are anything else.
    """
    content = RecordDict()
    record: Any = None
    count = 0
    try:
        for what, name, *parts in _entries(memoryview(data)):
            count += 1 + (what == "list") * len(parts[-1]) // _HEAD.size
            if most is not None and count > most:
                raise ValueError(f"there are more than {most}")
            if name in (content if what in _KINDS else record):
                raise ValueError("a name is there twice")
            if what in _KINDS:
                record = content[name] = _KINDS[what]()
            elif isinstance(record, ArrayRecord):
                record[name] = as_array(_array(what, *parts))
            else:
                record[name] = _value(what, *parts)
        return content
    except _WRONG as error:
        # Not the error's repr, which may hold all the bytes.
        why = f"{type(error).__name__} {error}"
        raise ValueError(f"these bytes are not records: {why}") from error


def _entries(data: memoryview) -> Iterator[tuple[str, str, str, Any, memoryview]]:
    """Go through what `_entry` has written: type, name, order, shape and data."""
    end = 0
    while end < len(data):
        what, order, axes, *sizes = _HEAD.unpack_from(data, end)
        begin, label, shape, end = itertools.accumulate(
            (end + _HEAD.size, sizes[0], 8 * axes, sizes[1])
        )
        if end > len(data):
            raise ValueError("they are cut short")
        yield (
            what.rstrip(b"\0").decode(),
            str(data[begin:label], "utf-8"),
            order.decode(),
            struct.unpack(f"<{axes}Q", data[label:shape]),
            data[shape:end],
        )


def _value(what: str, order: Any, shape: tuple[int, ...], data: memoryview) -> Any:
    if what in _TEXTS:
        return _TEXTS[what](data)
    if what == "list":  # never of lists
        return [_TEXTS[kind](item) for kind, *_, item in _entries(data)]
    if what not in _NUMBERS.values() or len(shape) > 1:
        raise ValueError(f"there is no value of {what} and {len(shape)} axes")
    array = _array(what, order, shape, data)
    return (array.astype(bool) if what == _NUMBERS[bool] else array).tolist()


def _array(
    dtype: str, order: Any, shape: tuple[int, ...], data: memoryview
) -> np.ndarray:
    """Read an array whose size is that of the bytes that came."""
    if not re.fullmatch("[<>|][biufc][0-9]{1,2}", dtype) or order not in "CF":
        raise ValueError(f"there is no array of {dtype} and order {order}")
    return np.frombuffer(data, dtype).reshape(shape, order=order)
