"""Checks of the exercises of notebook 15: your own model and data."""

from collections.abc import Callable
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd

from gossiplib.classroom.checking import Function, checks, close, need, predicts

SEED = 15


def _wards(rows: int) -> pd.DataFrame:
    """Return a table with gaps, words in no order, and an index of its own."""
    rng = np.random.default_rng(SEED + rows)
    table = pd.DataFrame(
        {
            "ward": rng.choice(["north", "east", "south"], rows),
            "age": rng.normal(50, 20, rows).round(),
            "sick": rng.choice(["yes", "no", "maybe"], rows),
            "pulse": rng.normal(70, 9, rows),
            "blood": rng.choice(["B", "A", "0", "AB"], rows),
        },
        index=rng.permutation(rows),
    )
    table.loc[rng.choice(rows, 5, replace=False), "pulse"] = np.nan
    return table


@checks("15.1")
def _(prepare: Function) -> None:
    for rows in (60, 90):
        table = _wards(rows)
        kept = table.copy()
        made = prepare(table)
        need(len(made) == 2, "Return two things, x and y.")
        need(kept.equals(table), "Do not change the table that you are given.")
        x, y = (np.asarray(one) for one in made)
        wanted_y = np.unique(kept["sick"], return_inverse=True)[1]
        hint = "y holds classes from 0 on, one for each row."
        need(y.shape == (rows,) and np.issubdtype(y.dtype, np.number), hint)
        need(
            (y == wanted_y).all(), "Which class is 0? Words are in alphabetical order."
        )
        need(x.ndim == 2 and len(x) == rows, "x has a row for each row of the table.")
        try:
            x = x.astype(float)  # also of True and False beside numbers
        except (TypeError, ValueError):
            need(False, "x must hold numbers.")
        need(np.isfinite(x).all(), "There are gaps in x.")
        hint = "x has 2 columns of numbers, and one for each of 3 and of 4 words."
        need(x.shape[1] == 9, hint)
        for k, name in enumerate(("age", "pulse")):
            column = kept[name].to_numpy()
            column = np.where(np.isnan(column), np.nanmean(column), column)
            column = (column - column.mean()) / column.std(ddof=1)
            hint = f"The column {name!r} is not filled and standardised as asked."
            need(close(x[:, k], column, 1e-6, 1e-6), hint)
        words = [
            (kept[name] == word).to_numpy()
            for name in ("ward", "blood")
            for word in sorted(set(kept[name]))
        ]
        hint = "Then come the words: of the first column of words, then of the other."
        need(close(x[:, 2:], np.stack(words, axis=1)), hint)


@checks("15.2")
def _(pooled: Function) -> str:
    rng = np.random.default_rng(SEED)
    rows = [rng.normal(3 * k, 1 + k, size=(4 + 9 * k, 3)) for k in range(5)]
    for some in ([rows[2]], [rows[1], rows[1] + 5], rows):
        counts = np.array([len(x) for x in some])
        means = np.stack([x.mean(axis=0) for x in some])
        variances = np.stack([x.var(axis=0) for x in some])
        made = pooled(counts, means, variances)
        need(len(made) == 2, "Return two things, mean and variance.")
        every = np.concatenate(some)
        hint = "The mean: a client with more rows weighs more."
        need(close(made[0], every.mean(axis=0)), hint)
        if not close(made[1], every.var(axis=0)):
            need(len(some) > 1, "With one client, the variance is its own.")
            alike = "Two clients of the same size and variance, but far apart: how "
            need(len(some) > 2, alike + "broad are both together?")
            need(False, "The variance: a client with more rows weighs more, here too.")
    mean = float((counts @ variances / counts.sum())[0])
    return (
        f"In one column the mean of the variances is {mean:.1f}, and the variance of "
        f"all rows {rows_variance(rows):.1f}: the rest is that of the means."
    )


def rows_variance(rows: list[np.ndarray]) -> float:
    """Return the variance of the first column of all rows."""
    return float(np.concatenate(rows)[:, 0].var())


