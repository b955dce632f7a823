"""Average functions that withstand Byzantine neighbours, which may send anything.

`coordinate_median` and `TrimmedMean` replace the mean of each parameter by a robust one
(Yin et al. 2018). They were made for a server that gets the models of all workers; here
a client's own model is one of the values, as in He et al. 2022. Both ignore the mixing
matrix's weights, as does `Krum` (Blanchard et al. 2017), which takes whole models or
leaves them. `ClippedGossip` (He et al. 2022) shortens what is far away, and keeps the
weights.

None of them finds out who lies. None helps a client most of whose neighbours lie, nor
one that is connected to the rest of the graph through a liar only.

References
----------
Blanchard, El Mhamdi, Guerraoui and Stainer 2017, "Machine learning with adversaries:
Byzantine tolerant gradient descent", arXiv:1703.02757. Yin, Chen, Ramchandran and
Bartlett 2018, "Byzantine-robust distributed learning: towards optimal statistical
rates", arXiv:1803.01498. He, Karimireddy and Jaggi 2022, "Byzantine-robust
decentralized learning via ClippedGossip", arXiv:2202.01545.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from gossiplib.core.averaging import Model, Models, as_dtypes, weighted_mean
from gossiplib.core.context import RoundContext
from gossiplib.system.numbers import check_whole, settle

__all__ = [
    "ClippedGossip",
    "Krum",
    "TrimmedMean",
    "coordinate_median",
]


def coordinate_median(
    own: Model, neighbours: Models, weights: Any = None, context: Any = None
) -> Model:
    """Return the median of each parameter over the own model and the neighbours'.

    With an even number of models it is the mean of the two in the middle.

    Parameters
    ----------
    own, neighbours, weights, context
        Those of any average function; weights and context are not used.
    """
    # All but the middle one or two are left out; np.median takes twice as long.
    return TrimmedMean(len(neighbours) // 2)(own, neighbours)


@dataclass(frozen=True)
class TrimmedMean:
    """Average what is left of each parameter without its extremes.

    Of the values of a parameter, in the own model and the neighbours', the f largest
    and the f smallest are left out; the mean of the rest remains. So f neighbours of a
    client may lie. A client without any neighbour keeps its model.

    Raises
    ------
    ValueError
        When averaging, if a client has 1 to 2 f - 1 neighbours: nothing would remain.
    """

    f: int

    def __post_init__(self) -> None:
        """Check the number of liars."""
        settle(self, check_whole, "f", 0)

    def __call__(
        self, own: Model, neighbours: Models, weights: Any = None, context: Any = None
    ) -> Model:
        """Return the trimmed mean; the weights are not used."""
        models = 1 + len(neighbours)
        if models == 1:
            return own
        if models <= 2 * self.f:
            who = "a client" if context is None else f"client {context.clients.flat[0]}"
            raise ValueError(
                f"{who} has {models - 1} neighbours, and leaving out {self.f} values "
                f"at each end needs {2 * self.f} or more: take a smaller f, or a graph "
                "with more links"
            )
        _check_real(own)
        layers = zip(own, *neighbours, strict=True)
        kept = [np.sort(layer, axis=0)[self.f : models - self.f] for layer in layers]
        means = (v.mean(axis=0, dtype=np.result_type(v, np.float64)) for v in kept)
        return as_dtypes(means, own, neighbours)


def _check_real(model: Model) -> None:
    if any(array.dtype.kind == "c" for array in model):
        raise ValueError("complex numbers have no order: take another average")


@dataclass(frozen=True)
class Krum:
    """Take the model that lies closest to its nearest ones, instead of a mean.

    Of n models, a client's own and its neighbours', the score of model a is

        s_a = Σ ‖x_a - x_b‖² over the n - f - 2 models b that are nearest to it.

    The model with the smallest score is taken as it is (Blanchard et al. 2017,
    arXiv:1703.02757); of equal scores the own model's comes first, then the order of
    the neighbours decides. It is made for n > 2 f + 2.

    A client that takes one model throws all others away. Where all hear the same, they
    take the same, and mostly that of the same few clients: the others' data are lost.
    Multi-Krum, the mean of several models with the smallest scores, is closer to
    gossip. A client with fewer than f + 2 neighbours has no score, and keeps its own.

    Parameters
    ----------
    f : int
        How many neighbours of a client may lie.
    keep : int
        How many models the mean is of; never more than n - f.

    Raises
    ------
    ValueError
        If f is no whole number from 0, or keep none from 1.
    """

    f: int
    keep: int = 1

    def __post_init__(self) -> None:
        """Check the numbers."""
        settle(self, check_whole, "f", 0)
        settle(self, check_whole, "keep", 1)

    def __call__(
        self, own: Model, neighbours: Models, weights: Any, context: RoundContext
    ) -> Model:
        """Return the mean of the models with the smallest scores, not weighted."""
        models = [own, *neighbours]
        near, most = len(models) - self.f - 2, len(models) - self.f
        if near < 1:
            return own
        far = np.zeros((len(models), len(models), *context.batch))
        for a, model in enumerate(models):  # each pair once
            far[a, a:] = far[a:, a] = distances(model, models[a:], context.batch)
        # The nearest one is the model itself, at distance 0.
        scores = np.sort(np.square(far), axis=1)[:, : near + 1].sum(axis=1)
        best = np.argsort(scores, axis=0, kind="stable")[: min(self.keep, most)]
        share = np.zeros(scores.shape)
        np.put_along_axis(share, best, 1 / len(best), axis=0)
        return weighted_mean(own, neighbours, share)


@dataclass(frozen=True)
class ClippedGossip:
    """Average as ClippedGossip, with a radius that a client can work out for itself.

    At most f neighbours of a client may lie. Its radius τ_i is the (f+1)-th largest of
    its neighbours' distances ‖x_j - x_i‖. Among the f + 1 farthest neighbours one at
    least is honest, so whatever the liars send, τ_i is no longer than the way to the
    farthest honest neighbour; lies that are near make it shorter. For f = 1 the program
    of He et al. 2022 does the same. The radius of their theory weighs the honest
    neighbours' distances, which takes one who knows who is honest.

    f = 0 is plain averaging. A client with no more than f neighbours trusts nobody, and
    keeps its own model.
    """

    f: int

    def __post_init__(self) -> None:
        """Check the number of liars."""
        settle(self, check_whole, "f", 0)

    def __call__(
        self, own: Model, neighbours: Models, weights: np.ndarray, context: RoundContext
    ) -> Model:
        """Return the own model and a clipped step towards the neighbours'."""
        if len(neighbours) <= self.f:
            return own
        far = distances(own, neighbours, context.batch)
        radius = np.sort(far, axis=0)[-1 - self.f]
        return clip(own, neighbours, weights, far, radius)


