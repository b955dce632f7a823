"""Local training and evaluation of stacked models: `tasks.training`, for many at once.

`torch.func` turns a function of one client's model and examples into the same function
of many clients' (`vmap`), and a loss into its gradient (`grad_and_value`). So a step of
all clients is a few large operations, where a loop over clients makes many small ones.
"""

import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import nn
from torch.func import functional_call, grad_and_value, vmap
from torch.nn import functional as F

from gossiplib.system.records import unravel
from gossiplib.tasks.task import Task
from gossiplib.tasks.training import check_training, one_thread, seeded, shuffle_keys
from gossiplib.vectorized._speed import (
    CHUNK,
    KEPT,
    WRITTEN,
    Recorded,
    repeat,
    steady,
    written_out,
)
from gossiplib.vectorized.rows import chunks, take

__all__ = ["Options", "StackedTask"]

Batch: TypeAlias = tuple[torch.Tensor, torch.Tensor]  # x and y, see `_batches`
Tensors: TypeAlias = dict[str, torch.Tensor]
Keys: TypeAlias = list[np.ndarray] | None  # of a round's epochs, see `StackedTask.keys`


class Options(NamedTuple):
    """How clients train in a round, see `gossip_learning`."""

    epochs: int
    batch_size: int
    lr: float
    momentum: float
    weight_decay: float


def _around(models: Iterable[nn.Module], x: torch.Tensor) -> dict[str, str]:
    """Return what a call of a model may change, beside its parameters."""
    state: dict[str, list[Any]] = {
        "its examples": [x.cpu().numpy().tobytes()],
        "numpy.random": [np.random.get_state()],
        "random": [random.getstate()],
    }
    for model in models:
        for path, module in model.named_modules():
            buffers = module.named_buffers(recurse=False)
            for name, value in [*vars(module).items(), *buffers]:
                if name not in {"_parameters", "_buffers", "_modules"}:
                    state.setdefault(f"{path}.{name}".lstrip("."), []).append(value)
    return {name: repr(values) for name, values in state.items()}


