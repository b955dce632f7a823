"""What `make bench` leaves behind: one page with a table and two figures.

The page is notebooks/speed.md; the table is also gossiplib/data/bench.csv.
"""

import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import torch

from gossiplib.viz import plots

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from notebooks import replace_block  # noqa: E402

TABLE = ROOT / "gossiplib" / "data" / "bench.csv"
PAGE = ROOT / "notebooks" / "speed.md"
COST, WORK = ROOT / "notebooks" / "scaling.png", ROOT / "notebooks" / "speed.png"
#: Rows of the table: (engine, model) -> what is measured.
ROWS = {
    ("vectorized", "linear"): "arrays, logistic regression",
    ("by hand", "linear"): "the same round, written by hand",
    ("vectorized", "MLP"): "arrays, 64-64-10 network",
    ("local_grid", "linear"): "`LocalGrid`, logistic regression",
    ("local_grid", "MLP"): "`LocalGrid`, 64-64-10 network",
    ("ray", "linear"): "`Gossip` in Flower's simulation",
    ("fedavg", "linear"): "Flower's `FedAvg` in its simulation",
    (
        "spambase",
        "linear",
    ): "arrays, Spambase, full batches, 20 neighbours",
    ("decent-bench", "linear"): "decent-bench, the same work",
    ("one_send", "linear"): "arrays, each sends to one neighbour a round",
    ("fluke", "linear"): "fluke's `GossipDFL`, the same work",
    ("cycles", "random_walk"): "without rounds: walks, Pegasos",
    ("cycles", "merge_update"): "without rounds: merges, Pegasos",
}
#: What is compared on the same work: ours, theirs, and the work.
PAIRS = [
    ("vectorized", "by hand", "digits: a round written by hand"),
    ("spambase", "decent-bench", "Spambase: decent-bench"),
    ("one_send", "fluke", "digits, one send a round: fluke"),
]


def write(rows: list[dict]) -> None:
    """Write the table, draw the figures, and put both on the page."""
    found = pd.DataFrame(rows).assign(cores=os.cpu_count())
    found[["rate", "best"]] = found[["rate", "best"]].round(1)
    found["peak_mb"] = found["peak_mb"].astype("Int64")
    found.to_csv(TABLE, index=False, lineterminator="\n")
    draw_cost(found)
    draw_work(found)
    text = PAGE.read_text("utf-8")
    PAGE.write_text(replace_block(text, "bench", content(found)), "utf-8")


def content(found: pd.DataFrame) -> str:
    """Return what stands between the marks of the page."""
    where = f"{os.cpu_count()} cores, {platform.machine()}"
    where += f", {torch.backends.cpu.get_cpu_capability()}"
    tools = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "flwr"))
    commit = subprocess.check_output(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, text=True
    ).strip()
    head = (
        f"Measured on {where}, with Python {platform.python_version()}, {tools}, at "
        f"commit `{commit}`. Medians of five runs; from 100,000 clients on, of one."
    )
    lines = [head, ""]
    lines += ["| what | clients | threads | client updates a second | peak |"]
    lines += ["|---|--:|--:|--:|--:|"]
    for (engine, model), what in ROWS.items():
        some = found[(found["engine"] == engine) & (found["model"] == model)]
        for row in some.itertuples():
            peak = "" if pd.isna(row.peak_mb) else f"{row.peak_mb:,} MB"
            size = f"{row.clients:,} | {row.threads} | {row.rate:,.0f}"
            lines.append(f"| {what} | {size} | {peak} |")
    whole = "three rounds, from the call of `digits` to the result"
    lines += ["", f"| {whole} | clients | seconds | peak |", "|---|--:|--:|--:|"]
    for row in found[found["engine"] == "million"].itertuples():
        seconds = f"{row.rate:.0f} | {row.peak_mb:,} MB"
        lines.append(f"| {row.model} | {row.clients:,} | {seconds} |")
    cost = 1e6 / one_thread(found, "vectorized")
    spans = f"{cost.min():.1f} to {cost.max():.1f}"
    grid = 1e6 / one_thread(found, "local_grid")
    costs = f"What an update costs on one thread: on arrays {spans} microseconds for "
    costs += f"{cost.index[0]:,} to {cost.index[-1]:,} clients, on LocalGrid "
    costs += f"{grid.min():,.0f} to {grid.max():,.0f}."
    works = "Client updates a second on the same work: " + "; ".join(
        f"{work} with {n:,} clients, {mine:,.0f} to {other:,.0f}"
        for work, n, mine, other in pairs(found)
    )
    lines += ["", f"![{costs}](scaling.png)", "", f"![{works}.](speed.png)"]
    return "\n".join(lines)


def one_thread(found: pd.DataFrame, engine: str, model: str = "linear") -> pd.Series:
    """Return an engine's updates a second, by the number of clients."""
    some = found[(found["engine"] == engine) & (found["model"] == model)]
    return some[some["threads"] == 1].set_index("clients")["rate"]


def pairs(found: pd.DataFrame) -> list[tuple[str, int, float, float]]:
    """Return the work, its clients, and the updates a second of ours and of theirs."""
    compared = []
    for engine, other, work in PAIRS:
        ours, theirs = one_thread(found, engine), one_thread(found, other)
        compared += [(work, n, ours[n], theirs[n]) for n in theirs.index]
    return compared


def draw_cost(found: pd.DataFrame) -> None:
    """Draw what an update costs over the number of clients, with the bound."""
    fig, ax = plt.subplots(figsize=(6.4, 4), layout="constrained")
    kinds = [
        ("local_grid", "linear", "^-", 2, "LocalGrid"),
        ("vectorized", "MLP", "s-", 1, "arrays, network"),
        ("vectorized", "linear", "o-", 0, "arrays, logistic regression"),
        ("by hand", "linear", "x--", 3, "the same, by hand"),
    ]
    for engine, model, look, colour, label in kinds:
        cost, colour = 1e6 / one_thread(found, engine, model), plots.COLOURS[colour]
        ax.loglog(cost.index, cost, look, color=colour)
        place, at = (cost.index[-1], cost.iloc[-1]), {"textcoords": "offset points"}
        ax.annotate(label, place, (8, -3), color=colour, **at)
    ax.set(xlabel="clients", ylabel="microseconds of one thread an update")
    ax.set_xlim(right=1e8)
    fig.savefig(COST, dpi=150)


def draw_work(found: pd.DataFrame) -> None:
    """Draw ours and another on the same work, with how many times it is faster."""
    bars = pairs(found)[::-1]
    fig, ax = plt.subplots(figsize=(6.4, 0.7 + 0.45 * len(bars)), layout="constrained")
    for y, (_, _, mine, other) in enumerate(bars):
        ax.plot([other, mine], [y, y], color=plots.QUIET, lw=1)
        ax.plot(mine, y, "o", color=plots.COLOURS[0])
        ax.plot(other, y, "s", color=plots.INK)
        place, at = (max(mine, other), y), {"textcoords": "offset points"}
        ax.annotate(f"{mine / other:.3g} times", place, (7, -3), **at)
    ax.set_yticks(range(len(bars)), [f"{work}, n = {n:,}" for work, n, *_ in bars])
    ax.set(xscale="log", xlabel="client updates a second, one thread (● ours)")
    ax.margins(x=0.2)
    fig.savefig(WORK, dpi=150)
