"""Make README.md's moving picture from notebook 00: `make notebooks` does.

It runs the notebook's cells up to the one tagged `readme`, and draws, round by round,
how well each client reads the digit that client 7 has never seen, and what client 7
takes that digit for: alone, and with gossip.
"""

import contextlib
import io
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from gossiplib import gossip_learning
from gossiplib.viz import drawings
from gossiplib.viz.display import png
from gossiplib.viz.style import COLOURS
from notebooks import ROOT, find, read

MOVING = ROOT / "notebooks" / "spreading.gif"
ROUNDS = (1, 2, 3, 4, 6, 8, 12, 16, 20, 30, 60)


def cells() -> dict[str, Any]:
    """Return the names of notebook 00 just before the cell tagged `readme`."""
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        for cell in read(*find(ROOT, ["00"])).cells:
            if "readme" in cell.metadata.get("tags", []):
                break
            if cell.cell_type == "code":
                exec(cell.source, names)
    plt.close("all")
    return names


def frame(of: dict[str, Any], server_round: int) -> Figure:
    """Draw one round."""
    task, graph = of["task"], of["graph"]
    runs = {
        way: gossip_learning(task, lines, server_round, evaluate_every=0)
        for way, lines in of["ways"].items()
    }
    x, y = (part.numpy() for part in task.test)
    two = x[y == 2]
    reads = []
    for client in range(task.num_clients):
        weights, bias = runs["gossip"].node_arrays[client].to_numpy_ndarrays()
        reads.append(((two @ weights.T + bias).argmax(axis=1) == 2).mean())
    figure, axes = plt.subplots(
        1, 4, figsize=(9, 2.6), width_ratios=[1.5, 1, 1, 1], layout="constrained"
    )
    figure.suptitle(f"round {server_round}", fontsize=11, x=0.02, ha="left")
    look = {"cmap": "Blues", "limits": (0, 1.3)}
    title = "who reads a 2? (dark: well)"
    drawings.graph(graph, reads, ax=axes[0], title=title, **look)
    places = drawings.layout(graph)
    axes[0].plot(*places[7], "o", markersize=19, mfc="none", mec=COLOURS[1], mew=2)
    for ax, (way, result) in zip(axes[1:3], runs.items(), strict=True):
        weights = of["picture_of_a_two"](result)
        most = np.quantile(np.abs(weights), 0.93)
        ax.imshow(weights, cmap="RdBu", vmin=-most, vmax=most)
        title = "alone" if way == "alone" else "with gossip"
        ax.set_title(title, loc="center", weight="normal")
    axes[3].imshow(two.mean(axis=0).reshape(8, 8), cmap="gray_r")
    axes[3].set_title("the 2s of others", loc="center", weight="normal")
    words = axes[1].text(0, -0.14, "what client 7, which has no 2, takes for one")
    words.set(in_layout=False, transform=axes[1].transAxes, weight="bold")
    for ax in axes[1:]:
        ax.set_axis_off()
    return figure


def main() -> None:
    """Write the picture."""
    names, images = cells(), []
    for server_round in ROUNDS:
        figure = frame(names, server_round)
        with Image.open(io.BytesIO(png(figure, box=None))) as image:
            images.append(image.convert("RGB").quantize(64, dither=Image.Dither.NONE))
        plt.close(figure)
    pauses = [700] * (len(images) - 1) + [3000]
    more = {"save_all": True, "append_images": images[1:], "loop": 0}
    images[0].save(MOVING, duration=pauses, optimize=True, **more)
    print(f"{MOVING.relative_to(ROOT)}: {MOVING.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
