"""How fast is the vectorised engine? `make bench` prints tables and writes a figure.

    python tests/benchmarks/vectorized.py [--quick] [--others PYTHON]

Each row is measured in a process of its own. It lists client updates (a step of local
training on 8 examples, and a share of an averaging over a 4-regular graph) per second
of the rounds; with one thread that is, but for interruptions, CPU time. Rows are
repeated, and the table gives the median. As a machine's speed varies, only rows of
one run can be compared. They go to gossiplib/data/bench.csv, which notebook 14 shows.

`--others` is the Python of an environment with decent-bench (Python 3.13; `python3.13
-m venv others && others/bin/pip install decent-bench==0.3.0`).
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
SIZES = {
    "linear": (100, 1_000, 10_000, 100_000, 1_000_000),
    "MLP": (100, 1_000, 10_000),
}
HIDDEN = {"linear": 0, "MLP": 64}


def vectorized(model: str, n: int, threads: int, updates: int) -> dict:
    """Measure the engine."""
    import torch

    from gossiplib.core.topology import named
    from gossiplib.tasks.task import digits
    from gossiplib.vectorized.engine import gossip_learning

    torch.set_num_threads(threads)
    task, graph = (
        digits(n, partition="dealt", hidden=HIDDEN[model]),
        named("regular", n),
    )
    options = {"batch_size": 8, "evaluate_every": 0, "observe_every": 0}
    if n <= 100_000:
        gossip_learning(task, graph, max(1, 200_000 // n), **options)  # warm up
    rounds = max(3, updates // n)
    rates = []
    for _ in range(5 if n <= 10_000 else 1):
        seconds = gossip_learning(task, graph, rounds, **options).seconds
        rates.append(n * rounds / (seconds["train"] + seconds["average"]))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"rate": median(rates), "best": max(rates), "peak_mb": peak // 1000}


def local_grid(model: str, n: int, threads: int, updates: int) -> dict:
    """Measure LocalGrid, on the same work."""
    from gossiplib.core.client import gossip
    from gossiplib.core.grid import LocalGrid
    from gossiplib.core.server import Gossip
    from gossiplib.core.topology import named
    from gossiplib.tasks.task import digits

    task = digits(n, partition="dealt", hidden=HIDDEN[model])
    grid = LocalGrid(gossip(task.client_app(batch_size=8)), n)
    strategy = Gossip(named("regular", n), evaluate_every=0, observe_every=0)
    rounds = max(1, updates // n)
    seconds = strategy.start(grid, task.initial_arrays(), rounds).seconds
    rate = n * rounds / (seconds["train"] + seconds["average"])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"rate": rate, "best": rate, "peak_mb": peak // 1000}


def ray(model: str, n: int, threads: int, updates: int) -> dict:
    """Measure Flower's simulation on Ray, with two processes, without its start."""
    from gossiplib.core.client import gossip
    from gossiplib.core.server import Gossip
    from gossiplib.core.topology import named
    from gossiplib.system.simulation import run_on_ray
    from gossiplib.tasks.task import digits

    task = digits(n, partition="dealt", hidden=HIDDEN[model])
    strategy = Gossip(named("regular", n), evaluate_every=0, observe_every=0)
    rounds = max(2, updates // n)
    app = gossip(task.client_app(batch_size=8))
    arrays = task.initial_arrays()
    result = run_on_ray(app, n, lambda grid: strategy.start(grid, arrays, rounds))
    rate = n * rounds / (result.seconds["train"] + result.seconds["average"])
    return {"rate": rate, "best": rate, "peak_mb": None}


def spambase(model: str, n: int, threads: int, updates: int) -> dict:
    """Measure decent-bench's work: a full-batch gradient, and 20 neighbours."""
    import networkx as nx
    import torch

    from gossiplib.tasks.task import spambase as task_of
    from gossiplib.vectorized.engine import gossip_learning

    torch.set_num_threads(threads)
    task = task_of(n, partition="iid", holdout=0, test_fraction=0)
    graph = nx.random_regular_graph(20, n, seed=0)
    options = {"batch_size": 4601, "lr": 0.01, "evaluate_every": 0, "observe_every": 0}
    rates = []
    for _ in range(5):
        seconds = gossip_learning(task, graph, updates // n, **options).seconds
        rates.append(n * (updates // n) / (seconds["train"] + seconds["average"]))
    return {"rate": median(rates), "best": max(rates), "peak_mb": None}


def cycles(model: str, n: int, threads: int, updates: int) -> dict:
    """Measure gossip without rounds: Spambase, one record a client, Pegasos."""
    from gossiplib.asynchronous import merging
    from gossiplib.asynchronous.engine import gossip_cycles
    from gossiplib.tasks.task import spambase as task_of

    task = task_of(n, partition="dealt", examples=1, holdout=0)
    rates = []
    for _ in range(5):
        result = gossip_cycles(
            task, updates // n, create=getattr(merging, model), observe_every=0
        )
        rates.append(n * (updates // n) / result.seconds["train"])
    return {"rate": median(rates), "best": max(rates), "peak_mb": None}


def mixing(model: str, n: int, threads: int, updates: int) -> dict:
    """Measure the averaging's GB/s (rate) and those of a copy (best), alternately."""
    import torch

    from gossiplib.core import mixing as weights
    from gossiplib.core.topology import named
    from gossiplib.vectorized._speed import repeat
    from gossiplib.vectorized.averaging import mixing_matrix, to_torch

    torch.set_num_threads(threads)
    X, Y = repeat(torch.rand(650), n), repeat(torch.rand(650), n)
    W = to_torch(mixing_matrix(named("regular", n), weights.metropolis), X)
    size = X.numel() * X.element_size()
    work = {
        "copy": (2 * size, lambda: Y.copy_(X)),
        "mix": (6 * size, lambda: torch.addmm(Y, W, X, beta=0, out=Y)),
    }
    seen = {name: [] for name in work}
    for _ in range(max(5, min(200, 2 * 10**9 // size))):
        for name, (moved, run) in work.items():
            start = time.perf_counter()
            run()
            seen[name].append(moved / (time.perf_counter() - start) / 1e9)
    copy, mix = (median(seen[name][1:]) for name in ("copy", "mix"))
    return {"rate": mix, "best": copy, "peak_mb": size // 10**6}


def plan(quick: bool) -> list[tuple[str, str, int, int, int]]:
    """Return what to measure: engine, model, clients, threads, updates."""
    rows = [
        ("vectorized", model, n, 1, 600_000 if model == "linear" else 120_000)
        for model, sizes in SIZES.items()
        for n in sizes
    ]
    rows += [("vectorized", m, n, 2, 400_000) for m in SIZES for n in (1000, 10_000)]
    rows += [("vectorized", "linear", 1_000_000, 2, 0)]
    rows += [("local_grid", m, n, 1, 2000) for m in SIZES for n in (100, 1000, 10_000)]
    rows += [("ray", "linear", 100, 2, 1000)]
    rows += [("spambase", "linear", 100, 1, 200_000)]
    rows += [("spambase", "linear", 1000, 1, 1_000_000)]
    rows += [("cycles", m, 4140, 1, 828_000) for m in ("random_walk", "merge_update")]
    rows += [
        ("mixing", "linear", n, 1, 0) for n in (100, 1000, 10_000, 100_000, 400_000)
    ]
    return [row for row in rows if not quick or row[2] <= 1000]


def measure(row: tuple[str, str, int, int, int]) -> dict:
    """Measure in a process of its own, with its number of threads."""
    threads = {
        f"{name}_NUM_THREADS": str(row[3]) for name in ("OMP", "MKL", "OPENBLAS")
    }
    done = subprocess.run(
        [sys.executable, __file__, "--row", json.dumps(row)],
        env=os.environ | threads | {"TQDM_DISABLE": "1"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    names = ("engine", "model", "clients", "threads")
    return dict(zip(names, row, strict=False)) | json.loads(done.stdout.split("\n")[-2])


def decent_bench(python: str, n: int) -> list[dict]:
    """Measure decent-bench, in its own environment, and ours in turn, on its work."""
    script = [python, str(HERE / "decent.py"), str(n)]
    ours, theirs = [], []
    for _ in range(5):
        ours.append(measure(("spambase", "linear", n, 1, 1000 * n)))
        done = subprocess.run(script, capture_output=True, text=True, check=True)
        theirs.append(float(done.stdout))
    row = {"model": "linear", "clients": n, "threads": 1, "peak_mb": None}
    rates = {"spambase": [r["rate"] for r in ours], "decent-bench": theirs}
    return [
        {"engine": name, **row, "rate": median(seen), "best": max(seen)}
        for name, seen in rates.items()
    ]


def main() -> None:
    """Measure all, print a row at a time, write table and figure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--others")
    parser.add_argument("--row")
    chosen = parser.parse_args()
    if chosen.row:
        engine, *rest = json.loads(chosen.row)
        print(json.dumps(globals()[engine](*rest)))
        return
    print(
        f"{'engine':12} {'model':12} {'clients':>9} threads {'updates/s':>12} peak MB"
    )
    found, shown = [], 0
    for engine, model, n, *more in plan(chosen.quick):
        if engine == "spambase" and chosen.others:
            found += decent_bench(chosen.others, n)
        else:
            found.append(measure((engine, model, n, *more)))
        for row in found[shown:]:
            rate = (
                f"{row['rate']:.1f} GB/s, copy {row['best']:.1f}"
                if row["engine"] == "mixing"
                else f"{row['rate']:,.0f}"
            )
            print(
                f"{row['engine']:12} {row['model']:12} {row['clients']:>9,} "
                f"{row['threads']:>7} {rate:>12} {row['peak_mb'] or '':>7}",
                flush=True,
            )
        shown = len(found)
    if not chosen.quick:
        from figure import write

        write(found, os.cpu_count())


if __name__ == "__main__":
    main()
