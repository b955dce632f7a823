"""Sums whose terms stay hidden: masks that cancel within a group of neighbours."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import combinations

import networkx as nx
import numpy as np

from gossiplib.core.averaging import Model, Models, as_dtypes
from gossiplib.core.context import RoundContext
from gossiplib.core.models import check_model
from gossiplib.system.numbers import check_whole, rng, settle
from gossiplib.system.records import ravel, unravel

__all__ = ["Masked"]

_UNIT, _RANGE = 2.0**-40, 2.0**23  # of the fixed point, in int64


@dataclass(frozen=True)
class Masked:
    """The mean of a group of clients, none of which sees another's model.

    In each round the clients are dealt anew into groups G. In a group, each pair j < k
    has a secret r_jk, as many uniform numbers as a model has. Client j writes its model
    in fixed point, q_j, and sends

        y_j = q_j + Σ_{k ∈ G, k > j} r_jk - Σ_{k ∈ G, k < j} r_kj    modulo 2⁶⁴.

    By itself y_j is uniform. In the sum of the group, each r_jk comes with each sign
    once: Σ_j y_j = Σ_j q_j, to the last bit. That, over the size of the group, is the
    new model of all (Bonawitz et al. 2017, in small groups of peers).

    Where a message is missing, its masks stay in the sum, which then is noise. Who
    misses one keeps its own model for this round, as one does whose senders are not its
    group. The weights are not used: on `schedule` W has one over the group's size.

    A member learns the sum of the others, and these together its model. It cannot throw
    out a liar among them, see `robust`.

    Here all secrets come from one seed, which is for learning only. A mask must never
    be used twice: the difference of two messages with the same mask is that of their
    models, to the last bit. So a second run, or a round done again with other models,
    needs another seed. For real, each pair agrees on a secret by itself, and draws from
    it by a generator that nobody can predict; more messages remove from the sum the
    masks of those who left.

    Parameters
    ----------
    size : int
        Clients in a group, 3 at least. Some have more where it does not divide all.
    seed : int
        Decides the groups, and all secrets: a new one for each run.

    References
    ----------
    Bonawitz et al. 2017, "Practical secure aggregation", doi:10.1145/3133956.3133982.
    """

    size: int
    seed: int = 0

    def __post_init__(self) -> None:
        """Check size and seed."""
        settle(self, check_whole, "size", 3)
        settle(self, check_whole, "seed", 0)

    def groups(self, num_clients: int, server_round: int) -> list[list[int]]:
        """Return the groups of a round, each in ascending order.

        Parameters
        ----------
        num_clients, server_round : int
            At least as many as make a group; and 1, 2, ...

        Raises
        ------
        ValueError
            If there are fewer.
        """
        check_whole("num_clients", num_clients, self.size)
        order = rng(self.seed, server_round, use="groups").permutation(num_clients)
        parts = np.array_split(order, num_clients // self.size)
        return [np.sort(part).tolist() for part in parts]

    def schedule(self, num_clients: int) -> Callable[[int], nx.Graph]:
        """Return the schedule in which each group is a complete graph.

        Parameters
        ----------
        num_clients : int
            As in `groups`.
        """

        def complete_groups(server_round: int) -> nx.Graph:
            graph = nx.empty_graph(num_clients)
            for group in self.groups(num_clients, server_round):
                graph.add_edges_from(combinations(group, 2))
            return graph

        return complete_groups

    def send(self, model: Model, context: RoundContext) -> Model:
        """Return y_j as one array of uint64, shape (parameters,)."""
        return [self._hide(model, context)[1]]

    def __call__(
        self, own: Model, neighbours: Models, weights: np.ndarray, context: RoundContext
    ) -> Model:
        """Return the mean of the group, or the own model if one is missing."""
        mine, hidden = self._hide(own, context)
        came, _ = context.read(neighbours, weights, partial(_read, like=hidden))
        rows = ravel(own, context.batch).astype(np.float64)
        for at, group in mine.items():
            there = [int(context.clients[at]), *context.senders.T[at]]
            if sorted(there) == group:
                total = sum((one[at] for one in came), start=hidden[at])
                rows[at] = total.view(np.int64) * (_UNIT / len(group))
        shapes = {str(k): a.shape[len(context.batch) :] for k, a in enumerate(own)}
        return as_dtypes(unravel(rows, shapes).values(), own)

    def _hide(
        self, model: Model, context: RoundContext
    ) -> tuple[dict[tuple[int, ...], list[int]], np.ndarray]:
        """Return each client's group, by its place in the batch, and y_j of all."""
        t = context.server_round
        groups = self.groups(int(context.node_config["num-partitions"]), t)
        whose = {client: group for group in groups for client in group}
        rows = _fixed(ravel(model, context.batch), max(map(len, groups)))
        mine = {}
        for at in np.ndindex(context.batch):
            me = int(context.clients[at])
            mine[at] = whose[me]
            for other in set(whose[me]) - {me}:
                secret = rng(self.seed, t, *sorted((me, other)), use="masks")
                mask = secret.integers(2**64, size=rows.shape[-1:], dtype=np.uint64)
                rows[at] += mask if me < other else -mask
        return mine, rows


def _fixed(rows: np.ndarray, terms: int) -> np.ndarray:
    """Return numbers in fixed point, so that so many of them have a sum."""
    if rows.dtype.kind == "c":
        raise ValueError("complex numbers have no fixed point: take another average")
    rows = rows.astype(np.float64)  # in half precision, the unit would be 0
    if not np.all(np.abs(rows) < _RANGE / terms):  # nor NaN
        raise ValueError(f"masks hide finite numbers below {_RANGE / terms:.0f} only")
    return np.rint(rows / _UNIT).astype(np.int64).view(np.uint64)


def _read(message: Model, like: np.ndarray) -> np.ndarray:
    check_model(message, [like], "the message's")
    if message[0].dtype != like.dtype:
        raise ValueError(f"a masked message is of uint64, not {message[0].dtype}")
    return message[0]
