"""Two ClientApps as a user of Flower writes them, in the style of its quickstarts.

They know nothing of gossip: no part of gossiplib is imported here. Both learn
scikit-learn's digits, of which client i takes each n-th example.
"""

import warnings

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def load_data(
    context: Context,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return x_train, x_test, y_train, y_test of the client."""
    i, n = context.node_config["partition-id"], context.node_config["num-partitions"]
    x, y = load_digits(return_X_y=True)
    x, y = x[i::n] / 16, y[i::n]
    cut = int(0.8 * len(y))
    return x[:cut], x[cut:], y[:cut], y[cut:]


# PyTorch ------------------------------------------------------------------------------


class Net(nn.Module):
    """A small network with batch normalisation, which brings a counter."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(64, 32)
        self.norm = nn.BatchNorm1d(32)
        self.fc2 = nn.Linear(32, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        return self.fc2(torch.relu(self.norm(self.fc1(x))))


torch_app = ClientApp()


@torch_app.train()
def train_torch(msg: Message, context: Context) -> Message:
    """Train the model on local data."""
    model = Net()
    model.load_state_dict(msg.content["arrays"].to_torch_state_dict())
    device = torch.device("cpu")
    model.to(device)

    x, _, y, _ = load_data(context)
    torch.manual_seed(context.node_config["partition-id"])
    dataset = TensorDataset(torch.tensor(x, dtype=torch.float32), torch.tensor(y))
    loader = DataLoader(dataset, context.run_config["batch-size"], shuffle=True)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=msg.content["config"]["lr"], momentum=0.9
    )
    criterion = nn.CrossEntropyLoss().to(device)
    model.train()
    running_loss = 0.0
    for _ in range(context.run_config["local-epochs"]):
        for images, labels in loader:
            optimizer.zero_grad()
            loss = criterion(model(images.to(device)), labels.to(device))
            loss.backward()
            optimizer.step()
            running_loss += loss.item()

    metrics = {"train_loss": running_loss / len(loader), "num-examples": len(dataset)}
    content = RecordDict(
        {
            "arrays": ArrayRecord(model.state_dict()),
            "metrics": MetricRecord(metrics),
        }
    )
    return Message(content=content, reply_to=msg)


@torch_app.evaluate()
def evaluate_torch(msg: Message, context: Context) -> Message:
    """Evaluate the model on local data."""
    model = Net()
    model.load_state_dict(msg.content["arrays"].to_torch_state_dict())
    model.eval()
    _, x, _, y = load_data(context)
    x, y = torch.tensor(x, dtype=torch.float32), torch.tensor(y)
    with torch.no_grad():
        logits = model(x)
    metrics = {
        "eval_loss": nn.functional.cross_entropy(logits, y).item(),
        "eval_acc": (logits.argmax(dim=1) == y).float().mean().item(),
        "num-examples": len(y),
    }
    content = RecordDict({"metrics": MetricRecord(metrics)})
    return Message(content=content, reply_to=msg)


# scikit-learn -------------------------------------------------------------------------


def create_model() -> LogisticRegression:
    """Return a logistic regression at zero, which goes on from where it is."""
    model = LogisticRegression(max_iter=5, warm_start=True)
    model.classes_ = np.arange(10)
    model.coef_ = np.zeros((10, 64))
    model.intercept_ = np.zeros(10)
    return model


def get_model_params(model: LogisticRegression) -> list[np.ndarray]:
    """Return the parameters as a list of arrays."""
    return [model.coef_, model.intercept_]


def set_model_params(model: LogisticRegression, params: list[np.ndarray]) -> None:
    """Set the parameters."""
    model.coef_, model.intercept_ = params


sklearn_app = ClientApp()


@sklearn_app.train()
def train_sklearn(msg: Message, context: Context) -> Message:
    """Fit the model on local data."""
    model = create_model()
    set_model_params(model, msg.content["arrays"].to_numpy_ndarrays())
    x, _, y, _ = load_data(context)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few iterations: it has not converged
        model.fit(x, y)
    loss = log_loss(y, model.predict_proba(x), labels=model.classes_)
    metrics = MetricRecord({"num-examples": len(x), "train_logloss": loss})
    arrays = ArrayRecord(get_model_params(model))
    content = RecordDict({"arrays": arrays, "metrics": metrics})
    return Message(content=content, reply_to=msg)


@sklearn_app.evaluate()
def evaluate_sklearn(msg: Message, context: Context) -> Message:
    """Evaluate the model on local data."""
    model = create_model()
    set_model_params(model, msg.content["arrays"].to_numpy_ndarrays())
    _, x, _, y = load_data(context)
    metrics = {
        "num-examples": len(x),
        "test_logloss": log_loss(y, model.predict_proba(x), labels=model.classes_),
        "eval_acc": model.score(x, y),
    }
    content = RecordDict({"metrics": MetricRecord(metrics)})
    return Message(content=content, reply_to=msg)