def clip(
    own: Model,
    neighbours: Models,
    weights: np.ndarray,
    far: np.ndarray,
    radius: float | np.ndarray,
) -> Model:
    """Return x_i + Σ_j w_ij clip(x_j - x_i, τ_i): a step of ClippedGossip.

    clip(v, τ) shortens v to the length τ, if it is longer. `far` is from `distances`,
    and `radius` is τ_i; of many clients, one each.
    """
    # A difference that is shortened is one with a smaller weight; the own model gets
    # what is left over.
    share = np.divide(radius, far, out=np.ones(np.shape(far)), where=far > radius)
    clipped = weights[1:] * share
    kept = 1 - clipped.sum(axis=0)
    return weighted_mean(own, neighbours, np.concatenate([kept[None], clipped]))


def distances(
    own: Model, neighbours: Models, batch: tuple[int, ...] = ()
) -> np.ndarray:
    """Return ‖x_j - x_i‖ of each neighbour j, shape ``(neighbours, *batch)``.

    It is taken over all that is learned, as the consensus distance: no counters, and
    nothing where the own model is masked by infinite values.
    """
    squares = np.zeros((len(neighbours), *batch))
    for j, neighbour in enumerate(neighbours):
        for a, b in zip(neighbour, own, strict=True):
            if b.dtype.kind in "fc":
                wide = np.result_type(b, np.float64)
                apart = np.zeros(b.shape, wide)
                np.subtract(a, b, out=apart, where=np.isfinite(b), dtype=wide)
                rows = np.reshape(np.abs(apart), (*batch, -1))
                squares[j] += np.einsum("...k,...k", rows, rows)
    return np.sqrt(squares)
