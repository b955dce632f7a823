"""Pictures that move, in any page, without a kernel.

A player is a few frames, each a PNG, or one drawing whose clients change colour, with a
slider and a button. It works by keyboard, starts only when it is asked to, and where
scripts do not run one frame is shown.
"""

import base64
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from string import Template
from typing import Any

import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
from matplotlib.colors import Colormap, to_hex
from matplotlib.figure import Figure

from gossiplib.viz import drawings
from gossiplib.viz.display import escaped, png, width_of
from gossiplib.viz.style import WAVE

__all__ = ["play", "recolour", "spread"]

_FIT = "width:100%;height:auto;display:block"
# JupyterLab would take the keys, but for the attribute of Lumino, its toolkit.
_PAGE = Template("""\
<figure class="player" style="margin:0;max-width:${width}px">
$view
<div style="display:none;gap:8px;align-items:center">
<button type="button" aria-label="play" style="min-width:2.6em"
 data-lm-suppress-shortcuts>&#9654;</button>
<input type="range" min="0" max="$last" value="$first" aria-label="$what"
 style="flex:1" data-lm-suppress-shortcuts><output style="min-width:7em"></output>
</div>
<script>
(function (figure) {
  const frames = $frames, titles = $titles;
  const [view, bar] = figure.children, [button, slider, output] = bar.children;
  let timer = null;
  function draw() {
    const frame = frames[slider.value];
    $put
    output.textContent = titles[slider.value];
    slider.setAttribute("aria-valuetext", titles[slider.value]);
  }
  function stop() {
    clearInterval(timer);
    timer = null;
    button.innerHTML = "&#9654;";
    button.setAttribute("aria-label", "play");
  }
  button.onclick = function () {
    if (timer) return stop();
    if (+slider.value === $last) slider.value = 0;
    draw();
    button.innerHTML = "&#10074;&#10074;";
    button.setAttribute("aria-label", "pause");
    timer = setInterval(function () {
      slider.value = +slider.value + 1;
      draw();
      if (+slider.value === $last) stop();
    }, $pause);
  };
  slider.oninput = function () { stop(); draw(); };
  bar.style.display = "flex";
  draw();
})(document.currentScript.parentElement);
</script>
</figure>
""")


def play(
    frames: Mapping[str, Callable[[], Figure]],
    alt: str,
    *,
    first: int = -1,
    what: str = "round",
    pause: float = 0.6,
) -> None:
    """Display frames as a player, in a notebook; a still where no scripts run.

    Parameters
    ----------
    frames : dict
        Title -> function that draws the frame. All are cut as the first one.
    alt : str
        What a reader sees in it, in words: for those who cannot see it.
    first : int
        The frame to begin with, and the still.
    what : str
        What the slider goes through.
    pause : float
        Seconds between two frames.
    """
    images, box = [], None
    for draw in frames.values():
        figure = draw()
        if box is None:
            figure.draw_without_rendering()  # which lays it out
            box = figure.get_tightbbox().padded(0.06)
        images.append(png(figure, box=box))
        plt.close(figure)
    coded = [base64.b64encode(image).decode() for image in images]
    source, still = "data:image/png;base64,", images[first]
    view = f'<img alt="{escaped(alt)}" src="{source}{coded[first]}" style="{_FIT}">'
    _display(
        view,
        f'view.src = "{source}" + frame;',
        dict(zip(frames, coded, strict=True)),
        still,
        alt,
        width=width_of(still),
        first=first,
        what=what,
        pause=pause,
    )


