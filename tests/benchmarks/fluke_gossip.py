"""Turns a CPU second of fluke's gossip on digits: run in its own environment.

    PYTHON fluke_gossip.py CLIENTS

In a turn a client takes in what has come, makes one step on eight examples, and sends
its model to a random neighbour in a 4-regular graph. Who has heard nothing only sends,
which counts as a turn as well. Set-up and the evaluation at the end are left out.
"""

import os
import sys
import time

for name in ("OMP", "OPENBLAS", "MKL"):
    os.environ[f"{name}_NUM_THREADS"] = "1"

import networkx as nx  # noqa: E402
import torch  # noqa: E402
from fluke import DDict, FlukeENV  # noqa: E402
from fluke.algorithms.decentralized import GossipDFL, Topology  # noqa: E402
from fluke.data import DataContainer, DataSplitter  # noqa: E402
from fluke.evaluation import ClassificationEval  # noqa: E402
from sklearn.datasets import load_digits  # noqa: E402
from torch import nn  # noqa: E402

SECONDS = 5


def main(n: int) -> None:
    """Print the turns per CPU second of n clients."""
    torch.set_num_threads(1)
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels)
    data = DataContainer(x[: 8 * n], y[: 8 * n], x[8 * n :], y[8 * n :], 10)
    env = FlukeENV()
    env.set_seed(0)
    env.set_evaluator(ClassificationEval(eval_every=10**9, n_classes=10))
    env.set_eval_cfg(pre_fit=False, post_fit=False, locals=False, server=False)
    optimizer = DDict(name="SGD", lr=0.5)
    client = DDict(
        batch_size=8,
        local_epochs=1,
        loss="CrossEntropyLoss",
        optimizer=optimizer,
        scheduler=DDict(name="StepLR", step_size=10**6, gamma=1),
        policy="aggregate",
    )
    gossip = GossipDFL(
        n,
        DataSplitter(data),
        DDict(model=nn.Linear(64, 10), client=client),
        topology=Topology(nx.random_regular_graph(4, n, seed=0)),
    )
    gossip.finalize = lambda: None
    gossip.run(3)
    start, rounds = time.process_time(), 0
    while time.process_time() - start < SECONDS:
        gossip.run(20)
        rounds += 20
    print(n * rounds / (time.process_time() - start))


if __name__ == "__main__":
    main(int(sys.argv[1]))
