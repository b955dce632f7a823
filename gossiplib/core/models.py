"""Models as clients and server exchange them: written, checked, averaged.

How a record is read, stacked and made bytes of is told in `system.records`, which knows
nothing of gossip.
"""

from collections.abc import Iterable

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord

from gossiplib.core.averaging import Model, as_dtypes
from gossiplib.system.records import as_array, pack, unpack

__all__ = [
    "check_arrays",
    "check_initial",
    "check_model",
    "check_variances",
    "mean_arrays",
]


def check_arrays(
    arrays: ArrayRecord, like: ArrayRecord, whose: str = "its"
) -> ArrayRecord:
    """Return a model with its arrays in the order of another; see `check_model`.

    Arrays are known by their names, as in `FedAvg`. Whole numbers in the place of
    floats become floats, as there: or their average would be rounded.
    """
    arrays = in_order(arrays, like, whose)
    model, old = unpack(arrays), unpack(like)
    check_model(model, old, whose, like)
    with np.errstate(over="ignore"):
        cast = {
            name: as_array(a.astype(b.dtype))
            for name, a, b in zip(like, model, old, strict=True)
            if a.dtype.kind in "biu" and b.dtype.kind in "fc"
        }
    if not cast:
        return arrays
    arrays = ArrayRecord({**arrays, **cast})
    check_model(unpack(arrays), old, whose, like)  # it may be too large for them
    return arrays


def in_order(arrays: ArrayRecord, like: ArrayRecord, whose: str) -> ArrayRecord:
    """Return a model with its arrays in the order of another, if it has the same."""
    if list(arrays) == list(like):
        return arrays
    if differing := sorted(set(arrays) ^ set(like)):
        raise ValueError(
            f"{whose} arrays are named {list(arrays)}, not {list(like)}: look at "
            f"{differing}"
        )
    return ArrayRecord({name: arrays[name] for name in like})


def check_initial(
    arrays: ArrayRecord,
    train_config: ConfigRecord | None = None,
    evaluate_config: ConfigRecord | None = None,
) -> list[np.ndarray]:
    """Return the arrays of a first model; raise an error unless it can be one.

    The configs are checked as well.
    """
    if not isinstance(arrays, ArrayRecord):
        kind = type(arrays).__name__
        raise TypeError(f"initial_arrays must be an ArrayRecord, not a {kind}")
    model = unpack(arrays)
    check_model(model, model, "initial_arrays:", arrays)
    configs = {"train_config": train_config, "evaluate_config": evaluate_config}
    for name, config in configs.items():
        if not isinstance(config, ConfigRecord | None):
            raise TypeError(f"{name} must be a ConfigRecord, not {config!r}")
    return model


def mean_arrays(models: list[ArrayRecord]) -> ArrayRecord:
    """Return the mean of models, in the data types of the first."""
    first, *others = map(unpack, models)
    means = (
        np.mean(layer, axis=0, dtype=np.result_type(layer[0], np.float64))
        for layer in zip(first, *others, strict=True)
    )
    return pack(as_dtypes(means, first, others), models[0])


def check_model(
    model: Model,
    like: Model | None = None,
    whose: str = "its",
    names: Iterable[object] | None = None,
) -> None:
    """Raise an error unless a model is of finite numbers, in the shapes of another.

    Where the other is infinite, as a mask is, the model must be so as well.

    Parameters
    ----------
    model, like : list of numpy.ndarray
        What is checked, and what it is compared with. A message that is no model is
        compared with nothing.
    whose : str
        Names the culprit in the message.
    names : iterable, optional
        The arrays' names; by default 0, 1, ...

    Raises
    ------
    ValueError
        If an array is missing, has another shape, or holds something else.
    """
    if like is not None and len(model) != len(like):
        raise ValueError(
            f"{whose} model has {len(model)} arrays instead of {len(like)}"
        )
    names = range(len(model)) if names is None else names
    for k, (name, array) in enumerate(zip(names, model, strict=True)):
        other, why = None if like is None else like[k], ""
        kind = array.dtype.kind
        if other is not None and array.shape != other.shape:
            why = f"has shape {array.shape} instead of {other.shape}"
        elif (
            kind not in "biufc" or other is not None and kind == "c" != other.dtype.kind
        ):
            wanted = "numbers" if other is None else f"numbers as of {other.dtype}"
            why = f"holds {array.dtype}, not {wanted}"
        elif not (finite := np.isfinite(array)).all():
            masked = other is not None and np.isinf(other) & (array == other)
            if not np.all(finite | masked):
                why = "has NaN or infinite values"
        if why:
            raise ValueError(f"{whose} array {name} {why}")


def check_variances(mixed: Model, models: list[Model], names: Iterable[str]) -> None:
    """Raise ValueError if an average makes a variance negative, as of no model.

    Layers that normalise hold some, by the names of PyTorch and Keras. Where a weight
    is below 0, an average may leave the range of what it is of.
    """
    for name, new, *old in zip(names, mixed, *models, strict=True):
        if name.endswith(("running_var", "moving_variance")):
            if ((new < 0) & (np.min(old, axis=0) >= 0)).any():
                raise ValueError(
                    f"the average makes the variance {name!r} negative, as weights "
                    "below 0 may, and protocols that correct or compress models: take "
                    "mixing.metropolis and a mean, or a model without running_var"
                )
