"""What peers say to their neighbours: a letter a round, as bytes and back.

Whoever opens one gets what a letter may hold, or `Refused`. Whether it comes at the
right time, and from whom, is for the `mailbox` to tell.
"""

from typing import NamedTuple

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from gossiplib import records
from gossiplib.arrays import unpack

__all__ = ["Letter", "Refused", "close_letter", "layout", "open_letter"]

_TOLD = ("round", "degree", "start", "count")


class Refused(Exception):
    """A message that is not used. Its text is the reason, one of a few."""


class Letter(NamedTuple):
    """What one peer says to its neighbours in one round.

    Attributes
    ----------
    round : int
        The sender's round, 1, 2, ...
    degree : int
        To how many neighbours the sender speaks.
    start, count : int
        When the sender's process started, and how many letters it has sent since. They
        grow with each letter, so one that is late or comes twice is noticed.
    arrays : flwr.app.ArrayRecord or None
        The model, or None: the sender could not train in this round.
    """

    round: int
    degree: int
    start: int
    count: int
    arrays: ArrayRecord | None


def close_letter(letter: Letter) -> bytes:
    """Return a letter as bytes."""
    told = {name: getattr(letter, name) for name in _TOLD}
    content = RecordDict({"gossip": ConfigRecord(told)})
    if letter.arrays is not None:
        content["arrays"] = letter.arrays
    return records.dump(content)


def open_letter(data: bytes) -> Letter:
    """Return the letter in these bytes; raise Refused if they are none."""
    try:
        content = records.load(data)
    except ValueError:
        raise Refused("malformed") from None
    told, arrays = content.pop("gossip", None), content.pop("arrays", None)
    if content or not isinstance(told, ConfigRecord) or set(told) != set(_TOLD):
        raise Refused("malformed")
    if any(type(value) is not int or value < 0 for value in told.values()):
        raise Refused("malformed")
    if arrays is not None and not isinstance(arrays, ArrayRecord):
        raise Refused("malformed")
    for array in unpack(arrays or ArrayRecord()):
        if array.dtype.kind not in "biuf":
            raise Refused("another layout")
        if not np.isfinite(array).all():
            raise Refused("not finite")
    return Letter(*(told[name] for name in _TOLD), arrays)


def layout(arrays: ArrayRecord) -> list[tuple]:
    """Return names, shapes and data types of a model's arrays."""
    parts = zip(arrays, unpack(arrays), strict=True)
    return [(name, array.shape, array.dtype) for name, array in parts]
