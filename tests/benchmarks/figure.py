"""What `make bench` leaves behind: a table for notebook 14, and a figure."""

import csv
from pathlib import Path

import matplotlib.pyplot as plt

from gossiplib.viz.plots import COLOURS

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "gossiplib" / "data" / "bench.csv"
FIGURE = ROOT / "notebooks" / "scaling.png"


def write(rows: list[dict], cores: int) -> None:
    """Write the table, and draw updates per second over the number of clients."""
    with TABLE.open("w", newline="") as file:
        table = csv.DictWriter(file, [*rows[0], "cores"], lineterminator="\n")
        table.writeheader()
        for row in rows:
            rounded = {k: round(row[k], 1) for k in ("rate", "best")}
            table.writerow(row | rounded | {"cores": cores})
    fig, ax = plt.subplots(figsize=(6.4, 4), layout="constrained")
    kinds = [
        ("vectorized", "linear", 1, "o-", "arrays, logistic regression"),
        ("vectorized", "MLP", 1, "s-", "arrays, MLP"),
        ("local_grid", "linear", 1, "^--", "LocalGrid, logistic regression"),
        ("ray", "linear", 2, "x", "Ray, logistic regression, 2 processes"),
    ]
    for colour, (engine, model, threads, style, label) in zip(
        COLOURS, kinds, strict=False
    ):
        points = [
            (row["clients"], row["rate"])
            for row in rows
            if (row["engine"], row["model"], row["threads"]) == (engine, model, threads)
        ]
        ax.loglog(*zip(*points, strict=True), style, color=colour, label=label)
    ax.set(
        xlabel="clients", ylabel="client updates per second, 1 thread", ylim=(10, 1e6)
    )
    ax.legend(fontsize=8, loc="center right")
    ax.grid(alpha=0.3)
    fig.savefig(FIGURE, dpi=150)
