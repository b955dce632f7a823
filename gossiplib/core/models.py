"""Models as clients and server exchange them: written, checked, averaged.

How a record is read, stacked and made bytes of is told in `system.records`, which knows
nothing of gossip.
"""

import numpy as np
from flwr.app import ArrayRecord

from gossiplib.core.averaging import Model, as_dtype
from gossiplib.system.records import (
    pack,
    unpack,
)

__all__ = ["check_arrays", "check_initial", "check_model", "mean_arrays"]


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


def mean_arrays(models: list[ArrayRecord]) -> ArrayRecord:
    """Return the mean of models, in the data types of the first."""
    layers = zip(*map(unpack, models), strict=True)
    mean = [
        as_dtype(np.asarray(np.mean(layer, axis=0, dtype=np.float64)), layer[0].dtype)
        for layer in layers
    ]
    return pack(mean, models[0])


def check_model(model: Model, like: Model, whose: str = "its") -> None:
    """Raise an error unless a model is finite and has the shapes of another.

    Parameters
    ----------
    model, like : list of numpy.ndarray
        What is checked, and what it is compared with.
    whose : str
        Names the culprit in the message.

    Raises
    ------
    ValueError
        If an array is missing, has another shape or holds no finite numbers.
    """
    if len(model) != len(like):
        raise ValueError(
            f"{whose} model has {len(model)} arrays instead of {len(like)}"
        )
    for k, (array, other) in enumerate(zip(model, like, strict=True)):
        if array.shape != other.shape:
            raise ValueError(
                f"{whose} array {k} has shape {array.shape} instead of {other.shape}"
            )
        if array.dtype.kind not in "biuf":
            raise ValueError(f"{whose} array {k} holds {array.dtype}, not numbers")
        if not np.isfinite(array).all():
            raise ValueError(f"{whose} array {k} has NaN or infinite values")