@checks("15.3")
def _(regression: Function) -> str:
    from flwr.app import ArrayRecord
    from flwr.clientapp import ClientApp

    from gossiplib.core.client import gossip
    from gossiplib.core.grid import LocalGrid
    from gossiplib.core.server import Gossip

    rng = np.random.default_rng(SEED)
    true = rng.normal(size=3)
    parts = []
    for _ in range(6):
        x = rng.normal(size=(40, 3))
        parts.append((x, x @ true + 2.0 + rng.normal(scale=0.2, size=40)))
    app = regression(parts)
    need(isinstance(app, ClientApp), "Return a ClientApp.")
    first = ArrayRecord([np.zeros(3), np.zeros(1)])
    strategy = Gossip(nx.cycle_graph(6), evaluate_every=0, observe_every=0)
    one = strategy.start(LocalGrid(gossip(app), 6), first, num_rounds=1)
    need(not one.lost, f"A call failed: {one.lost[0].reason}." if one.lost else "")
    trained = np.stack([_descent(*part) for part in parts])
    W = (np.eye(6) + np.roll(np.eye(6), 1, 0) + np.roll(np.eye(6), -1, 0)) / 3
    hint = "After a round, a client does not have the model that 20 such steps give."
    need(close(one.models(), W @ trained, 1e-6, 1e-6), hint)
    result = strategy.start(LocalGrid(gossip(app), 6), first, num_rounds=40)
    x, y = (np.concatenate(one) for one in zip(*parts, strict=True))
    best = np.linalg.lstsq(np.column_stack([x, np.ones(len(x))]), y, rcond=None)[0]
    far = np.abs(result.models() - best).max()
    need(far < 0.2, "It does not come near the least squares of all rows together.")
    return f"No number is farther than {far:.3f} from the least squares of all rows."


def _descent(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return weights and intercept after 20 steps from zero."""
    x = np.column_stack([x, np.ones(len(x))])
    w = np.zeros(x.shape[1])
    for _ in range(20):
        w = w - 0.1 * x.T @ (x @ w - y) / len(y)
    return w


def _weight_of_client_0(
    strategy: Any, wrap: Callable[[Any], Any], twice: bool
) -> float:
    """Return what is left of client 0's model, 1, in the mean; others send 0."""
    from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp

    from gossiplib.core.grid import LocalGrid

    app = ClientApp()

    @app.train()
    def train(message: Any, context: Any) -> Any:
        first = context.node_config["partition-id"] == 0
        content: Any = {
            "arrays": ArrayRecord([np.ones(1) if first else np.zeros(1)]),
            "metrics": MetricRecord({"num-examples": 20 if first and twice else 10}),
        }
        return Message(RecordDict(content), reply_to=message)

    start = ArrayRecord([np.zeros(1)])
    result = strategy.start(LocalGrid(wrap(app), 8), start, num_rounds=1)
    return float(result.arrays.to_numpy_ndarrays()[0][0])


@predicts(
    "15.4",
    "larger",
    "smaller",
    "(a) What does FedAvg weigh by?",
    "(b) Where do gossip's weights come from?",
    "(c) Who sends to whom, and how often?",
    "(d) How many numbers has each of the two models?",
    same=1e-6,
)
def _() -> list[float]:
    """Return how the weights, the messages and the bytes change."""
    from flwr.serverapp.strategy import FedAvg
    from torch import nn

    from gossiplib.core.client import gossip
    from gossiplib.core.server import Gossip
    from gossiplib.tasks.task import Task
    from gossiplib.vectorized.engine import gossip_learning

    ring = nx.cycle_graph(8)
    looks: Any = {"evaluate_every": 0, "observe_every": 0}
    changes = []
    for strategy, wrap in (
        (FedAvg(fraction_evaluate=0.0), lambda app: app),
        (Gossip(ring, **looks), gossip),
    ):
        one, other = (_weight_of_client_0(strategy, wrap, k) for k in (False, True))
        changes.append(other - one)

    def network() -> nn.Module:
        layers = nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10)
        return nn.Sequential(*layers)

    rng = np.random.default_rng(SEED)
    x, y = rng.random((200, 64)), np.arange(200) % 10
    images = x.reshape(-1, 1, 8, 8)
    plain, larger = (
        gossip_learning(task, ring, 1, **looks)
        for task in (
            Task(x, y, 8, partition="iid"),
            Task(images, y, 8, partition="iid", build=network),
        )
    )
    changes.append(larger.messages[1] - plain.messages[1])
    return [*changes, larger.bytes[1] - plain.bytes[1]]
