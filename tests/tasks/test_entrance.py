"""What enters a task is read one way, or refused in words that name it."""

from fractions import Fraction

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from torch import nn

from gossiplib.core.client import gossip
from gossiplib.core.grid import LocalGrid
from gossiplib.core.server import Gossip
from gossiplib.tasks.task import Task, digits
from gossiplib.vectorized.engine import gossip_learning

DRAWN = np.random.default_rng(0)
X = DRAWN.normal(size=(160, 3)).astype(np.float32)
Y = DRAWN.permutation(np.arange(160) % 3)
TABLE = pd.DataFrame(X, columns=["age", "height", "pulse"])
SHUFFLED = TABLE.set_index(DRAWN.permutation(160))
IDS = DRAWN.integers(50, size=(160, 4))


def embedding(sizes=(50,)):
    layers = nn.Embedding(sizes[0], 2), nn.Flatten(), nn.Linear(8, 3)
    return nn.Sequential(*layers)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (SHUFFLED, pd.Series(Y, SHUFFLED.index)),
        (SHUFFLED.astype("Float64"), pd.Series(Y).astype("Int64")),
        (TABLE.astype(object), pd.Series(Y).astype("category")),
        (X.tolist(), Y.tolist()),
        (torch.tensor(X, requires_grad=True), torch.tensor(Y, dtype=torch.uint8)),
        (list(torch.tensor(X)), Y.astype(float)),
        (scipy.sparse.csr_matrix(X), Y[:, None]),
        (X.astype(">f8"), Y.astype(object)),
        (np.asfortranarray(X[::-1])[::-1], pd.DataFrame({"y": Y})),
    ],
    ids=lambda value: type(value).__name__,
)
def test_near_types_are_read_as_the_arrays_that_they_hold(x, y):
    task = Task(x, y, 10, partition="classes")
    wanted = Task(X, Y, 10, partition="classes")
    assert torch.equal(task.x, torch.from_numpy(X)) and task.y.tolist() == Y.tolist()
    assert np.array_equal(task.parts.index, wanted.parts.index)
    assert ((task.label_counts() > 0).sum(axis=1) == 2).all()


def test_truth_values_are_the_classes_0_and_1():
    assert Task(X, Y == 1, 4).y.tolist() == (Y == 1).astype(int).tolist()
    assert Task(TABLE.assign(tall=TABLE.height > 0), Y, 4).x[:, 3].unique().numel() == 2


