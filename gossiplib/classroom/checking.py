"""Checks of the exercises: by properties, so any right answer passes.

``check("02.1", answer)`` prints one line: right, not answered yet, or a hint at the
property that fails. A hint never tells the answer. A placeholder (None or ``...``) is
"not answered yet", so a notebook always runs to its end. What is asked of the answers
to notebook 02 stands in `exercises/nb02.py`, which is loaded when it is asked for: a
notebook pays for its own exercises only.
"""

from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from gossiplib.classroom import exercises

__all__ = [
    "check",
    "checks",
    "checks_of",
    "need",
    "need_changes",
    "need_clients",
    "need_words",
    "verdict",
]

#: Raises AssertionError(hint) if a property of the answers fails.
Properties = Callable[..., None]

_CHECKS: dict[str, Properties] = {}


def check(exercise: str, *answers: Any) -> None:
    """Check the answer to an exercise and print the verdict.

    Parameters
    ----------
    exercise : str
        Notebook and number, such as "02.1".
    *answers : object
        What the exercise asks for.

    Raises
    ------
    ValueError
        If there is no such exercise.
    """
    print(f"Exercise {exercise}: {verdict(exercise, *answers)}")


def verdict(exercise: str, *answers: Any) -> str:
    """Return the verdict: "right!", or why it is not.

    Parameters
    ----------
    exercise : str
        Notebook and number, such as "02.1".
    *answers : object
        What the exercise asks for.

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
        there[exercise](*answers)
    except AssertionError as hint:
        return f"not yet. {hint}"
    except Exception as error:
        return f"your answer raised {error!r}."
    return "right!"


def checks_of(notebook: str = "") -> dict[str, Properties]:
    """Return the exercises of a notebook, with what is asked of their answers.

    Parameters
    ----------
    notebook : str
        Its number, such as "02"; by default all notebooks.

    Returns
    -------
    dict[str, callable]
        Exercise -> function of the answers that raises AssertionError(hint).
    """
    for module in iter_modules(exercises.__path__):
        if module.name.startswith(f"nb{notebook}"):
            import_module(f"{exercises.__name__}.{module.name}")
    return {e: _CHECKS[e] for e in sorted(_CHECKS) if e.startswith(notebook)}


def checks(exercise: str) -> Callable[[Properties], Properties]:
    """Register the function that checks an exercise."""

    def register(function: Properties) -> Properties:
        _CHECKS[exercise] = function
        return function

    return register


def need(condition: Any, hint: str) -> None:
    """Raise AssertionError with the hint unless the condition holds."""
    if not condition:
        raise AssertionError(hint)


def need_clients(result: Any, n: int) -> None:
    """Raise AssertionError unless `result` is that of a run of `n` clients."""
    models = getattr(result, "node_arrays", None)
    if models is None:
        raise AssertionError("Give what Gossip(...).start(...) returns.")
    need(len(models) == n, f"Run it with all {n} clients.")


def need_words(answers: Iterable[str], *words: str) -> None:
    """Raise AssertionError unless each answer is one of the words."""
    *first, last = (f'"{word}"' for word in words)
    need(set(answers) <= set(words), f"Each answer is {', '.join(first)} or {last}.")


def need_changes(
    answers: Sequence[str],
    more: str,
    less: str,
    changes: Callable[[], Iterable[float]],
    hints: Iterable[str],
    *,
    same: float,
) -> None:
    """Raise AssertionError unless each answer is the word for what changed.

    Parameters
    ----------
    answers : sequence of str
        What was predicted: the words `more`, `less` or "same".
    more, less : str
        Words for a change above 0, and below.
    changes : callable
        () -> the true changes. It is called if all answers are such words: it may take
        some seconds, so let it remember (`functools.cache`).
    hints : iterable of str
        One for each answer.
    same : float
        A smaller change than this is none.
    """
    need_words(answers, more, less, "same")
    for answer, change, hint in zip(answers, changes(), hints, strict=True):
        word = more if change > 0 else less
        need(answer == ("same" if abs(change) < same else word), hint)
