"""What clients learn: data sets, their partitions over clients, models to train."""

from typing import TYPE_CHECKING

from gossiplib._face import face

if TYPE_CHECKING:
    from .poisoning import poisoned as poisoned
    from .task import Task as Task, digits as digits, spambase as spambase
    from .training import train as train

__getattr__, __dir__, __all__ = face(__name__)