def test_whole_numbers_stay_whole_for_a_model_that_takes_no_others():
    task = Task(IDS, Y, 4, build=embedding)
    assert task.x.dtype == torch.int64 and (task.x.numpy() == IDS).all()
    assert task.model()[0].weight.dtype == torch.float32

    class Hashed(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = embedding()

        def forward(self, x):
            return self.inner(x.long() % 50)

    large = IDS + 2**24  # float32 holds every other one
    assert (Task(large, Y, 4, build=Hashed).x.numpy() == large).all()
    with pytest.raises(ValueError, match="whole numbers above"):  # int64 would wrap
        Task(IDS.astype(np.uint64) + np.uint64(2**63), Y, 4, build=Hashed)


def test_images_are_taken_with_a_model_for_them():
    images = DRAWN.integers(256, size=(160, 1, 8, 8), dtype=np.uint8)
    layers = lambda: nn.Sequential(nn.Conv2d(1, 2, 8), nn.Flatten(), nn.Linear(2, 3))  # noqa: E731
    task = Task(images, Y, 4, build=layers)
    assert task.part(1, "train")[0].shape[1:] == (1, 8, 8)
    assert (task.x.numpy() == images).all()


def with_cell(value, dtype=object):
    return TABLE.astype(dtype).replace({"height": {X[5, 1]: value}})


@pytest.mark.parametrize(
    ("x", "says"),
    [
        (with_cell(np.nan, float), "example 5, column 'height' is nan"),
        (with_cell("1.8"), "example 5, column 'height' is '1.8'"),
        (with_cell(None), "example 5, column 'height'"),
        (TABLE.assign(day=pd.Timestamp(0)), "example 0, column 'day'"),
        (TABLE.assign(name="Ada"), "example 0, column 'name' is 'Ada'"),
        (np.where(X == X[7, 2], np.inf, X), "example 7, feature 2 is inf"),
        (X.astype(str), "must hold numbers; got <U"),
        (X * 1j, "must hold numbers; got complex"),
        (np.ma.array(X, mask=X > 2), "masked"),
        (X.astype(float) * 1e200, "beyond those of torch.float32"),
        (IDS + 2**24, "whole numbers above 16777216"),
        (X[:, 0], r"shape \(examples, features\); got \(160,\)"),
        (X.reshape(160, 3, 1), r"got \(160, 3, 1\)"),
        (X[:, :0], r"no examples: its shape is \(160, 0\)"),
        ({"age": X}, "array of the examples; got dict"),
        (iter(X), "array of the examples; got generator|got array_iterator|iterator"),
        ([[1, 2], [3]] * 80, "x makes no array"),
        (X[:10], "10 examples, and y 160"),
    ],
)
def test_examples_that_are_no_numbers_are_refused_by_place(x, says):
    with pytest.raises(ValueError, match=says):
        Task(x, Y, 4)


@pytest.mark.parametrize(
    ("y", "says"),
    [
        (np.abs(X[:, 0]) / 2, "floats that are not whole, such as 0.0628"),
        (np.where(Y == 1, np.nan, Y), "not whole, such as nan"),
        (np.where(Y == 1, 1, -1), "got (-1, 1|1, -1): number them .*np.unique"),
        (Y + 1, "got .*3.*np.unique"),
        (2 * Y, "each at least once; got .*4"),
        (np.array(["cat", "dog", "owl"])[Y], "'owl'.*np.unique"),
        (pd.Series(np.array(["cat", "dog", "owl"])[Y]), "'dog'.*np.unique"),
        (Y.astype(str), "'0'.*np.unique"),
        ([None] * 160, "got None"),
        (np.eye(3)[Y], r"got \(160, 3\).*argmax"),
        (3, "array of the examples; got int"),
    ],
)
def test_labels_that_are_no_classes_are_refused_with_their_values(y, says):
    with pytest.raises(ValueError, match=says):
        Task(X, y, 4)


def test_what_the_message_about_labels_advises_works():
    names = np.array(["cat", "dog", "owl"])[Y]
    classes, y = np.unique(names, return_inverse=True)
    assert (classes[Task(X, y, 4).y.numpy()] == names).all()


SHARED = nn.Linear(3, 3)


def by_numpy():
    layer = nn.Linear(3, 3)
    layer.weight.data = torch.from_numpy(np.random.random((3, 3)))
    return layer


def hooked(layer, register="register_hook"):
    getattr(layer.weight, register)(lambda gradient: None)
    return layer


def hooked_after(layer):
    return hooked(layer, "register_post_accumulate_grad_hook")


class Auxiliary(nn.Linear):  # as GoogLeNet's second output, which is for training
    def __init__(self):
        super().__init__(3, 3)

    def forward(self, x):
        out = super().forward(x)
        return (out, out) if self.training else out


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (SHARED, "must be a function that makes a new model.*got Linear"),
        (lambda: 3, "a torch.nn.Module; it made int"),
        (lambda: nn.LazyLinear(3), r"lazy layers \(weight\)"),
        (lambda: nn.Flatten(), "no parameters to train"),
        (lambda: nn.Linear(3, 3).requires_grad_(False), "no parameters to train"),
        (lambda: nn.Linear(3, 3, dtype=torch.complex64), "complex numbers"),
        (lambda: nn.Linear(3, 3, device="meta"), "no numbers yet"),
        (lambda: hooked(nn.Linear(3, 3)), r"a hook on a gradient.*\(weight\)"),
        (lambda: hooked_after(nn.Linear(3, 3)), r"a hook on a gradient.*\(weight\)"),
        (lambda: nn.Sequential(SHARED), "2 of its parameters at a second call"),
        (by_numpy, "another weight at each call.*torch's random numbers"),
        (lambda: nn.Linear(4, 3), r"torch.float32 of shape \(4, 3\) .* fails"),
        (Auxiliary, "in training, makes tuple"),
        (lambda: nn.Linear(3, 2), r"makes \(4, 2\).*each of 3 classes"),
        (lambda: nn.LSTM(3, 3), "makes tuple; it must give logits"),
        (lambda: nn.Sequential(nn.Linear(3, 3), nn.Flatten(0)), r"makes \(12,\)"),
    ],
)
def test_a_build_that_makes_no_model_for_the_data_is_refused(build, says):
    with pytest.raises(ValueError, match=says):
        Task(X, Y, 4, build=build)


