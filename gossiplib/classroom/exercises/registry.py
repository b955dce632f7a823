"""What is asked of the answers to the exercises, property by property.

`check` runs these. A hint never tells the answer. This module holds the table; the
modules `exercises_*` fill it, each for some of the notebooks.
"""

from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["CHECKS", "checks", "need", "need_clients", "need_words", "word_for"]

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


def need_words(answers: Iterable[str], *words: str) -> None:
    """Raise AssertionError unless each answer is one of the words."""
    *first, last = (f'"{word}"' for word in words)
    need(set(answers) <= set(words), f"Each answer is {', '.join(first)} or {last}.")


def word_for(change: float, more: str, less: str, *, same: float) -> str:
    """Return the word for a change; "same" if it is smaller than `same`."""
    if abs(change) < same:
        return "same"
    return more if change > 0 else less
