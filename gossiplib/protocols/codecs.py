"""Codecs: how to encode a vector in fewer bytes.

A *codec* turns a vector into a list of arrays, the message, and back: `Codec`. The
bytes of a message are those of its arrays. What comes back is Q(x) in theory's words,
in the data type of x. For `TopK`, `RandomK` and `Qsgd` there is an ω, 0 < ω <= 1, with
E ‖Q(x) - x‖² <= (1 - ω) ‖x‖² (Koloskova et al. 2019). What clients do with a message
is in `compressed`.

References
----------
Alistarh et al. 2017, QSGD, arXiv:1610.02132. Stich et al. 2018, "Sparsified SGD with
Memory", arXiv:1809.07599. Koloskova et al. 2019, arXiv:1902.00340. Hegedűs et al. 2021,
doi:10.1016/j.jpdc.2020.10.006, for `Parts`.
"""

from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np

from gossiplib.core.context import RoundContext, uniforms
from gossiplib.system.numbers import check_share, check_whole, settle

__all__ = ["Codec", "Parts", "Qsgd", "RandomK", "TopK"]

Payload: TypeAlias = list[np.ndarray]
Fill: TypeAlias = np.ndarray | float


class Codec(Protocol):
    """What a codec can do."""

    def encode(self, x: np.ndarray, context: RoundContext, /) -> Payload:
        """Return the message for x.

        Parameters
        ----------
        x : numpy.ndarray
            One vector, shape (size,), or those of many clients, (clients, size). Then
            each array of the message has the axis of the clients too, as the first.
        context : RoundContext
            Which client and round.

        Raises
        ------
        ValueError
            If x cannot be encoded: it is empty, or not finite.
        """

    def decode(self, payload: Payload, size: int, missing: Fill = 0.0) -> np.ndarray:
        """Return Q(x), with the numbers of `missing` where the message has none.

        Parameters
        ----------
        payload : list of numpy.ndarray
            The message.
        size : int
            How many numbers x has, of each client.
        missing : numpy.ndarray or float
            One number for all places, or a vector like x.

        Raises
        ------
        ValueError
            If the message does not fit a vector of this size.
        """


@dataclass(frozen=True)
class TopK:
    """Send the share of the numbers that are largest, with their places.

    The share, ω = k/d, is above 0 and at most 1. The message: places, ascending, in the
    smallest unsigned integers that hold them, and values. At least one number is sent.
    """

    share: float

    def __post_init__(self) -> None:
        """Check the share."""
        check_share("share", self.share, zero=False)

    def encode(self, x: np.ndarray, context: RoundContext) -> Payload:
        """Return places and values of the k numbers with the highest scores."""
        _check_finite(x)
        size, scores = x.shape[-1], self._scores(x, context)
        k = max(1, round(self.share * size))
        best = np.argpartition(scores, size - k, axis=-1)[..., size - k :]
        places = np.sort(best, axis=-1)
        values = np.take_along_axis(x, places, axis=-1)
        return [places.astype(np.min_scalar_type(size - 1)), values]

    def _scores(self, x: np.ndarray, context: RoundContext) -> np.ndarray:
        return np.asarray(np.abs(x))

    def decode(self, payload: Payload, size: int, missing: Fill = 0.0) -> np.ndarray:
        """Return the vector that has these values at these places."""
        places, values = _two(payload)
        if places.size and not 0 <= places.min() <= places.max() < size:
            found = f"the message has places {places.min()} to {places.max()}"
            raise ValueError(f"{found}, but there are {size} numbers")
        x = _filled(values, size, missing)
        np.put_along_axis(x, places.astype(np.intp), values, axis=-1)
        return x


@dataclass(frozen=True)
class RandomK(TopK):
    """Send a share of the numbers, drawn at random in each round.

    The message is that of `TopK`.

    Parameters
    ----------
    share : float
        ω = k/d, above 0 and at most 1.
    seed : int
        Seed of the draws, which also depend on client and round.
    unbiased : bool
        Multiply the values by d/k, so that E Q(x) = x. Then the error is larger,
        E ‖Q(x) - x‖² = (d/k - 1) ‖x‖², and there is no ω.
    """

    seed: int = 0
    unbiased: bool = False

    def __post_init__(self) -> None:
        """Check share and seed."""
        super().__post_init__()
        settle(self, check_whole, "seed", 0)

    def encode(self, x: np.ndarray, context: RoundContext) -> Payload:
        """Return places and values of k numbers."""
        places, values = super().encode(x, context)
        if self.unbiased:
            values = (values * (x.shape[-1] / values.shape[-1])).astype(x.dtype)
        return [places, values]

    def _scores(self, x: np.ndarray, context: RoundContext) -> np.ndarray:
        return uniforms(self.seed, context, x.shape[-1])


