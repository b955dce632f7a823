"""What makes the array engine fast and changes no number, each with what it buys.

The engine also keeps what does not change from round to round: where a chunk's rows
are, batches that are all of a client's examples, and W as a tensor.
"""

import contextlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from gossiplib.tasks.training import one_thread

__all__ = [
    "CHUNK",
    "SMALL",
    "Recorded",
    "keep_freed_memory",
    "repeat",
    "steady",
    "threads",
]

#: Bytes of models and examples that are worked on at once: on a CPU, about what its
#: caches hold; on a GPU, what keeps all of it busy.
CHUNK = {"cpu": 20e6, "cuda": 1e9}

#: Parameters of all clients together below which one thread does the work. More gain
#: nothing; where others run on the same cores, a step may then take 20 times as long.
SMALL = 2**19


def threads(models: torch.Tensor) -> contextlib.AbstractContextManager[None]:
    """Return a context in which torch uses as many threads as serve so many models."""
    small = models.device.type == "cpu" and models.numel() < SMALL
    return one_thread() if small else contextlib.nullcontext()


def keep_freed_memory() -> None:
    """Let the C library of Linux keep up to 62 MB that a program frees.

    By default it returns large pieces at once, and the next tensor of their size starts
    with page faults: a sixth of the time of a small step. It keeps pieces as large as
    the largest that it saw freed, to 32 MB, and twice that in all (mallopt(3),
    M_MMAP_THRESHOLD).
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)


def repeat(row: torch.Tensor, n: int) -> torch.Tensor:
    """Return n copies of a row, shape (n, len(row)).

    On Linux numpy asks for huge pages, and torch does not: with them averaging, which
    jumps from row to row, is a tenth faster.
    """
    if row.device.type != "cpu":
        return row.repeat(n, 1)
    rows = torch.from_numpy(np.empty((n, len(row)), row.numpy().dtype))
    return rows.copy_(row)


def steady(model: nn.Module) -> bool:
    """Return whether a model does the same at each call, as torch's own layers do.

    What a reader writes, a layer or a hook, may count its calls or look at the clock.
    """
    return all(
        type(module).__module__.startswith("torch.nn.")
        and "forward" not in vars(module)
        and not (module._forward_hooks or module._forward_pre_hooks)
        for module in model.modules()
    )


class Recorded:
    """A function on tensors that, when called often, is replaced by its operations.

    `vmap` and `grad` work out anew at each call which operations they come to. For few
    clients that takes longer than to run them; so they are recorded (which takes as
    long as some hundred calls), and repeated where x, and so all else, has the same
    shape.
    """

    AFTER = 100  # calls with one shape, then the operations are recorded

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._calls: Counter[torch.Size] = Counter()
        self._recorded: dict[torch.Size, Callable[..., Any]] = {}

    def __call__(
        self, models: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor
    ) -> Any:
        """Call the function, or repeat its operations."""
        if recorded := self._recorded.get(x.shape):
            return recorded(models, x, y)
        self._calls[x.shape] += 1
        if self._calls[x.shape] == self.AFTER:
            with contextlib.suppress(Exception):  # then it is called, as before
                self._recorded[x.shape] = make_fx(self._function)(models, x, y)
        return self._function(models, x, y)
