"""Peers on one machine: model exchanges a second, and what they cost over LocalGrid.

    python tests/benchmarks/peers.py [PEERS] [ROUNDS]

The clients do nothing but add a vector, so that what is measured is gossip itself. The
same clients, graph and rounds run on LocalGrid, on which all is one process. Time is
that of the rounds alone: from the first training that any peer ends to the last round.
"""

import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from gossiplib.core.client import gossip
from gossiplib.core.topology import named

SIZES = (1_000, 100_000)

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Add one, and say so."""
    (model,) = message.content["arrays"].to_numpy_ndarrays()
    metrics = MetricRecord({"num-examples": 1})
    content = {"arrays": ArrayRecord([model + 1]), "metrics": metrics}
    return Message(RecordDict(content), reply_to=message)


client = gossip(app)


def small() -> ArrayRecord:
    """Return a model of 4 kB."""
    return ArrayRecord([np.zeros(SIZES[0], np.float32)])


def large() -> ArrayRecord:
    """Return a model of 400 kB."""
    return ArrayRecord([np.zeros(SIZES[1], np.float32)])


def measure(n: int, rounds: int) -> pd.DataFrame:
    """Return a table: a row for each size of a model."""
    from gossiplib.core.grid import LocalGrid
    from gossiplib.core.server import Gossip
    from gossiplib.peers.launch import Peers

    graph = named("regular", n, seed=0)
    off = {"evaluate_every": 0, "observe_every": 0}
    rows = []
    for size, initial in zip(SIZES, (small, large), strict=True):
        name = f"peers:{initial.__name__}"
        options = {"num_rounds": rounds, "start_timeout": 300, **off}
        path = Path(__file__).parent
        with Peers("peers:client", name, graph, path=path, **options) as peers:
            peers.wait(600)
            events, result = peers.events(), peers.result()
        started = events.loc[events["event"] == "trained", "time"].min()
        took = events.loc[events["event"] == "round", "time"].max() - started
        begin = time.perf_counter()
        local = Gossip(graph, **off).start(LocalGrid(client, n), initial(), rounds)
        local_took = time.perf_counter() - begin
        assert np.array_equal(result.models(), local.models()) and not result.lost
        exchanges = sum(result.messages.values())
        rows.append(
            {
                "peers": n,
                "model, kB": 4 * size // 1000,
                "exchanges": exchanges,
                "peers: exchanges/s": round(exchanges / took),
                "LocalGrid: exchanges/s": round(exchanges / local_took),
                "times LocalGrid's time": round(took / local_took, 1),
            }
        )
    return pd.DataFrame(rows)


if __name__ == "__main__":
    numbers = [int(argument) for argument in sys.argv[1:]]
    print(measure(*(numbers + [16, 50][len(numbers) :])).to_string(index=False))
