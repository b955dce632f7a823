"""Averaging with messages that do not say all: protocols that use codecs.

Each is an average function (see `averaging`) that also has `send`: what a client says
instead of its model. `Compressed` takes what it hears for the neighbours' models, and
stalls. `Choco` says how its model differs from what the neighbours already think it is,
and converges. `Partial` and `Shared` average only what was said.

A model is flattened into one vector for a codec (see `codecs`).
"""

from collections.abc import Sequence

import numpy as np
from flwr.app import ArrayRecord

from gossiplib.core.averaging import Model, as_dtype, weighted_mean
from gossiplib.core.context import RoundContext
from gossiplib.core.models import unpack
from gossiplib.protocols.codecs import Codec

__all__ = ["Choco", "Compressed", "Partial", "Shared"]

SAID, HEARD = "choco.said", "choco.heard"


class Compressed:
    """Average with the compressed models of the neighbours, as if they were exact.

    x_i ← w_ii x_i + Σ_j w_ij Q(x_j). With an unbiased codec this is one of the
    schemes that Koloskova et al. 2019 compare CHOCO with. The error of Q is in
    proportion to the model and does not vanish as the models come to agree, and their
    mean drifts.

    Parameters
    ----------
    codec : Codec
        How a model is said, see `codecs`.
    """

    def __init__(self, codec: Codec) -> None:
        self.codec = codec

    def send(self, model: Model, turn: RoundContext) -> Model:
        """Return the message that says the model."""
        return self.codec.encode(_vector(model, turn), turn)

    def __call__(
        self,
        own: Model,
        neighbours: Sequence[Model],
        weights: np.ndarray,
        turn: RoundContext,
    ) -> Model:
        """Average with what the messages say."""
        x = _vector(own, turn)
        others = [[self._decoded(message, x)] for message in neighbours]
        (mixed,) = weighted_mean([x], others, weights)
        return _model(mixed, own)

    def _decoded(self, message: Model, x: np.ndarray) -> np.ndarray:
        return self.codec.decode(message, x.shape[-1])


class Partial(Compressed):
    """Average only what the neighbours say; keep the own number elsewhere.

    x_i ← x_i + Σ_j w_ij m_j (x_j - x_i), where m_j is 1 where j said something and 0
    elsewhere. With `codecs.Parts` these are partitioned models, with `RandomK`
    subsampled ones (both of Hegedűs et al. 2021), with `TopK` each client's largest
    numbers. Parameters as in `Compressed`.
    """

    def _decoded(self, message: Model, x: np.ndarray) -> np.ndarray:
        return self.codec.decode(message, x.shape[-1], missing=x)


class Shared:
    """Average some arrays of the model with the neighbours, and keep the rest private.

    With all but the last layer it is the scheme of Arivazhagan et al. 2019 (FedPer,
    arXiv:1912.00818): a common base and a personal head.

    Parameters
    ----------
    arrays : sequence of int
        Places of the shared arrays in the model.
    """

    def __init__(self, arrays: Sequence[int]) -> None:
        self.arrays = sorted(set(arrays))
        if not self.arrays or self.arrays[0] < 0:
            raise ValueError(f"name at least one array, from 0 on; got {arrays}")

    def send(self, model: Model, turn: RoundContext) -> Model:
        """Return the shared arrays."""
        if self.arrays[-1] >= len(model):
            raise ValueError(
                f"array {self.arrays[-1]} is to be shared, but the model has "
                f"{len(model)}, from 0 on"
            )
        return [model[k] for k in self.arrays]

    def __call__(
        self,
        own: Model,
        neighbours: Sequence[Model],
        weights: np.ndarray,
        turn: RoundContext,
    ) -> Model:
        """Average the shared arrays."""
        mixed = weighted_mean(self.send(own, turn), neighbours, weights)
        places = dict(zip(self.arrays, mixed, strict=True))
        return [places.get(k, array) for k, array in enumerate(own)]


