"""Seconds: how long rounds take, and how fast clients act that have none.

A client trains for c seconds. Its message of b bytes takes latency + copies · b /
bandwidth seconds: copies that it sends at once share its bandwidth. Who waits for its
neighbours ends round r + 1 when it has trained and all their models are there,

    t_i(r + 1) = max over i and its neighbours j of  t_j(r) + c_j + transfer_j,

with no transfer from i to itself. So a slow client holds up its neighbours first, and
one more hop of clients in each round. A server waits for all that it has chosen.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gossiplib.core import mixing, topology
from gossiplib.core.adjacency import Graph
from gossiplib.system.numbers import check_number, check_seconds

__all__ = ["Devices", "Pace"]


class Pace(NamedTuple):
    """How fast clients are, in slots: whole numbers above 0, shape (clients,) each.

    A client trains for `training` slots, then sends and begins anew, with the model
    that came meanwhile. A message of its own takes `transfer` slots.
    """

    training: np.ndarray
    transfer: np.ndarray


@dataclass(frozen=True, eq=False)
class Devices:
    """What each client computes and sends with; simulated, so nobody really waits.

    Parameters
    ----------
    compute, latency, bandwidth : numpy.ndarray
        Seconds that a client trains in a round; seconds that each of its messages is on
        its way at least; and how many bytes it sends in a second. Shape (clients,).

    Raises
    ------
    ValueError
        If they are not of one shape, or not finite; if one does not train, or sends
        nothing, ever.
    """

    compute: np.ndarray
    latency: np.ndarray
    bandwidth: np.ndarray

    def __post_init__(self) -> None:
        """Check the numbers."""
        numbers = (self.compute, self.latency, self.bandwidth)
        if len({np.shape(a) for a in numbers}) > 1 or np.ndim(self.compute) != 1:
            raise ValueError("give as many seconds, latencies and bandwidths, 1-d each")
        if not np.isfinite(numbers).all() or np.min(numbers) < 0:
            raise ValueError("seconds and bytes must be finite, and not negative")
        if not (np.all(self.compute) and np.all(self.bandwidth)):
            raise ValueError("compute and bandwidth must be above 0")

    def transfer(self, size: float, copies: int | np.ndarray = 1) -> np.ndarray:
        """Return how many seconds each client's message is on its way, (clients,).

        Parameters
        ----------
        size : float
            Bytes of the message.
        copies : int or numpy.ndarray
            How many of it each client sends at once.

        Raises
        ------
        ValueError
            If the size is below 0, or not finite.
        """
        if not 0 <= check_number("size", size) < np.inf:
            raise ValueError(f"the size of a message is 0 or more bytes; got {size}")
        return self.latency + copies * size / self.bandwidth

    def rounds(
        self, schedule: Graph | Callable[[int], Graph], num_rounds: int, size: float
    ) -> np.ndarray:
        """Return when each client ends each round, if it waits for its neighbours.

        Parameters
        ----------
        schedule : networkx.Graph or scipy.sparse.csr_array, or callable
            A graph, or a function from the round, 1, 2, ..., to a graph.
        num_rounds : int
            Number of rounds.
        size : float
            Bytes of a model.

        Returns
        -------
        numpy.ndarray
            Seconds, shape (num_rounds + 1, clients); those of round 0 are 0.

        Raises
        ------
        ValueError
            If a graph is not one of these clients, as `check_graph` says.
        """
        n = len(self.compute)
        ends = np.zeros((num_rounds + 1, n))
        for t in range(1, num_rounds + 1):
            graph = topology.at(schedule, t)
            topology.check_graph(graph, n, connected=False)
            receivers, senders = mixing.links(graph)
            copies = np.bincount(senders, minlength=n)
            ends[t] = trained = ends[t - 1] + self.compute
            there = trained + self.transfer(size, copies)
            np.maximum.at(ends[t], receivers, there[senders])
        return ends

    def server_rounds(
        self, chosen: Sequence[np.ndarray], size: float, bandwidth: float
    ) -> np.ndarray:
        """Return when a server ends each round, if it waits for all that it has chosen.

        Parameters
        ----------
        chosen : sequence of numpy.ndarray
            For each round, the clients that take part.
        size, bandwidth : float
            Bytes of a model; and how many bytes the server sends, and receives, in a
            second: its clients share them.

        Returns
        -------
        numpy.ndarray
            Seconds, shape (rounds + 1,); that of round 0 is 0.
        """
        ends = [0.0]
        for some in chosen:
            rate = np.minimum(self.bandwidth[some], bandwidth / len(some))
            way = self.latency[some] + size / rate
            ends.append(ends[-1] + float((2 * way + self.compute[some]).max()))
        return np.array(ends)

    def pace(self, size: float, slot: float) -> Pace:
        """Return the pace of clients that do not wait, for `gossip_cycles`.

        Parameters
        ----------
        size, slot : float
            Bytes of a model; and seconds of a slot, to which times are rounded up.
        """
        check_seconds("slot", slot)
        times = np.stack([self.compute, self.transfer(size)]) / slot
        return Pace(*np.ceil(times.round(9)).clip(1).astype(int))