NO_NUMBERS = [None, "1", True, float("nan"), [1]]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("num_clients", v) for v in (0, 4.0, "4", True, None)),
        *(("seed", v) for v in (-1, 1.0, None, "0", True, 2**64)),
        *(("hidden", v) for v in (-1, 2.5, "3", True)),
        *((k, v) for k in ("alpha", "holdout", "test_fraction") for v in NO_NUMBERS),
        ("alpha", float("inf")),
        ("test_fraction", 1.0),
        *(("same_start", v) for v in ("no", 0, None)),
        *(("dtype", v) for v in (torch.float16, torch.int64, np.float32, "float32")),
        ("partition", ["iid"]),
    ],
)
def test_an_option_of_another_kind_is_refused_by_name(name, value):
    digits(1)  # 1 is True, and 4 is 4.0, to a cache that does not look
    digits(4)
    with pytest.raises(ValueError, match=name):
        digits(**{"num_clients": 4} | {name: value})


def test_hidden_layers_of_another_model_are_refused():
    with pytest.raises(ValueError, match="hidden"):
        digits(4, build=lambda: nn.Linear(64, 10), hidden=8)


@pytest.mark.parametrize("name", ["lr", "momentum", "weight_decay"])
@pytest.mark.parametrize("value", [*NO_NUMBERS, -0.1, float("inf")])
def test_a_rate_of_another_kind_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=name):
        digits(4).client_app(**{name: value})


@pytest.mark.parametrize("client", [-1, 4, 1.0, "0", None])
def test_a_client_that_is_none_has_no_part(client):
    for ask in (digits(4).part, lambda i, _: digits(4).batches(i, 1, 1, 8)):
        with pytest.raises(ValueError, match="client must be a whole number, 0 to 3"):
            ask(client, "train")
    with pytest.raises(ValueError, match="clients must be 0 or more; got -1"):
        digits(4).part(np.array([1, -1]), "train")


def test_what_one_does_to_a_ready_task_no_other_sees():
    mine = digits(4)
    mine.x.zero_(), mine.y.zero_(), mine.parts.index.fill(0)
    theirs = digits(4)
    assert theirs.x.any() and theirs.y.any() and theirs.parts.index.any()
    assert digits(4, build=Widths([64, 10])).model().weight.shape == (10, 64)


class Widths(list):  # it can be changed, and so is no key of a cache
    def __call__(self):
        return nn.Linear(*self)


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.int64])
@pytest.mark.parametrize("partition", ["iid", "classes", "dirichlet", "dealt"])
def test_numbers_of_numpy_spread_examples_as_those_of_python(partition, kind):
    x, y = np.random.default_rng(0).random((600, 3)), np.arange(600) % 3
    some = {"partition": partition, "seed": 3}
    found, wanted = (
        Task(x, y, k(100 if partition == "dealt" else 20), examples=k(10), **some)
        for k in (kind, int)
    )
    assert np.array_equal(found.parts.index, wanted.parts.index)


@pytest.mark.parametrize("kind", [np.uint8, Fraction, np.float16])
def test_numbers_of_other_kinds_train_as_those_of_python(kind):
    whole = kind if kind is np.uint8 else int
    tasks = [digits(3, hidden=k(200), partition="iid") for k in (whole, int)]
    options = [
        {"epochs": w(2), "batch_size": w(200), "lr": k(1), "momentum": k(0)}
        for w, k in ((whole, kind), (int, float))
    ]
    graph = nx.cycle_graph(3)
    for engine in ("Flower", "arrays"):
        models = []
        for task, some in zip(tasks, options, strict=True):
            if engine == "arrays":
                result = gossip_learning(task, graph, 1, **some)
            else:
                grid = LocalGrid(gossip(task.client_app(**some)), 3)
                result = Gossip(graph).start(grid, task.initial_arrays(), 1)
            models.append(result.models())
        assert np.array_equal(*models)


@pytest.mark.parametrize("word", [50, -1])
def test_a_word_that_is_not_in_the_table_is_told_before_the_work(word):
    x = IDS.copy()
    x[80, 1] = word  # neither first nor last
    with pytest.raises(ValueError, match="int64 .*index out of range"):
        Task(x, Y, 4, build=embedding)


@pytest.mark.parametrize(
    ("y", "says"),
    [
        (np.arange(30).astype("M8[ns]"), r"got 0, 1, .* of datetime64\[ns\]"),
        (pd.Series([np.array([i % 3]) for i in range(30)]), r"got array\(\[0\]\)"),
    ],
)
def test_labels_that_look_like_classes_are_told_apart(y, says):
    with pytest.raises(ValueError, match=says):
        Task(np.ones((30, 3)), y, 4)
