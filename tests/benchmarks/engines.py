"""How fast is the vectorised engine? `make bench` writes one page: notebooks/speed.md.

    python tests/benchmarks/engines.py [--quick] [--decent PYTHON] [--fluke PYTHON]

Each row is measured in a process of its own. It lists client updates (a step of local
training on 8 examples, and a share of an averaging over a 4-regular graph) per second
of the rounds; with one thread that is, but for interruptions, CPU time. Rows are
repeated, and the table gives the median. As a machine's speed varies, only rows of
one run can be compared. They go to gossiplib/data/bench.csv, too, which notebook 14
shows.

`--decent` and `--fluke` are the Pythons of environments with decent-bench (0.3.0, for
Python 3.13) and with fluke-fl (0.8.1). Ours and theirs take turns.
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
#: Up to so many clients a round written by hand takes turns with the engine.
BY_HAND = 10_000


def vectorized(model: str, n: int, threads: int, updates: int) -> list[dict]:
    """Measure the engine; where there is one, in turns with a round by hand."""
    import torch
    from by_hand import rounds_of

    from gossiplib.core.topology import named
    from gossiplib.tasks.task import digits
    from gossiplib.vectorized.engine import gossip_learning

    torch.set_num_threads(threads)
    task, graph = (
        digits(n, partition="dealt", hidden=HIDDEN[model]),
        named("regular", n),
    )
    by_hand = None
    if model == "linear" and threads == 1 and n <= BY_HAND:
        by_hand = rounds_of(task)
        by_hand(max(1, 200_000 // n))
    options = {"batch_size": 8, "evaluate_every": 0, "observe_every": 0}
    if n <= 100_000:
        gossip_learning(task, graph, max(1, 200_000 // n), **options)  # warm up
    rounds = max(3, updates // n)
    rates, bounds = [], []
    for _ in range(5 if n <= 10_000 else 1):
        seconds = gossip_learning(task, graph, rounds, **options).seconds
        rates.append(n * rounds / (seconds["train"] + seconds["average"]))
        if by_hand is not None:
            start = time.perf_counter()
            by_hand(rounds)
            bounds.append(n * rounds / (time.perf_counter() - start))
    found = [{"rate": median(rates), "best": max(rates), "peak_mb": peak()}]
    if bounds:
        bound = {"engine": "by hand", "rate": median(bounds), "best": max(bounds)}
        found.append(bound | {"peak_mb": None})
    return found


def peak() -> int:
    """Return the megabytes that this process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000


def million(model: str, n: int, threads: int, updates: int) -> dict:
    """Measure three rounds from the call of `digits` to the result: n over seconds."""
    import torch

    torch.set_num_threads(threads)
    start = time.perf_counter()
    from gossiplib.core.topology import named, one_peer_exponential
    from gossiplib.tasks.task import digits
    from gossiplib.vectorized.engine import gossip_learning

    one_peer = model == "one-peer"
    graph = one_peer_exponential(n) if one_peer else named(model, n)
    off = {"evaluate_every": 0, "observe_every": 0}
    gossip_learning(digits(n, partition="dealt"), graph, 3, batch_size=8, **off)
    seconds = time.perf_counter() - start
    return {"rate": seconds, "best": seconds, "peak_mb": peak()}


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
    return {"rate": rate, "best": rate, "peak_mb": peak()}


