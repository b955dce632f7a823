"""my-project: the data of a client, the model, and training. Put yours in its place."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset


class Net(nn.Module):
    """A small network for images of 8 x 8 pixels."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(64, 32)
        self.fc2 = nn.Linear(32, 10)

    def forward(self, x):
        """Return the logits."""
        return self.fc2(torch.relu(self.fc1(x)))


def load_data(partition_id, num_partitions, batch_size):
    """Return the client's own training and test data. A real client reads a file."""
    x, y = load_digits(return_X_y=True)
    x = torch.tensor(x[partition_id::num_partitions] / 16, dtype=torch.float32)
    y = torch.tensor(y[partition_id::num_partitions])
    cut = int(0.8 * len(y))
    trained, tested = TensorDataset(x[:cut], y[:cut]), TensorDataset(x[cut:], y[cut:])
    return DataLoader(trained, batch_size, shuffle=True), DataLoader(tested, 256)


def train(net, loader, epochs, lr):
    """Train in place; return the mean loss of the batches."""
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    net.train()
    losses = []
    for _ in range(epochs):
        for x, y in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(net(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return sum(losses) / len(losses)


def test(net, loader):
    """Return the share of right answers."""
    net.eval()
    with torch.no_grad():
        right = sum((net(x).argmax(dim=1) == y).sum().item() for x, y in loader)
    return right / len(loader.dataset)