def _close(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Return whether the two are the same to rounding."""
    size = 1e-3 * float(b.nan_to_num(0, 0, 0).abs().max())
    return torch.allclose(a, b, rtol=1e-3, atol=size, equal_nan=True)


class StackedTask:
    """A task's training and evaluation, for many clients at once, on a device.

    `initial` is the first model, as a row; `sizes` are the training examples of each
    client; `chunk` clients are best worked on at once, and `best` trained.
    """

    def __init__(self, task: Task, device: torch.device, options: Options) -> None:
        options = Options(**check_training(**options._asdict()))
        self.task, self.device, self.options = task, device, options
        self._model, judged = task.model().to(device), task.model().to(device).eval()
        state = self._model.state_dict()
        trained = [k for k, p in self._model.named_parameters() if p.requires_grad]
        if untrained := sorted(set(state) - set(trained)):
            raise ValueError(
                f"the vectorised engine trains all that a model holds, and cannot "
                f"train {', '.join(untrained)}: take a model without buffers (batch "
                "normalisation has some, group normalisation none), frozen or shared "
                "parameters"
            )
        self.shapes = {name: tuple(state[name].shape) for name in trained}
        self.initial = torch.cat([p.detach().ravel() for p in state.values()])
        self._x, self._y = task.x.to(device), task.y.to(device)
        _, self.sizes = task.parts.span(np.arange(task.num_clients), "train")
        most = int(self.sizes.max())
        self._one_batch = most <= options.batch_size
        self._steps = options.epochs * -(-self.sizes // options.batch_size)

        def logits(rows: torch.Tensor, x: torch.Tensor) -> Any:
            return functional_call(judged, unravel(rows, self.shapes), (x,))

        def loss(model: Tensors, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            out = functional_call(self._model, model, (x,))
            return (F.log_softmax(out, dim=-1) * y).sum()

        step = grad_and_value(loss)
        self._logits, self._logits_common = vmap(logits), vmap(logits, (0, None))
        self._classes = self._try(judged, logits, step)
        self._gradient: Callable[..., Any] = vmap(step)
        examples = min(options.batch_size, most)
        self.chunk_bytes = CHUNK.get(device.type, CHUNK["cuda"])
        self.chunk = self.best = self._chunk(examples, self.chunk_bytes)
        if by_hand := written_out(self._model):
            self._gradient = by_hand
            self.best = self._chunk(examples, WRITTEN.get(device.type, CHUNK["cuda"]))
        elif steady(self._model):
            self._gradient = Recorded(self._gradient)
        size = len(self.sizes) * most * self._x[0].numel() * self._x.element_size()
        self._keeps = self._one_batch and size <= KEPT

    @one_thread()
    @torch.no_grad()
    def _try(
        self, judged: nn.Module, logits: Callable[..., Any], step: Callable[..., Any]
    ) -> int:
        """Do what a run does, on a few examples; return the number of outputs.

        Two models meet them together, as in a run, and each meets them one by one, as a
        client might: both must come to the same, and leave all else as it was.
        """

        def made(row: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> Tensors:
            gradient, loss = step(unravel(row, self.shapes), x, y)
            sums = [a.ravel() for a in gradient.values()]
            return {"out": logits(row, x), "sum": torch.cat([loss[None], *sums])}

        x, both = self._x[:3].clone(), (self._model, judged)
        rows = torch.stack([self.initial, 0.9 * self.initial])
        try:
            with torch.enable_grad(), seeded(0):
                out = self._model(x)  # also since a first call may keep what all use
                named = dict(self._model.named_parameters())
                slopes = torch.autograd.grad(
                    out.sum(), [*named.values()], allow_unused=True
                )
            y = logits(rows[0], x)  # any numbers
            before = _around(both, x)
            stacked = vmap(made)(rows, torch.stack([x, x]), torch.stack([y, y]))
            common = self._logits_common(rows, x)
            one_by_one = [
                made(row, x[i, None], y[i, None]) for row in rows for i in range(len(x))
            ]
            after = _around(both, x)
        except Exception as error:
            raise ValueError(
                "torch.func.vmap cannot take this model (those with dropout or "
                f"recurrent layers, among others): {error}. Use LocalGrid for it"
            ) from error
        names = [k for k, slope in zip(named, slopes, strict=True) if slope is None]
        if names:
            raise ValueError(f"no output depends on {', '.join(names)}: take it out")
        if changed := [k for k in after if after[k] != before.get(k)]:
            raise ValueError(
                f"a call of the model changes {', '.join(changed)}, and on arrays one "
                "call is of many clients. Use LocalGrid for it"
            )
        alone, each = (
            torch.stack([one[k] for one in one_by_one]).view(2, len(x), -1)
            for k in ("out", "sum")
        )
        pairs = (stacked["out"], alone), (common, alone), (stacked["sum"], each.sum(1))
        if not all(_close(a, b) for a, b in pairs):
            raise ValueError(
                "the model's outputs differ from call to call, or those of an example "
                "depend on the others in its batch (as where a batch is normalised). "
                "Use LocalGrid for it"
            )
        return int(y.shape[1])

    def _chunk(self, examples: int, size: float) -> int:
        """Return how many clients with so many examples each make a good chunk."""
        values = len(self.initial) + examples * self._x[0].numel()
        return max(16, int(size / (values * self.initial.element_size())))

    def start(self) -> torch.Tensor:
        """Return what each client starts with, shape (clients, parameters)."""
        rows = repeat(self.initial, self.task.num_clients)
        if not self.task.same_start:
            for i in range(self.task.num_clients):
                arrays = self.task.model(i).state_dict().values()
                rows[i] = torch.cat([a.ravel() for a in arrays])
        return rows

    def train(
        self,
        old: torch.Tensor,
        new: torch.Tensor,
        clients: np.ndarray,
        keys: Keys,
        kept: list[Batch],
    ) -> np.ndarray:
        """Train `old` models to `new` ones; return losses, as `tasks.training.train`.

        Clients with most training examples come first. `keys` are those of the round,
        and `kept` is where batches stay for their next one, if all rounds have them.
        """
        whole = unravel(new.copy_(old), self.shapes)
        velocity: Tensors = {}
        losses: torch.Tensor | None = None
        for x, y in self._batches(clients, keys, kept):
            on = len(x)  # as the longest come first, these are the first rows
            models = whole
            if on < len(new):
                models = {name: array[:on] for name, array in whole.items()}
            gradient, loss = self._gradient(models, x, y)
            if losses is None:  # the first step, which all clients make
                losses = loss
            else:
                losses[:on] += loss
            self._step(models, gradient, velocity)
        assert losses is not None
        return np.asarray(losses.cpu().numpy() / self._steps[clients])

    def _step(self, models: Tensors, gradient: Tensors, velocity: Tensors) -> None:
        """Make a step of `torch.optim.SGD`, in place."""
        how = self.options
        for name, array in models.items():
            step = gradient[name]
            if how.weight_decay:
                step.add_(array, alpha=how.weight_decay)
            if how.momentum:
                v = velocity.setdefault(name, torch.zeros_like(step))[: len(step)]
                step = v.mul_(how.momentum).add_(step)
            array.sub_(step, alpha=how.lr)

    def keys(self, server_round: int) -> Keys:
        """Return all examples' places in each epoch of a round, see `shuffle_keys`."""
        if self._one_batch:  # its order does not matter
            return None
        seed, n = self.task.seed, len(self.task.parts.index)
        epochs = range(self.options.epochs)
        return [shuffle_keys(seed, server_round, e * n, n) for e in epochs]

    def _batches(
        self, clients: np.ndarray, keys: Keys, kept: list[Batch]
    ) -> Iterable[Batch]:
        """Go through the batches of clients: x, and y with the example's share.

        y has the shape (clients, examples, classes): the one-hot class times minus the
        share of the example in the mean, so that the loss is the sum of y times the
        logarithms of the outputs. Clients without examples left are left out; those
        with fewer than others have filler, which counts 0.
        """
        if keys is not None:
            return self._make_batches(clients, keys)
        batch = kept or [*self._make_batches(clients, [None])]
        if self._keeps:
            kept[:] = batch
        return batch * self.options.epochs

    def _make_batches(
        self, clients: np.ndarray, keys: Iterable[np.ndarray | None]
    ) -> Iterator[Batch]:
        first, count = self.task.parts.span(clients, "train")
        for keys_of_epoch in keys:
            order = self._order(first, count, keys_of_epoch)
            for start in range(0, order.shape[1], self.options.batch_size):
                on = int(np.count_nonzero(count > start))
                places = order[:on, start : start + self.options.batch_size]
                x, y = self._examples(places)
                share = self._share(count[:on] - start, places.shape[1])
                one_hot = share.new_zeros(self._classes, *y.shape)
                one_hot.scatter_(0, y[None], -share[None])
                yield x, one_hot.movedim(0, -1)  # so, see `written_out`

    def _order(
        self, first: np.ndarray, count: np.ndarray, keys: np.ndarray | None
    ) -> np.ndarray:
        """Return places in `parts.index` of each client's examples, in the order.

        What lies beyond a client's last is filler, one of its own examples: others may
        hold NaN, which no share of 0 makes harmless.
        """
        within = np.arange(count.max(initial=0))
        places = np.asarray(first[:, None] + np.minimum(within, count[:, None] - 1))
        if keys is None:
            return places
        by_key = np.where(within < count[:, None], keys[places], np.inf)
        return np.take_along_axis(places, np.argsort(by_key, axis=1), axis=1)

    def _share(self, count: np.ndarray, width: int) -> torch.Tensor:
        """Return what each of a batch's examples counts in the mean: filler nothing."""
        size = np.minimum(count, width)[:, None]
        share = (np.arange(width) < size) / size
        return torch.from_numpy(share).to(self.device, self.initial.dtype)

    def _examples(self, places: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Return x and y at places in `parts.index`."""
        rows = torch.from_numpy(self.task.parts.index[places]).to(self.device)
        x = torch.index_select(self._x, 0, rows.ravel())
        y = torch.index_select(self._y, 0, rows.ravel())
        return x.view(*rows.shape, *self._x.shape[1:]), y.view(rows.shape)

    @torch.no_grad()
    def evaluate(
        self, models: torch.Tensor, clients: np.ndarray, part: str
    ) -> dict[str, np.ndarray]:
        """Return loss and accuracy of some clients, as `tasks.training.evaluate`.

        `models` are all clients'. `part` is one of the client's own, or "common".
        """
        loss, accuracy = np.empty(len(clients)), np.empty(len(clients))
        common = part == "common"
        if common:
            x, y = (tensor.to(self.device) for tensor in self.task.test)
            if not len(y):
                raise ValueError("the common test set is empty: test_fraction is 0")
            count = np.full(len(clients), len(y))
        else:
            first, count = self.task.parts.span(clients, part)
        size = self._chunk(count.max(initial=1), self.chunk_bytes)
        for some in chunks(np.arange(len(clients)), size):
            rows = take(models, torch.from_numpy(clients[some]).to(self.device))
            if common:
                out, label = self._logits_common(rows, x), y.expand(len(rows), -1)
                share = torch.full_like(label, 1 / len(y), dtype=rows.dtype)
            else:
                x, label = self._examples(self._order(first[some], count[some], None))
                out = self._logits(rows, x)
                share = self._share(count[some], label.shape[1])
            each = F.cross_entropy(out.mT, label, reduction="none")
            loss[some] = (each * share).sum(1).cpu()
            hits = ((out.argmax(-1) == label) & (share > 0)).sum(1)
            accuracy[some] = hits.cpu().numpy() / count[some]
        return {"loss": loss, "accuracy": accuracy}
