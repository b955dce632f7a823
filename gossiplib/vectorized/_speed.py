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

aten = torch.ops.aten

__all__ = [
    "CHUNK",
    "KEPT",
    "SMALL",
    "WRITTEN",
    "Recorded",
    "keep_freed_memory",
    "repeat",
    "steady",
    "threads",
    "written_out",
]

#: Bytes of models and examples that are worked on at once: on a CPU, about what its
#: caches hold; on a GPU, what keeps all of it busy.
CHUNK = {"cpu": 20e6, "cuda": 1e9}

#: The same where the gradient is `written_out`, and calls cost less.
WRITTEN = {"cpu": 2e6}

#: Bytes of examples up to which batches stay for the next round, if all are the same.
KEPT = 64e6

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


#: Activations that `written_out` knows, each with the gradient of its input, made from
#: that of its output, and its output.
ACTIVATIONS: dict[type, tuple[Callable[..., Any], Callable[..., Any]]] = {
    nn.ReLU: (torch.relu, lambda slope, out: aten.threshold_backward(slope, out, 0)),
    nn.Sigmoid: (torch.sigmoid, aten.sigmoid_backward),
    nn.Tanh: (torch.tanh, aten.tanh_backward),
}


def written_out(model: nn.Module) -> Callable[..., Any] | None:
    """Return the gradient of a model of linear layers and activations, or None.

    It takes and returns what `vmap(grad_and_value(loss))` of `StackedTask` does, in
    half of the operations. A softmax over a last axis of ten classes takes longer than
    the products; over a first axis, the copy that makes it so included, a ninth of it.
    """
    layers = [*model] if type(model) is nn.Sequential else [model]
    linear = [layer for layer in layers if type(layer) is nn.Linear]
    known = len(linear) + sum(type(layer) in ACTIVATIONS for layer in layers)
    if known < len(layers) or not steady(model) or any(a.bias is None for a in linear):
        return None

    def gradient(
        models: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        arrays, out, done = iter(models.values()), x, []
        for layer in layers:
            into, weight = out, None
            if type(layer) is nn.Linear:
                weight, bias = next(arrays), next(arrays)
                out = torch.baddbmm(bias[:, None], into, weight.mT)
            else:
                out = ACTIVATIONS[type(layer)][0](into)
            done.append((layer, weight, into, out))
        y = y.movedim(-1, 0)
        logs = out.movedim(-1, 0).contiguous().log_softmax(0)
        loss = (logs * y).sum((0, 2))
        slope = aten._log_softmax_backward_data(y, logs, 0, y.dtype).movedim(0, -1)
        gradients = []
        for layer, weight, into, out in reversed(done):
            if weight is None:
                slope = ACTIVATIONS[type(layer)][1](slope, out)
                continue
            gradients += [slope.sum(1), torch.bmm(slope.mT, into)]
            if into is not x:
                slope = torch.bmm(slope, weight)
        return dict(zip(models, reversed(gradients), strict=True)), loss

    return gradient


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
