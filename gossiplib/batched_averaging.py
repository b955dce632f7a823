"""Average functions, called for many clients at once.

For weighted means there is one sparse product instead, see `vectorized`.
"""

from collections.abc import Iterator

import numpy as np
import torch
from flwr.app import Context

from gossiplib.averaging import Average, Model, as_dtype
from gossiplib.batched import BatchedTask, chunks
from gossiplib.links import Links
from gossiplib.rows import place, take
from gossiplib.stacked import split

__all__ = ["average_each"]


def average_each(
    average: Average, trained: torch.Tensor, links: Links, batched: BatchedTask
) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
    """Average the models of all clients that hear someone.

    Clients that hear as many others, and have validation parts of one size, are
    averaged together. One of each group is also averaged alone, since a function that
    takes the first axis for one of a model's would go wrong in silence.

    Parameters
    ----------
    average : callable
        Average function, see `averaging`.
    trained : torch.Tensor
        All clients' models, one a row.
    links : Links
        Who hears whom.
    batched : BatchedTask
        Its task has the validation parts.

    Yields
    ------
    tuple
        Clients, and their averages as rows.

    Raises
    ------
    ValueError
        If the averages are of other shapes than the models, or depend on who else is
        averaged at the same time.
    """
    n, shapes = links.n, batched.shapes
    _, validation = batched.task.parts.span(np.arange(n), "validation")

    def lists(clients: np.ndarray) -> Model:
        rows = take(trained, place(clients, trained.device)).cpu().numpy()
        rows.flags.writeable = False  # as in a client: others' models may be beside it
        return list(split(rows, shapes).values())

    def called(ids: np.ndarray | int, senders: np.ndarray, weights: np.ndarray):
        own = lists(np.atleast_1d(ids))
        near = [lists(np.atleast_1d(j)) for j in senders]
        if np.ndim(ids) == 0:
            own, near = [a[0] for a in own], [[a[0] for a in m] for m in near]
        # No state: what a function kept in it would be lost in silence.
        config = {"partition-id": ids, "num-partitions": n}
        return own, average(own, near, weights, Context(0, 0, config, None, {}))

    for group, senders, weights in links.by_degree(validation):
        size = max(1, batched.chunk // len(weights))
        for some in chunks(np.arange(len(group)), size):
            ids = group[some]
            own, mixed = called(ids, senders[:, some], weights[:, some])
            rows = _rows(mixed, own)
            if some[0] == 0 and len(ids) > 1:
                _, alone = called(int(ids[0]), senders[:, 0], weights[:, 0])
                _check_alone(rows[0], alone, int(ids[0]))
            yield ids, torch.from_numpy(rows)


def _rows(mixed: Model, own: Model) -> np.ndarray:
    """Return averages as rows; check that they are as the models they come from."""
    found, wanted = [np.shape(a) for a in mixed], [a.shape for a in own]
    if found != wanted:
        raise ValueError(
            f"the average function returned arrays of shapes {found} for {wanted}: the "
            "first axis is the clients"
        )
    flat = [np.reshape(a, (len(a), -1)) for a in mixed]
    return as_dtype(np.concatenate(flat, axis=1), own[0].dtype)


def _check_alone(row: np.ndarray, alone: Model, client: int) -> None:
    expected = np.concatenate([np.ravel(array) for array in alone])
    if not np.allclose(row, expected, rtol=1e-3, atol=1e-4, equal_nan=True):
        raise ValueError(
            f"the average function gives client {client} another average alone than "
            "together with others: the first axis of all arrays is the clients, and "
            "each of the weights is an array of them"
        )
