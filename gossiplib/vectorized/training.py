"""Local training and evaluation of many models at once: `training`, for a stack.

The models are the rows of one tensor. `torch.func` turns a function of one client's
model and examples into the same function of many clients' (`vmap`), and a loss into its
gradient (`grad_and_value`). So a step of all clients is a few large operations, where
a loop over clients makes many small ones.

A function on tensors that is called often, without what it costs to call it.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch.func import functional_call, grad_and_value, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F

from gossiplib.core.models import unravel
from gossiplib.tasks.task import Task
from gossiplib.tasks.training import check_training, shuffle_keys
from gossiplib.vectorized.rows import chunks, stack

__all__ = ["BatchedTask", "Traced"]


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


#: Bytes of models and examples that are worked on at once: on a CPU, about what its
#: caches hold; on a GPU, what keeps all of it busy.
CHUNK = {"cpu": 20e6, "cuda": 1e9}


class BatchedTask:
    """A task's training and evaluation, for many clients at once.

    Parameters
    ----------
    task : Task
        Data, model and seed.
    device : torch.device
        Where data and models are.
    epochs, batch_size, lr, momentum, weight_decay : int and float
        As in `Task.client_app`.

    Attributes
    ----------
    shapes : dict[str, tuple of int]
        Names and shapes of a model's arrays.
    initial : torch.Tensor
        The first model, as a row.
    sizes : numpy.ndarray
        Training examples of each client.
    chunk : int
        Clients that are best trained at once.

    Raises
    ------
    ValueError
        If the model has something that no gradient trains: buffers, as batch
        normalisation does, frozen, shared or unused parameters; if it has too few
        outputs, or something that `vmap` does not take, such as dropout.
    """

    def __init__(
        self,
        task: Task,
        device: torch.device,
        *,
        epochs: int,
        batch_size: int,
        lr: float,
        momentum: float,
        weight_decay: float,
    ) -> None:
        rates = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        check_training(epochs, batch_size, **rates)
        self.chunk_bytes = CHUNK.get(device.type, CHUNK["cuda"])
        self.task, self.device = task, device
        self.epochs, self.batch_size, self.lr = epochs, batch_size, lr
        self.momentum, self.weight_decay = momentum, weight_decay
        self._model = task.model().to(device)
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
        self._kept: tuple[np.ndarray, list] | None = None
        self._features = self._x[0].numel()
        _, self.sizes = task.parts.span(np.arange(task.num_clients), "train")
        in_batch = min(batch_size, int(self.sizes.max()))
        self._one_batch = in_batch == self.sizes.max()
        self.chunk = self._chunk(len(self.initial) + in_batch * self._features)

        def logits(rows: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            return functional_call(self._model, unravel(rows, self.shapes), (x,))

        def loss(model: dict, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            out = functional_call(self._model, model, (x,))
            return (F.log_softmax(out, dim=-1) * y).sum()

        self._logits, self._logits_common = vmap(logits), vmap(logits, (0, None))
        gradient = vmap(grad_and_value(loss))
        outputs = self._try(gradient)
        self._one_hot = torch.eye(outputs, dtype=task.x.dtype, device=device)
        self._gradient = Traced(gradient)

    def start(self) -> torch.Tensor:
        """Return what each client starts with, one model a row."""
        rows = stack(self.initial, self.task.num_clients)
        if not self.task.same_start:
            for i in range(self.task.num_clients):
                arrays = self.task.model(i).state_dict().values()
                rows[i] = torch.cat([a.ravel() for a in arrays])
        return rows

    def _try(self, gradient: Callable) -> int:
        """Try the model on an example; return the number of its outputs.

        What fails here would fail, or differ from `training`, in the middle of a run.
        """
        x = self._x[:1]
        out = self._model(x)
        if out.ndim != 2 or len(out) != 1 or out.shape[1] < self.task.num_classes:
            raise ValueError(
                f"the model makes {tuple(out.shape)} of an example; it must give an "
                f"output to each of {self.task.num_classes} classes"
            )
        out.sum().backward()
        unused = [k for k, p in self._model.named_parameters() if p.grad is None]
        if unused:
            raise ValueError(f"no output depends on {', '.join(unused)}: take it out")
        self._model.zero_grad()
        models = unravel(self.initial[None], self.shapes)
        try:
            gradient(models, x[None], torch.zeros_like(out)[None])
        except RuntimeError as error:
            raise ValueError(
                "torch.func.vmap cannot take this model (those with dropout or "
                f"recurrent layers, among others): {error}. Use LocalGrid for it"
            ) from error
        return out.shape[1]

    def _chunk(self, values: int) -> int:
        """Return how many clients with so many values each make a good chunk."""
        per_client = values * self.initial.element_size()
        return max(16, int(self.chunk_bytes / per_client))

    def train(
        self,
        old: torch.Tensor,
        new: torch.Tensor,
        clients: np.ndarray,
        keys: list[np.ndarray] | None,
    ) -> np.ndarray:
        """Train models; return each client's mean loss, as `training.train`.

        Parameters
        ----------
        old, new : torch.Tensor
            One client's model a row, before; and where to write them.
        clients : numpy.ndarray
            Their numbers, those with most training examples first.
        keys : list of numpy.ndarray or None
            What `keys` returns for this round.
        """
        source, target = unravel(old, self.shapes), unravel(new, self.shapes)
        velocity: dict[str, torch.Tensor] = {}
        losses = torch.zeros(len(old), dtype=old.dtype, device=self.device)
        for x, y in self._batches(clients, keys):
            on = len(x)  # as the longest come first, these are the first rows
            models = {name: array[:on] for name, array in source.items()}
            gradient, loss = self._gradient(models, x, y)
            losses[:on] += loss
            self._step(models, gradient, velocity, target)
            source = target  # the first step, which all clients make, filled it
        steps = self.epochs * -(-self.sizes[clients] // self.batch_size)
        return losses.cpu().numpy() / steps

    def _step(
        self,
        models: dict[str, torch.Tensor],
        gradient: dict[str, torch.Tensor],
        velocity: dict[str, torch.Tensor],
        target: dict[str, torch.Tensor],
    ) -> None:
        """Make a step of `torch.optim.SGD`; write it to the first rows of target."""
        for name, array in models.items():
            step = gradient[name]
            if self.weight_decay:
                step.add_(array, alpha=self.weight_decay)
            if self.momentum:
                v = velocity.setdefault(name, torch.zeros_like(step))[: len(step)]
                step = v.mul_(self.momentum).add_(step)
            torch.sub(array, step, alpha=self.lr, out=target[name][: len(array)])

    def keys(self, server_round: int) -> list[np.ndarray] | None:
        """Return all examples' places in each epoch of a round, see `shuffle_keys`."""
        index = self.task.parts.index
        if self._one_batch:
            return None  # one batch a client: its order does not matter
        return [
            shuffle_keys(self.task.seed, server_round, e * len(index), len(index))
            for e in range(self.epochs)
        ]

    def _order(
        self, first: np.ndarray, count: np.ndarray, keys: np.ndarray | None
    ) -> np.ndarray:
        """Return places in `parts.index` of each client's examples, in the order.

        Shape (clients, most examples); what lies beyond a client's last is filler, one
        of its own examples: others may hold NaN, which no share of 0 makes harmless.
        """
        within = np.arange(count.max(initial=0))
        places = first[:, None] + np.minimum(within, count[:, None] - 1)
        if keys is None:
            return places
        by_key = np.where(within < count[:, None], keys[places], np.inf)
        return np.take_along_axis(places, np.argsort(by_key, axis=1), axis=1)

    def _batches(
        self, clients: np.ndarray, keys: list[np.ndarray] | None
    ) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
        """Go through the batches of clients: x, and y with the example's share.

        x has the shape (clients, examples, ...) and y (clients, examples, classes): the
        one-hot class times minus the share of the example in the mean, so that the loss
        is the sum of y times the logarithms of the outputs. Clients without examples
        left are left out; clients with fewer than others have filler, which counts 0.

        Where each client has one batch, the last chunk's is kept: a small run has one
        chunk, and needs the same in each round.
        """
        if keys is None and self._kept and np.array_equal(clients, self._kept[0]):
            return self._kept[1] * self.epochs
        batches = self._make_batches(clients, keys)
        if keys is None:
            self._kept = clients, [next(batches)]
            return self._kept[1] * self.epochs
        return batches

    def _make_batches(
        self, clients: np.ndarray, keys: list[np.ndarray] | None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        first, count = self.task.parts.span(clients, "train")
        for epoch in range(self.epochs):
            order = self._order(first, count, None if keys is None else keys[epoch])
            for start in range(0, order.shape[1], self.batch_size):
                on = int(np.count_nonzero(count > start))
                places = order[:on, start : start + self.batch_size]
                x, y = self._examples(places)
                share = self._share(count[:on] - start, places.shape[1])
                one_hot = self._one_hot.index_select(0, y.ravel()).view(*y.shape, -1)
                yield x, one_hot.mul_(-share[..., None])

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
        """Return each client's metrics, as `training.evaluate`.

        Parameters
        ----------
        models : torch.Tensor
            All clients' models.
        clients : numpy.ndarray
            Those to evaluate.
        part : str
            "common" for the common test set, or a part of the client's own.
        """
        loss, accuracy = np.empty(len(clients)), np.empty(len(clients))
        common = part == "common"
        if common:
            x, y = (tensor.to(self.device) for tensor in self.task.test)
            if not (width := len(y)):
                raise ValueError("the common test set is empty: test_fraction is 0")
        else:
            first, count = self.task.parts.span(clients, part)
            width = count.max(initial=1)
        chunk = self._chunk(len(self.initial) + width * self._features)
        for some in chunks(np.arange(len(clients)), chunk):
            ids = torch.from_numpy(clients[some]).to(self.device)
            rows = models.index_select(0, ids)
            if common:
                out, label = self._logits_common(rows, x), y.expand(len(rows), -1)
                share = torch.full((len(rows), width), 1 / width).to(rows)
            else:
                x, label = self._examples(self._order(first[some], count[some], None))
                out = self._logits(rows, x)
                share = self._share(count[some], label.shape[1])
            each = F.cross_entropy(out.mT, label, reduction="none")
            loss[some] = (each * share).sum(1).cpu()
            hits = ((out.argmax(-1) == label) & (share > 0)).sum(1)
            accuracy[some] = hits.cpu().numpy() / (width if common else count[some])
        return {"loss": loss, "accuracy": accuracy}
