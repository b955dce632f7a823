"""All clients' models and metrics in a few arrays, one client a row.

A GossipResult's dicts hold a record for each client. A million ArrayRecords would take
minutes to make, and more memory than the models. So the vectorised engine fills it with
these instead, which make the record that is looked up.
"""

import math
from collections.abc import Iterator, Mapping

import numpy as np
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict

from gossiplib.arrays import unpack

__all__ = [
    "Shapes",
    "StackedMetrics",
    "StackedModels",
    "StackedStates",
    "chunks",
    "split",
]

Shapes = dict[str, tuple[int, ...]]


class StackedModels(Mapping[int, ArrayRecord]):
    """Models as rows of one array: client -> ArrayRecord.

    Parameters
    ----------
    rows : numpy.ndarray
        One model a row, all its arrays end to end; row i is client i's.
    shapes : dict[str, tuple of int]
        Names and shapes of a model's arrays, in order.
    clients : numpy.ndarray
        Those that have a model, in ascending order.
    """

    def __init__(self, rows: np.ndarray, shapes: Shapes, clients: np.ndarray) -> None:
        self._rows, self._shapes, self._clients = rows, shapes, clients

    def __getitem__(self, client: int) -> ArrayRecord:
        """Make a client's ArrayRecord."""
        client = self._clients[_place(self._clients, client)]
        arrays = split(self._rows[client], self._shapes)
        return ArrayRecord({name: Array(np.asarray(a)) for name, a in arrays.items()})

    def __iter__(self) -> Iterator[int]:
        """Go through the clients that have a model."""
        return iter(self._clients.tolist())

    def __len__(self) -> int:
        """Return the number of clients that have a model."""
        return len(self._clients)

    def rows(self) -> np.ndarray:
        """Return the models as rows, (clients that have one, parameters).

        Read-only, and no copy where all clients have one.
        """
        everyone = len(self._clients) == len(self._rows)
        rows = self._rows.view() if everyone else self._rows[self._clients]
        rows.flags.writeable = False
        return rows


class StackedMetrics(Mapping[int, MetricRecord]):
    """Metrics as columns: client -> MetricRecord.

    Parameters
    ----------
    clients : numpy.ndarray
        Clients in ascending order.
    columns : dict[str, numpy.ndarray]
        Name of a metric -> its value for each of them.
    """

    def __init__(self, clients: np.ndarray, columns: dict[str, np.ndarray]) -> None:
        self.clients, self.columns = clients, columns

    def __getitem__(self, client: int) -> MetricRecord:
        """Make a client's MetricRecord."""
        place = _place(self.clients, client)
        return MetricRecord({k: v[place].item() for k, v in self.columns.items()})

    def __iter__(self) -> Iterator[int]:
        """Go through the clients."""
        return iter(self.clients.tolist())

    def __len__(self) -> int:
        """Return the number of clients."""
        return len(self.clients)

    def mean(self) -> MetricRecord:
        """Return the plain mean of each metric, see `result.mean_metrics`."""
        if not len(self):
            return MetricRecord()
        return MetricRecord(
            {k: float(v.mean()) for k, v in self.columns.items() if k != "num-examples"}
        )


class StackedStates:
    """What clients keep in the `state` of their Context: ArrayRecords, stacked.

    Parameters
    ----------
    n : int
        Number of clients.
    """

    def __init__(self, n: int) -> None:
        self._n = n
        self._arrays: dict[str, dict[str, np.ndarray]] = {}
        self._has: dict[str, np.ndarray] = {}

    def kinds(self) -> np.ndarray:
        """Return a number for each client: the same for those with the same records."""
        if not self._has:
            return np.zeros(self._n, dtype=np.int64)
        has = np.stack(list(self._has.values()))
        return np.unique(has, axis=1, return_inverse=True)[1].ravel()

    def take(self, clients: np.ndarray | int) -> RecordDict:
        """Return the state of a client, or of clients of one kind."""
        first = np.ravel(clients)[0]
        return RecordDict(
            {
                key: ArrayRecord(
                    {name: Array(np.asarray(a[clients])) for name, a in arrays.items()}
                )
                for key, arrays in self._arrays.items()
                if self._has[key][first]
            }
        )

    def put(self, clients: np.ndarray, state: RecordDict) -> None:
        """Keep the state of clients."""
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

    def keep(self) -> tuple[list, dict[str, np.ndarray]]:
        """Return the names of records and their arrays, and all arrays by number."""
        names, members = [], {}
        for k, (key, arrays) in enumerate(self._arrays.items()):
            names.append([key, list(arrays)])
            members[f"state/{k}/has"] = self._has[key]
            members |= {f"state/{k}/{j}": a for j, a in enumerate(arrays.values())}
        return names, members

    def restore(self, names: list, members: Mapping[str, np.ndarray]) -> None:
        """Take what `keep` returned."""
        for k, (key, arrays) in enumerate(names):
            self._has[key] = members[f"state/{k}/has"]
            self._arrays[key] = {
                name: members[f"state/{k}/{j}"] for j, name in enumerate(arrays)
            }


def chunks(clients: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Cut clients into pieces of nearly the same length, 1 to `size`."""
    pieces = -(-len(clients) // size)
    return iter(np.array_split(clients, pieces) if pieces else [])


def split(rows, shapes: Shapes) -> dict:
    """Take models apart: (..., parameters) -> name -> view, ``(..., *shape)``.

    For a numpy array or a torch tensor.
    """
    arrays, start = {}, 0
    for name, shape in shapes.items():
        stop = start + math.prod(shape)
        arrays[name] = rows[..., start:stop].reshape((*rows.shape[:-1], *shape))
        start = stop
    return arrays


def _place(clients: np.ndarray, client: int) -> int:
    """Return where a client is; raise KeyError where a dict would."""
    place = int(np.searchsorted(clients, client))
    if place == len(clients) or clients[place] != client:
        raise KeyError(client)
    return place
