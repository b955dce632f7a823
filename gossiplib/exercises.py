"""What is asked of the answers to the exercises, property by property.

`check` runs these. A hint never tells the answer. This module holds the table; the
modules `exercises_*` fill it, each for some of the notebooks.
"""

from collections.abc import Callable

__all__ = ["CHECKS", "checks", "need"]

#: exercise -> function that raises AssertionError(hint) if a property fails.
CHECKS: dict[str, Callable[..., None]] = {}


def checks(exercise: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register the function that checks an exercise."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        CHECKS[exercise] = function
        return function

    return register


def need(condition: bool, hint: str) -> None:
    """Raise AssertionError with the hint unless the condition holds."""
    if not condition:
        raise AssertionError(hint)
