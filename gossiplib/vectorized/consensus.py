"""Averaging alone: values of clients, no learning.

The rounds of `vectorized.gossip_learning` without their training, by the same code. It
shows what an average function, a schedule and weights do on their own.
"""

from collections.abc import Callable, Iterator

import networkx as nx
import numpy as np
import torch
from flwr.app import ArrayRecord

from gossiplib.core import mixing, topology
from gossiplib.core.averaging import Average, weighted_mean
from gossiplib.core.models import array_bytes
from gossiplib.vectorized.averaging import Exchange, weigh

__all__ = ["averaging_rounds"]


def averaging_rounds(
    values: np.ndarray,
    schedule: topology.Schedule,
    *,
    average: Average = weighted_mean,
    weights: Callable[[nx.Graph], np.ndarray] = mixing.metropolis,
) -> Iterator[tuple[np.ndarray, int]]:
    """Go through rounds of averaging, without end: take as many as you need.

    Parameters
    ----------
    values : numpy.ndarray
        What each client begins with, shape (clients, d). Its data type is kept.
    schedule, average, weights
        As in `vectorized.gossip_learning`. A client's model is one array, (d,).

    Yields
    ------
    tuple
        The values after a round, shape (clients, d), and the bytes that clients sent
        in it. The array is a new one in each round.

    Raises
    ------
    ValueError
        If values, schedule or weights do not fit each other.

    Examples
    --------
    >>> import networkx as nx, numpy as np
    >>> rounds = averaging_rounds(np.arange(4.0)[:, None], nx.complete_graph(4))
    >>> values, sent = next(rounds)
    >>> values.ravel().tolist()
    [1.5, 1.5, 1.5, 1.5]
    """
    values = np.array(values, order="C")
    if values.ndim != 2 or values.dtype.kind != "f":
        raise ValueError(
            "values must be floats of shape (clients, d); got "
            f"{values.dtype} of shape {values.shape}"
        )
    if not np.isfinite(values).all():
        client = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
        raise ValueError(f"the values of client {client} are not finite")
    n, d = values.shape
    static = isinstance(schedule, nx.Graph)
    exchange = Exchange(average, {"values": (d,)}, n, chunk=max(16, 2_500_000 // d))
    server_round = 0
    links = None
    while True:
        server_round += 1
        graph = topology.at(schedule, server_round)
        if links is None or not static:
            topology.check_graph(graph, n, connected=static)
            here = np.array([topology.is_online(graph, i) for i in range(n)])
            links = weigh(graph, weights)
        after = values.copy()
        for ids, rows in exchange(torch.from_numpy(values), links, here, server_round):
            after[ids] = rows.numpy()
        size = exchange.message_bytes or array_bytes(ArrayRecord([values[0]]))
        yield after.copy(), len(links.among(here).receivers) * size
        values = after
