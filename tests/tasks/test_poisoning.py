"""Data attacks: who trains on what, and byzfl's label flipping."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from gossiplib.tasks.poisoning import poisoned
from gossiplib.tasks.task import digits
from gossiplib.tasks.training import train
from other_libraries import byzfl

PARTS = ("train", "validation", "test")


def flip(x, y):
    return x, 9 - y


def darken(x, y):
    x[:, 0] = 1  # what it gets is a copy
    y[:] = 7
    return x, y


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("partition", ["iid", "dealt"])
@pytest.mark.parametrize("change", [flip, darken])
def test_only_the_training_parts_of_these_clients_change(partition, change):
    """Also where examples are dealt, and other clients hold the same ones."""
    task = digits(60, partition=partition, examples=30, seed=1)
    before = [[task.part(i, name) for name in PARTS] for i in range(60)]
    forged = poisoned(task, [3, 7], change)
    for i in range(60):
        for name, was in zip(PARTS, before[i], strict=True):
            assert same(task.part(i, name), was)
            if i in (3, 7) and name == "train":
                assert same(forged.part(i, name), change(*(t.clone() for t in was)))
            else:
                assert same(forged.part(i, name), was)
    assert same(forged.test, task.test)
    many = forged.part(np.array([2, 3]), "validation")
    assert same([t[1] for t in many], before[3][1])


def test_what_changes_nothing_leaves_the_run_as_it_is():
    task = digits(4, seed=0)
    forged = poisoned(task, range(4), lambda x, y: (x, y))
    for i in range(4):
        assert same(forged.part(i, "train"), task.part(i, "train"))


def test_flipped_labels_give_byzfl_s_gradient(monkeypatch):
    module = nn.Linear(64, 10)
    x, y = digits(4, seed=0).part(1, "train")
    there = byzfl("fed_framework.models")
    monkeypatch.setattr(there, "small", lambda: module, raising=False)
    client = byzfl("fed_framework.client").Client(
        {
            "model_name": "small",
            "device": "cpu",
            "loss_name": "CrossEntropyLoss",
            "LabelFlipping": True,
            "nb_labels": 10,
            "momentum": 0.0,
            "training_dataloader": DataLoader(TensorDataset(x, y), len(y)),
            "store_per_client_metrics": False,
        }
    )
    client.compute_gradients()
    start = [p.detach().clone() for p in module.parameters()]
    forged = poisoned(digits(4, seed=0), [1], flip)
    x, y = forged.part(1, "train")
    train(module, x, y, [torch.arange(len(y))], lr=0.5)
    for p, was, gradient in zip(
        module.parameters(), start, client.gradient_LF.values(), strict=True
    ):
        assert torch.allclose(was - p, 0.5 * gradient, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (lambda x, y: (x[1:], y), "change must return x as torch.float32 of shape"),
        (lambda x, y: (x, y / 2), "change must return y as torch.int64 of shape"),
        (lambda x, y: (x, 10 - y), "classes must be from 0 to 9"),
    ],
)
def test_what_is_not_like_the_examples_is_refused(change, wrong):
    with pytest.raises(ValueError, match=wrong):
        poisoned(digits(4, seed=0), [0], change)
    with pytest.raises(ValueError, match="client"):
        poisoned(digits(4, seed=0), [4], flip)
