"""Data, its spread over clients, a model and its training."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp.strategy import FedAvg

from gossiplib.core.grid import LocalGrid
from gossiplib.tasks.task import Task, digits, spambase
from gossiplib.tasks.training import evaluate, shuffle_keys, train

PARTS = ("train", "validation", "test")


def numbered(count=120, num_clients=6, **options):
    """Return a task whose examples carry their number as their one feature."""
    x = np.arange(count, dtype=float)[:, None]
    return Task(x, np.arange(count) % 3, num_clients, **options)


def numbers(examples):
    return examples[0].ravel().int().tolist()


@pytest.mark.parametrize("partition", ["iid", "dirichlet", "classes"])
def test_each_example_is_in_one_place(partition):
    task = numbered(partition=partition)
    parts = [numbers(task.part(i, name)) for i in range(6) for name in PARTS]
    assert all(parts)
    assert sorted(sum(parts, numbers(task.test))) == list(range(120))
    assert len(numbers(task.test)) == 24


def test_labels_stay_with_their_examples():
    task = numbered()
    for x, y in [task.test, task.part(2, "train"), task.part(3, "test")]:
        assert (x.ravel() % 3 == y).all()


def test_label_counts_count_the_training_parts():
    counts = numbered().label_counts()
    assert counts.shape == (6, 3)
    labels = numbered().part(4, "train")[1]
    assert counts[4].tolist() == [(labels == c).sum() for c in range(3)]


def unevenness(**options):
    counts = digits(16, **options).label_counts()
    return (counts / counts.sum(axis=1, keepdims=True)).std(axis=0).mean()


def test_a_small_alpha_is_uneven_and_iid_is_even():
    spread = [
        unevenness(alpha=0.1),
        unevenness(alpha=1.0),
        unevenness(alpha=1000.0),
        unevenness(partition="iid"),
    ]
    assert spread[0] > 1.5 * spread[1] > 3 * spread[2]
    # A thousand is nearly iid: both have the noise of samples of 70.
    assert spread[2] == pytest.approx(spread[3], rel=0.5)
    sizes = digits(16, partition="iid").label_counts().sum(axis=1)
    assert sizes.max() - sizes.min() <= 2


def test_classes_gives_two_to_each_client_and_leaves_none_out():
    held = digits(16, partition="classes").label_counts() > 0
    assert (held.sum(axis=1) == 2).all()
    assert held.any(axis=0).all()


def test_the_seed_decides_splits_and_first_model():
    first, same, other = (numbered(seed=s, alpha=1.0) for s in (1, 1, 2))
    assert numbers(first.part(3, "train")) == numbers(same.part(3, "train"))
    assert numbers(first.part(3, "train")) != numbers(other.part(3, "train"))
    assert first.initial_arrays() == same.initial_arrays()
    assert first.initial_arrays() != other.initial_arrays()
    assert first.initial_arrays() == first.initial_arrays()


def test_making_a_model_leaves_torch_s_random_numbers_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    numbered().model()
    assert torch.equal(torch.rand(3), expected)


def test_hidden_is_the_width_of_a_hidden_layer():
    shapes = [tuple(p.shape) for p in digits(4, hidden=7).model().parameters()]
    assert shapes == [(7, 64), (7,), (10, 7), (10,)]
    assert [tuple(p.shape) for p in digits(4).model().parameters()] == [(10, 64), (10,)]


def test_digits_are_scikit_learn_s():
    task = digits(4)
    assert task.x.shape == (1797, 64) and task.num_classes == 10
    assert (task.x.min(), task.x.max()) == (0, 1)
    assert len(task.test[1]) == round(0.2 * 1797)


def test_spambase_is_complete_and_standardised():
    task = spambase(4)
    assert task.x.shape == (4601, 57) and task.num_classes == 2
    assert task.y.sum() == 1813  # the data set's own count of spam
    assert torch.allclose(task.x.mean(dim=0), torch.zeros(57), atol=1e-4)
    assert torch.allclose(task.x.std(dim=0), torch.ones(57), atol=1e-4)
    assert len(task.test[1]) == round(0.1 * 4601)


@pytest.mark.parametrize("task", [digits(4, alpha=1.0), numbered()])
def test_a_task_travels_to_another_process(task):
    copy = pickle.loads(pickle.dumps(task))
    assert torch.equal(copy.part(2, "train")[0], task.part(2, "train")[0])
    assert copy.initial_arrays() == task.initial_arrays()


@pytest.mark.parametrize(
    ("num_clients", "options", "says"),
    [
        (0, {}, "at least 1; got 0"),
        (-1, {}, "at least 1; got -1"),
        (4, {"partition": "random"}, "'random'.*iid, dirichlet, classes"),
        (16, {"alpha": 0.001}, "1438 examples over 16 clients.*an alpha above 0.001"),
        (1000, {}, "1000 clients.*fewer clients"),
        (1000, {"partition": "iid"}, "client 0 gets 2 of .*1000 clients"),
        (5000, {"partition": "iid"}, "5000 clients.*fewer clients"),
        (4, {"test_fraction": -0.1}, "test_fraction .* from 0 to 1; got -0.1"),
        (4, {"alpha": 0}, "(?i)alpha"),
        (4, {"alpha": -1}, "(?i)alpha"),
    ],
)
def test_a_spread_that_leaves_a_client_without_data_says_so(num_clients, options, says):
    with pytest.raises(ValueError, match=says):
        digits(num_clients, **options)


def test_examples_and_labels_must_be_as_many():
    with pytest.raises(ValueError, match="10.*9"):
        Task(np.zeros((10, 2)), np.zeros(9, int), 2)


# Training -----------------------------------------------------------------------------


def test_a_step_is_gradient_descent_on_the_cross_entropy():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(5, 4)), rng.integers(3, size=5)
    model = torch.nn.Linear(4, 3).double()
    W, b = (p.detach().numpy().copy() for p in model.parameters())
    loss = train(
        model,
        torch.tensor(x),
        torch.tensor(y),
        [torch.arange(5)],
        lr=0.5,
    )
    logits = x @ W.T + b
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    error = p - np.eye(3)[y]
    assert loss == pytest.approx(-np.log(p[np.arange(5), y]).mean())
    W_, b_ = (q.detach().numpy() for q in model.parameters())
    assert np.allclose(W_, W - 0.5 * error.T @ x / 5)
    assert np.allclose(b_, b - 0.5 * error.mean(axis=0))


@pytest.mark.parametrize(
    ("epochs", "batch_size", "steps"), [(1, 16, 3), (2, 16, 6), (3, 64, 3), (1, 1, 40)]
)
def test_n_ep_epochs_of_batches_of_size_b(epochs, batch_size, steps):
    task = Task(
        np.arange(80.0)[:, None],
        np.arange(80) % 2,
        2,
        partition="dealt",
        examples=40,
        holdout=0,
        test_fraction=0.1,
    )
    batches = task.batches(1, 3, epochs, batch_size)
    assert len(batches) == steps
    assert max(map(len, batches)) == min(batch_size, 40)
    seen = torch.cat(batches).reshape(epochs, 40).tolist()
    assert all(sorted(epoch) == list(range(40)) for epoch in seen)
    assert len({tuple(epoch) for epoch in [*seen, range(40)]}) == epochs + 1


def test_a_client_s_order_is_its_place_in_the_round_s_stream():
    whole = shuffle_keys(5, 3, 0, 1000)
    assert np.array_equal(shuffle_keys(5, 3, 700, 50), whole[700:750])
    assert not np.array_equal(shuffle_keys(5, 4, 0, 50), whole[:50])
    assert not np.array_equal(shuffle_keys(6, 3, 0, 50), whole[:50])


def test_evaluate_gives_loss_and_share_of_hits():
    model = torch.nn.Linear(1, 2)
    with torch.no_grad():
        model.weight[:] = torch.tensor([[0.0], [1.0]])
        model.bias[:] = 0
    x, y = torch.tensor([[2.0], [-2.0], [2.0], [-2.0]]), torch.tensor([1, 0, 1, 1])
    right, wrong = np.log1p(np.exp(-2)), np.log1p(np.exp(2))
    metrics = evaluate(model, x, y)
    assert metrics["accuracy"] == 0.75
    assert metrics["loss"] == pytest.approx((3 * right + wrong) / 4)


def call(app, kind, content, client=1, num_clients=4):
    """Let one client of a LocalGrid answer one message."""
    grid = LocalGrid(app, num_clients)
    message = Message(RecordDict(content), grid.get_node_ids()[client], kind)
    (reply,) = grid.send_and_receive([message])
    return reply.content


def test_the_client_app_trains_the_arrays_it_gets_on_its_own_part():
    task = digits(4)
    app = task.client_app(epochs=2, batch_size=8, lr=0.1)
    arrays, config = task.initial_arrays(), ConfigRecord({"server-round": 3})
    reply = call(app, "train", {"arrays": arrays, "config": config})
    model, (x, y) = task.model(), task.part(1, "train")
    loss = train(model, x, y, task.batches(1, 3, 2, 8), lr=0.1)
    assert reply["arrays"] == ArrayRecord(model.state_dict())
    assert reply["metrics"] == {"loss": loss, "num-examples": len(y)}


def test_each_round_has_its_own_order_of_batches():
    task = digits(4)
    arrays = task.initial_arrays()
    replies = [
        call(
            task.client_app(),
            "train",
            {"arrays": arrays, "config": ConfigRecord({"server-round": t})},
        )["arrays"]
        for t in (1, 1, 2)
    ]
    assert replies[0] == replies[1] != replies[2]


def test_the_client_app_evaluates_on_its_own_test_part():
    task = digits(4)
    reply = call(
        task.client_app(),
        "evaluate",
        {"arrays": task.initial_arrays(), "config": ConfigRecord()},
    )
    x, y = task.part(1, "test")
    expected = evaluate(task.model(), x, y) | {"num-examples": len(y)}
    assert reply["metrics"] == expected


def test_a_client_that_the_task_does_not_have_is_named():
    task, config = digits(4), ConfigRecord({"server-round": 1})
    grid = LocalGrid(task.client_app(), 5)
    content = RecordDict({"arrays": task.initial_arrays(), "config": config})
    for kind in ("train", "evaluate"):
        message = Message(content, grid.get_node_ids()[4], kind)
        (reply,) = grid.send_and_receive([message])
        assert "partition-id must be a whole number, 0 to 3" in reply.error.reason


def test_evaluate_fn_uses_the_common_test_set():
    task = digits(4)
    metrics = task.evaluate_fn(1, task.initial_arrays())
    assert metrics == evaluate(task.model(), *task.test)


def test_predict_gives_softmax_outputs_on_the_validation_part():
    task, context = digits(4), LocalGrid(digits(4).client_app(), 4)
    context = next(
        n.context
        for n in context._nodes.values()
        if n.context.node_config["partition-id"] == 2
    )
    other = digits(4, seed=5).initial_arrays().to_numpy_ndarrays()
    before = [a.copy() for a in other]
    x, _ = task.part(2, "validation")
    logits = x.numpy() @ other[0].T + other[1]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.allclose(task.predict(other, context), p, atol=1e-6)  # float32
    assert all(map(np.array_equal, other, before))


def test_fedavg_learns_the_task():
    task = digits(4, partition="iid")
    app = task.client_app(epochs=3)
    result = FedAvg().start(LocalGrid(app, 4), task.initial_arrays(), num_rounds=3)
    assert task.evaluate_fn(3, result.arrays)["accuracy"] > 0.9


# Many clients, other models --------------------------------------------------------


def test_dealt_clients_have_examples_of_their_own_that_others_hold_too():
    task = numbered(num_clients=500, partition="dealt", examples=10)
    hands = [
        sum((numbers(task.part(i, name)) for name in PARTS), []) for i in range(500)
    ]
    assert all(len(set(hand)) == len(hand) == 10 for hand in hands)
    test = set(numbers(task.test))
    assert not test & set(sum(hands, []))
    held = np.bincount(sum(hands, []), minlength=120)
    held = held[[i for i in range(120) if i not in test]]
    assert held.min() > 0.6 * held.mean()  # each deck holds each example once
    sizes = [len(numbers(task.part(7, name))) for name in PARTS]
    assert sizes == [8, 1, 1]


def test_without_holdout_all_examples_are_for_training():
    task = spambase(4140, partition="iid", holdout=0)
    assert [len(task.part(9, name)[1]) for name in PARTS] == [1, 0, 0]
    reply_to = {"arrays": task.initial_arrays(), "config": ConfigRecord()}
    grid = LocalGrid(task.client_app(), 4140)
    message = Message(RecordDict(reply_to), grid.get_node_ids()[3], "evaluate")
    (reply,) = grid.send_and_receive([message])
    assert "client 3 has no test part: holdout is 0" in reply.error.reason


def test_parts_of_many_clients_at_once():
    task = numbered(num_clients=50, partition="dealt")
    x, y = task.part(np.array([7, 3]), "train")
    for k, client in enumerate([7, 3]):
        assert torch.equal(x[k], task.part(client, "train")[0])
        assert torch.equal(y[k], task.part(client, "train")[1])
    with pytest.raises(ValueError, match="one size"):
        digits(4).part(np.arange(4), "train")
    with pytest.raises(ValueError, match="no part 'tset'"):
        task.part(1, "tset")


def test_predict_of_many_clients_at_once():
    task = numbered(num_clients=50, partition="dealt", hidden=3)
    contexts = [SimpleNamespace(node_config={"partition-id": i}) for i in (7, 3)]
    many = SimpleNamespace(node_config={"partition-id": np.array([7, 3])})
    models = [
        numbered(hidden=3, seed=s).initial_arrays().to_numpy_ndarrays() for s in (1, 2)
    ]
    stacked = [np.stack(layer) for layer in zip(*models, strict=True)]
    together = task.predict(stacked, many)
    for k in range(2):
        alone = task.predict(models[k], contexts[k])
        assert np.allclose(together[k], alone, atol=1e-6)


def test_a_task_takes_another_model_and_another_data_type():
    def build():
        return torch.nn.Sequential(torch.nn.Linear(64, 5), torch.nn.Linear(5, 10))

    task = digits(4, build=build, dtype=torch.float64)
    assert [tuple(p.shape) for p in task.model().parameters()] == [
        (5, 64),
        (5,),
        (10, 5),
        (10,),
    ]
    assert task.model()[0].weight.dtype == task.test[0].dtype == torch.float64
    assert task.initial_arrays() == task.initial_arrays()


class Sometimes(torch.nn.Linear):
    """Use one of its layers in each other step only, and hold one fast."""

    def __init__(self):
        super().__init__(64, 10)
        self.calls, self.second = 0, torch.nn.Linear(64, 10)
        self.bias.requires_grad_(False)

    def forward(self, x):
        self.calls += 1
        return super().forward(x) + (self.second(x) if self.calls % 2 else 0)


@pytest.mark.parametrize("build", [None, Sometimes])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_steps_are_those_of_sgd(build, momentum, weight_decay):
    task = digits(4, build=build)
    options = {"lr": 0.1, "momentum": momentum, "weight_decay": weight_decay}
    content = {
        "arrays": task.initial_arrays(),
        "config": ConfigRecord({"server-round": 2}),
    }
    reply = call(task.client_app(**options), "train", content)
    model, losses, (x, y) = task.model(), [], task.part(1, "train")
    optimizer = torch.optim.SGD(model.parameters(), **options)
    for rows in task.batches(1, 2, 1, 16):
        optimizer.zero_grad()
        losses.append(torch.nn.functional.cross_entropy(model(x[rows]), y[rows]))
        losses[-1].backward()
        optimizer.step()
    assert reply["arrays"] == ArrayRecord(model.state_dict())
    assert reply["metrics"]["loss"] == pytest.approx(sum(losses).item() / len(losses))


def test_arrays_are_known_by_their_names():
    task, config = digits(4), ConfigRecord({"server-round": 2})
    arrays = task.initial_arrays()
    turned = ArrayRecord(dict(reversed(arrays.items())))
    first, second = (
        call(task.client_app(), "train", {"arrays": a, "config": config})["arrays"]
        for a in (arrays, turned)
    )
    assert first == second != arrays and list(second) == list(arrays)


def test_no_two_calls_at_once_have_the_same_model():
    task = digits(4)
    first = task.initial_arrays()
    other = ArrayRecord({name: Array(a.numpy() + 1) for name, a in first.items()})
    with task._loaded(first) as outer, task._loaded(other) as inner:
        assert ArrayRecord(outer.state_dict()) == first
        assert ArrayRecord(inner.state_dict()) == other
    swapped = ArrayRecord(dict(zip(first, reversed(other.values()), strict=True)))
    with pytest.raises(RuntimeError, match="size mismatch"):
        task.evaluate_fn(0, swapped)
    with task._loaded(first) as again:
        assert ArrayRecord(again.state_dict()) == first


@pytest.mark.parametrize("holdout", [-0.1, 0.5, 1])
def test_holdout_is_a_share(holdout):
    with pytest.raises(ValueError, match="holdout is a share"):
        digits(4, holdout=holdout)


@pytest.mark.parametrize("examples", [0, 1439])
def test_no_more_examples_than_there_are_can_be_dealt(examples):
    with pytest.raises(ValueError, match="examples must be .* 1 to 1438"):
        digits(4, partition="dealt", examples=examples)
