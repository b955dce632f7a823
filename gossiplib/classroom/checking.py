"""Checks of the exercises: by properties, so any right answer passes.

``check("02.1", answer)`` prints one line: right, not answered yet, or a hint at the
property that fails. A hint never tells the answer. What is asked of the answers to
notebook 02 stands in `exercises/nb02.py`, which is loaded when it is asked for: a
notebook pays for its own exercises only.
"""

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib import import_module
from inspect import Parameter, Signature
from numbers import Real
from pkgutil import iter_modules
from typing import Any, TypeAlias

import numpy as np

from gossiplib.classroom import exercises

#: A student's function, or one of the answers, which raises AssertionError(hint).
Function: TypeAlias = Callable[..., Any]
#: Returns how much changes, for each thing that is asked for.
Truth: TypeAlias = Callable[[], Iterable[float]]

#: Exercise -> what is asked of its answers, of the notebooks that were asked for.
CHECKS: dict[str, Function] = {}


def check(exercise: str, *answers: Any) -> None:
    """Check the answer to an exercise and print the verdict.

    Parameters
    ----------
    exercise : str
        Notebook and number, such as "02.1".
    *answers : object
        What the exercise asks for; None or ``...`` is "not answered yet".
    """
    print(f"Exercise {exercise}: {verdict(exercise, *answers)}")


def verdict(exercise: str, *answers: Any) -> str:
    """Return what `check` prints of an `exercise` and the `answers`.

    Raises
    ------
    ValueError
        If there is no such exercise.
    """
    there = checks_of(exercise[:2])
    if exercise not in there:
        others = ", ".join(there) or "none in a notebook of this number"
        raise ValueError(f"no exercise {exercise!r}; there are {others}")
    if any(answer is None or answer is ... for answer in answers):
        return "not answered yet."
    try:
        told = there[exercise](*answers)
    except AssertionError as hint:
        return f"not yet. {hint}"
    except Exception as error:
        return f"your answer raised {error!r}."
    return f"right! {told}" if told else "right!"


def checks_of(notebook: str = "") -> dict[str, Function]:
    """Return exercise -> what is asked of its answers, for a notebook such as "02"."""
    for module in iter_modules(exercises.__path__):
        if module.name.startswith(f"nb{notebook}"):
            import_module(f"{exercises.__name__}.{module.name}")
    return {e: CHECKS[e] for e in sorted(CHECKS) if e.startswith(notebook)}


def checks(exercise: str) -> Callable[[Function], Function]:
    """Register a function of the answers as the check of an exercise.

    What it returns, if anything, is what a right answer is told.
    """

    def register(function: Function) -> Function:
        CHECKS[exercise] = function
        return function

    return register


def predicts(
    exercise: str,
    more: str,
    less: str,
    *hints: str,
    same: float,
    reason: Function | None = None,
    tell: Function | None = None,
) -> Callable[[Truth], Truth]:
    """Register the check of a prediction: which way something changes.

    It decorates a function () -> the true changes, with a hint for each, called once
    and only if all answers are words for a change: `more`, `less`, or "same" for one
    that is smaller than `same`. `reason` checks one answer more, the last. `tell` puts
    what was measured into words.
    """

    def register(truth: Truth) -> Truth:
        changes = cache(truth)

        @checks(exercise)
        def properties(*answers: Any) -> str:
            words = answers[: len(hints)]
            need_words(words, more, less, "same")
            if reason:
                reason(*answers[len(hints) :])
            for answer, change, hint in zip(words, changes(), hints, strict=True):
                word = more if change > 0 else less
                need(answer == ("same" if abs(change) < same else word), hint)
            if tell:
                return f"Measured: {tell(*changes())}."
            return f"Measured: {', '.join(f'{c:+.3g}' for c in changes())}."

        one = Parameter("answer", Parameter.POSITIONAL_ONLY)
        count = len(hints) + bool(reason)
        takes = [one.replace(name=f"answer_{k}") for k in range(count)]
        properties.__signature__ = Signature(takes)  # type: ignore[attr-defined]
        return truth

    return register


def need(condition: Any, hint: str) -> None:
    """Raise AssertionError with the hint unless the condition holds."""
    if not condition:
        raise AssertionError(hint)


def need_number(answer: Any) -> None:
    """Raise AssertionError unless an answer is a number."""
    need(isinstance(answer, Real), "Give a number, such as 4 or 2.5.")


def need_clients(result: Any, n: int) -> None:
    """Raise AssertionError unless `result` is that of a run of `n` clients."""
    need(hasattr(result, "node_arrays"), "Give what Gossip(...).start(...) returns.")
    need(len(result.node_arrays) == n, f"Run it with all {n} clients.")


def need_words(answers: Iterable[str], *words: str) -> None:
    """Raise AssertionError unless each answer is one of the words."""
    *first, last = (f'"{word}"' for word in words)
    need(set(answers) <= set(words), f"Each answer is {', '.join(first)} or {last}.")


@contextlib.contextmanager
def untouched(what: str, *given: Any) -> Iterator[None]:
    """Raise AssertionError if arrays, or lists of them, change within the block."""
    before = copy.deepcopy(given)
    yield
    need(close(before, given, 0, 0), f"Do not change the {what} that you are given.")


def close(some: Any, others: Any, rtol: float = 1e-5, atol: float = 1e-8) -> bool:
    """Tell whether arrays are close, or all those of lists, such as models."""
    if isinstance(others, list | tuple):
        pairs = zip(some, others, strict=False)
        return len(some) == len(others) and all(close(*p, rtol, atol) for p in pairs)
    return np.shape(some) == np.shape(others) and np.allclose(some, others, rtol, atol)