def recolour(
    graphs: Mapping[str, nx.Graph],
    frames: Mapping[str, Mapping[str, Sequence[float]]],
    alt: str,
    *,
    limits: tuple[float, float],
    cmap: Colormap = WAVE,
    first: int = 0,
    pause: float = 0.25,
) -> None:
    """Display graphs whose clients change their colours, as a player of many frames.

    It is one drawing of lines, which is sharp at each size and takes few bytes.

    Parameters
    ----------
    graphs : dict
        Name -> graph.
    frames : dict
        Title -> name -> one value a client.
    alt : str
        What a reader sees in it, in words: for those who cannot see it.
    limits : (float, float)
        Values at the ends of the colour scale.
    cmap : matplotlib.colors.Colormap
        Light enough for the clients' dark numbers.
    first, pause
        Those of `play`.
    """
    start = [*frames.values()][first]
    figure = drawings.graphs(graphs, start, limits=limits, cmap=cmap)
    for ax in figure.axes[: len(graphs)]:
        ax.collections[-1].set_gid("clients")
    page = io.StringIO()
    plain: Any = {"svg.fonttype": "none", "svg.hashsalt": ""}
    plain["font.sans-serif"] = "DejaVu Sans"
    with plt.rc_context(plain):
        figure.savefig(page, format="svg")
    # The still has no slider that names the frame.
    figure.text(0.004, 0.01, [*frames][first], weight="bold")
    still = png(figure, scale=1, box=None)
    plt.close(figure)
    svg = re.sub(r"<(metadata|style).*?</\1>", "", page.getvalue(), flags=re.DOTALL)
    svg = re.sub(r"(\.\d)\d{2,}", r"\1", svg)  # a tenth of a point is enough
    svg = svg[svg.index("viewBox") :]
    values = np.array([np.concatenate([*frame.values()]) for frame in frames.values()])
    steps = np.rint(64 * np.clip((values - limits[0]) / np.ptp(limits), 0, 1))
    palette = json.dumps([to_hex(cmap(k / 64)) for k in range(65)])
    _display(
        f'<svg role="img" aria-label="{escaped(alt)}" style="{_FIT}" {svg}',
        f"""const colours = {palette};
    view.querySelectorAll("#clients use").forEach(function (client, i) {{
      client.style.fill = colours[frame[i]];
    }});""",
        dict(zip(frames, steps.astype(int).tolist(), strict=True)),
        still,
        alt,
        width=width_of(still, scale=1),
        first=first,
        what="round",
        pause=pause,
    )


def _display(
    view: str,
    put: str,
    frames: Mapping[str, Any],
    still: bytes,
    alt: str,
    *,
    width: int,
    first: int,
    what: str,
    pause: float,
) -> None:
    """Display what a page shows at first, and the script that puts a frame into it."""
    from IPython.display import display

    page = _PAGE.substitute(
        first=first % len(frames),
        frames=json.dumps([*frames.values()], separators=(",", ":")),
        last=len(frames) - 1,
        pause=int(1000 * pause),
        put=put,
        titles=json.dumps(list(frames)),
        view=view,
        what=escaped(what),
        width=width,
    )
    data = {"text/html": page, "image/png": still, "text/plain": alt}
    about = {"image/png": {"alt": alt, "width": width}}
    display(data, metadata=about, raw=True)


def spread(
    graph: nx.Graph,
    frames: Mapping[str, Sequence[float]],
    alt: str,
    *,
    label: str = "",
    first: int = -1,
    **options: Any,
) -> None:
    """Display values that change on a graph of clients, as a player.

    Parameters
    ----------
    graph : networkx.Graph
        Nodes 0..n-1.
    frames : dict
        Title -> one value a client; NaN is a client that is offline.
    alt, first
        Those of `play`.
    label : str
        What the values are.
    **options
        Those of `drawings.graph`.
    """
    values = np.array([*frames.values()], dtype=float)
    options = {"limits": (np.nanmin(values), np.nanmax(values))} | options
    options |= {"label": label, "pos": drawings.layout(graph)}

    def frame(title: str) -> Callable[[], Figure]:
        return lambda: drawings.graph(graph, frames[title], title=title, **options)

    play({title: frame(title) for title in frames}, alt, first=first)
