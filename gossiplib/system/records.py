"""Flower's records: read fast, end to end as vectors, many at once, and as bytes.

A model is an ArrayRecord, or the list of its arrays. `StackedModels` and
`StackedMetrics` hold the records of very many clients as a few arrays: a million
ArrayRecords would take minutes to make, and more memory than the models.

`dump` makes bytes of records, for the network and the disk, without pickle. Whoever
reads them with `load` gets numbers, texts, bytes and arrays, whatever the sender wrote,
or a ValueError. What the records mean, and whether their shapes fit, is for the reader
to check.
"""

import contextlib
import functools
import io
import itertools
import math
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

__all__ = [
    "Rows",
    "Shapes",
    "StackedMetrics",
    "StackedModels",
    "array_bytes",
    "array_records",
    "as_array",
    "dump",
    "first_metrics",
    "flat",
    "load",
    "mean_metrics",
    "only_arrays",
    "pack",
    "ravel",
    "record_of",
    "unpack",
    "unravel",
    "wholes",
]

Record = TypeVar("Record", ArrayRecord, ConfigRecord, MetricRecord)


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


def as_array(values: np.ndarray) -> Array:
    """Return ``Array(values)``, which writes a header of its own for each array."""
    order: Literal["C", "F"] = "F" if values.flags.fnc else "C"
    dtype, header = _header_of(values.dtype, values.shape, order)
    data = header + values.tobytes(order)
    return Array(dtype, values.shape, "numpy.ndarray", data)


@functools.lru_cache(maxsize=1024)
def _header_of(
    dtype: np.dtype, shape: tuple[int, ...], order: Literal["C", "F"]
) -> tuple[str, bytes]:
    if dtype.hasobject:
        raise ValueError("arrays of Python objects are not accepted")
    descr, file = np.lib.format.dtype_to_descr(dtype), io.BytesIO()
    about = {"descr": descr, "fortran_order": order == "F", "shape": shape}
    np.lib.format.write_array_header_1_0(file, about)
    return str(dtype), file.getvalue()


def record_of(
    content: RecordDict, name: str, kind: type[Record], missing: Record | None = None
) -> Record:
    """Return a record by its name and kind; raise ValueError if there is another.

    Flower's `content.array_records[name]` copies all of its kind to look one up.
    """
    record = content.get(name, missing)
    if not isinstance(record, kind):
        found = type(record).__name__
        raise ValueError(f"{name!r} must be a {kind.__name__}; it is a {found}")
    return record


def array_records(content: RecordDict) -> list[ArrayRecord]:
    """Return the ArrayRecords in the content of a message."""
    return [r for r in content.values() if isinstance(r, ArrayRecord)]


def array_bytes(arrays: ArrayRecord) -> int:
    """Return the bytes of a model's arrays, in the NPY format that Flower sends."""
    return sum(len(array.data) for array in arrays.values())


#: numpy.ndarray or torch.Tensor.
Rows = TypeVar("Rows", bound=Any)
#: Names of a model's arrays, in order, and their shapes.
Shapes: TypeAlias = Mapping[str, tuple[int, ...]]


def ravel(model: Sequence[np.ndarray], batch: tuple[int, ...] = ()) -> np.ndarray:
    """Return a model as one vector, of shape ``(*batch, parameters)``.

    All its arrays come end to end, in a data type that holds all.

    Parameters
    ----------
    model : list of numpy.ndarray
        Arrays of the shapes ``(*batch, ...)``.
    batch : tuple of int
        The axis of many models; () for one.
    """
    parts = [np.reshape(array, (*batch, -1)) for array in model]
    return np.concatenate(parts, axis=-1) if parts else np.empty((*batch, 0))


def unravel(rows: Rows, shapes: Shapes) -> dict[str, Rows]:
    """Return name -> view of an array of a model, shape ``(*batch, *shape)``.

    It is the inverse of `ravel`.

    Parameters
    ----------
    rows : numpy.ndarray or torch.Tensor
        Models, shape ``(*batch, parameters)``.
    shapes : mapping
        Names of a model's arrays, in order, and their shapes.
    """
    arrays, start = {}, 0
    for name, shape in shapes.items():
        stop = start + math.prod(shape)
        arrays[name] = rows[..., start:stop].reshape((*rows.shape[:-1], *shape))
        start = stop
    return arrays


