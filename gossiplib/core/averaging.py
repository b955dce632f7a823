"""How a client averages its model with its neighbours': average functions.

A model is a list of arrays, and an `Average` makes one of a client's own and those that
reached it: a plain function, or a frozen dataclass that says its parameters.
`weighted_mean` is FED-0002's Algorithm 1 and the default, `SoftmaxDistance` is its
Algorithm 2. Nothing here knows graphs or Flower; `protocols` has more of them.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, fields, is_dataclass
from types import MethodType
from typing import Any, Protocol, TypeAlias

import numpy as np

from gossiplib.system.numbers import check_number, check_share

__all__ = [
    "Average",
    "Model",
    "Models",
    "SoftmaxDistance",
    "name_of",
    "per_client",
    "softmax_distance_weights",
    "weighted_mean",
]

Model: TypeAlias = list[np.ndarray]
Models: TypeAlias = Sequence[Model]


class Average(Protocol):
    """What a client makes of its own model and its neighbours'.

    By default a client sends its model to its neighbours. An average function may have
    a method

        send(model, context) -> message

    which is called after training, and returns what leaves the client instead: a list
    of arrays of any number, shapes and data types. Then `neighbours` holds these, and
    ``context.read`` takes them apart, as not every one that comes need make sense.

    The vectorised engine calls an average function for many clients at once, with the
    same number of neighbours each. Then each array has one axis more, the first, for
    the clients; so has each weight, each array that is sent, and each in the state.
    Clients that remember other whole numbers or truth values are called apart, and may
    send fewer arrays than others; then whoever reads them finds zeros in the last ones.
    ``context.batch`` is that axis, `per_client` fits weights to arrays, `ravel`
    makes vectors of models.
    """

    def __call__(
        self, own: Model, neighbours: Models, weights: np.ndarray, context: Any, /
    ) -> Model:
        """Return the client's new model.

        Parameters
        ----------
        own : list of numpy.ndarray
            The client's own model, which must not be changed.
        neighbours : sequence of lists of numpy.ndarray
            The models (or messages) that reached it in this round; nor must they.
        weights : numpy.ndarray
            What the mixing matrix gives to each: the own model first, then those of
            `neighbours`; they sum to 1. Shape (1 + neighbours,), or
            (1 + neighbours, clients).
        context : RoundContext
            Who the client is, which round it is, who sent what. In its `state` the
            function may keep records for later rounds.

        Returns
        -------
        list of numpy.ndarray
            Arrays of the shapes and data types of `own`.
        """
        ...


def weighted_mean(
    own: Model, neighbours: Models, weights: np.ndarray, context: Any = None
) -> Model:
    """Average as FED-0002's Algorithm 1 does: W_ii M_i + Σ_j W_ij M_j.

    Parameters
    ----------
    own, neighbours, weights, context
        Those of an `Average`; the context is not used.

    Returns
    -------
    list of numpy.ndarray
        The new model, in the data types of `own`, see `as_dtypes`. Sums are formed in
        float64, of complex numbers in complex128.

    Raises
    ------
    ValueError
        If there is not one weight a model, or the weights do not sum to 1.
    """
    weights = np.asarray(weights, dtype=np.float64)
    if len(weights) != 1 + len(neighbours):
        raise ValueError(
            f"{1 + len(neighbours)} models need as many weights, not {len(weights)}"
        )
    sums = weights.sum(axis=0)
    if not np.all(np.abs(sums - 1) <= 1e-6):
        raise ValueError(f"the weights must sum to 1, not to {np.min(sums):.6g}")

    def mean(layer: tuple[np.ndarray, ...]) -> Any:
        shape = weights.shape + (1,) * (1 + layer[0].ndim - weights.ndim)
        return sum(w * a for w, a in zip(weights.reshape(shape), layer, strict=True))

    means = map(mean, zip(own, *neighbours, strict=True))
    with np.errstate(invalid="ignore"):  # infinite values, see `as_dtypes`
        return as_dtypes(means, own, neighbours)


def per_client(values: np.ndarray, array: np.ndarray) -> np.ndarray:
    """Return a number for each client in a shape that multiplies their arrays.

    Parameters
    ----------
    values : numpy.ndarray
        Shape () for one client, (clients,) for many at once.
    array : numpy.ndarray
        What the values are for, shape ``(*values.shape, ...)``.

    Returns
    -------
    numpy.ndarray
        The values, with as many axes as `array`.
    """
    values = np.asarray(values)
    return values.reshape(values.shape + (1,) * (np.ndim(array) - values.ndim))


def as_model(made: Any, by: str) -> Model:
    """Return what a function, called `by`, made as a list of arrays."""
    if not isinstance(made, Iterable) or isinstance(made, Mapping | str):
        kind = type(made).__name__
        raise TypeError(f"{by} must return a list of arrays, not a {kind}")
    if any(map(np.ma.is_masked, made := [*made])):
        raise TypeError(f"{by} returned masked values: fill them")
    return [np.asarray(array) for array in made]


def as_dtypes(mixed: Iterable[Any], own: Model, neighbours: Models = ()) -> Model:
    """Return an average in the data types of the own model, whole numbers rounded.

    Where all models agree, whole numbers stay as they are to the last digit, as ids and
    seeds must, and so do infinite values, as masks have.

    Parameters
    ----------
    mixed, own, neighbours
        The average, and what it is of.

    Raises
    ------
    ValueError
        If a whole number is out of the range of its data type.
    """
    cast = []
    for k, (mean, mine) in enumerate(zip(mixed, own, strict=True)):
        mean, dtype = np.asarray(mean), mine.dtype
        if dtype.kind in "fc":
            if (masked := np.isinf(mine)).any():  # a weight of 0 makes NaN
                mean = np.where(masked, mine, mean)
            cast.append(mean.astype(dtype, copy=False))
            continue
        same = mean == mine.astype(np.float64)  # or nearer than float64 can tell
        if neighbours:
            same |= np.all([mine == model[k] for model in neighbours], axis=0)
        whole = mean if mean.dtype == dtype else np.rint(mean)
        info = np.iinfo(np.uint8 if dtype.kind == "b" else dtype)
        if not np.all(same | ((info.min <= whole) & (whole < info.max + 1.0))):
            raise ValueError(
                f"an average is out of the range of {dtype}, {info.min} to {info.max}: "
                "weights below 0, and what stretches or corrects models, do not go "
                "together with whole numbers"
            )
        cast.append(np.where(same, mine, np.where(same, 0, whole).astype(dtype)))
    return cast


@dataclass(frozen=True)
class SoftmaxDistance:
    """FED-0002's Algorithm 2: weigh the neighbours by what their models say.

    A client compares the predictions of its neighbours' models with those of its own,
    on its own validation set, and ignores the weights of the mixing matrix.

    Parameters
    ----------
    predict : callable
        (model, context) -> softmax outputs on the client's validation set, shape
        (examples, classes).
    self_weight : float
        W_ii, the weight of the own model, 0 to 1.
    alpha : float
        Above 0 listens more to neighbours that disagree, 0 to all alike, below 0 to
        those that agree.

    Raises
    ------
    TypeError
        If `predict` cannot be called.
    ValueError
        If `self_weight` is not a share, or `alpha` not a finite number.
    """

    predict: Callable[[Model, Any], np.ndarray]
    _: KW_ONLY
    self_weight: float = 0.5
    alpha: float = 1.0

    def __post_init__(self) -> None:
        """Check what is given."""
        if not callable(self.predict):
            raise TypeError(f"predict must be callable, not {self.predict!r}")
        check_share("self_weight", self.self_weight)
        if not np.isfinite(check_number("alpha", self.alpha)):
            raise ValueError(f"alpha must be finite; got {self.alpha}")

    def __call__(
        self, own: Model, neighbours: Models, weights: np.ndarray, context: Any
    ) -> Model:
        """Average with the weights of `softmax_distance_weights`."""
        if not neighbours:
            return own
        others = [self.predict(model, context) for model in neighbours]
        mine = self.predict(own, context)
        learned = softmax_distance_weights(
            mine, others, self_weight=self.self_weight, alpha=self.alpha
        )
        return weighted_mean(own, neighbours, learned)


def softmax_distance_weights(
    own: np.ndarray,
    neighbours: Sequence[np.ndarray],
    *,
    self_weight: float,
    alpha: float,
) -> np.ndarray:
    """Return the weights of Algorithm 2: W_ii, then W_ij of each neighbour j.

    W_ij = (1 - W_ii) dist_ij^α / Σ_j' dist_ij'^α, where dist_ij is the cosine distance
    between the softmax outputs of i and of j, averaged over the examples. Where the
    fraction is 0/0 or ∞/∞, its limit is taken: neighbours at distance 0 share alike.

    Parameters
    ----------
    own : numpy.ndarray
        Softmax outputs of the own model, shape (examples, classes).
    neighbours : sequence of numpy.ndarray
        Softmax outputs of each neighbour's model, of the same shape.
    self_weight, alpha : float
        As in `SoftmaxDistance`.

    Returns
    -------
    numpy.ndarray
        Shape (1 + neighbours,); of many clients at once, (1 + neighbours, clients).

    Raises
    ------
    ValueError
        If `self_weight` is not a share.
    """
    check_share("self_weight", self_weight)
    others = np.asarray(neighbours, dtype=np.float64)
    own = np.asarray(own, dtype=np.float64)
    norms = np.linalg.norm(others, axis=-1) * np.linalg.norm(own, axis=-1)
    cosine = (others * own).sum(axis=-1) / norms
    distance = np.clip(1 - cosine, 0, None).mean(axis=-1)
    with np.errstate(divide="ignore"):
        power = alpha * np.log(distance) if alpha else np.zeros_like(distance)
    top = power.max(axis=0)
    with np.errstate(invalid="ignore"):
        share = np.where(np.isinf(top), power == top, np.exp(power - top))
    kept = np.full((1, *top.shape), self_weight)
    return np.concatenate([kept, (1 - self_weight) * share / share.sum(axis=0)])


def name_of(thing: object) -> str:
    """Return what tells `thing`, such as an average function, from others, anywhere.

    A dataclass or `functools.partial` is known by its parameters, a function, a method
    or another object by its qualified name. So a checkpoint refuses to go on with
    another; what a closure holds, it cannot see.
    """
    if is_dataclass(thing) and not isinstance(thing, type):
        values = {f.name: getattr(thing, f.name) for f in fields(thing) if f.repr}
        parts = [f"{key}={name_of(value)}" for key, value in values.items()]
        return f"{type(thing).__qualname__}({', '.join(parts)})"
    if isinstance(thing, functools.partial):
        parts = [name_of(part) for part in (thing.func, *thing.args)]
        parts += [f"{key}={name_of(value)}" for key, value in thing.keywords.items()]
        return f"partial({', '.join(parts)})"
    if isinstance(thing, dict):
        thing = list(thing.items())
    if isinstance(thing, list | tuple):
        return f"[{', '.join(map(name_of, thing))}]"
    if isinstance(thing, set | frozenset):
        return f"{{{', '.join(sorted(map(name_of, thing)))}}}"
    if isinstance(thing, np.ndarray | np.generic):
        return name_of(thing.tolist())
    if isinstance(thing, int | float | complex | str | bytes | None):
        return repr(thing)
    whose = f"{name_of(thing.__self__)}." if isinstance(thing, MethodType) else ""
    kind = thing if hasattr(thing, "__qualname__") else type(thing)
    return f"{whose}{kind.__module__}.{kind.__qualname__}"
