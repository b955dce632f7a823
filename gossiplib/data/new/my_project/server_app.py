"""my-project: the server. It holds the graph, and no model."""

import time
from pathlib import Path

from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp

from gossiplib import Gossip, topology
from gossiplib.viz import plots
from my_project.task import Net

app = ServerApp()


def count_clients(grid: Grid) -> int:
    """Return how many there are, when no more have come for two seconds."""
    found, before = 0, -1
    while not found or found != before:
        time.sleep(2)
        found, before = len(list(grid.get_node_ids())), found
    return found


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run gossip, print a table, and leave it and a picture of it in a folder."""
    config = context.run_config
    graph = topology.named(config["topology"], count_clients(grid))
    first = ArrayRecord(Net().state_dict())
    result = Gossip(graph).start(grid, first, num_rounds=config["num-rounds"])

    table = result.to_pandas()  # a row for each round and client
    accuracy = table.groupby("round")["evaluate_accuracy"].agg(["mean", "min", "max"])
    print(f"Accuracy of {len(result.node_arrays)} clients, each on its own test data:")
    print(accuracy.round(3).to_string())
    if result.lost:
        print(f"{len(result.lost)} calls failed. The first:", result.lost[0])
    folder = Path(config["output"])
    table.to_csv(folder / "accuracy.csv", index=False)
    figure = plots.accuracy({"gossip": result})
    figure.savefig(folder / "accuracy.png", dpi=150, bbox_inches="tight")
    print(f"accuracy.csv and accuracy.png are in {folder}", flush=True)
