"""Does a GPU make the models of the CPU, and how fast? It writes to notebooks/speed.md.

    python tests/benchmarks/gpu.py [DEVICE]

First all models, schedules and average functions that the tests know run on both, and
must agree: within 1e-4 in float32, 1e-10 in float64. Then the device is measured, as in
`engines.py`. Some five minutes; without a GPU it says so, and writes nothing.
"""

import sys
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "protocols")]

from gossiplib.core.averaging import name_of  # noqa: E402
from gossiplib.core.topology import named  # noqa: E402
from gossiplib.tasks.task import digits  # noqa: E402
from gossiplib.vectorized.engine import gossip_learning  # noqa: E402
from notebooks import replace_block  # noqa: E402
from protocols.test_all_averages import AVERAGES  # noqa: E402
from vectorized.test_vectorized import MODELS, OPTIONS, SCHEDULES  # noqa: E402

PAGE = ROOT / "notebooks" / "speed.md"
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10}
#: Hidden units, and numbers of clients to measure.
SIZES = {0: (1_000, 10_000, 100_000, 1_000_000), 64: (1_000, 10_000, 100_000)}


def furthest(device: str) -> dict[torch.dtype, float]:
    """Return how far a device's models are from the CPU's; stop where it is too far."""
    n = len(SCHEDULES["ring"])
    cases = [(s, m, {}) for s in SCHEDULES for m in MODELS]
    cases += [("regular", "linear", {"average": average}) for average in AVERAGES]
    worst = dict.fromkeys(TOLERANCE, 0.0)
    for dtype in TOLERANCE:
        for schedule, model, how in cases:
            task = digits(n, dtype=dtype, **MODELS[model])
            here, there = (
                gossip_learning(
                    task, SCHEDULES[schedule], 4, device=on, **OPTIONS, **how
                ).models()
                for on in ("cpu", device)
            )
            apart = float(np.abs(here - there).max())
            if not apart < TOLERANCE[dtype]:
                what = f"{schedule}, {model}, {dtype}, {name_of(how.get('average'))}"
                raise SystemExit(f"{what}: models differ by {apart:.2g}")
            worst[dtype] = max(worst[dtype], apart)
    return worst


def rates(device: str) -> list[str]:
    """Return rows of a table: the client updates a second on a device."""
    rows = []
    for hidden, sizes in SIZES.items():
        model = f"64-{hidden}-10 network" if hidden else "logistic regression"
        for n in sizes:
            task, graph = (
                digits(n, partition="dealt", hidden=hidden),
                named("regular", n),
            )
            off = {"evaluate_every": 0, "observe_every": 0, "batch_size": 8}
            rounds, seen = max(3, 1_000_000 // n), []
            gossip_learning(task, graph, 3, device=device, **off)  # warm up
            for _ in range(3):
                start = time.perf_counter()
                took = gossip_learning(
                    task, graph, rounds, device=device, **off
                ).seconds
                whole = time.perf_counter() - start
                seen.append((n * rounds / (took["train"] + took["average"]), whole))
            rate, whole = median(seen)
            rows.append(f"| {model} | {n:,} | {rate:,.0f} | {whole:.1f} |")
            print(rows[-1], flush=True)
    return rows


def main(device: str = "cuda") -> None:
    """Compare, measure, and write the table of the page."""
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no GPU here: nothing was measured")
    apart = furthest(device)
    card = torch.cuda.get_device_name() if device == "cuda" else device
    text = f"On {card}, torch {torch.__version__}. Models are those of the CPU: within "
    text += " and ".join(f"{d:.1g} in {str(t)[6:]}" for t, d in apart.items())
    table = ["", "| model | clients | client updates a second | seconds, whole run |"]
    table += ["|---|--:|--:|--:|", *rates(device)]
    content = "\n".join([f"{text}.", *table])
    if device == "cuda":
        page = PAGE.read_text("utf-8")
        PAGE.write_text(replace_block(page, "gpu", content), "utf-8")
    print(content)


if __name__ == "__main__":
    main(*sys.argv[1:])