class StackedModels(Mapping[int, ArrayRecord]):
    """Models as rows of one array: client -> ArrayRecord.

    Row i is the model of client i, its arrays end to end; only `clients`, in ascending
    order, have one.
    """

    def __init__(self, rows: np.ndarray, shapes: Shapes, clients: np.ndarray) -> None:
        self._rows, self._shapes, self._clients = rows, shapes, clients

    def __getitem__(self, client: int) -> ArrayRecord:
        """Make a client's ArrayRecord."""
        client = self._clients[_place(self._clients, client)]
        arrays = unravel(self._rows[client], self._shapes)
        return pack(arrays.values(), arrays)

    def __iter__(self) -> Iterator[int]:
        """Go through the clients that have a model."""
        return iter(self._clients.tolist())

    def __len__(self) -> int:
        """Return the number of clients that have a model."""
        return len(self._clients)

    def rows(self) -> np.ndarray:
        """Return the models as rows, read-only; no copy where all clients have one."""
        everyone = len(self._clients) == len(self._rows)
        rows = self._rows.view() if everyone else self._rows[self._clients]
        rows.flags.writeable = False
        return rows


class StackedMetrics(Mapping[int, MetricRecord]):
    """Metrics as columns, of clients in ascending order: client -> MetricRecord."""

    def __init__(self, clients: np.ndarray, columns: dict[str, np.ndarray]) -> None:
        self.clients, self.columns = clients, columns

    def __getitem__(self, client: int) -> MetricRecord:
        """Make a client's MetricRecord."""
        place = _place(self.clients, client)
        return MetricRecord({k: v[place].item() for k, v in self.columns.items()})

    def __iter__(self) -> Iterator[int]:
        """Go through the clients."""
        return iter(self.clients.tolist())

    def __len__(self) -> int:
        """Return the number of clients."""
        return len(self.clients)

    def mean(self) -> MetricRecord:
        """Return the plain mean of each metric, see `mean_metrics`."""
        columns = self.columns.items() if len(self) else []
        return MetricRecord(
            {k: float(v.mean()) for k, v in columns if k != "num-examples"}
        )


def _place(clients: np.ndarray, client: int) -> int:
    """Return where a client is; raise KeyError where a dict would."""
    place = int(np.searchsorted(clients, client))
    if place == len(clients) or clients[place] != client:
        raise KeyError(client)
    return place


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

    A record or value is a head of 64 bytes, its name, its shape and its data: raw
    numbers, or a text. The same content makes the same bytes. Arrays keep data type,
    byte order and Fortran order; they are numpy's, of numbers or truth values.

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
        array = value.numpy()
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
    times as much as its head and data.

    Parameters
    ----------
    data : bytes
        What came.
    most : int, optional
        How many records and values there may be; a list of texts counts once more for
        each 64 bytes. Many small ones take some tenths of a second a megabyte.

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
                record[name] = Array(_array(what, *parts))
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


def pack(model: Iterable[np.ndarray], like: Iterable[str]) -> ArrayRecord:
    """Return a model as an ArrayRecord, with names, or those of a record like it."""
    arrays = ArrayRecord()
    for name, array in zip(like, model, strict=True):
        arrays[name] = as_array(np.asarray(array))
    return arrays


def wholes(record: ConfigRecord, key: str) -> list[int]:
    """Return a list of whole numbers of a record; raise ValueError if there is none."""
    value = record.get(key)
    if not isinstance(value, list) or not all(type(v) is int for v in value):
        raise ValueError(f"{key} must be a list of whole numbers; got {value!r}")
    return [int(v) for v in value]


def only_arrays(content: RecordDict) -> ArrayRecord:
    """Return the one ArrayRecord of a reply; raise ValueError if it is not one."""
    records = array_records(content)
    if len(records) != 1:
        raise ValueError(
            f"the reply must hold one ArrayRecord, the model; it holds {len(records)}"
        )
    return records[0]


def flat(arrays: ArrayRecord) -> np.ndarray:
    """Return what a model has learned as one vector, float64.

    That are its arrays of floating-point numbers, end to end: no counters, and 0 where
    a mask is infinite. A complex number is two real ones.
    """
    parts = []
    for array in unpack(arrays):
        if array.dtype.kind == "c":
            array = array.ravel().astype(np.complex128).view(np.float64)
        if array.dtype.kind == "f":
            parts.append(np.where(np.isinf(array), 0, array.astype(np.float64)))
    return ravel(parts)


def first_metrics(content: RecordDict) -> MetricRecord:
    """Return the first MetricRecord of a reply; an empty one if it has none."""
    found = (record for record in content.values() if isinstance(record, MetricRecord))
    return next(found, MetricRecord())


def mean_metrics(clients: Mapping[int, MetricRecord]) -> MetricRecord:
    """Return the plain mean of each metric that all clients report, in one shape.

    `num-examples`, by which Flower weighs, is left out.
    """
    if isinstance(clients, StackedMetrics):
        return clients.mean()
    records = list(clients.values())
    shared = set(records[0]).intersection(*records) if records else ()
    mean = MetricRecord()
    for name in records[0] if records else ():
        if name in shared and name != "num-examples":
            values = [r[name] for r in records]
            if len({np.shape(v) for v in values}) == 1:
                with contextlib.suppress(OverflowError):  # a whole number beyond floats
                    mean[name] = np.mean(values, axis=0).tolist()
    return mean
