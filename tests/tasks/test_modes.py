"""Models train in the mode of training, are judged in that of evaluation, and share
nothing but what a client is sent."""

import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord
from test_task import call
from torch import nn
from torch.nn import functional as F

from gossiplib.core.averaging import SoftmaxDistance
from gossiplib.core.client import gossip
from gossiplib.core.grid import LocalGrid
from gossiplib.core.server import Gossip
from gossiplib.core.topology import named
from gossiplib.tasks.task import digits
from gossiplib.tasks.training import evaluate, train


def normed():
    layers = nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10)
    return nn.Sequential(*layers)


def dropping():
    return nn.Sequential(nn.Linear(64, 32), nn.Dropout(0.5), nn.Linear(32, 10))


def trained(task, client=1, server_round=3, **options):
    config = ConfigRecord({"server-round": server_round})
    content = {"arrays": task.initial_arrays(), "config": config}
    reply = call(task.client_app(**options), "train", content, client)
    return reply["arrays"].to_torch_state_dict()


def judge(model, x, y):
    """Return the accuracy of a model in the mode of evaluation, by torch alone."""
    with torch.no_grad():
        return float((model.eval()(x).argmax(dim=1) == y).float().mean())


def test_batch_normalisation_trains_on_batches_and_is_judged_by_what_it_learned():
    task = digits(4, build=normed, partition="iid")
    found = trained(task, lr=0.2)
    model, (x, y) = task.model(), task.part(1, "train")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    model.train()
    for rows in task.batches(1, 3, 1, 16):
        optimizer.zero_grad()
        F.cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
    for name, wanted in model.state_dict().items():
        assert torch.allclose(found[name], wanted, atol=1e-5), name
    assert found["1.num_batches_tracked"] == len(task.batches(1, 3, 1, 16))
    arrays = ArrayRecord(found)
    model.load_state_dict(found)
    reply = call(task.client_app(), "evaluate", {"arrays": arrays})
    assert reply["metrics"]["accuracy"] == judge(model, *task.part(1, "test"))
    assert task.evaluate_fn(1, arrays)["accuracy"] == judge(model, *task.test)


@pytest.mark.parametrize("build", [normed, dropping])
def test_evaluation_changes_nothing_and_gives_the_same_each_time(build):
    model, (x, y) = build(), digits(4).test
    before = {k: a.clone() for k, a in model.state_dict().items()}
    found = [evaluate(model.train(), x, y) for _ in range(3)]
    assert found[0] == found[1] == found[2]
    assert found[0]["accuracy"] == pytest.approx(judge(model, x, y))
    assert all(torch.equal(a, before[k]) for k, a in model.state_dict().items())
    train(model, x, y, [torch.arange(16)], lr=0.1)
    assert all(module.training for module in model.modules())


def test_a_client_with_one_example_can_judge_a_model_with_batch_normalisation():
    task = digits(100, build=normed, partition="iid")
    grid = LocalGrid(gossip(task.client_app()), 100)
    result = Gossip(named("ring", 100), observe_every=0).start(
        grid, task.initial_arrays(), num_rounds=1
    )
    assert result.lost == [] and len(result.node_evaluate_metrics[1]) == 100


def test_predictions_are_those_of_evaluation():
    class Here:
        node_config = {"partition-id": 1}

    task = digits(4, build=normed)
    model = task.model()
    model(task.x), model.eval()  # so that it has learned statistics
    arrays = [a.numpy() for a in model.state_dict().values()]
    with torch.no_grad():
        wanted = model(task.part(1, "validation")[0]).softmax(dim=1)
    assert np.allclose(task.predict(arrays, Here), wanted, atol=1e-6)


def test_dropout_draws_by_seed_client_and_round():
    task = digits(4, build=dropping, partition="iid", holdout=0)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first = trained(task)
    assert torch.equal(torch.rand(3), expected)  # it leaves torch's numbers alone
    again = trained(task)
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_dropout_differs_between_clients_and_rounds():
    masks, first_masks = [], []

    class Watched(nn.Linear):
        def forward(self, x):
            kept = F.dropout(torch.ones(64), training=self.training)
            masks.append(kept.tolist())
            return super().forward(x * kept)

    task = digits(4, build=lambda: Watched(64, 10), partition="iid")
    for client, server_round in [(1, 3), (1, 4), (2, 3), (1, 3)]:
        masks.clear()
        trained(task, client, server_round)
        first_masks.append(masks[0])
    assert first_masks[0] == first_masks[3] not in first_masks[1:3]
    assert first_masks[1] != first_masks[2]


