"""How a client averages its model with its neighbours': average functions.

A model is a list of arrays. An *average function* has the signature

    average(own, neighbours, weights, context) -> model

with the client's own model, the models that reached it in this round, the weights that
the server's mixing matrix gives to them (the own weight first; they sum to 1) and the
client's `Context`, see `context`, in whose state it may keep something for later
rounds. It must change nothing else. `weighted_mean` is FED-0002's Algorithm 1 and the
default; `softmax_distance` is its Algorithm 2.

By default a client sends its model to its neighbours. An average function may have an
attribute

    send(model, context) -> message

that is called after training, and returns what leaves the client instead: a list of
arrays of any number, shapes and data types. Then `neighbours` holds such messages.

An average function also takes many clients at once, as the vectorised engine calls it:
then each array has one axis more, the first, for the clients, and so has each weight.
All of these clients have the same number of neighbours.

Nothing here knows graphs or Flower. More average functions: `push_sum` (directed
graphs, ages), `compressed` (fewer bytes), `robust` (neighbours that lie).
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

__all__ = [
    "Average",
    "Model",
    "check_model",
    "softmax_distance",
    "softmax_distance_weights",
    "variance_corrected",
    "weighted_mean",
]

Model = list[np.ndarray]
Average = Callable[[Model, Sequence[Model], np.ndarray, Any], Model]


def weighted_mean(
    own: Model, neighbours: Sequence[Model], weights: np.ndarray, context: Any = None
) -> Model:
    """Average as FED-0002's Algorithm 1 does: W_ii M_i + Σ_j W_ij M_j.

    Parameters
    ----------
    own : list of numpy.ndarray
        The client's own model.
    neighbours : sequence of lists of numpy.ndarray
        The neighbours' models, arrays of the same shapes.
    weights : numpy.ndarray
        W_ii, then W_ij in the order of `neighbours`.
    context : object
        Not used.

    Returns
    -------
    list of numpy.ndarray
        The new model, in the data types of `own`. Sums are formed in float64;
        arrays of integers (counters) are rounded.

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
    mixed = []
    for layer in zip(own, *neighbours, strict=True):
        mean = sum(
            per_client(w, a) * a.astype(np.float64)
            for w, a in zip(weights, layer, strict=True)
        )
        mixed.append(as_dtype(mean, layer[0].dtype))
    return mixed


def variance_corrected(
    own: Model, neighbours: Sequence[Model], weights: np.ndarray, context: Any = None
) -> Model:
    """Average as `weighted_mean`, then give each array the variance of its sources.

    The mean of n unrelated random arrays has 1/n of their variance: a network that
    starts so gives nearly the same output to all inputs, and learns late. The average
    is stretched about its own mean, so that its variance over its entries is the
    weighted mean of the sources' variances. Arrays that are alike remain as they are.

    Parameters and errors are those of `weighted_mean`. An array whose average has no
    variance is not stretched.

    References
    ----------
    Tian, Al-Ars, Kitsak and Hofstee 2024, "Vanishing Variance Problem in Fully
    Decentralized Neural-Network Systems", arXiv:2404.04616.
    """
    weights = np.asarray(weights, dtype=np.float64)
    corrected = []
    mixed = weighted_mean(own, neighbours, weights)
    for mean, *sources in zip(mixed, own, *neighbours, strict=True):
        one = tuple(range(weights.ndim - 1, mean.ndim))  # axes of one client's array
        variances = np.stack([a.var(axis=one, dtype=np.float64) for a in sources])
        wanted = per_client((weights * variances).sum(axis=0), mean)
        centre = mean.mean(axis=one, keepdims=True, dtype=np.float64)
        found = mean.var(axis=one, keepdims=True, dtype=np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            stretch = np.where(found > 0, np.sqrt(wanted / found), 1.0)
        corrected.append(as_dtype(centre + stretch * (mean - centre), mean.dtype))
    return corrected


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


def as_dtype(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return an array in a data type; integers and booleans are rounded."""
    rounded = np.rint(array) if dtype.kind in "biu" else array
    return np.asarray(rounded, dtype=dtype)


def softmax_distance(
    predict: Callable[[Model, Any], np.ndarray],
    *,
    self_weight: float = 0.5,
    alpha: float = 1.0,
) -> Average:
    """Return an average function with FED-0002's Algorithm 2, which weighs by outputs.

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
    """

    def average(
        own: Model, neighbours: Sequence[Model], weights: np.ndarray, context: Any
    ) -> Model:
        if not neighbours:
            return own
        outputs = [predict(model, context) for model in neighbours]
        learned = softmax_distance_weights(
            predict(own, context), outputs, self_weight=self_weight, alpha=alpha
        )
        return weighted_mean(own, neighbours, learned)

    return average


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
        As in `softmax_distance`.
    """
    if not 0 <= self_weight <= 1:
        raise ValueError(f"self_weight must be from 0 to 1; got {self_weight}")
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


def check_model(model: Model, like: Model, whose: str = "its") -> None:
    """Raise ValueError unless `model` is finite and has the shapes of `like`.

    `whose` names the culprit in the message.
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


def name_of(average: Average) -> str:
    """Return what tells an average function from others, its parameters included."""
    if dataclasses.is_dataclass(average):
        return repr(average)
    kind = average if hasattr(average, "__qualname__") else type(average)
    return f"{kind.__module__}.{kind.__qualname__}"
