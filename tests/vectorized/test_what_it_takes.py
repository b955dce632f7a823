"""Which models arrays take: those that come to LocalGrid's; others before the work."""

import random
import time

import numpy as np
import pytest
import torch
from test_vectorized import OPTIONS, both, difference, same_tables
from torch import nn
from torch.nn import functional as F

from gossiplib.core.averaging import weighted_mean
from gossiplib.core.topology import named
from gossiplib.tasks.task import Task, digits
from gossiplib.vectorized._speed import Recorded, steady
from gossiplib.vectorized.engine import gossip_learning

RING = named("ring", 5)


class Perceptron(nn.Module):
    """A model whose forward a reader wrote."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(64, 8), nn.Linear(8, 10)

    def forward(self, x):
        return self.outer(F.relu(self.inner(x)))


class Masked(Perceptron):
    def __init__(self):
        super().__init__()
        mask = (torch.arange(64) % 3 > 0).float()
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x):
        return super().forward(x * self.mask)


class ByMode(Perceptron):
    def forward(self, x):
        return super().forward(2 * x if self.training else x)


class Cached(Perceptron):
    scale = None

    def forward(self, x):
        if self.scale is None:
            self.scale = torch.linspace(0, 1, 64)
        return super().forward(x * self.scale)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.outer = nn.Linear(64, 10)

    def forward(self, x):
        x = x.view(-1, 8, 8)
        return self.outer(self.attention(x, x, x)[0].flatten(1))


@pytest.mark.parametrize("build", [Perceptron, Masked, ByMode, Cached, Attention])
def test_models_that_readers_write_come_to_local_grid_s(build):
    task = digits(5, build=build, alpha=1.0)
    how = {"batch_size": 16, "lr": 0.05}
    a, b = both(task, RING, 2, training=how, evaluate_fn=task.evaluate_fn)
    assert a.lost == [] and difference(a, b) < 1e-5
    same_tables(a, b, 1e-4)


def test_words_are_embedded():
    rng = np.random.default_rng(0)
    words, y = rng.integers(30, size=(300, 6)), rng.permutation(np.arange(300) % 3)
    layers = lambda: nn.Sequential(nn.Embedding(30, 4), nn.Flatten(), nn.Linear(24, 3))  # noqa: E731
    task = Task(words, y, 5, build=layers, partition="iid")
    a, b = both(task, RING, 2, evaluate_fn=task.evaluate_fn)
    assert difference(a, b) < 1e-5
    same_tables(a, b, 1e-4)


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.inner, self.outer = kind(8, 4, batch_first=True), nn.Linear(4, 10)

    def forward(self, x):
        return self.outer(self.inner(x.view(-1, 8, 8))[0][:, -1])


def doing(change, **state):
    """Return a kind of Perceptron whose output, and more, is changed by a function."""

    class Changed(Perceptron):
        def __init__(self):
            super().__init__()
            vars(self).update({name: make() for name, make in state.items()})

        def forward(self, x):
            return change(self, x, super().forward(x))

    return Changed


def counted(self, x, out):
    self.calls += 1
    return out if self.calls < 500 else 2 * out


def listed(self, x, out):
    self.seen.append(len(x))
    return out


class Growing(Perceptron):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()), persistent=False)

    def forward(self, x):
        self.calls = self.calls + 1
        return super().forward(x) * self.calls


VMAP, CHANGES, OTHERS = "vmap cannot take", "a call of the model changes", "differ from"
REFUSED = {
    "LSTM": (lambda: Recurrent(nn.LSTM), VMAP),
    "GRU": (lambda: Recurrent(nn.GRU), VMAP),
    "RNN": (lambda: Recurrent(nn.RNN), VMAP),
    "dropout": (lambda: nn.Sequential(nn.Dropout(), nn.Linear(64, 10)), VMAP),
    "dropout's function": (doing(lambda self, x, out: F.dropout(out)), VMAP),
    "torch.rand": (doing(lambda self, x, out: out + torch.rand(10)), VMAP),
    "a branch": (doing(lambda self, x, out: out if x.sum() > 0 else -out), VMAP),
    "numpy.random": (
        doing(lambda self, x, out: out * (np.random.random() > 0.01)),
        f"{CHANGES} numpy.random",
    ),
    "random": (doing(lambda self, x, out: out * random.random()), f"{CHANGES} random"),
    "a generator": (
        doing(
            lambda self, x, out: out * self.rng.random(),
            rng=lambda: np.random.default_rng(0),
        ),
        OTHERS,
    ),
    "the time": (doing(lambda self, x, out: out * (time.perf_counter() % 1)), OTHERS),
    "a count": (doing(counted, calls=int), f"{CHANGES} calls"),
    "a buffer": (Growing, f"{CHANGES} calls"),
    "a count in evaluation": (
        doing(
            lambda self, x, out: out if self.training else counted(self, x, out),
            calls=int,
        ),
        f"{CHANGES} calls",
    ),
    "a list": (doing(listed, seen=list), f"{CHANGES} seen"),
    "its examples": (
        doing(lambda self, x, out: self.outer(self.inner(x.sub_(1)))),
        f"{CHANGES} its examples",
    ),
    "a batch's mean": (doing(lambda self, x, out: out - out.mean(0)), OTHERS),
    "a batch's size": (doing(lambda self, x, out: out * len(x)), OTHERS),
    "normalised batches": (
        lambda: nn.Sequential(
            nn.BatchNorm1d(64, track_running_stats=False), nn.Linear(64, 10)
        ),
        VMAP,
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_arrays_cannot_do_is_refused_before_the_work(what):
    build, says = REFUSED[what]
    task = digits(5, build=build, partition="iid")
    before = task.x.clone()
    with pytest.raises(ValueError, match=f"{says}(.|\n)*Use LocalGrid for it"):
        gossip_learning(task, RING, evaluate_every=0, observe_every=0)
    assert torch.equal(task.x, before)


def test_a_model_may_be_tried_where_no_gradients_are_made():
    with torch.no_grad():
        found = gossip_learning(digits(5, hidden=4), RING, 1)
    assert difference(found, gossip_learning(digits(5, hidden=4), RING, 1)) == 0


def test_what_a_reader_wrote_is_called_at_each_step(monkeypatch):
    monkeypatch.setattr(Recorded, "AFTER", 1)
    calls = []
    build = doing(lambda self, x, out: calls.append(len(x)) or out)
    task = digits(5, build=build, partition="dealt")  # a step is one batch
    gossip_learning(task, RING, 20, evaluate_every=0, observe_every=0)
    assert len(calls) >= 20
    hooked = nn.Linear(2, 2)
    assert steady(hooked) and steady(nn.Sequential(hooked, nn.ReLU()))
    hooked.register_forward_hook(print)
    replaced = nn.Linear(2, 2)
    replaced.forward = abs
    assert not any(map(steady, [hooked, replaced, nn.Sequential(hooked), Perceptron()]))


def test_what_cannot_be_recorded_is_called():
    calls = []

    def function(models, x, y):
        calls.append(float(x.sum()))  # which make_fx cannot know
        return x + y

    fast, one = Recorded(function), torch.ones(2)
    fast.AFTER = 1
    assert all((fast({}, one, one) == 2).all() for _ in range(3))
    assert len(calls) >= 3


@pytest.mark.parametrize(
    "convert",
    [tuple, iter, lambda mean: [torch.tensor(a) for a in mean]],
)
def test_an_average_of_a_near_type_is_the_model_that_it_holds(convert):
    def average(own, neighbours, weights, context):
        return convert(weighted_mean(own, neighbours, weights))

    results = both(digits(5), RING, 2, average=average)
    plain = gossip_learning(digits(5), RING, 2, **OPTIONS)
    assert not any(result.lost for result in results)
    assert all(difference(result, plain) < 1e-6 for result in results)


@pytest.mark.parametrize(
    ("convert", "says"),
    [
        (lambda mean: None, "must return a list of arrays, not a NoneType"),
        (lambda mean: [a + 1j for a in mean], "complex"),
        (lambda mean: [a.astype(str) for a in mean], "str|<U"),
    ],
)
def test_an_average_that_is_no_model_is_refused(convert, says):
    def average(own, neighbours, weights, context):
        return convert(weighted_mean(own, neighbours, weights))

    with pytest.raises(TypeError, match=says):
        gossip_learning(digits(5), RING, 2, average=average)


def test_evaluate_fn_may_tell_numbers_by_name():
    def evaluate_fn(server_round, arrays):
        return {"sum": arrays["bias"].numpy().sum()}

    found = both(digits(5), RING, 2, evaluate_fn=evaluate_fn)
    for t in (0, 1, 2):
        one, other = (result.node_server_metrics[t] for result in found)
        assert one[3]["sum"] == pytest.approx(other[3]["sum"], abs=1e-6)
    with pytest.raises(
        TypeError, match="must tell metrics by name, or None; got float"
    ):
        gossip_learning(digits(5), RING, 2, evaluate_fn=lambda t, arrays: 0.5)
