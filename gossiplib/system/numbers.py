"""Numbers: checked where they enter, and drawn from streams that share nothing.

Each use of random numbers has a stream of its own, which depends on what it is for
(client, round, ...) and not on what was drawn before. So two engines that draw in
another order see the same numbers, and one fault does not move another.
"""

import numbers
from typing import TypeAlias

import numpy as np

__all__ = ["Seed", "check_share", "check_whole", "rng", "seed_of"]

#: What takes part in randomness: a whole number, or a generator to draw one from.
Seed: TypeAlias = int | np.random.Generator


def check_whole(name: str, value: object, least: int, most: int | None = None) -> int:
    """Return a whole number as an int, if it is in its range.

    Parameters
    ----------
    name : str
        What it is called, for the message.
    value : object
        What was given: a Python or numpy integer, and no truth value.
    least, most : int
        The range; without `most` there is no upper end.

    Returns
    -------
    int
        The number.

    Raises
    ------
    ValueError
        If it is not whole or not in the range.
    """
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        whole = int(value)
        if least <= whole and (most is None or whole <= most):
            return whole
    limits = f"at least {least}" if most is None else f"{least} to {most}"
    raise ValueError(f"{name} must be a whole number, {limits}; got {value!r}")


def check_share(name: str, value: float) -> None:
    """Check that a value is a probability or a share.

    Parameters
    ----------
    name : str
        What it is called, for the message.
    value : float
        What was given.

    Raises
    ------
    ValueError
        If it is not from 0 to 1.
    """
    if not 0 <= value <= 1:
        raise ValueError(f"{name} is a probability, from 0 to 1; got {value}")


def seed_of(seed: Seed) -> int:
    """Return a seed as a whole number; of a generator, the next that it draws."""
    if isinstance(seed, np.random.Generator):
        return int(seed.integers(2**31))
    return check_whole("seed", seed, 0)


def rng(seed: int, *key: int, use: str = "") -> np.random.Generator:
    """Return the random stream of a use: of a round, a client, ...

    Parameters
    ----------
    seed : int
        Seed of the run.
    *key : int
        What the numbers are for: a round, a client and a round, ...
    use : str
        What they are used for. Two uses of one key need two names.
    """
    return np.random.default_rng([seed, *key, *use.encode()])
