"""A function on tensors that is called often, without what it costs to call it."""

from collections.abc import Callable

import torch
from torch.fx.experimental.proxy_tensor import make_fx

__all__ = ["Traced"]


class Traced:
    """A function on tensors that, when called often, is replaced by its operations.

    `vmap` and `grad` work out anew at each call which operations they come to. For few
    clients that takes longer than to run them; so the operations are recorded (which
    takes as long as some hundred calls), and repeated for inputs of the same shapes.

    Parameters
    ----------
    function : callable
        (models, x, y) -> tensors. The shape of x must give all other shapes and types.
    """

    AFTER = 100

    def __init__(self, function: Callable) -> None:
        self._function = function
        self._calls: dict[tuple, int] = {}
        self._traced: dict[tuple, Callable] = {}

    def __call__(self, models: dict, x: torch.Tensor, y: torch.Tensor) -> tuple:
        """Call the function."""
        if traced := self._traced.get(x.shape):
            return traced(models, x, y)
        self._calls[x.shape] = self._calls.get(x.shape, 0) + 1
        if self._calls[x.shape] == self.AFTER:
            self._traced[x.shape] = make_fx(self._function)(models, x, y)
        return self._function(models, x, y)
