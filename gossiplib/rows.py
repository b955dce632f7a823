"""Models as the rows of a tensor: copying some of them, and how far apart they are."""

import math

import numpy as np
import torch

__all__ = ["Place", "consensus", "keep_freed_memory", "place", "put", "stack", "take"]

Place = slice | torch.Tensor


def stack(row: torch.Tensor, n: int) -> torch.Tensor:
    """Return n copies of a row.

    On Linux numpy asks for huge pages of memory, where torch does not: averaging, which
    jumps from row to row, is a tenth faster with them.
    """
    if row.device.type != "cpu":
        return row.repeat(n, 1)
    rows = torch.from_numpy(np.empty((n, len(row)), row.numpy().dtype))
    return rows.copy_(row)


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


def consensus(models: torch.Tensor, clients: np.ndarray) -> tuple[torch.Tensor, float]:
    """Return the mean of clients' models and their distance, in float64.

    The distance is `mixing.consensus_distance`; this one takes some rows at a time.
    """
    pieces = np.array_split(clients, 1 + len(clients) * models.shape[1] // 2**20)
    places = [place(ids, models.device) for ids in pieces]
    mean = sum(take(models, at).double().sum(dim=0) for at in places) / len(clients)
    squares = sum(float((take(models, at) - mean).square().sum()) for at in places)
    return mean, math.sqrt(squares / len(clients))


def keep_freed_memory() -> None:
    """Let the C library of Linux keep up to 62 MB that a program frees.

    By default it returns large pieces to the system at once, so that each next tensor
    of their size starts with page faults: a sixth of the time of a small step. It keeps
    pieces as large as the largest that it has seen freed, to 32 MB, and of them twice
    as much in all (mallopt(3), M_MMAP_THRESHOLD). Other systems do not mind.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)