class Growing(nn.Linear):
    """Hold what no client sends: a count of its calls, on which its output depends."""

    def __init__(self):
        super().__init__(64, 10)
        self.register_buffer("calls", torch.zeros(()), persistent=False)

    def forward(self, x):
        self.calls += 1
        return super().forward(x) * self.calls


def test_nothing_passes_from_client_to_client_but_what_is_sent():
    alone = trained(digits(4, build=Growing), lr=0.01)
    task = digits(4, build=Growing)
    task.evaluate_fn(0, task.initial_arrays())
    trained(task, 0, lr=0.01)
    later = trained(task, lr=0.01)
    assert all(torch.equal(alone[name], later[name]) for name in alone)


def test_a_model_that_works_in_place_leaves_the_examples_alone():
    class Shifted(nn.Linear):
        def forward(self, x):
            return super().forward(x.sub_(0.5))

    task = digits(4, build=lambda: Shifted(64, 10), partition="iid")
    trained(task)
    losses = [task.evaluate_fn(0, task.initial_arrays())["loss"] for _ in range(2)]
    assert losses[0] == losses[1]
    assert torch.equal(task.x, digits(4, partition="iid").x)


def test_training_needs_no_mode_of_the_caller_s():
    with torch.no_grad():
        found = trained(digits(4))
    assert all(torch.equal(a, found[k]) for k, a in trained(digits(4)).items())


def test_parts_that_are_empty_are_told():
    task = digits(4, test_fraction=0, holdout=0)
    with pytest.raises(ValueError, match="common test set is empty"):
        task.evaluate_fn(0, task.initial_arrays())

    class Here:
        node_config = {"partition-id": 2}

    with pytest.raises(ValueError, match="client 2 has no validation part"):
        task.predict(task.initial_arrays().to_numpy_ndarrays(), Here)


def test_a_layer_that_two_names_share_predicts():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(64, 64), nn.Linear(64, 64)
            self.b.weight, self.head = self.a.weight, nn.Linear(64, 10)

        def forward(self, x):
            return self.head(self.b(self.a(x)))

    task = digits(4, build=Tied, partition="iid")
    arrays, context = task.initial_arrays(), SimpleNamespace(node_config={})
    context.node_config["partition-id"] = 1
    found = task.predict(arrays.to_numpy_ndarrays(), context)
    with torch.no_grad():
        wanted = task.model()(task.part(1, "validation")[0]).softmax(dim=1)
    assert np.allclose(found, wanted)


def test_runs_in_several_threads_draw_as_one_alone():
    def run(_=None):
        task = digits(3, build=dropping, partition="iid", seed=2)
        grid = LocalGrid(gossip(task.client_app(lr=0.1)), 3)
        return Gossip(named("ring", 3)).start(grid, task.initial_arrays(), 2).models()

    before, alone = sys.getswitchinterval(), run()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(3) as pool:
            assert all(
                np.array_equal(found, alone) for found in pool.map(run, range(3))
            )
    finally:
        sys.setswitchinterval(before)


def test_examples_and_models_stay_where_they_are_whatever_torch_s_default_is():
    def run():
        task = digits(3, hidden=8, partition="iid", holdout=0.2)
        average = SoftmaxDistance(task.predict)
        grid = LocalGrid(gossip(task.client_app(lr=0.1), average=average), 3)
        first = task.initial_arrays()
        strategy = Gossip(named("ring", 3))
        result = strategy.start(grid, first, 2, evaluate_fn=task.evaluate_fn)
        return result.models(), result.evaluate_metrics_serverapp[2]

    wanted = run()
    torch.set_default_device("meta")  # as "cuda", where there is one
    try:
        found = run()
    finally:
        torch.set_default_device(None)
    assert np.array_equal(found[0], wanted[0]) and found[1] == wanted[1]
