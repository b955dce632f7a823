"""Checks of the exercises: by properties, so any right answer passes.

``check("02.1", answer)`` prints one line: right, not answered yet, or a hint at the
property that fails. A hint never tells the answer. A placeholder (None or ``...``) is
"not answered yet", so a notebook always runs to its end.
"""

from typing import Any

from gossiplib.classroom.exercises import (  # noqa: F401  each fills CHECKS
    nb00_02,
    nb03_05,
    nb06,
    nb07,
    nb08,
    nb09,
    nb10,
    nb11,
    nb12,
    nb13,
)
from gossiplib.classroom.exercises.registry import CHECKS

__all__ = ["CHECKS", "check", "verdict"]


def check(exercise: str, *answers: Any) -> None:
    """Check the answer to an exercise and print the verdict.

    Parameters
    ----------
    exercise : str
        Notebook and number, such as "02.1".
    *answers : object
        What the exercise asks for.
    """
    print(f"Exercise {exercise}: {verdict(exercise, *answers)}")


def verdict(exercise: str, *answers: Any) -> str:
    """Return the verdict: "right!", or why it is not."""
    if any(answer is None or answer is ... for answer in answers):
        return "not answered yet."
    properties = CHECKS[exercise]
    try:
        properties(*answers)
    except AssertionError as hint:
        return f"not yet. {hint}"
    except Exception as error:
        return f"your answer raised {error!r}."
    return "right!"
