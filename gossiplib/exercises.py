"""What is asked of the answers to the exercises, property by property.

`check` runs these. A hint never tells the answer. This module holds the table; the
modules `exercises_*` fill it, each for some of the notebooks.
"""

from collections.abc import Callable
from typing import Any

__all__ = ["CHECKS", "checks", "need", "need_clients"]

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


def need_clients(result: Any, n: int) -> None:
    """Raise AssertionError unless `result` is that of a run of `n` clients."""
    models = getattr(result, "node_arrays", None)
    need(models is not None, "Give what Gossip(...).start(...) returns.")
    need(len(models) == n, f"Run it with all {n} clients.")