@dataclass(frozen=True)
class Qsgd:
    """Send all numbers in few bits: round each at random to one of a few levels.

    ``Q(x) = sign(x) ‖x‖ / (s τ) · ⌊s |x| / ‖x‖ + ξ⌋`` with ξ uniform in [0, 1), and
    τ = 1 + min(d/s², √d/s). That is QSGD (Alistarh et al. 2017), divided by τ, as CHOCO
    needs it (Koloskova et al. 2019): ω = 1/τ. The message: ‖x‖, and ⌈log2(2 s + 1)⌉
    bits for each number. (Alistarh et al. code the levels in fewer bits still, as small
    ones are frequent.)

    Parameters
    ----------
    levels : int
        s, 1 to 32,767.
    seed : int
        Seed of ξ, which also depends on client and round.
    unbiased : bool
        τ = 1, as in QSGD itself, so that E Q(x) = x. Then E ‖Q(x) - x‖² is at most
        min(d/s², √d/s) ‖x‖², and there is no ω where that is above 1.
    """

    levels: int
    seed: int = 0
    unbiased: bool = False

    def __post_init__(self) -> None:
        """Check levels and seed."""
        settle(self, check_whole, "levels", 1, 32_767)
        settle(self, check_whole, "seed", 0)

    @property
    def bits(self) -> int:
        """Bits for one number: signs and levels make 2 s + 1 symbols."""
        return int(2 * self.levels).bit_length()

    def tau(self, size: int) -> float:
        """Return τ for vectors of this size."""
        s = self.levels
        return 1.0 if self.unbiased else 1 + min(size / s**2, size**0.5 / s)

    def encode(self, x: np.ndarray, context: RoundContext) -> Payload:
        """Return ‖x‖, shape (1,), and the symbols, packed into bytes."""
        _check_finite(x)
        # Squares of large float32 overflow. Summed alike for one client and for many.
        norm = np.sqrt(np.square(x, dtype=np.float64).sum(axis=-1, keepdims=True))
        norm = norm.astype(np.promote_types(x.dtype, np.float32))
        if not np.isfinite(norm).all():
            raise ValueError("a vector is too long for Qsgd: its norm is infinite")
        s, xi = self.levels, uniforms(self.seed, context, x.shape[-1])
        scaled = x * (s / np.where(norm > 0, norm, 1).astype(np.float64))
        level = np.minimum(np.floor(np.abs(scaled) + xi), s)  # s + 1 only by rounding
        symbols = np.where(scaled < 0, s - level, s + level)
        return [norm, pack_bits(symbols, self.bits)]

    def decode(self, payload: Payload, size: int, missing: Fill = 0.0) -> np.ndarray:
        """Return Q(x); nothing is missing."""
        norm, packed = _two(payload)
        if packed.shape[-1] != -(-size * self.bits // 8):
            found = f"{packed.shape[-1]} bytes"
            raise ValueError(f"{size} numbers of {self.bits} bits do not make {found}")
        level = unpack_bits(packed, self.bits, size).astype(np.float64) - self.levels
        return (level * (norm / (self.levels * self.tau(size)))).astype(norm.dtype)


@dataclass(frozen=True)
class Parts:
    """Send one part of the vector in each round, each after `count` rounds again.

    Parts are every `count`-th number (1 to 65,536), the same for all clients: in round
    t those whose place leaves the remainder t mod `count`. The message: that remainder,
    and values.
    """

    count: int

    def __post_init__(self) -> None:
        """Check the number of parts."""
        settle(self, check_whole, "count", 1, 65_536)

    def encode(self, x: np.ndarray, context: RoundContext) -> Payload:
        """Return the number of the round's part, shape (1,), and its values."""
        _check_finite(x)
        if x.shape[-1] < self.count:
            raise ValueError(f"{x.shape[-1]} numbers do not make {self.count} parts")
        first = context.server_round % self.count
        part = np.full((*x.shape[:-1], 1), first, np.min_scalar_type(self.count - 1))
        return [part, x[..., first :: self.count]]

    def decode(self, payload: Payload, size: int, missing: Fill = 0.0) -> np.ndarray:
        """Return the vector that has these values in this part."""
        part, values = _two(payload)
        x = _filled(values, size, missing)
        first = int(part.flat[0])  # of one round: the same for all clients
        if (part != first).any() or x[..., first :: self.count].shape != values.shape:
            raise ValueError(f"this is not part {first} of {size} numbers")
        x[..., first :: self.count] = values
        return x


def _check_finite(x: np.ndarray) -> None:
    if x.shape[-1] == 0:
        raise ValueError("there is nothing to send: the vector has no numbers")
    if not np.isfinite(x).all():
        raise ValueError("a vector with NaN or infinite values cannot be encoded")


def _filled(values: np.ndarray, size: int, missing: Fill) -> np.ndarray:
    """Return a vector for each client, in the data type of the values sent."""
    return np.array(np.broadcast_to(missing, (*values.shape[:-1], size)), values.dtype)


def _two(payload: Payload) -> Payload:
    """Return a message's two arrays; raise ValueError if they are more or fewer."""
    if len(payload) != 2:
        raise ValueError(f"the message has {len(payload)} arrays instead of 2")
    return payload


def pack_bits(symbols: np.ndarray, bits: int) -> np.ndarray:
    """Return whole numbers side by side in bytes, `bits` (at most 16) for each."""
    two = np.ascontiguousarray(symbols.astype(">u2"))
    each = np.unpackbits(two.view(np.uint8), axis=-1)
    each = each.reshape(*symbols.shape, 16)[..., 16 - bits :]
    return np.packbits(each.reshape(*symbols.shape[:-1], -1), axis=-1)


def unpack_bits(packed: np.ndarray, bits: int, size: int) -> np.ndarray:
    """Return the `size` numbers of each client that `pack_bits` put into bytes."""
    byte, bit = np.divmod(np.arange(size) * bits, 8)
    end = np.zeros((*packed.shape[:-1], 2), np.uint8)
    wide = np.concatenate([packed, end], axis=-1).astype(np.uint32)
    three = wide[..., byte] << 16 | wide[..., byte + 1] << 8 | wide[..., byte + 2]
    return three >> (24 - bits - bit).astype(np.uint32) & np.uint32(2**bits - 1)
