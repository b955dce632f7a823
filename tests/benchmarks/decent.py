"""Updates per CPU second of decent-bench on Spambase: run in its own environment.

    PYTHON decent.py CLIENTS

Decentralised gradient descent: in each iteration every client takes one full-batch
gradient step of logistic regression and averages with its 20 neighbours. It is called
in its two ways, `step` in a loop and one long `run`, set-up left out: the faster one
counts. A `run` keeps all agents' states at its end, so that many short ones are slow.
"""

import gzip
import os
import sys
import time
from pathlib import Path

for name in ("OMP", "OPENBLAS", "MKL"):
    os.environ[f"{name}_NUM_THREADS"] = "1"

import networkx as nx  # noqa: E402
import numpy as np  # noqa: E402
from decent_array import Array  # noqa: E402
from decent_array.types import Devices, Frameworks  # noqa: E402
from decent_bench.agents import Agent  # noqa: E402
from decent_bench.algorithms.p2p import DGD  # noqa: E402
from decent_bench.benchmark import configure  # noqa: E402
from decent_bench.costs import LogisticRegressionCost  # noqa: E402
from decent_bench.networks import P2PNetwork  # noqa: E402

SECONDS = 5


def main(n: int) -> None:
    """Print the updates per CPU second of n clients."""
    with gzip.open(
        Path(__file__).parents[2] / "gossiplib/data/spambase.csv.gz"
    ) as file:
        table = np.loadtxt(file, delimiter=",", skiprows=1)
    x, y = (table[:, :-1] - table[:, :-1].mean(0)) / table[:, :-1].std(0), table[:, -1:]
    # Its cost wants both classes at each agent, so spam is dealt out first.
    order = np.argsort(-y[:, 0], kind="stable")
    configure(Frameworks.NUMPY, Devices.CPU, seed=0)
    agents = []
    for i in range(n):
        part = [(Array(x[k].copy()), Array(y[k].copy())) for k in order[i::n]]
        cost = LogisticRegressionCost(part)
        agents.append(Agent(cost, state_snapshot_period=10**9))
    network = P2PNetwork(nx.random_regular_graph(20, n, seed=0), agents)
    algorithm, done = DGD(step_size=0.01), 2
    algorithm.run(network, done)  # builds its weights
    start, first = time.process_time(), done
    while time.process_time() - start < SECONDS:
        algorithm.step(network, done)
        done += 1
    stepped = time.process_time()
    algorithm.run(network, 2 * done - first, start_iteration=done)
    fastest = min(stepped - start, time.process_time() - stepped)
    print(n * (done - first) / fastest)


if __name__ == "__main__":
    main(int(sys.argv[1]))
