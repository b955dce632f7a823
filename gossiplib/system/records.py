"""Flower's records: read fast, end to end as vectors, and many at once.

A model is an ArrayRecord, or the list of its arrays. A million ArrayRecords would take
minutes to make, and more memory than the models: `StackedModels` and `StackedMetrics`
hold those of very many clients as a few arrays.
"""

import contextlib
import functools
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

Record = TypeVar("Record", ArrayRecord, ConfigRecord, MetricRecord)


def unpack(arrays: ArrayRecord) -> list[np.ndarray]:
    """Return the arrays of a model, read-only.

    The same as `ArrayRecord.to_numpy_ndarrays`, which parses each array's header anew:
    that took more than half of the time that gossip adds to training a small model.
    """
    return [as_numpy(array) for array in arrays.values()]


def as_numpy(array: Array) -> np.ndarray:
    """Return ``array.numpy()`` without a copy, read-only."""
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
    """Return a model, arrays of shapes ``(*batch, ...)``, as one vector, end to end.

    Its shape is ``(*batch, parameters)``, its data type one that holds all.
    """
    parts = [np.reshape(array, (*batch, -1)) for array in model]
    return np.concatenate(parts, axis=-1) if parts else np.empty((*batch, 0))


def unravel(rows: Rows, shapes: Shapes) -> dict[str, Rows]:
    """Return name -> view of an array of a model, shape ``(*batch, *shape)``.

    It is the inverse of `ravel`: `rows` are models, shape ``(*batch, parameters)``.
    """
    arrays, start = {}, 0
    for name, shape in shapes.items():
        stop = start + math.prod(shape)
        arrays[name] = rows[..., start:stop].reshape((*rows.shape[:-1], *shape))
        start = stop
    return arrays


class _Stacked(Mapping[int, Record]):
    """Records of `clients`, in ascending order, in a few arrays."""

    def __init__(self, clients: np.ndarray) -> None:
        self.clients = clients

    def _place(self, client: int) -> int:
        """Return where a client is; raise KeyError where a dict would."""
        place = int(np.searchsorted(self.clients, client))
        if place == len(self) or self.clients[place] != client:
            raise KeyError(client)
        return place

    def __iter__(self) -> Iterator[int]:
        """Go through the clients that have a record."""
        return iter(self.clients.tolist())

    def __len__(self) -> int:
        """Return how many these are."""
        return len(self.clients)


class StackedModels(_Stacked[ArrayRecord]):
    """Models as rows of one array, end to end: row i is the model of client i."""

    def __init__(self, rows: np.ndarray, shapes: Shapes, clients: np.ndarray) -> None:
        super().__init__(clients)
        self._rows, self._shapes = rows, shapes

    def __getitem__(self, client: int) -> ArrayRecord:
        """Make a client's ArrayRecord."""
        row = self.clients[self._place(client)]
        arrays = unravel(self._rows[row], self._shapes)
        return pack(arrays.values(), arrays)

    def rows(self) -> np.ndarray:
        """Return the models as rows, read-only; no copy where all clients have one."""
        everyone = len(self) == len(self._rows)
        rows = self._rows.view() if everyone else self._rows[self.clients]
        rows.flags.writeable = False
        return rows


class StackedMetrics(_Stacked[MetricRecord]):
    """Metrics as columns: name -> a value for each client."""

    def __init__(self, clients: np.ndarray, columns: dict[str, np.ndarray]) -> None:
        super().__init__(clients)
        self.columns = columns

    def __getitem__(self, client: int) -> MetricRecord:
        """Make a client's MetricRecord."""
        place = self._place(client)
        return MetricRecord({k: v[place].item() for k, v in self.columns.items()})

    def mean(self) -> MetricRecord:
        """See `mean_metrics`."""
        columns = self.columns.items() if len(self) else []
        return MetricRecord(
            {k: float(v.mean()) for k, v in columns if k != "num-examples"}
        )


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
    found = array_records(content)
    if len(found) != 1:
        raise ValueError(
            f"the reply must hold one ArrayRecord, the model; it holds {len(found)}"
        )
    return found[0]


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
