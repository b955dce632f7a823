"""Averaging with messages that do not tell a whole model: protocols that use codecs.

Each is an average function that also has `send`: what leaves a client instead of its
model. `Compressed` takes what arrives for the neighbours' models, and stalls, lower
with a smaller step. `DeepSqueeze` says later what it left out, and stalls lower still.
`Choco` sends how its model differs from what the neighbours already think it is, and
converges. `Partial` and `Shared` average only what was sent.

For a codec (see `codecs`) a model is one vector, counters and all, though these may be
the largest numbers, which `TopK` sends.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b

import numpy as np

from gossiplib.core.averaging import Model, Models, as_dtypes, weighted_mean
from gossiplib.core.context import RoundContext
from gossiplib.core.models import check_model
from gossiplib.protocols.codecs import Codec
from gossiplib.protocols.corrections import remember
from gossiplib.system.numbers import check_share, check_whole
from gossiplib.system.records import ravel, unpack, unravel

__all__ = ["Choco", "Compressed", "DeepSqueeze", "Partial", "Shared"]


@dataclass(frozen=True)
class Compressed:
    """Average with the compressed models of the neighbours, as if they were exact.

    Without a step the own model is taken as it is; with a step γ it counts as the
    others do, by what it is to them, so that their mean does not change (if W is
    symmetric and no link is lost one way only):

        x_i ← w_ii x_i + Σ_j w_ij Q(x_j)
        x_i ← x_i + γ Σ_j w_ij (Q(x_j) - Q(x_i))

    These are the two schemes that Koloskova et al. 2019 compare CHOCO with. The error
    of Q is in proportion to the model and does not vanish as the models come to agree.
    Without a step their mean drifts. With one they end some √γ times that error apart.

    Parameters
    ----------
    codec : Codec
        Q: `TopK`, `RandomK`, `Qsgd`, `Parts`; best one that is right on average.
    step : float, optional
        γ, above 0 and at most 1.

    References
    ----------
    Koloskova, Stich and Jaggi 2019, "Decentralized Stochastic Optimization and Gossip
    Algorithms with Compressed Communication", arXiv:1902.00340: Q1-G and Q2-G.
    """

    codec: Codec
    step: float | None = None

    def __post_init__(self) -> None:
        """Check codec and step."""
        _check_codec(self.codec)
        if self.step is not None:
            check_share("the step", self.step, zero=False)

    def send(self, model: Model, context: RoundContext) -> Model:
        """Return the encoded model."""
        return self.codec.encode(_vector(model, context), context)

    def __call__(
        self, own: Model, neighbours: Models, weights: np.ndarray, context: RoundContext
    ) -> Model:
        """Average with the decoded models."""
        x = _vector(own, context)
        came = context.read_models(
            neighbours, weights, [x], lambda message: [self._decoded(message, x)]
        )
        # A codec draws by client and round: this is what was sent, without a memory.
        said = x
        if self.step is not None:
            said = self._decoded(self.codec.encode(x, context), x)
        (mixed,) = weighted_mean([said], *came)
        if self.step is not None:
            mixed = x + self.step * (mixed - said)
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
class DeepSqueeze:
    """Average compressed models with error feedback (Tang et al. 2019).

    What a codec leaves out of a message is kept, and added to the next:

        m_i = Q(x_i + e_i)
        e_i ← x_i + e_i - m_i
        x_i ← x_i + γ Σ_j w_ij (m_j - m_i)

    All e_i begin at 0, in float64. The mean of the models does not change if W is
    symmetric and no link is lost one way only. What is left out is said at last, but
    late, so the models end some γ times the error of Q apart: a small γ ends nearer,
    and takes longer. Nobody remembers what another said, so a lost message costs its
    round and no more.

    Parameters
    ----------
    codec : Codec
        Q, with an ω: `TopK`, `RandomK`, `Qsgd`; not unbiased.
    step : float
        γ, above 0 and at most 1. The smaller ω, the smaller γ must be, or the models
        diverge.

    References
    ----------
    Tang, Lian, Qiu, Yuan, Zhang, Zhang and Liu 2019, "DeepSqueeze: Decentralization
    Meets Error-Compensated Compression", arXiv:1907.07346.
    """

    codec: Codec
    step: float

    def __post_init__(self) -> None:
        """Check codec and step."""
        _check_codec(self.codec)
        check_share("the step", self.step, zero=False)

    def send(self, model: Model, context: RoundContext) -> Model:
        """Return Q(x_i + e_i) as a message, and keep what it leaves out."""
        x = _vector(model, context)
        error = np.zeros(x.shape)
        if _LEFT_OUT in context.state:
            error, _ = unpack(context.state.array_records[_LEFT_OUT])
        message = self.codec.encode((x + error).astype(x.dtype), context)
        said = self.codec.decode(message, x.shape[-1])
        remember(context, _LEFT_OUT, [x + error - said, said])
        return message

    def __call__(
        self, own: Model, neighbours: Models, weights: np.ndarray, context: RoundContext
    ) -> Model:
        """Go a step towards what the neighbours said, from what was said oneself."""
        x = _vector(own, context)
        _, said = unpack(context.state.array_records[_LEFT_OUT])
        came = context.read_models(
            neighbours, weights, [x], lambda m: [self.codec.decode(m, x.shape[-1])]
        )
        (mean,) = weighted_mean([said], *came)
        return _model(x + self.step * (mean - said), own, context)


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
        places = {check_whole("the place of an array", k, 0) for k in self.arrays}
        if not places:
            raise ValueError("name at least one array, from 0 on")
        object.__setattr__(self, "arrays", tuple(sorted(places)))

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
        mine = self.send(own, context)
        mixed = weighted_mean(mine, *context.read_models(neighbours, weights, mine))
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
    change if W is symmetric and no message is lost.

    That sum is right only if each message of each neighbour came, and weighs the same.
    A client that cannot rely on it, as a message was lost, or it was away, or the graph
    or a weight is another, leaves the others out and asks for their copies in its next
    message. Who is asked sends x̂_i itself beside the message that follows, of which the
    sum is made anew: two rounds after a loss the client averages as before. Who was
    away, or comes late, sends it unasked. Where links go one way only, what is asked is
    passed on, farther the longer it goes unanswered.

    Notes
    -----
    A copy is a model, rounded to the model's data type. So where most rounds lose
    something, or the graph is another in each, this is gossip with whole models;
    `Partial` stays small. Until a client has the copies, others take a step towards it,
    and it takes none: the mean moves a little, and does not move back.

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
        """Check codec and step."""
        _check_codec(self.codec)
        check_share("the step", self.step, zero=False)

    def send(self, model: Model, context: RoundContext) -> Model:
        """Return Q(x_i - x̂_i) as a message, and add it to x̂_i.

        Two arrays more follow where there is a need. In one are two numbers: through
        how many clients the question for copies shall go; and 1 if x̂_i, as it was
        before, is in the other, or 2 if it is since the client was away.
        """
        x, t = _vector(model, context), context.server_round
        # Who comes late has no copy that others know: it may as well be the model.
        public = np.zeros(x.shape) if t == 1 else x.astype(np.float64)
        last = np.zeros(context.batch)
        if _SAID in context.state:
            public, last, _ = unpack(context.state.array_records[_SAID])
        asked = doubts = np.zeros(context.batch, dtype=np.int64)
        if _HEARD in context.state:
            *_, asked, doubts = unpack(context.state.array_records[_HEARD])
        # Every second round: in the one between, the copies are under way.
        anew = np.where(doubts % 2, (doubts + 1) // 2, 0)
        ask = np.clip(np.maximum(anew, asked - 1), 0, 255)
        tell = np.where(last != t - 1, 2, asked > 0)
        message = self.codec.encode((x - public).astype(x.dtype), context)
        now = public + self.codec.decode(message, x.shape[-1])
        numbers = (np.full(context.batch, number) for number in (t, len(message)))
        remember(context, _SAID, [now, *numbers])
        if ask.any() or tell.any():
            message = [*message, np.stack([ask, tell], axis=-1).astype(np.uint8)]
        return [*message, public.astype(x.dtype)] if tell.any() else message

    def __call__(
        self, own: Model, neighbours: Models, weights: np.ndarray, context: RoundContext
    ) -> Model:
        """Go a step towards the neighbours' public copies, from one's own."""
        x, t = _vector(own, context), context.server_round
        public, _, count = unpack(context.state.array_records[_SAID])
        read = partial(self._read, x=x, count=int(count.flat[0]))
        came, weights = context.read(neighbours, weights, read)
        links = _digest(context.senders, weights)
        total, known, last = np.zeros(x.shape), links, np.zeros(context.batch)
        asked = doubts = np.zeros(context.batch, dtype=np.int64)
        if _HEARD in context.state:
            total, known, last, _, doubts = unpack(context.state.array_records[_HEARD])
        # The sum goes on if who is heard now, and nobody else, was heard in the round
        # before. Or it is made anew, of the copies that came.
        goes_on = (known == links).all(axis=-1) & (last == t - 1)
        for _, _, tell, _ in came:
            goes_on = goes_on & (tell < 2)
        total = np.where(goes_on[..., None], total, 0.0)
        kept, whole = np.zeros(context.batch), np.ones(context.batch, dtype=bool)
        for w, (difference, ask, tell, copy) in zip(weights[1:], came, strict=True):
            if tell.any():
                difference = difference + np.where(goes_on[..., None], 0.0, copy)
            used = goes_on | (tell > 0)
            w = np.where(used, w, 0.0)
            total, kept = total + w[..., None] * difference, kept + w
            asked, whole = np.maximum(asked, ask), whole & used
        mixed = x + self.step * (total - kept[..., None] * public)
        links = np.where(whole[..., None], links, np.uint64(0))
        now, doubts = np.full(context.batch, t), np.where(whole, 0, doubts + 1)
        remember(context, _HEARD, [total, links, now, asked, doubts])
        return _model(mixed, own, context)

    def _read(self, message: Model, x: np.ndarray, count: int) -> Model:
        """Take a message apart: Q(x_j - x̂_j), two numbers, and x̂_j or zeros."""
        difference = self.codec.decode(message[:count], x.shape[-1])
        usual = [np.zeros((*x.shape[:-1], 2), dtype=np.uint8), np.zeros(x.shape)]
        more = message[count:]
        check_model([difference, *more], [x, *usual[: len(more)]], "the message's")
        numbers, copy = more + usual[len(more) :]
        ask, tell = numbers.astype(np.int64)[..., 0], numbers[..., 1]
        if len(more) < 2 and tell.any():
            raise ValueError("the message lacks the copy that it tells of")
        return [difference, ask, tell, copy]


#: A record in a client's state: e_i, and m_i.
_LEFT_OUT = "deep_squeeze"

#: Records in a client's state: x̂_i, the round in which it was said last, and of how
#: many arrays; and Σ_j w_ij x̂_j, its links, the round, how far what was asked shall go
#: on, and for how many rounds the sum has lacked somebody.
_SAID, _HEARD = "choco.said", "choco.heard"


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


def _check_codec(codec: object) -> None:
    if not (hasattr(codec, "encode") and hasattr(codec, "decode")):
        raise TypeError(f"codec must be one of codecs', such as TopK; got {codec!r}")


def _vector(model: Model, context: RoundContext) -> np.ndarray:
    """Return a model as one vector, (size,) or (clients, size), of floats."""
    x = ravel(model, context.batch)
    if x.dtype.kind == "c":
        raise ValueError("complex numbers cannot be encoded: take another average")
    return x if x.dtype.kind == "f" else x.astype(np.float64)


def _model(vector: np.ndarray, like: Model, context: RoundContext) -> Model:
    """Return a vector as a model, the inverse of `_vector`."""
    lead = len(context.batch)
    shapes = {str(k): a.shape[lead:] for k, a in enumerate(like)}
    arrays = unravel(vector, shapes).values()
    return as_dtypes(arrays, like)
