"""Numbers: checked where they enter, and drawn from streams of their own.

Each use of random numbers has a stream of its own, which depends on what it is for
(client, round, ...) and not on what was drawn before. So two engines that draw in
another order see the same numbers, and one fault does not move another.
"""

import math
import numbers
import reprlib
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

#: What takes part in randomness: a whole number, or a generator to draw one from.
Seed: TypeAlias = int | np.random.Generator


def check_whole(name: str, value: object, least: int, most: int | None = None) -> int:
    """Return a whole number in its range as an int; else raise ValueError."""
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        whole = int(value)
        if least <= whole and (most is None or whole <= most):
            return whole
    limits = f"at least {least}" if most is None else f"{least} to {most}"
    raise ValueError(
        f"{name} must be a whole number, {limits}; got {reprlib.repr(value)}"
    )


def check_number(name: str, value: object) -> float:
    """Return a number as a float; raise ValueError if it is none, or a truth value."""
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        return float(value)
    raise ValueError(f"{name} must be a number; got {value!r}")


def settle(thing: object, check: Callable[..., object], name: str, *args: int) -> None:
    """Check an attribute of a frozen dataclass; keep it as what `check` returns.

    What numpy counts in 8 bits passes the checks, and overflows in use.
    """
    object.__setattr__(thing, name, check(name, getattr(thing, name), *args))


def check_seconds(name: str, value: object, *, zero: bool = False) -> None:
    """Raise ValueError if a value is no time to wait, finite and above 0 (or 0)."""
    seconds = check_number(name, value)
    if not 0 <= seconds < math.inf or seconds == 0 and not zero:
        limit = "0 or more" if zero else "above 0"
        raise ValueError(f"{name} is in seconds, {limit}, and finite; got {value}")


def check_share(name: str, value: object, *, zero: bool = True) -> None:
    """Raise ValueError if a value is no share, from 0 to 1; 0 itself may be refused."""
    share = check_number(name, value)
    if not zero and not 0 < share <= 1:
        raise ValueError(f"{name} must be above 0 and at most 1; got {value}")
    if not 0 <= share <= 1:
        raise ValueError(f"{name} is a probability, from 0 to 1; got {value}")


def seed_of(seed: Seed) -> int:
    """Return a seed as a whole number; of a generator, the next that it draws."""
    if isinstance(seed, np.random.Generator):
        return int(seed.integers(2**31))
    return check_whole("seed", seed, 0)


def rng(seed: int, *key: int, use: str = "") -> np.random.Generator:
    """Return the random stream of a use: `key` is a round, a client and a round, ...

    Two uses of one key need two names, `use`; the same holds where one key is another
    with zeros behind it, which numpy takes for the same.
    """
    return np.random.default_rng([seed, *key, *use.encode()])


def draw(
    sample: int | None, clients: np.ndarray, seed: int, server_round: int
) -> np.ndarray:
    """Return clients to measure, ascending: a sample of so many, or all if None."""
    if sample is None or len(clients) <= sample:
        return clients
    stream = rng(seed, server_round, use="sample")
    return np.sort(stream.choice(clients, sample, replace=False))
