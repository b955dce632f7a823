"""Pictures that move, in any page, without a kernel.

A player is a few frames, each a PNG, with a slider and a button. It works by keyboard,
starts only when it is asked to, and where scripts do not run one frame is shown.
"""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from string import Template
from typing import Any

import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
from matplotlib.figure import Figure

from gossiplib.viz import drawings
from gossiplib.viz.display import about, escaped, png, width_of

__all__ = ["play", "spread"]

# JupyterLab would take the keys, but for the attribute of Lumino, its toolkit.
_PAGE = Template("""\
<figure class="player" style="margin:0;max-width:${width}px">
<img alt="$alt" src="data:image/png;base64,$still" style="width:100%;height:auto">
<div style="display:none;gap:8px;align-items:center">
<button type="button" aria-label="play" style="min-width:2.6em"
 data-lm-suppress-shortcuts>&#9654;</button>
<input type="range" min="0" max="$last" value="$first" aria-label="$what"
 style="flex:1" data-lm-suppress-shortcuts><output style="min-width:7em"></output>
</div>
<script>
(function (figure) {
  const frames = $frames, titles = $titles;
  const [image, bar] = figure.children, [button, slider, output] = bar.children;
  let timer = null;
  function draw() {
    image.src = "data:image/png;base64," + frames[slider.value];
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
    from IPython.display import display

    images, box = [], None
    for draw in frames.values():
        figure = draw()
        if box is None:
            figure.draw_without_rendering()  # which lays it out
            box = figure.get_tightbbox().padded(0.06)
        images.append(png(figure, box=box))
        plt.close(figure)
    coded = [base64.b64encode(image).decode() for image in images]
    still = images[first]
    page = _PAGE.substitute(
        alt=escaped(alt),
        first=first % len(coded),
        frames=json.dumps(coded),
        last=len(coded) - 1,
        pause=int(1000 * pause),
        still=coded[first],
        titles=json.dumps(list(frames)),
        what=escaped(what),
        width=width_of(still),
    )
    data = {"text/html": page, "image/png": still, "text/plain": alt}
    display(data, metadata=about(still, alt), raw=True)


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
