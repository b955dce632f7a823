"""Stacked models, and what clients remember: one client a row, some taken and put."""

import math
from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, RecordDict

from gossiplib.system.archive import Members
from gossiplib.system.kinds import as_kind
from gossiplib.system.records import unpack

__all__ = ["StackedStates", "chunks", "mean_and_distance", "place", "put", "take"]

Place: TypeAlias = slice | torch.Tensor  # where some rows are


def chunks(clients: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Cut clients into pieces of nearly the same length, 1 to `size`."""
    pieces = -(-len(clients) // size)
    return iter(np.array_split(clients, pieces) if pieces else [])


def place(clients: np.ndarray, device: torch.device) -> Place:
    """Return where the rows of clients are: a slice, if they follow on each other."""
    if len(clients) and (np.diff(clients) == 1).all():
        return slice(int(clients[0]), int(clients[-1]) + 1)
    return torch.from_numpy(clients).to(device)


def take(models: torch.Tensor, at: Place) -> torch.Tensor:
    """Return the rows at a place: a view of a slice, or a copy."""
    return models[at] if isinstance(at, slice) else models.index_select(0, at)


def put(models: torch.Tensor, at: Place, rows: torch.Tensor) -> None:
    """Write rows to a place, unless they are the view that `take` gave."""
    if not isinstance(at, slice):
        models.index_copy_(0, at, rows.to(models.device))
    elif rows.data_ptr() != models[at].data_ptr():
        models[at] = rows


def mean_and_distance(
    models: torch.Tensor, clients: np.ndarray
) -> tuple[torch.Tensor, float]:
    """Return the mean of clients' models, and their `mixing.consensus_distance`.

    Both are of float64, with few rows of it at a time in memory.
    """
    pieces = np.array_split(clients, 1 + len(clients) * models.shape[1] // 2**20)
    places = [place(ids, models.device) for ids in pieces]
    mean = torch.zeros(models.shape[1], dtype=torch.float64, device=models.device)
    for at in places:
        mean += take(models, at).double().sum(dim=0)
    mean /= len(clients)
    squares = sum(float((take(models, at) - mean).square().sum()) for at in places)
    return mean, math.sqrt(squares / len(clients))


class StackedStates:
    """What n clients keep in the `state` of their Context: ArrayRecords, stacked."""

    def __init__(self, n: int) -> None:
        self._n = n
        self._arrays: dict[str, dict[str, np.ndarray]] = {}
        self._has: dict[str, np.ndarray] = {}

    def kinds(self) -> np.ndarray:
        """Return a number for each client: the same for those that are alike.

        They have the same records, and in these the same of what is one whole number or
        truth value of a client: what they do may depend on it.
        """
        arrays = (a for kept in self._arrays.values() for a in kept.values())
        marks = [a for a in arrays if a.ndim == 1 and a.dtype.kind in "biu"]
        about = np.array([*self._has.values(), *marks]).reshape(-1, self._n)
        if (about == about[:, :1]).all():
            return np.zeros(self._n, dtype=np.int64)
        return np.unique(about, axis=1, return_inverse=True)[1].ravel()

    def take(self, clients: np.ndarray | int) -> RecordDict:
        """Return the state of a client, or of clients of one kind."""
        first, state = np.ravel(clients)[0], RecordDict()
        for key, arrays in self._arrays.items():
            if self._has[key][first]:
                kept = {k: Array(np.asarray(a[clients])) for k, a in arrays.items()}
                state[key] = ArrayRecord(kept)
        return state

    def put(self, clients: np.ndarray, state: RecordDict) -> None:
        """Set the state of clients."""
        for key, record in state.items():
            if not isinstance(record, ArrayRecord):
                raise TypeError(
                    f"state[{key!r}] is a {type(record).__name__}: for many clients at "
                    "once only ArrayRecords are kept"
                )
            arrays = self._arrays.setdefault(key, {})
            for name, a in zip(record, unpack(record), strict=True):
                if a.shape[:1] != clients.shape:
                    raise ValueError(
                        f"state[{key!r}] has an array of shape {a.shape} for "
                        f"{len(clients)} clients: the first axis is the clients"
                    )
                if name not in arrays:
                    arrays[name] = np.zeros((self._n, *a.shape[1:]), a.dtype)
                arrays[name][clients] = a
        for key in {*self._has, *state}:
            has = self._has.setdefault(key, np.zeros(self._n, dtype=bool))
            has[clients] = key in state

    def dump(self) -> tuple[list[tuple[str, list[str]]], dict[str, np.ndarray]]:
        """Return the names of records and their arrays, and all arrays by number."""
        names: list[tuple[str, list[str]]] = []
        members: dict[str, np.ndarray] = {}
        for k, (key, arrays) in enumerate(self._arrays.items()):
            names.append((key, list(arrays)))
            members[f"state/{k}/has"] = self._has[key]
            members |= {f"state/{k}/{j}": a for j, a in enumerate(arrays.values())}
        return names, members

    def load(self, names: object, members: Members) -> None:
        """Take what `dump` returned; raise ValueError if it is something else."""
        told = as_kind(list[tuple[str, list[str]]], names, "states")
        for k, (key, arrays) in enumerate(told):
            self._has[key] = members.array(f"state/{k}/has", "?", (self._n,))
            self._arrays[key] = {}
            for j, name in enumerate(arrays):
                array = members.array(f"state/{k}/{j}", np.typecodes["All"])
                if array.shape[:1] != (self._n,):
                    raise ValueError(f"state/{k}/{j} is not of {self._n} clients")
                self._arrays[key][name] = array
