"""Gossip on a ring of numpy clients; what the server saw goes to a file.

The ring falls apart in round 2, and loses links in round 3. In round 7 the disk is
full.
"""

import os
import resource
import signal
import time
from pathlib import Path

import networkx as nx
import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from flwr.serverapp import ServerApp

from gossiplib.core.server import Gossip
from gossiplib.core.topology import drop_links, named
from gossiplib.system.encoding import dump

app = ServerApp()


def ring(server_round, n=4):
    if server_round == 2:
        return nx.Graph([(0, 1), (2, 3)])
    graph = named("ring", n)
    return drop_links(graph, 0.5, seed=1)(4) if server_round == 3 else graph


def limit_files(size):
    """Let this process write files of so many bytes; None is as many as it likes."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    limit = (most if size is None else size, most)
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)


class Watched(Gossip):
    """Tell each round; be killed, and have a full disk, when it is time for it."""

    die = 0

    def configure_train(self, server_round, *args):
        print(f"round {server_round}", flush=True)
        if server_round == self.die:
            time.sleep(2)  # what it prints has a way to go
            os.kill(os.getpid(), signal.SIGKILL)
        if server_round == 7 and self.checkpoint:
            limit_files(1000)
        return super().configure_train(server_round, *args)


def serve(grid, config):
    """Run gossip; return the models after 5 rounds and at the end, and the losses."""
    seen, fifth, path = RecordDict(), [], config.get("checkpoint")
    strategy = Watched(
        ring,
        discover_every=0,
        evaluate_every=0,
        observe_every=5,
        checkpoint=path,
        checkpoint_every=2 if config.get("die") else 0,
    )
    strategy.die = config.get("die", 0)

    def look(server_round, arrays):
        if server_round == 5:
            fifth.append(arrays)

    first = ArrayRecord([np.zeros((64, 10)), np.zeros(10)])
    told = (grid, first, config["num-rounds"], config["timeout"])
    if path and Path(path).exists():
        result = strategy.resume(path, *told, evaluate_fn=look)
    else:
        result = strategy.start(*told, evaluate_fn=look)
    limit_files(None)
    seen.update({f"5 {i}": arrays for i, arrays in enumerate(fifth)})
    seen.update({f"end {i}": arrays for i, arrays in result.node_arrays.items()})
    trained = {f"{t}": sorted(m) for t, m in result.node_train_metrics.items()}
    seen["trained"] = ConfigRecord(trained)
    lost = [f"{x.round} {x.client} {x.call} {x.reason}" for x in result.lost]
    seen["lost"] = ConfigRecord({"lost": lost, "unsaved": list(result.unsaved)})
    return seen


@app.main()
def main(grid, context):
    config = context.run_config
    if config["fail"]:
        raise ValueError("this app fails on purpose")
    Path(config["out"]).write_bytes(dump(serve(grid, config)))
