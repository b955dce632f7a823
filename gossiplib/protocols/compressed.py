"""Averaging with messages that do not tell a whole model: protocols that use codecs.

Each is an average function that also has `send`: what leaves a client instead of its
model. `Compressed` takes what arrives for the neighbours' models, and stalls. `Choco`
sends how its model differs from what the neighbours already think it is, and converges.
`Partial` and `Shared` average only what was sent.

For a codec (see `codecs`) a model is one vector.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from flwr.app import ArrayRecord

from gossiplib.core.averaging import Model, Models, as_dtypes, weighted_mean
from gossiplib.core.context import RoundContext
from gossiplib.protocols.codecs import Codec
from gossiplib.system.numbers import check_share
from gossiplib.system.records import ravel, unpack, unravel

__all__ = ["Choco", "Compressed", "Partial", "Shared"]


@dataclass(frozen=True)
class Compressed:
    """Average with the compressed models of the neighbours, as if they were exact.

    x_i ← w_ii x_i + Σ_j w_ij Q(x_j), where Q is by a codec: `TopK`, `RandomK`, `Qsgd`,
    `Parts`. With an unbiased one this is one of the schemes that Koloskova et al. 2019
    compare CHOCO with. The error of Q is in proportion to the model and does not vanish
    as the models come to agree, and their mean drifts.
    """

    codec: Codec

    def send(self, model: Model, context: RoundContext) -> Model:
        """Return the encoded model."""
        return self.codec.encode(_vector(model, context), context)

    def __call__(
        self, own: Model, neighbours: Models, weights: np.ndarray, context: RoundContext
    ) -> Model:
        """Average with the decoded models."""
        x = _vector(own, context)
        others = [[self._decoded(message, x)] for message in neighbours]
        (mixed,) = weighted_mean([x], others, weights)
        return _model(mixed, own, context)

    def _decoded(self, message: Model, x: np.ndarray) -> np.ndarray:
        return self.codec.decode(message, x.shape[-1])


@dataclass(frozen=True)
class Partial(Compressed):
    """Average only what the neighbours sent; keep the own number elsewhere.

    x_i ← x_i + Σ_j w_ij m_j (x_j - x_i), where m_j is 1 where j sent something and 0
    elsewhere. The codec is `Parts`, for partitioned models, `RandomK`, for subsampled
    ones (both of Hegedűs et al. 2021), or `TopK`, for each client's largest numbers.
    """

    def _decoded(self, message: Model, x: np.ndarray) -> np.ndarray:
        return self.codec.decode(message, x.shape[-1], missing=x)


@dataclass(frozen=True)
class Shared:
    """Average some arrays of the model with the neighbours, and keep the rest private.

    `arrays` are their places in the model, from 0 on. With all but the last layer it is
    the scheme of Arivazhagan et al. 2019 (FedPer, arXiv:1912.00818): a common base and
    a personal head.

    Raises
    ------
    ValueError
        If there are no places, or one is negative.
    """

    arrays: Sequence[int]

    def __post_init__(self) -> None:
        """Check the places, and sort them."""
        places = tuple(sorted(set(self.arrays)))
        if not places or places[0] < 0:
            raise ValueError(f"name at least one array, from 0 on; got {self.arrays}")
        object.__setattr__(self, "arrays", places)

    def send(self, model: Model, context: RoundContext) -> Model:
        """Return the shared arrays."""
        if self.arrays[-1] >= len(model):
            wanted = f"array {self.arrays[-1]} is to be shared"
            raise ValueError(f"{wanted}, but the model has {len(model)}, from 0 on")
        return [model[k] for k in self.arrays]

    def __call__(
        self, own: Model, neighbours: Models, weights: np.ndarray, context: RoundContext
    ) -> Model:
        """Average the shared arrays."""
        mixed = weighted_mean(self.send(own, context), neighbours, weights)
        places = dict(zip(self.arrays, mixed, strict=True))
        return [places.get(k, array) for k, array in enumerate(own)]


@dataclass(frozen=True)
class Choco:
    """CHOCO-Gossip; after local training, CHOCO-SGD (Koloskova et al. 2019).

    Everyone keeps a public copy x̂_i of each model, and a client sends how its model
    differs from the copy:

        x̂_i ← x̂_i + Q(x_i - x̂_i)
        x_i ← x_i + γ Σ_j w_ij (x̂_j - x̂_i)

    A client remembers x̂_i and the sum Σ_j w_ij x̂_j alone (the memory-efficient form in
    the paper's appendix), in float64. All begin at 0. The mean of the models does not
    change if W is symmetric.

    That sum is right only if each message of each neighbour came, and weighs the same.
    So graph and weights must be static. A client that missed a message raises
    RuntimeError from then on: it keeps its own model, and goes on sending.

    Parameters
    ----------
    codec : Codec
        Q, with an ω: `TopK`, `RandomK`, `Qsgd`; not unbiased.
    step : float
        γ, above 0 and at most 1. The smaller ω, the smaller γ must be, or the models
        diverge.
    """

    codec: Codec
    step: float

    def __post_init__(self) -> None:
        """Check the step."""
        check_share("the step", self.step, zero=False)

    def send(self, model: Model, context: RoundContext) -> Model:
        """Return Q(x_i - x̂_i) as a message, and add it to x̂_i."""
        x = _vector(model, context)
        public = np.zeros(x.shape)
        if _PUBLIC in context.state:
            (public,) = unpack(context.state.array_records[_PUBLIC])
        message = self.codec.encode((x - public).astype(x.dtype), context)
        public = public + self.codec.decode(message, x.shape[-1]).astype(np.float64)
        context.state[_PUBLIC] = ArrayRecord([public])
        return message

    def __call__(
        self, own: Model, neighbours: Models, weights: np.ndarray, context: RoundContext
    ) -> Model:
        """Go a step towards the neighbours' public copies, from one's own."""
        x, weights = _vector(own, context), np.asarray(weights, dtype=np.float64)
        links = _digest(context.senders, weights)
        total = self._total(context, links, x)
        for w, message in zip(weights[1:], neighbours, strict=True):
            total = total + w[..., None] * self.codec.decode(message, x.shape[-1])
        (public,) = unpack(context.state.array_records[_PUBLIC])
        mixed = x + self.step * (total - (1 - weights[0])[..., None] * public)
        now = np.full((*context.batch, 1), context.server_round)
        context.state[_TOTAL] = ArrayRecord([total, links, now])
        return _model(mixed, own, context)

    @staticmethod
    def _total(context: RoundContext, links: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Return Σ_j w_ij x̂_j up to the last round, if nothing is missing in it."""
        total, known, last = np.zeros(x.shape), links, np.zeros(1, dtype=int)
        if _TOTAL in context.state:
            total, known, last = unpack(context.state.array_records[_TOTAL])
        same = np.array_equal(known, links)
        if same and (last == context.server_round - 1).all():
            return total
        why = "its neighbours or their weights are not those of the round before"
        if same:
            now = f"now it is round {context.server_round}"
            why = f"it last averaged in round {last.min()}, and {now}"
        raise RuntimeError(
            f"client {context.clients.flat[0]} does not know what its neighbours have "
            f"sent so far: {why}. CHOCO needs a static graph and every message; use "
            "Partial for others"
        )


#: Records in a client's state: x̂_i; and Σ_j w_ij x̂_j, its links and the last round.
_PUBLIC, _TOTAL = "choco.public", "choco.total"


def _digest(senders: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return a digest of who sends and what it weighs, shape (*batch, 2).

    In the state, a record has one shape for all clients, as the vectorised engine
    stacks them: so the senders themselves cannot be kept. The weights are rounded, as
    eigenvalues in them may differ in the last digit elsewhere.
    """
    order = np.argsort(senders, axis=0)
    both = [senders, np.rint(1e9 * weights[1:]).astype(np.int64)]
    links = np.concatenate([np.take_along_axis(a, order, axis=0) for a in both]).T
    rows = [links[at].tobytes() for at in np.ndindex(links.shape[:-1])]
    digests = b"".join(blake2b(row, digest_size=16).digest() for row in rows)
    return np.frombuffer(digests, np.uint64).reshape(*links.shape[:-1], 2)


def _vector(model: Model, context: RoundContext) -> np.ndarray:
    """Return a model as one vector, (size,) or (clients, size), of floats."""
    x = ravel(model, context.batch)
    return x if x.dtype.kind == "f" else x.astype(np.float64)


def _model(vector: np.ndarray, like: Model, context: RoundContext) -> Model:
    """Return a vector as a model, the inverse of `_vector`."""
    lead = len(context.batch)
    shapes = {str(k): a.shape[lead:] for k, a in enumerate(like)}
    arrays = unravel(vector, shapes).values()
    return as_dtypes(arrays, like)
