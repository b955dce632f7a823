"""Average functions that withstand neighbours that lie.

`coordinate_median` and `trimmed_mean` replace the mean of each parameter by a robust
one (Yin et al., ICML 2018). They were made for a server that hears all
workers; here a client's own model is one of the values, as in He et al. 2022. Both
ignore the mixing matrix's weights. `clipped` is ClippedGossip (He, Karimireddy and
Jaggi 2022, arXiv:2202.01545): it shortens what is far away, and keeps the weights.

None of them finds out who lies. None helps a client most of whose neighbours lie, nor
one that hears the rest of the graph through a liar only.

The functions are average functions, or return one, see `averaging`. Nothing here knows
graphs or Flower; `byzantine` holds the lies.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gossiplib.core.averaging import Average, Model, as_dtype, weighted_mean

__all__ = [
    "clip",
    "clipped",
    "coordinate_median",
    "distances",
    "honest_radius",
    "oracle_radius",
    "trimmed_mean",
]


def coordinate_median(
    own: Model, neighbours: Sequence[Model], weights: Any = None, context: Any = None
) -> Model:
    """Return the median of each parameter over the own model and the neighbours'.

    As in Yin et al. 2018. With an even number of models it is the mean of the
    two in the middle. `weights` and `context` are not used.
    """
    layers = zip(own, *neighbours, strict=True)
    return [as_dtype(np.median(layer, axis=0), layer[0].dtype) for layer in layers]


def trimmed_mean(f: int) -> Average:
    """Return an average function that leaves out the extremes of each parameter.

    Of the values of a parameter, in the own model and the neighbours', the f largest
    and the f smallest are left out; the mean of the rest remains, as in Yin et al.
    2018.

    Parameters
    ----------
    f : int
        How many neighbours of a client may lie. 0 leaves out nothing.

    Raises
    ------
    ValueError
        When averaging, if a client has fewer than 2 f neighbours: nothing would remain.
        (Without any neighbour it keeps its model.)
    """
    _check_liars(f)

    def average(
        own: Model,
        neighbours: Sequence[Model],
        weights: Any = None,
        context: Any = None,
    ) -> Model:
        models = 1 + len(neighbours)
        if models == 1:
            return own
        if models <= 2 * f:
            raise ValueError(
                f"{_whom(context)} has {models - 1} neighbours, and leaving out {f} "
                f"values at each end needs {2 * f} or more: take a smaller f, or a "
                "graph with more links"
            )
        mixed = []
        for layer in zip(own, *neighbours, strict=True):
            kept = np.sort(layer, axis=0)[f : models - f]
            mean = kept.mean(axis=0, dtype=np.float64)
            mixed.append(as_dtype(mean, layer[0].dtype))
        return mixed

    return average


def clipped(f: int) -> Average:
    """Return ClippedGossip with a radius that a client can work out for itself.

    Parameters
    ----------
    f : int
        How many neighbours of a client may lie. 0 is plain averaging. A client with no
        more than f neighbours trusts nobody, and keeps its own model.
    """
    _check_liars(f)

    def average(
        own: Model,
        neighbours: Sequence[Model],
        weights: np.ndarray,
        context: Any = None,
    ) -> Model:
        far = distances(own, neighbours, weights)
        radius = honest_radius(far, weights[1:], f)
        return clip(own, neighbours, weights, far, radius)

    return average


def clip(
    own: Model,
    neighbours: Sequence[Model],
    weights: np.ndarray,
    far: np.ndarray,
    radius: float | np.ndarray,
) -> Model:
    """Return x_i + Σ_j w_ij clip(x_j - x_i, τ_i): a step of ClippedGossip.

    clip(v, τ) shortens v to the length τ, if it is longer (He et al. 2022).

    Parameters
    ----------
    own, neighbours, weights
        As of an average function.
    far : numpy.ndarray
        ‖x_j - x_i‖ of each neighbour j, see `distances`.
    radius : float or numpy.ndarray
        τ_i; of many clients, one each.
    """
    # A difference that is shortened is one with a smaller weight; the own model gets
    # what is left over.
    share = np.divide(radius, far, out=np.ones(np.shape(far)), where=far > radius)
    heard = weights[1:] * share
    kept = 1 - heard.sum(axis=0)
    return weighted_mean(own, neighbours, np.concatenate([kept[None], heard]))


def distances(
    own: Model, neighbours: Sequence[Model], weights: np.ndarray
) -> np.ndarray:
    """Return ‖x_j - x_i‖ of each neighbour j, over all arrays of a model together.

    Parameters
    ----------
    own, neighbours, weights
        As of an average function. Only the shape of `weights` matters, which tells one
        client from many.

    Returns
    -------
    numpy.ndarray
        Shape (neighbours,), or (neighbours, clients).
    """
    clients = np.shape(weights)[1:]
    squares = np.zeros((len(neighbours), *clients))
    for own_array, *others in zip(own, *neighbours, strict=True):
        for j, array in enumerate(others):
            apart = np.subtract(array, own_array, dtype=np.float64)
            apart = apart.reshape(*clients, -1)
            squares[j] += np.einsum("...k,...k", apart, apart)
    return np.sqrt(squares)


def oracle_radius(
    far: np.ndarray, weights: np.ndarray, lies: np.ndarray
) -> float | np.ndarray:
    """Return theory's radius: τ_i² = (1/δ_i) Σ_{regular j} w_ij ‖x_i - x_j‖².

    He et al. 2022. δ_i is the weight of the neighbours that lie. Without any, the
    radius is infinite: plain averaging.

    Parameters
    ----------
    far : numpy.ndarray
        ‖x_j - x_i‖ of each neighbour j, see `distances`.
    weights : numpy.ndarray
        w_ij of each neighbour j.
    lies : numpy.ndarray
        Whether neighbour j lies.
    """
    delta = np.where(lies, weights, 0).sum(axis=0)
    squares = np.where(lies, 0, weights * np.square(far)).sum(axis=0)
    return _radius(squares, delta)


def honest_radius(far: np.ndarray, weights: np.ndarray, f: int) -> float | np.ndarray:
    """Return a radius that needs no more than f, how many neighbours may lie.

    The sum leaves out the f neighbours with the largest w_ij ‖x_i - x_j‖², whoever they
    are, and δ_i is the weight of the f heaviest. So it is never above `oracle_radius`,
    whatever f liars say. At least as many as those in the sum are regular, and no
    choice of that many has a smaller sum. A lie that is far is left out. A lie that is
    near is counted, but then a regular neighbour that is farther is left out for it.

    Parameters
    ----------
    far, weights : numpy.ndarray
        As of `oracle_radius`.
    f : int
        How many neighbours may lie. 0 gives an infinite radius.
    """
    kept = max(0, len(far) - f)
    squares = np.sort(weights * np.square(far), axis=0)[:kept].sum(axis=0)
    delta = np.sort(weights, axis=0)[kept:].sum(axis=0)
    return _radius(squares, delta)


def _radius(squares: np.ndarray, delta: np.ndarray) -> np.ndarray:
    return np.sqrt(
        np.divide(squares, delta, out=np.full(np.shape(delta), np.inf), where=delta > 0)
    )


def _check_liars(f: int) -> None:
    if f < 0 or f % 1:
        raise ValueError(f"f is a number of liars: 0, 1, 2, ...; got {f}")


def _whom(context: Any) -> str:
    """Name the client of a context, or the first of many."""
    config = getattr(context, "node_config", {})
    if "partition-id" not in config:
        return "a client"
    return f"client {np.ravel(config['partition-id'])[0]}"