def fedavg(model: str, n: int, threads: int, updates: int) -> dict:
    """Measure Flower's own FedAvg in its simulation, without its start.

    Each client trains in each round, and nobody evaluates. The clock is read where the
    server's `evaluate_fn` would measure a model, between two rounds.
    """
    from flwr.serverapp.strategy import FedAvg

    from gossiplib.system.simulation import run_on_ray
    from gossiplib.tasks.task import digits

    task, times = digits(n, partition="dealt", hidden=HIDDEN[model]), []
    strategy = FedAvg(fraction_evaluate=0, min_train_nodes=n, min_available_nodes=n)

    def run(grid: object) -> object:
        return strategy.start(
            grid,
            task.initial_arrays(),
            num_rounds=max(2, updates // n),
            evaluate_fn=lambda t, arrays: times.append(time.perf_counter()),
        )

    run_on_ray(task.client_app(batch_size=8), n, run)
    # The first round waits for Ray; each of the others ends with the clock.
    rate = n * (len(times) - 2) / (times[-1] - times[1])
    return {"rate": rate, "best": rate, "peak_mb": None}


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


def one_send(model: str, n: int, threads: int, updates: int) -> dict:
    """Measure fluke's work: each client sends to one random neighbour a round."""
    import torch

    from gossiplib.core.mixing import uniform
    from gossiplib.core.topology import named, push
    from gossiplib.tasks.task import digits
    from gossiplib.vectorized.engine import gossip_learning

    torch.set_num_threads(threads)
    task = digits(n, partition="dealt")
    schedule, off = push(named("regular", n)), {"evaluate_every": 0, "observe_every": 0}
    rates = []
    for _ in range(5):
        seconds = gossip_learning(
            task, schedule, updates // n, batch_size=8, weights=uniform, **off
        ).seconds
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
    rows += [("million", "regular", 1_000_000, 2, 0)]
    rows += [("million", "ring", 1_000_000, 2, 0), ("million", "one-peer", 2**20, 2, 0)]
    rows += [("local_grid", m, n, 1, 2000) for m in SIZES for n in (100, 1000, 10_000)]
    rows += [(engine, "linear", 100, 2, 1000) for engine in ("ray", "fedavg")]
    rows += [("spambase", "linear", 100, 1, 200_000)]
    rows += [("spambase", "linear", 1000, 1, 1_000_000)]
    rows += [("one_send", "linear", 100, 1, 50_000)]
    rows += [("cycles", m, 4140, 1, 828_000) for m in ("random_walk", "merge_update")]
    rows += [
        ("mixing", "linear", n, 1, 0) for n in (100, 1000, 10_000, 100_000, 400_000)
    ]
    return [row for row in rows if not quick or row[2] <= 1000]


def measure(row: tuple[str, str, int, int, int]) -> list[dict]:
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
    found = json.loads(done.stdout.split("\n")[-2])
    found = found if isinstance(found, list) else [found]
    return [dict(zip(names, row, strict=False)) | one for one in found]


def in_turns(python: str, script: str, other: str, ours: tuple) -> list[dict]:
    """Measure another library, in its own environment, and ours on the same work."""
    engine, model, n, *_ = ours
    rates: dict[str, list[float]] = {engine: [], other: []}
    for _ in range(5):
        rates[engine].append(measure(ours)[0]["rate"])
        command = [python, str(HERE / script), str(n)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rates[other].append(float(done.stdout.split()[-1]))
    row = {"model": model, "clients": n, "threads": 1, "peak_mb": None}
    return [
        {"engine": name, **row, "rate": median(seen), "best": max(seen)}
        for name, seen in rates.items()
    ]


def told(row: dict) -> str:
    """Return what a row measures, with its unit."""
    if row["engine"] == "mixing":
        return f"{row['rate']:.1f} GB/s, copy {row['best']:.1f}"
    if row["engine"] == "million":
        return f"{row['rate']:.1f} s"
    return f"{row['rate']:,.0f}"


def main() -> None:
    """Measure all, print a row at a time, write table, figures and page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--decent")
    parser.add_argument("--fluke")
    parser.add_argument("--row")
    chosen = parser.parse_args()
    if chosen.row:
        engine, *rest = json.loads(chosen.row)
        print(json.dumps(globals()[engine](*rest)))
        return
    print(
        f"{'engine':12} {'model':12} {'clients':>9} threads {'updates/s':>12} peak MB"
    )
    others = {
        "spambase": (chosen.decent, "decent.py", "decent-bench"),
        "one_send": (chosen.fluke, "fluke_gossip.py", "fluke"),
    }
    found = []
    for row in plan(chosen.quick):
        python, script, other = others.get(row[0], (None, "", ""))
        rows = in_turns(python, script, other, row) if python else measure(row)
        found += rows
        for one in rows:
            print(
                f"{one['engine']:12} {one['model']:12} {one['clients']:>9,} "
                f"{one['threads']:>7} {told(one):>12} {one['peak_mb'] or '':>7}",
                flush=True,
            )
    if not chosen.quick:
        from page import write

        write(found)


if __name__ == "__main__":
    main()