class Choco:
    """CHOCO-Gossip; after local training, CHOCO-SGD (Koloskova et al. 2019).

    Everyone keeps a public copy x̂_i of each model, and a client says how its model
    differs from the copy:

        x̂_i ← x̂_i + Q(x_i - x̂_i)
        x_i ← x_i + γ Σ_j w_ij (x̂_j - x̂_i)

    A client remembers x̂_i and the sum Σ_j w_ij x̂_j alone (the memory-efficient form in
    the paper's appendix), in float64. All begin at 0. The mean of the models does not
    change if W is symmetric.

    That sum is right only if each message of each neighbour came, and weighs the same.
    So graph and weights must be static. A client that missed a message raises
    RuntimeError from then on: it keeps its own model, and its neighbours still hear it.

    Parameters
    ----------
    codec : Codec
        Q, with an ω as told in `codecs`: `TopK`, `RandomK`, `Qsgd`; not unbiased.
    step : float
        γ, above 0 and at most 1. The smaller ω, the smaller γ must be, or the models
        diverge.
    """

    def __init__(self, codec: Codec, step: float) -> None:
        if not 0 < step <= 1:
            raise ValueError(f"the step must be above 0 and at most 1; got {step}")
        self.codec, self.step = codec, step

    def send(self, model: Model, turn: RoundContext) -> Model:
        """Return Q(x_i - x̂_i) as a message, and add it to x̂_i."""
        x = _vector(model, turn)
        said = _remembered(turn, SAID)[0] if SAID in turn.state else 0.0
        message = self.codec.encode((x - said).astype(x.dtype), turn)
        said = said + self.codec.decode(message, x.shape[-1]).astype(np.float64)
        turn.state[SAID] = ArrayRecord([said])
        return message

    def __call__(
        self,
        own: Model,
        neighbours: Sequence[Model],
        weights: np.ndarray,
        turn: RoundContext,
    ) -> Model:
        """Go a step towards what the neighbours have said, from what oneself has."""
        x, weights = _vector(own, turn), np.asarray(weights, dtype=np.float64)
        # All whole numbers have different cosines: this shows a change of the links.
        links = (weights[1:] * np.cos(turn.senders)).sum(axis=0)[..., None]
        heard = self._before(turn, links)
        for w, message in zip(weights[1:], neighbours, strict=True):
            heard = heard + w[..., None] * self.codec.decode(message, x.shape[-1])
        (said,) = _remembered(turn, SAID)
        mixed = x + self.step * (heard - (1 - weights[0])[..., None] * said)
        now = np.full(links.shape, turn.server_round)
        turn.state[HEARD] = ArrayRecord([heard, links, now])
        return _model(mixed, own)

    @staticmethod
    def _before(turn: RoundContext, links: np.ndarray) -> np.ndarray | float:
        """Return the sum up to the last round, if nothing is missing in it."""
        heard, known, last = 0.0, links, np.zeros(1, dtype=int)
        if HEARD in turn.state:
            heard, known, last = _remembered(turn, HEARD)
        same = np.allclose(known, links, rtol=1e-9, atol=1e-12)
        if same and (last == turn.server_round - 1).all():
            return heard
        who = np.atleast_1d(turn.node_config["partition-id"])[0]
        why = (
            f"it last averaged in round {last.min()}, and now it is round "
            f"{turn.server_round}"
            if same
            else "its neighbours or their weights are not those of the round before"
        )
        raise RuntimeError(
            f"client {who} does not know what its neighbours have said so far: {why}. "
            "CHOCO needs a static graph and every message; use Partial for others"
        )


def _remembered(turn: RoundContext, key: str) -> Model:
    return unpack(turn.state[key])


def _vector(model: Model, turn: RoundContext) -> np.ndarray:
    """Return a model as one vector, (size,) or (clients, size), of floats."""
    lead = np.shape(turn.node_config["partition-id"])
    flat = np.concatenate([np.reshape(a, (*lead, -1)) for a in model], axis=-1)
    return flat if flat.dtype.kind == "f" else flat.astype(np.float64)


def _model(vector: np.ndarray, like: Model) -> Model:
    """Return a vector as a model: the inverse of `_vector`."""
    lead = vector.shape[:-1]
    sizes = [int(np.prod(a.shape[len(lead) :], dtype=int)) for a in like]
    parts = np.split(vector, np.cumsum(sizes)[:-1], axis=-1)
    return [
        as_dtype(part.reshape(a.shape), a.dtype)
        for part, a in zip(parts, like, strict=True)
    ]
