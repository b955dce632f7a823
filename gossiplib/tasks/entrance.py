"""What enters a `Task`: examples, labels and a model, each read one way, or refused.

Whatever gives an array is turned into one here, once: numpy, pandas, lists, tensors of
any device, sparse matrices.
"""

import numbers
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from gossiplib.tasks.training import seeded

#: The data types of models, and what numpy calls them.
FLOATS = {torch.float32: np.float32, torch.float64: np.float64}
#: In an array of objects, what is a number.
NUMBER, WHOLE = (numbers.Real, np.bool_), (numbers.Integral, np.bool_)


def check_dtype(dtype: torch.dtype) -> None:
    """Raise ValueError unless models can have this data type."""
    if dtype not in FLOATS:
        raise ValueError(f"dtype must be one of {[*FLOATS]}; got {dtype!r}")


def as_array(name: str, value: Any) -> np.ndarray:
    """Return what somebody gave as an array; raise ValueError if it makes none.

    Objects that are numbers, as of a table of mixed columns, become numbers.
    """
    if np.ma.is_masked(value):
        raise ValueError(f"{name} has masked values: fill them, or leave them out")
    try:
        if isinstance(value, torch.Tensor):
            value = value.detach().cpu().to_dense()
            value = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
        elif hasattr(value, "toarray"):  # a sparse matrix
            value = value.toarray()
        array = np.asarray(value)
        if array.dtype == object:
            kinds = {type(item) for item in array.flat}
            if all(issubclass(kind, NUMBER) for kind in kinds):
                whole = all(issubclass(kind, WHOLE) for kind in kinds)
                array = array.astype(np.int64 if whole else np.float64)
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{name} makes no array: {error}") from error
    if not array.ndim:
        kind = type(value).__name__
        raise ValueError(f"{name} must be an array of the examples; got {kind}")
    return array


def read_x(x: object) -> np.ndarray:
    """Return the examples, finite numbers, whole where they came as whole numbers."""
    array = as_array("x", x)
    if not array.size:
        raise ValueError(f"x holds no examples: its shape is {array.shape}")
    columns = getattr(x, "columns", None)
    if array.dtype == object:
        odd = [not isinstance(item, NUMBER) for item in array.flat]
        where, item = _first(array, np.reshape(odd, array.shape), columns)
        raise ValueError(
            f"x must hold numbers; {where} is {item!r}: code it as numbers"
        )
    if array.dtype.kind not in "biuf":
        raise ValueError(f"x must hold numbers; got {array.dtype}: code it as numbers")
    if not (finite := np.isfinite(array)).all():
        where, item = _first(array, ~finite, columns)
        raise ValueError(
            f"x must be finite; {where} is {item}: fill it, or leave it out"
        )
    return array.astype(np.int64) if array.dtype == bool else array


def _first(
    array: np.ndarray, bad: np.ndarray, columns: object
) -> tuple[str, np.ndarray]:
    """Return where the first bad value is, in words, and the value."""
    place = tuple(map(int, np.argwhere(bad)[0]))
    example, *rest = place
    where = f"example {example}"
    if rest and columns is not None:
        where += f", column {list(columns)[rest[0]]!r}"  # type: ignore[call-overload]
    elif rest:
        where += f", feature {', '.join(map(str, rest))}"
    return where, array[place]


