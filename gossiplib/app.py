"""The finished prototype as a Flower app: `make run`, or `flwr run`.

It runs FedAvg and gossip on the grid that Flower gives, and gossip on a ring for
contrast, with the same clients on the same partitions of digits. The settings are those
of `[tool.flwr.app.config]` in pyproject.toml. Flower simulates two SuperNodes unless it
is told how many: `flwr run . --stream --federation-config num-supernodes=16`.
"""

from pathlib import Path
from typing import Any

import pandas as pd
from flwr.app import ArrayRecord, Context, Message, MetricRecord
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from gossiplib.core.client import gossip
from gossiplib.core.grid import LocalGrid
from gossiplib.core.server import Gossip
from gossiplib.core.topology import named
from gossiplib.system.runs import due, wait_until
from gossiplib.tasks.task import Task, digits

LEGEND = """
Accuracy on the common test set: that of FedAvg's one model, and for gossip
that of the clients' models. Distance: how far these are from their mean.
Local: on a LocalGrid, in the server's process."""


def _settings(context: Context) -> Any:
    return context.run_config  # pyproject.toml says of what type each is


def _task(context: Context) -> Task:
    config = _settings(context)
    return digits(config["num-clients"], alpha=config["alpha"], seed=config["seed"])


def _check_nodes(grid: Grid, n: int) -> None:
    """Raise ValueError unless there is a SuperNode for each client."""

    def nodes() -> int:
        return len(list(grid.get_node_ids()))

    wait_until(lambda: nodes() > 0, 60)  # the first of them comes after the server
    before = 0
    while (there := nodes()) != n and there > before:  # as long as more come
        before = there
        wait_until(lambda: nodes() == n, 1)
    if there != n:
        wrong = (
            f"the app has {n} clients, and there are {there} SuperNodes. Simulate\n"
            f'as many: flwr run . --stream --federation-config "num-supernodes={n}"'
        )
        print(wrong, flush=True)  # Flower tells what is raised when Ray has started
        raise ValueError(wrong)


def _call(message: Message, context: Context) -> Message:
    config = _settings(context)
    app = _task(context).client_app(
        epochs=config["local-epochs"],
        batch_size=config["batch-size"],
        lr=config["learning-rate"],
    )
    return app(message, context)


# The task depends on the run's settings, which an app sees in its context only.
digits_app = ClientApp()
digits_app.train()(_call)
digits_app.evaluate()(_call)

client = gossip(digits_app)
server = ServerApp()


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Run FedAvg and gossip on a `grid`, print the table, save it and a figure.

    The `context` has the settings. There must be a SuperNode for each client.
    """
    config = _settings(context)
    n, rounds, every = config["num-clients"], config["num-rounds"], config["every"]
    _check_nodes(grid, n)
    # What may be wrong with the settings is said before the first round.
    contrast = "ring (local)"
    graphs = {
        name: named(name.split()[0], n, seed=config["seed"])
        for name in (config["topology"], contrast)
    }
    folder = Path(config["output"]) if config["output"] else None
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    task = _task(context)
    told = 0

    def evaluate(t: int, arrays: ArrayRecord) -> MetricRecord | None:
        nonlocal told
        if t and t != told and due(t, max(1, rounds // 4)):
            print(f"  round {t} of {rounds}", flush=True)
        told = t
        seen = due(t, every) or t == rounds
        return task.evaluate_fn(t, arrays) if seen else None

    run: dict[str, Any] = {
        "initial_arrays": task.initial_arrays(),
        "num_rounds": rounds,
        "evaluate_fn": evaluate,
    }

    print(f"FedAvg, {n} clients ...", flush=True)
    federated = FedAvg(fraction_evaluate=0.0).start(grid, **run)
    measured = federated.evaluate_metrics_serverapp
    accuracy: dict[int, Any] = {t: m["accuracy"] for t, m in measured.items()}
    columns = {("FedAvg", "model"): pd.Series(accuracy)}
    results = {}
    # The ring is there for contrast. It runs in this process, which takes less time and
    # gives the same models.
    local = LocalGrid(client, n, run_config=config)
    for name, where in ((config["topology"], grid), (contrast, local)):
        print(f"Gossip, {name} ...", flush=True)
        strategy = Gossip(graphs[name], evaluate_every=0, observe_every=every)
        result = results[name] = strategy.start(where, **run)
        clients = result.to_pandas().groupby("round")["server_accuracy"]
        for column in ("mean", "min", "max"):
            columns[name, column] = clients.agg(column)
        columns[name, "distance"] = pd.Series(result.consensus_distance)
    table = pd.DataFrame(columns).dropna().rename_axis("round")
    table = table.rename(columns={"min": "worst", "max": "best"}, level=1)
    print(table.round(3).to_string())
    print(LEGEND, flush=True)

    if folder:
        from gossiplib.viz import plots

        table.to_csv(folder / "accuracy.csv")
        figure = plots.accuracy(results, {"FedAvg": accuracy}, value="server_accuracy")
        figure.savefig(folder / "accuracy.png", dpi=150, bbox_inches="tight")
        print(f"The table, and a picture of it, in {folder}:", flush=True)
        print("accuracy.csv, accuracy.png", flush=True)
