"""Models as the rows of a tensor: copying some of them, and how far apart they are."""

import math

import numpy as np
import torch

__all__ = ["consensus", "keep_freed_memory", "put", "take"]


def take(models: torch.Tensor, clients: np.ndarray) -> torch.Tensor:
    """Return the rows of clients: as a view if they follow on each other, or a copy."""
    if (run := _run(clients)) is not None:
        return models[run]
    return torch.index_select(models, 0, torch.from_numpy(clients).to(models.device))


def put(models: torch.Tensor, clients: np.ndarray, rows: torch.Tensor) -> None:
    """Write the rows of clients, unless `take` gave a view of them."""
    if (run := _run(clients)) is None:
        index = torch.from_numpy(clients).to(models.device)
        models.index_copy_(0, index, rows.to(models.device))
    elif rows.data_ptr() != models[run].data_ptr():
        models[run] = rows


def _run(clients: np.ndarray) -> slice | None:
    """Return clients as a slice, if they follow on each other."""
    if len(clients) and (np.diff(clients) == 1).all():
        return slice(int(clients[0]), int(clients[-1]) + 1)
    return None


def consensus(models: torch.Tensor, clients: np.ndarray) -> tuple[torch.Tensor, float]:
    """Return the mean of clients' models and their distance, in float64.

    The distance is `mixing.consensus_distance`; this one takes some rows at a time.
    """
    pieces = np.array_split(clients, 1 + len(clients) * models.shape[1] // 2**22)
    total = sum(take(models, ids).double().sum(dim=0) for ids in pieces)
    mean = total / len(clients)
    squares = sum(
        float((take(models, ids).double() - mean).square().sum()) for ids in pieces
    )
    return mean, math.sqrt(squares / len(clients))


def keep_freed_memory() -> None:
    """Let the C library of Linux keep up to 62 MB that a program frees.

    By default it returns large pieces to the system at once, so that each next tensor
    of their size starts with page faults: a sixth of the time of a small step. It keeps
    pieces as large as the largest that it has seen freed, to 32 MB, and of them twice
    as much in all (mallopt(3), M_MMAP_THRESHOLD). Other systems do not mind.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)
