"""Models as clients and server exchange them: written, checked, averaged.

How a record is read, stacked and made bytes of is told in `system.records`, which knows
nothing of gossip.
"""

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from gossiplib.core.averaging import as_dtype, check_model
from gossiplib.system.records import array_records, ravel, unpack

__all__ = [
    "check_arrays",
    "check_initial",
    "flat",
    "mean_arrays",
    "only_arrays",
    "pack",
    "whole",
    "wholes",
]


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


def whole(record: ConfigRecord, key: str, missing: int | None = None) -> int:
    """Return a whole number of a record; raise ValueError where there is none."""
    value = record.get(key, missing)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{key} must be a whole number; got {value!r}")
    return value


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
