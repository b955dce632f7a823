"""JSON that anybody may have written, read as values of annotated types.

What is of another type, too large, negative, twice there or missing is a ValueError
that says where.
"""

import functools
import json
import math
from collections.abc import Callable, Mapping
from types import UnionType
from typing import Any, TypeAlias, get_args, get_origin, get_type_hints

#: Kinds with a way of their own to be read: kind -> (what is told, where) -> value.
Special: TypeAlias = Mapping[Any, Callable[[Any, str], Any]]
#: The highest number of a kind.
_MOST = {int: 2**63 - 1, float: math.inf}

#: What an annotated class holds: name -> kind.
fields_of = functools.cache(get_type_hints)


def parse(text: str | bytes) -> Any:
    """Return what JSON tells; raise ValueError if it is none, or tells a name twice."""
    try:
        return json.loads(text, object_pairs_hook=_once)
    except (TypeError, RecursionError) as error:
        raise ValueError(f"this is not JSON that can be read: {error}") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(told := dict(pairs)) < len(pairs):
        raise ValueError("a name comes twice")
    return told


def as_kind(kind: Any, told: Any, at: str, special: Special | None = None) -> Any:
    """Return what `parse` told as a value of a kind; raise ValueError if it is none.

    A kind is as annotated: a scalar or one of several, a list, set, tuple, dict or
    NamedTuple of such, or one of `special`. Numbers are not negative, and whole ones
    have 63 bits; Any is not looked at. `at` is where it stands, for messages.
    """
    of, parts = get_origin(kind), get_args(kind)
    if kind is Any:
        return told
    if special and kind in special:
        return special[kind](told, at)
    if of is dict and isinstance(told, dict):
        whole = parts[0] is int
        names = [as_kind(int, parse(k), at) if whole else k for k in told]
        values = (as_kind(parts[1], v, f"{at}/{k}", special) for k, v in told.items())
        return dict(zip(names, values, strict=True))
    if of in (list, set, tuple) and isinstance(told, list):
        kinds = parts if of is tuple else parts * len(told)
        return of(as_kind(k, v, at, special) for k, v in zip(kinds, told, strict=True))
    if hasattr(kind, "_fields"):  # told by name, or in order
        if isinstance(told, list) and len(told) == len(kind._fields):
            told = dict(zip(kind._fields, told, strict=True))
        if isinstance(told, dict) and told.keys() == {*kind._fields}:
            held = fields_of(kind).items()
            return kind(*(as_kind(k, told[n], f"{at}/{n}", special) for n, k in held))
    elif type(told) in (kind, *(parts if of is UnionType else ())):
        if kind not in _MOST or 0 <= told <= _MOST[kind]:
            return told
    raise ValueError(f"{at:.80} is not what should be there")
