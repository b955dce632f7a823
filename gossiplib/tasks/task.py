"""What the clients learn: data, its spread over the clients, a model, training.

A `Task` holds one data set, split into a common test set, which no client trains on,
and a part for each client, itself split into a training, a validation and a test part.
"""

import copy
import functools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
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

from gossiplib.system.numbers import check_number, check_share, check_whole, rng
from gossiplib.system.records import pack, record_of, unpack
from gossiplib.tasks.entrance import (
    as_taken,
    check_build,
    check_dtype,
    check_module,
    read_x,
    read_y,
    to_floats,
)
from gossiplib.tasks.partition import deal, parts, spread
from gossiplib.tasks.training import (
    check_training,
    evaluate,
    one_thread,
    seeded,
    shuffle_keys,
    train,
)

Examples: TypeAlias = tuple[torch.Tensor, torch.Tensor]


class Task:
    """A classification problem that is spread over clients.

    Parameters
    ----------
    x, y : array_like
        All examples, shapes (examples, features) and (examples,): arrays, tables of
        pandas (row by row, whatever their index), tensors, lists. x holds finite
        numbers, and may have more axes where `build` is given; y holds classes 0, 1,
        ..., each at least once.
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
        () -> torch.nn.Module, a new model in place of those: from (batch, features) to
        logits, (batch, classes). If it takes no floats (`torch.nn.Embedding`), x that
        came as whole numbers stays so, int64.
    test_fraction : float
        Share of the examples in the common test set.
    dtype : torch.dtype
        Data type of models, and of examples: `torch.float32` or `torch.float64`.
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
        If x, y, what `build` makes or an option is not of this kind; or a client would
        get fewer than 3 examples, one for each of its parts.
    """

    def __init__(
        self,
        x: Any,
        y: Any,
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
        x = read_x(x)
        y, self.num_classes = read_y(y, len(x))
        check_dtype(dtype)
        self.num_clients = num_clients = check_whole("num_clients", num_clients, 1)
        self.seed = seed = check_whole("seed", seed, 0, 2**64 - 1)  # torch's range
        check_share("test_fraction", test_fraction)
        if not 0 < check_number("alpha", alpha) < float("inf"):
            raise ValueError(f"alpha must be above 0, and finite; got {alpha}")
        hidden = check_whole("hidden", hidden, 0)
        if not isinstance(same_start, bool | np.bool_):
            raise ValueError(f"same_start must be True or False; got {same_start!r}")
        self.same_start, self._dtype = same_start, dtype
        self._built, self._idle = build is not None, list[nn.Module]()
        order = rng(seed).permutation(len(y))
        test, pool = np.split(order, [round(test_fraction * len(y))])
        if not len(pool):
            raise ValueError(
                f"test_fraction {test_fraction} leaves none of {len(y)} examples to "
                "the clients: take less"
            )
        if partition == "dealt":
            places, sizes = deal(len(pool), num_clients, examples, seed)
        else:
            least = 3 if holdout else 1
            places, sizes = spread(y[pool], num_clients, partition, alpha, least, seed)
        self.parts = parts(pool[places], sizes, holdout)
        self.y = torch.from_numpy(y)
        if build is None:
            if x.ndim != 2:
                raise ValueError(
                    f"x must have the shape (examples, features); got {x.shape}: "
                    "reshape it, or give a model that takes it, by build"
                )
            self._build: Callable[[], nn.Module] = functools.partial(
                _perceptron, x.shape[1], hidden, self.num_classes
            )
            self.x = to_floats(x, dtype)
        elif hidden:
            raise ValueError("hidden is of the model that build replaces: take one")
        else:
            self._build = build
            check_build(build, self.model)
            self.x = as_taken(x, dtype, self.model(), self.num_classes)
        self.test: Examples = self.x[test], self.y[test]

    def part(self, client: int | np.ndarray, name: str) -> Examples:
        """Return x and y of the part `name` of a `client`, or of many clients.

        That is "train", "validation" or "test". Shapes (examples, features) and
        (examples,); for an array of clients one axis more, the first.

        Raises
        ------
        ValueError
            If there is no such part, or those of many clients are not of one size.
        """
        first, count = self.parts.span(client, name)
        if np.ndim(client) and len(sizes := np.unique(count)) > 1:
            raise ValueError(f"parts of one size are needed, not of {sizes}")
        places = first[..., None] + np.arange(count.flat[0])
        rows = torch.from_numpy(self.parts.index[places])  # torch is slow with numpy's
        return self.x[rows], self.y[rows]

    def label_counts(self) -> np.ndarray:
        """Return each client's training examples by class, (clients, classes)."""
        labels = [self.part(i, "train")[1] for i in range(self.num_clients)]
        return np.stack([np.bincount(y, minlength=self.num_classes) for y in labels])

    def model(self, client: int | None = None) -> nn.Module:
        """Return a new model with the initial parameters, the same at each call.

        For a client, those that it starts with (see `same_start`).
        """
        seed = self.seed
        if client is not None and not self.same_start:
            seed = int(np.random.SeedSequence([seed, client]).generate_state(1)[0])
        with seeded(seed), torch.device("cpu"):  # where examples are
            return check_module(self._build()).to(self._dtype)

    def initial_arrays(self) -> ArrayRecord:
        """Return the parameters of `model()` as Flower sends them."""
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
            examples in a step. The last of a pass may have fewer; batch normalisation
            cannot train on one.
        lr, momentum, weight_decay : float
            Options of the gradient descent, `torch.optim.SGD`. Momentum starts afresh
            in each round.
        """
        options = check_training(
            epochs, batch_size, lr=lr, momentum=momentum, weight_decay=weight_decay
        )
        del options["epochs"], options["batch_size"]
        app = ClientApp()

        @app.train()
        def train_client(message: Message, context: Context) -> Message:
            client = self._client(context)
            first = record_of(message.content, "arrays", ArrayRecord)
            config = record_of(message.content, "config", ConfigRecord)
            server_round = check_whole("server-round", config["server-round"], 0)
            x, y = self.part(client, "train")
            batches = self.batches(client, server_round, epochs, batch_size)
            with self._loaded(first) as model, self._drawing(client, server_round):
                if not self.same_start and "task.started" not in context.state:
                    model.load_state_dict(self.model(client).state_dict())
                loss = train(model, x, y, batches, **options)
                state = model.state_dict()
                arrays = pack((tensor.numpy() for tensor in state.values()), state)
            metrics = MetricRecord({"loss": loss, "num-examples": len(y)})
            content = RecordDict({"arrays": arrays, "metrics": metrics})
            if not self.same_start:
                context.state["task.started"] = ConfigRecord()
            return Message(content, reply_to=message)

        @app.evaluate()
        def evaluate_client(message: Message, context: Context) -> Message:
            client = self._client(context)
            arrays = record_of(message.content, "arrays", ArrayRecord)
            x, y = self.part(client, "test")
            if not len(y):
                raise ValueError(f"client {client} has no test part: holdout is 0")
            with self._loaded(arrays) as model:
                found = evaluate(model, x, y)
            metrics = MetricRecord({**found, "num-examples": len(y)})
            return Message(RecordDict({"metrics": metrics}), reply_to=message)

        return app

    def batches(
        self, client: int, server_round: int, epochs: int, batch_size: int
    ) -> list[torch.Tensor]:
        """Return the rows of a client's training part that each step of a round uses.

        Parameters
        ----------
        client, server_round, epochs, batch_size : int
            The client and the round; passes, each shuffled anew, over the training
            part, and rows for a step, of which the last of an epoch may have fewer.
        """
        how = check_training(epochs, batch_size)
        first, count = map(int, self.parts.span(client, "train"))
        batches: list[torch.Tensor] = []
        for epoch in range(how["epochs"]):
            place = epoch * len(self.parts.index) + first
            keys = shuffle_keys(self.seed, server_round, place, count)
            batches += torch.split(
                torch.from_numpy(np.argsort(keys)), how["batch_size"]
            )
        return batches

    def evaluate_fn(self, server_round: int, arrays: ArrayRecord) -> MetricRecord:
        """Return the loss and accuracy of a model, `arrays`, on the common test set.

        It is an `evaluate_fn` for a Strategy's `start`; `server_round` is not used.

        Raises
        ------
        ValueError
            If the common test set is empty.
        """
        if not len(self.test[1]):
            raise ValueError(
                "the common test set is empty: take a larger test_fraction"
            )
        with self._loaded(arrays) as model:
            return MetricRecord({**evaluate(model, *self.test)})

    @one_thread()
    def predict(self, model: list[np.ndarray], context: Any) -> np.ndarray:
        """Return softmax outputs on a client's validation part, (examples, classes).

        It is the `predict` that `averaging.SoftmaxDistance` needs, of the arrays of a
        `model`; the `context` says whose. For many clients, as the array engine calls
        it, all have one axis more, the first.

        Raises
        ------
        ValueError
            If its validation part is empty.
        """
        client = context.node_config["partition-id"]
        x, y = self.part(client, "validation")
        if not y.numel():
            one = np.ravel(client)[0]
            raise ValueError(f"client {one} has no validation part: holdout is 0")
        tensors = map(torch.from_numpy, map(np.array, model))  # they are read-only
        named = dict(zip(self._module.state_dict(), tensors, strict=True))
        # A layer that two names share is here under both, with the same numbers.
        forward = functools.partial(functional_call, self._module, tie_weights=False)
        with torch.no_grad():
            if np.ndim(client) == 0:
                logits = forward(named, x)
            elif len(x) == 1:  # ten times as fast as vmap
                logits = forward({k: a[0] for k, a in named.items()}, x[0])[None]
            else:
                logits = vmap(forward)(named, x)
        return F.softmax(logits, dim=-1).numpy()

    def _client(self, context: Context) -> int:
        client = context.node_config["partition-id"]
        return check_whole("partition-id", client, 0, self.num_clients - 1)

    @functools.cached_property
    def _module(self) -> nn.Module:
        with torch.no_grad():  # so that what is computed from parameters can be copied
            return self.model().eval()

    @contextmanager
    def _loaded(self, arrays: ArrayRecord) -> Iterator[nn.Module]:
        """Lend a model with these arrays, which nobody else has meanwhile."""
        try:
            model = self._idle.pop()
        except IndexError:
            model = copy.deepcopy(self._module)
        tensors = map(torch.from_numpy, map(np.array, unpack(arrays)))
        model.load_state_dict(dict(zip(arrays, tensors, strict=True)))
        yield model
        if not self._built:  # one that was may hold more than its arrays: it goes
            self._idle.append(model)

    def _drawing(self, client: int, server_round: int) -> AbstractContextManager[None]:
        """Return a context for what draws in training, if `build` made it: dropout."""
        if not self._built:
            return nullcontext()
        stream = rng(self.seed, client, server_round, use="train")
        return seeded(int(stream.integers(2**63)))


def _perceptron(features: int, hidden: int, classes: int) -> nn.Module:
    """Return logistic regression, or a network with one hidden layer."""
    if not hidden:
        return nn.Linear(features, classes)
    layers = nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, classes)
    return nn.Sequential(*layers)


def _kept(make: Callable[..., Task]) -> Callable[..., Task]:
    """Keep the last tasks that a function made; return copies, free to be changed."""
    # Typed, since 4.0 clients are not the 4 of before.
    kept = functools.lru_cache(maxsize=16, typed=True)(make)

    @functools.wraps(make)
    def copied(*args: Any, **options: Any) -> Task:
        try:
            return copy.deepcopy(kept(*args, **options))
        except TypeError:  # no key: a list, or a `build` that can be changed
            return make(*args, **options)

    return copied


@_kept
def digits(num_clients: int, **options: Any) -> Task:
    """Return the digits task: 1797 images of 8 x 8 pixels, ten classes.

    They ship with scikit-learn (Alpaydin and Kaynak 1998, doi:10.24432/C50P49).
    `num_clients` and `options` are those of `Task`.
    """
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return Task(x / 16, y, num_clients, **options)


@_kept
def spambase(num_clients: int, **options: Any) -> Task:
    """Return the Spambase task: 4601 e-mails, 57 standardised features, spam or not.

    It ships with gossiplib (Hopkins et al. 1999, doi:10.24432/C53G6X, CC BY 4.0).
    `num_clients` and `options` are those of `Task`; the common test set is a tenth by
    default.
    """
    import pandas as pd

    file = resources.files("gossiplib") / "data" / "spambase.csv.gz"
    with resources.as_file(file) as path:
        table = pd.read_csv(path)
    y = table.pop("spam").to_numpy()
    x = ((table - table.mean()) / table.std()).to_numpy()
    return Task(x, y, num_clients, **{"test_fraction": 0.1} | options)
