"""Gossip on a ring of numpy clients; what the server saw goes to a file.

The ring falls apart in rounds 2 and 3, and loses links in round 4.
"""

from pathlib import Path

import networkx as nx
import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.serverapp import ServerApp

from gossiplib.records import dump
from gossiplib.server import Gossip
from gossiplib.topology import drop_links, named

app = ServerApp()


def ring(server_round, n=4):
    print(f"round {server_round}", flush=True)
    if server_round in (2, 3):
        return nx.Graph([(0, 1), (2, 3)])
    graph = named("ring", n)
    return drop_links(graph, 0.5, seed=1)(4) if server_round == 4 else graph


def serve(grid, config, n=4):
    """Run gossip; return the models after 5 rounds and at the end, and the losses."""
    seen = RecordDict()

    def look(server_round, arrays):
        if server_round:
            seen[f"{server_round} {len(seen) % n}"] = arrays

    strategy = Gossip(ring, discover_every=0, evaluate_every=0, observe_every=5)
    first = ArrayRecord([np.zeros((64, 10)), np.zeros(10)])
    rounds, timeout = config["num-rounds"], config["timeout"]
    result = strategy.start(grid, first, rounds, timeout, evaluate_fn=look)
    trained = {f"{t}": sorted(m) for t, m in result.node_train_metrics.items()}
    seen["trained"] = ConfigRecord(trained)
    lost = [f"{x.round} {x.client} {x.call} {x.reason}" for x in result.lost]
    seen["lost"] = ConfigRecord({"lost": lost})
    seen["distance"] = MetricRecord({"end": result.consensus_distance[rounds]})
    return seen


@app.main()
def main(grid, context):
    config = context.run_config
    if config["fail"]:
        raise ValueError("this app fails on purpose")
    Path(config["out"]).write_bytes(dump(serve(grid, config)))
