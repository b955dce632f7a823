"""Averaging alone, of values that clients hold: `gossip_learning` without learning."""

import itertools
from collections.abc import Iterator

import numpy as np
import torch
from flwr.app import ArrayRecord

from gossiplib.core import mixing, topology
from gossiplib.core.averaging import Average, weighted_mean
from gossiplib.system.records import array_bytes
from gossiplib.tasks.entrance import as_array
from gossiplib.vectorized.averaging import Exchange, RoundGraph

__all__ = ["averaging_rounds"]


def averaging_rounds(
    values: np.ndarray,
    schedule: topology.Schedule,
    *,
    average: Average = weighted_mean,
    weights: mixing.Weights = mixing.metropolis,
) -> Iterator[tuple[np.ndarray, int]]:
    """Go through rounds of averaging, without end: take as many as you need.

    Parameters
    ----------
    values : array_like
        What each client begins with, shape (clients, d). Its data type is kept.
    schedule : networkx.Graph, scipy.sparse.csr_array or callable
        The graph of the clients 0..n-1, or a function from the round (1, 2, ...) to a
        graph; see `topology`.
    average : callable
        Average function, see `core.averaging`; it is called for many clients at once.
        A client's model is one array, shape (d,).
    weights : callable
        graph -> mixing matrix W, dense or of scipy.sparse; see `mixing`. A function
        that takes ``sparse=True``, as those of `mixing` do, is asked for a sparse one.

    Yields
    ------
    tuple
        The values after a round, a new array of shape (clients, d), and the bytes that
        clients sent in it.

    Raises
    ------
    ValueError
        If values, schedule or weights do not fit each other (TypeError: schedule or
        weights give no graph, or no matrix).

    Examples
    --------
    >>> import networkx as nx, numpy as np
    >>> rounds = averaging_rounds(np.arange(4.0)[:, None], nx.complete_graph(4))
    >>> values, sent = next(rounds)
    >>> values.ravel().tolist()
    [1.5, 1.5, 1.5, 1.5]
    """
    values = np.array(as_array("values", values), order="C")
    floats = (np.float16, np.float32, np.float64)
    if values.ndim != 2 or not values.size or values.dtype not in floats:
        raise ValueError(
            "values must be floats of shape (clients, d); got "
            f"{values.dtype} of shape {values.shape}"
        )
    if not np.isfinite(values).all():
        client = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
        raise ValueError(f"the values of client {client} are not finite")
    n, d = values.shape
    exchange = Exchange(average, {"values": (d,)}, n, chunk=max(16, 2_500_000 // d))
    graph = RoundGraph(schedule, weights, n)
    graph.go_to(1)
    return _rounds(values, exchange, graph)


def _rounds(
    values: np.ndarray, exchange: Exchange, graph: RoundGraph
) -> Iterator[tuple[np.ndarray, int]]:
    for server_round in itertools.count(1):
        graph.go_to(server_round)
        W, here = graph.W, graph.online
        after = values.copy()
        for ids, rows in exchange(torch.from_numpy(values), W, here, server_round):
            after[ids] = rows.numpy()
        size = array_bytes(ArrayRecord([values[0]]))
        yield after.copy(), exchange.bytes or exchange.messages * size
        values = after
