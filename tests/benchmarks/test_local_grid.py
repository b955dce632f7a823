"""How fast is LocalGrid? `make bench` prints a table for each question.

Each table compares with its fastest row, in brackets. A table's rows do the same work:
the number of messages, or of client updates, is the same.
"""

import time

import numpy as np
import pytest
from flwr.app import (
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp

from gossiplib.core.client import gossip
from gossiplib.core.grid import LocalGrid
from gossiplib.core.server import Gossip
from gossiplib.core.topology import named
from gossiplib.system.simulation import run_on_ray
from gossiplib.tasks.task import digits
from gossiplib.tasks.training import train

MODEL = ArrayRecord([np.zeros(650, dtype=np.float32)])
CLIENTS = 100
empty = ClientApp()


@empty.train()
def reply_at_once(message, context):
    content = {"arrays": message.content["arrays"], "metrics": MetricRecord()}
    return Message(RecordDict(content), reply_to=message)


def send_to_all(grid):
    record = RecordDict({"arrays": MODEL, "config": ConfigRecord()})
    calls = [Message(record, node, "train") for node in grid.get_node_ids()]
    replies = list(grid.send_and_receive(calls))
    assert len(replies) == CLIENTS and not any(reply.has_error() for reply in replies)


@pytest.mark.benchmark(group=f"a message to each of {CLIENTS} empty clients")
class TestMessages:
    def test_local_grid(self, benchmark):
        grid = LocalGrid(empty, CLIENTS)
        benchmark.pedantic(send_to_all, (grid,), rounds=20, warmup_rounds=2)

    def test_ray(self, benchmark):
        def main(grid):
            while len(list(grid.get_node_ids())) < CLIENTS:
                time.sleep(0.1)
            benchmark.pedantic(send_to_all, (grid,), rounds=20, warmup_rounds=2)

        run_on_ray(empty, CLIENTS, main)


@pytest.mark.benchmark(group="10 rounds of 16 clients, digits, one local epoch")
class TestTraining:
    """Gossip on LocalGrid against training alone: the ClientApp's, and the bare one."""

    task = digits(16)
    app = task.client_app()

    def test_bare_training_in_a_loop(self, benchmark):
        model = self.task.model()
        parts = [self.task.part(i, "train") for i in range(16)]

        def loop():
            for t in range(1, 11):
                for i, (x, y) in enumerate(parts):
                    train(model, x, y, self.task.batches(i, t, 1, 16), lr=0.5)

        benchmark.pedantic(loop, rounds=10, warmup_rounds=1)

    def test_training_function_in_a_loop(self, benchmark):
        grid = LocalGrid(self.app, 16)  # lets a Message be made
        arrays = self.task.initial_arrays()
        contexts = [
            Context(1, i, {"partition-id": i}, RecordDict(), {}) for i in range(16)
        ]

        def loop():
            for t in range(1, 11):
                for node, context in zip(grid.get_node_ids(), contexts, strict=True):
                    config = ConfigRecord({"server-round": t})
                    record = RecordDict({"arrays": arrays, "config": config})
                    self.app(Message(record, node, "train"), context)

        benchmark.pedantic(loop, rounds=10, warmup_rounds=1)

    def test_gossip_on_local_grid(self, benchmark):
        strategy = Gossip(named("regular", 16), evaluate_every=0, observe_every=0)
        app, arrays = gossip(self.app), self.task.initial_arrays()
        benchmark.pedantic(
            lambda: strategy.start(LocalGrid(app, 16), arrays, num_rounds=10),
            rounds=10,
            warmup_rounds=1,
        )


@pytest.mark.benchmark(group="10,000 updates of empty clients, 4-regular graph")
@pytest.mark.parametrize("n", [10, 100, 1000])
def test_cost_per_client_is_flat(benchmark, n):
    strategy = Gossip(named("regular", n), evaluate_every=0, observe_every=0)
    benchmark.pedantic(
        lambda: strategy.start(LocalGrid(gossip(empty), n), MODEL, 10_000 // n),
        rounds=3,
        warmup_rounds=1,
    )