def to_floats(x: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    """Return examples in a data type of models; raise ValueError if they do not fit.

    Floats are rounded to it. Whole numbers may be names, such as those of words, and
    are none any more when they are rounded.
    """
    exact = 2 / torch.finfo(dtype).eps
    if x.dtype.kind in "iu" and max(int(x.max()), -int(x.min())) > exact:
        raise ValueError(
            f"x holds whole numbers above {exact:.0f}, which {dtype} rounds: if they "
            "are amounts, pass floats; if names, take a model that embeds them"
        )
    with np.errstate(over="ignore"):
        cast = x.astype(FLOATS[dtype], order="C")
    if not np.isfinite(cast).all():
        raise ValueError(f"x holds values beyond those of {dtype}: scale them")
    return torch.from_numpy(cast)


def read_y(y: object, examples: int) -> tuple[np.ndarray, int]:
    """Return the labels, int64 of shape (examples,), and how many classes there are.

    Each class is there at least once: a label that is left out tells, more often than
    not, that labels were not meant as numbers from 0 on.
    """
    array = as_array("y", y)
    if len(array) != examples:
        raise ValueError(f"x has {examples} examples, and y {len(array)} labels")
    if array.shape not in {(examples,), (examples, 1)}:
        raise ValueError(
            f"y must have the shape ({examples},), a class for each example; got "
            f"{array.shape}: of one-hot rows take y.argmax(axis=1)"
        )
    array = array.ravel()
    if array.dtype == bool:
        array = array.astype(np.int64)
    if array.dtype.kind in "iuf":
        if (part := array[array != np.floor(array)]).size:  # NaN is unequal to itself
            raise ValueError(
                "y must hold classes 0, 1, ...; got floats that are not whole, such as "
                f"{part[0]}: a Task is about classes, not about amounts"
            )
        classes = np.unique(array)
        if np.array_equal(classes, np.arange(len(classes))):
            return array.astype(np.int64), len(classes)
    some = list(dict.fromkeys(map(repr, array[:1000].tolist())))
    shown = ", ".join(some[:5]) + (", ..." if len(some) > 5 else "")
    if array.dtype.kind in "mM":  # which may be told as whole numbers
        shown += f" of {array.dtype}"
    raise ValueError(
        f"y must hold classes 0, 1, ..., each at least once; got {shown}: number them "
        "by classes, y = np.unique(y, return_inverse=True)"
    )


def check_build(build: Callable[[], nn.Module], model: Callable[[], nn.Module]) -> None:
    """Raise ValueError unless `build` makes a new model each time, the same."""
    if isinstance(build, nn.Module) or not callable(build):
        raise ValueError(
            "build must be a function that makes a new model, such as "
            f"`lambda: nn.Linear(64, 10)`; got {build!r}"
        )
    one, other = model(), model()
    first, second = (dict(module.named_parameters()) for module in (one, other))
    if shared := {id(p) for p in first.values()} & {id(p) for p in second.values()}:
        raise ValueError(
            f"build gave {len(shared)} of its parameters at a second call again: make "
            "the layers inside it, anew at each call"
        )
    start, again = one.state_dict(), other.state_dict()
    for name, a in start.items():
        if not torch.equal(a.nan_to_num(), again[name].nan_to_num()):
            raise ValueError(
                f"build makes another {name} at each call: draw first parameters from "
                "torch's random numbers, which the task's seed decides"
            )


def check_module(model: object) -> nn.Module:
    """Return what `build` made, if it is a module with parameters to train."""
    if not isinstance(model, nn.Module):
        kind = type(model).__name__
        raise ValueError(f"build must make a torch.nn.Module; it made {kind}")
    named = dict(model.named_parameters())
    for name, p in named.items():
        if nn.parameter.is_lazy(p):
            raise ValueError(f"build makes lazy layers ({name}): give them their sizes")
        faults = {
            "complex numbers": p.is_complex(),
            "no numbers yet": p.is_meta,
            "a hook on a gradient, which copies of it lose": p._backward_hooks
            or p._post_accumulate_grad_hooks,
        }
        if what := next((what for what, there in faults.items() if there), ""):
            raise ValueError(f"build's model holds {what} ({name})")
    if not any(p.requires_grad for p in named.values()):
        raise ValueError("build's model has no parameters to train")
    return model


def as_taken(
    x: np.ndarray, dtype: torch.dtype, model: nn.Module, num_classes: int
) -> torch.Tensor:
    """Return examples as a model takes them, as floats or whole; else ValueError."""
    # With the least and the greatest number: they may be places in a table.
    some = [0, -1, *(int(at) * len(x) // x.size for at in (x.argmin(), x.argmax()))]
    try:
        floats = to_floats(x, dtype)
        _try_model(model, floats[some], num_classes)
        return floats
    except ValueError as error:
        if x.dtype.kind not in "iu" or int(x.max()) >= 2**63:  # int64 holds no more
            raise
        whole = torch.from_numpy(x.astype(np.int64, order="C"))
        try:
            _try_model(model, whole[some], num_classes)
        except ValueError as other:
            raise ValueError(f"{error}; and {other}") from other
        return whole


@torch.no_grad()
def _try_model(model: nn.Module, x: torch.Tensor, num_classes: int) -> None:
    """Raise ValueError unless a model makes logits of examples, in both its modes."""
    for mode in ("training", "evaluation"):
        how = f"build's model, given {x.dtype} of shape {tuple(x.shape)} in {mode},"
        try:
            with seeded(0):
                out = model.train(mode == "training")(x.clone())
        except Exception as error:
            raise ValueError(f"{how} fails: {error}") from error
        if not isinstance(out, torch.Tensor):
            raise ValueError(f"{how} makes {type(out).__name__}; it must give logits")
        made = tuple(out.shape)
        if len(made) != 2 or made[0] != len(x) or made[1] < num_classes:
            raise ValueError(
                f"{how} makes {made}; it must give logits, an output to each of "
                f"{num_classes} classes: ({len(x)}, {num_classes})"
            )
        if not out.is_floating_point():
            raise ValueError(f"{how} makes {out.dtype}; it must give logits, floats")
