"""What the clients learn: data, its spread over the clients, a model, training.

A `Task` holds one data set, split into a common test set, which no client trains on,
and a part for each client, itself split into a training, a validation and a test part.
`digits` and `spambase` make the two tasks of the series; `Task` takes any other data.
Nothing here knows of gossip.
"""

import functools
from collections.abc import Callable
from importlib import resources
from typing import Any, TypeAlias

import numpy as np
import torch
from flwr.app import (
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp
from torch import nn
from torch.func import functional_call, vmap
from torch.nn import functional as F

from gossiplib.system.numbers import check_share, check_whole, rng
from gossiplib.system.records import record_of
from gossiplib.tasks.partition import deal, parts, spread
from gossiplib.tasks.training import (
    check_training,
    evaluate,
    one_thread,
    shuffle_keys,
    train,
)

__all__ = ["Task", "digits", "spambase"]

Examples: TypeAlias = tuple[torch.Tensor, torch.Tensor]


class Task:
    """A classification problem that is spread over clients.

    Parameters
    ----------
    x, y : numpy.ndarray
        All examples, shapes (examples, features) and (examples,); y holds classes
        0, 1, ...
    num_clients : int
        Number of clients.
    partition : {"dirichlet", "iid", "classes", "dealt"}
        How flwr-datasets spreads the examples: by a Dirichlet distribution over the
        classes, evenly, or two classes to each client. Or "dealt", for more clients
        than there is data for: each gets some at random, which others hold as well.
    alpha : float
        Concentration of the Dirichlet distribution: small is uneven.
    examples : int
        Examples that each client is dealt.
    holdout : float
        Share of a client's examples, at least one, in its validation part, and as
        many in its test part. 0 leaves all of them to training.
    hidden : int
        Width of the hidden layer of the model; 0 is logistic regression.
    build : callable, optional
        () -> torch.nn.Module, a model in place of those: from (batch, features) to
        logits, (batch, classes).
    test_fraction : float
        Share of the examples in the common test set.
    dtype : torch.dtype
        Data type of examples and models: `torch.float32` or `torch.float64`.
    same_start : bool
        Whether all clients start with the same model, or each with its own.
    seed : int
        Seed of the splits, of the initial model and of local training.

    Attributes
    ----------
    x, y : torch.Tensor
        All examples.
    parts : Parts
        Which rows of them each client has: ``parts.span(client, "train")`` is where
        they begin in ``parts.index``, and how many there are.
    test : tuple of torch.Tensor
        x and y of the common test set.
    num_clients, num_classes, seed : int

    Raises
    ------
    ValueError
        If a client would get fewer than 3 examples, one for each of its parts.
    """

    def __init__(
        self,
        x: np.ndarray,
        y: np.ndarray,
        num_clients: int,
        *,
        partition: str = "dirichlet",
        alpha: float = 0.3,
        examples: int = 10,
        holdout: float = 0.1,
        hidden: int = 0,
        build: Callable[[], nn.Module] | None = None,
        test_fraction: float = 0.2,
        dtype: torch.dtype = torch.float32,
        same_start: bool = True,
        seed: int = 0,
    ) -> None:
        if len(x) != len(y):
            raise ValueError(f"{len(x)} examples have {len(y)} labels")
        check_whole("num_clients", num_clients, 1)
        check_share("test_fraction", test_fraction)
        order = rng(seed).permutation(len(y))
        test, pool = np.split(order, [round(test_fraction * len(y))])
        if partition == "dealt":
            places, sizes = deal(len(pool), num_clients, examples, seed)
        else:
            least = 3 if holdout else 1
            places, sizes = spread(y[pool], num_clients, partition, alpha, least, seed)
        self.parts = parts(pool[places], sizes, holdout)
        self.x = torch.tensor(np.ascontiguousarray(x), dtype=dtype)
        self.y = torch.tensor(y, dtype=torch.int64)
        self.test: Examples = self.x[test], self.y[test]
        self.num_clients, self.num_classes = num_clients, int(y.max()) + 1
        self.seed, self.same_start = seed, same_start
        self._build = build or functools.partial(
            _perceptron, x.shape[1], hidden, self.num_classes
        )

    def part(self, client: int | np.ndarray, name: str) -> Examples:
        """Return x and y of a client's part.

        Parameters
        ----------
        client : int or numpy.ndarray
            A client; or many, as the array engine asks, whose parts are of one size.
        name : {"train", "validation", "test"}
            The part.

        Returns
        -------
        tuple of torch.Tensor
            Shapes (examples, features) and (examples,); for many clients one axis more,
            the first, (clients, ...).

        Raises
        ------
        ValueError
            If there is no such part, or those of many clients are not of one size.
        """
        first, count = self.parts.span(client, name)
        if np.ndim(client) and len(sizes := np.unique(count)) > 1:
            raise ValueError(f"parts of one size are needed, not of {sizes}")
        rows = self.parts.index[first[..., None] + np.arange(count.flat[0])]
        return self.x[rows], self.y[rows]

    def label_counts(self) -> np.ndarray:
        """Return how many training examples of each class each client has.

        The shape is (clients, classes).
        """
        labels = [self.part(i, "train")[1] for i in range(self.num_clients)]
        return np.stack([np.bincount(y, minlength=self.num_classes) for y in labels])

    def model(self, client: int | None = None) -> nn.Module:
        """Return a new model with the initial parameters, the same at each call.

        For a client, those that it starts with (see `same_start`).
        """
        seed = self.seed
        if client is not None and not self.same_start:
            seed = int(np.random.SeedSequence([seed, client]).generate_state(1)[0])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self._build().to(self.x.dtype)

    def initial_arrays(self) -> ArrayRecord:
        """Return the parameters of `model()` as Flower sends them.

        Where clients start with models of their own, they do not look at it.
        """
        return ArrayRecord(self.model().state_dict())

    def client_app(
        self,
        *,
        epochs: int = 1,
        batch_size: int = 16,
        lr: float = 0.5,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
    ) -> ClientApp:
        """Return a Flower ClientApp that trains and evaluates on a client's own part.

        It is an ordinary one, the kind that works with `FedAvg`.

        Parameters
        ----------
        epochs, batch_size : int
            n_ep and B of Algorithm 1: passes over the training part in a round, and
            examples in a step.
        lr, momentum, weight_decay : float
            Options of the gradient descent, `torch.optim.SGD`. Momentum starts afresh
            in each round.
        """
        options = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        check_training(epochs, batch_size, **options)
        app = ClientApp()

        @app.train()
        def train_client(message: Message, context: Context) -> Message:
            client = self._client(context)
            model = self._load(record_of(message.content, "arrays", ArrayRecord))
            if not self.same_start and "task.started" not in context.state:
                model.load_state_dict(self.model(client).state_dict())
            config = record_of(message.content, "config", ConfigRecord)
            server_round = check_whole("server-round", config["server-round"], 0)
            x, y = self.part(client, "train")
            batches = self.batches(client, server_round, epochs, batch_size)
            loss = train(model, x, y, batches, **options)
            metrics = MetricRecord({"loss": loss, "num-examples": len(y)})
            arrays = ArrayRecord(model.state_dict())
            content = RecordDict({"arrays": arrays, "metrics": metrics})
            if not self.same_start:
                context.state["task.started"] = ConfigRecord()
            return Message(content, reply_to=message)

        @app.evaluate()
        def evaluate_client(message: Message, context: Context) -> Message:
            client = self._client(context)
            model = self._load(record_of(message.content, "arrays", ArrayRecord))
            x, y = self.part(client, "test")
            if not len(y):
                raise ValueError(f"client {client} has no test part: holdout is 0")
            metrics = MetricRecord({**evaluate(model, x, y), "num-examples": len(y)})
            return Message(RecordDict({"metrics": metrics}), reply_to=message)

        return app

    def batches(
        self, client: int, server_round: int, epochs: int, batch_size: int
    ) -> list[torch.Tensor]:
        """Return the rows of a client's training part that each step of a round uses.

        Each epoch shuffles them anew, see `training.shuffle_keys`.

        Parameters
        ----------
        client, server_round : int
            The client and the round.
        epochs, batch_size : int
            Passes over the training part, and rows for a step; the last of an epoch may
            have fewer.
        """
        first, count = map(int, self.parts.span(client, "train"))
        batches: list[torch.Tensor] = []
        for epoch in range(epochs):
            place = epoch * len(self.parts.index) + first
            keys = shuffle_keys(self.seed, server_round, place, count)
            batches += torch.split(torch.from_numpy(np.argsort(keys)), batch_size)
        return batches

    def evaluate_fn(self, server_round: int, arrays: ArrayRecord) -> MetricRecord:
        """Return a model's loss and accuracy on the common test set.

        It is an `evaluate_fn` for the `start` of a Strategy; the round is not used.

        Parameters
        ----------
        server_round, arrays
            Those of Flower's `evaluate_fn`.
        """
        return MetricRecord({**evaluate(self._load(arrays), *self.test)})

    @one_thread()
    def predict(self, model: list[np.ndarray], context: Any) -> np.ndarray:
        """Return softmax outputs on a client's validation part, (examples, classes).

        It is the `predict` that `averaging.SoftmaxDistance` needs. For many clients, as
        the array engine calls it, all have one axis more, the first.

        Parameters
        ----------
        model : list of numpy.ndarray
            A model's arrays.
        context : flwr.app.Context
            That of the client, whose "partition-id" says which one it is.
        """
        client = context.node_config["partition-id"]
        x, _ = self.part(client, "validation")
        tensors = map(torch.tensor, model)  # a copy: the arrays are read-only
        named = dict(zip(self._module.state_dict(), tensors, strict=True))
        forward = functools.partial(functional_call, self._module)
        with torch.no_grad():
            if np.ndim(client) == 0:
                logits = forward(named, x)
            elif len(x) == 1:  # ten times as fast as vmap
                logits = forward({k: a[0] for k, a in named.items()}, x[0])[None]
            else:
                logits = vmap(forward)(named, x)
        return F.softmax(logits, dim=-1).numpy()

    def _client(self, context: Context) -> int:
        """Return which of the task's clients this is."""
        client = context.node_config["partition-id"]
        return check_whole("partition-id", client, 0, self.num_clients - 1)

    @functools.cached_property
    def _module(self) -> nn.Module:
        return self.model()

    def _load(self, arrays: ArrayRecord) -> nn.Module:
        self._module.load_state_dict(arrays.to_torch_state_dict())
        return self._module


def _perceptron(features: int, hidden: int, classes: int) -> nn.Module:
    """Return logistic regression, or a network with one hidden layer."""
    if not hidden:
        return nn.Linear(features, classes)
    layers = nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, classes)
    return nn.Sequential(*layers)


@functools.lru_cache(maxsize=16)
def digits(num_clients: int, **options: Any) -> Task:
    """Return the digits task: 1797 images of 8 x 8 pixels, ten classes.

    They ship with scikit-learn (Alpaydin and Kaynak 1998, doi:10.24432/C50P49).

    Parameters
    ----------
    num_clients, **options
        Those of `Task`.
    """
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return Task(x / 16, y, num_clients, **options)


@functools.lru_cache(maxsize=16)
def spambase(num_clients: int, **options: Any) -> Task:
    """Return the Spambase task: 4601 e-mails, 57 standardised features, spam or not.

    It ships with gossiplib (Hopkins et al. 1999, doi:10.24432/C53G6X, CC BY 4.0).

    Parameters
    ----------
    num_clients, **options
        Those of `Task`; the common test set is a tenth by default.
    """
    import pandas as pd

    file = resources.files("gossiplib") / "data" / "spambase.csv.gz"
    with resources.as_file(file) as path:
        table = pd.read_csv(path)
    y = table.pop("spam").to_numpy()
    x = ((table - table.mean()) / table.std()).to_numpy()
    return Task(x, y, num_clients, **{"test_fraction": 0.1} | options)
