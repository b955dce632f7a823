"""Arrays that a client remembers, and what corrections of drift have in common.

A correction is added to a model. It has the shapes of the model's arrays of floats (or
complex numbers); whole numbers are averaged as they are, and never corrected.
"""

import numpy as np
from flwr.app import ArrayRecord

from gossiplib.core.averaging import Model
from gossiplib.core.context import RoundContext
from gossiplib.system.records import unpack

__all__ = ["difference", "floats", "kept", "remember", "shifted"]


def floats(model: Model) -> Model:
    """Return the arrays of a model that can be corrected."""
    return [array for array in model if array.dtype.kind in "fc"]


def kept(context: RoundContext, name: str, like: Model) -> Model:
    """Return what the client keeps under a name; at first, zeros."""
    if name in context.state:
        return unpack(context.state.array_records[name])
    return [np.zeros_like(array) for array in floats(like)]


def remember(context: RoundContext, name: str, arrays: Model) -> None:
    """Keep arrays, or numbers, for the rounds to come."""
    context.state[name] = ArrayRecord([np.asarray(array) for array in arrays])


def shifted(model: Model, by: Model, scale: float = 1.0) -> Model:
    """Return a model with a correction added, `scale` times."""
    rest = iter(by)
    return [
        np.asarray(a + a.dtype.type(scale) * next(rest)) if a.dtype.kind in "fc" else a
        for a in model
    ]


def difference(model: Model, other: Model) -> Model:
    """Return model - other, arrays of floats: 0 where both are infinite, as masks."""
    with np.errstate(invalid="ignore"):
        pairs = zip(floats(model), floats(other), strict=True)
        return [np.where(a == b, a.dtype.type(0), a - b) for a, b in pairs]
