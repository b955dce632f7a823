"""A widget to play with: an explorer of topologies.

Core ipywidgets only, so that they work with versions 7.7 and 8. Each can be used with
the keyboard alone, and says below its picture in words what it shows. Without a running
kernel there is a still of what it showed at first.
"""

import html
import math
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import ipywidgets as widgets
import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from gossiplib.core import mixing, topology
from gossiplib.viz import drawings
from gossiplib.viz.display import about, png, width_of
from gossiplib.viz.style import COLOURS

__all__ = ["WEIGHTS", "explorer"]

#: Name -> rule that makes weights of a graph.
WEIGHTS = {
    "metropolis": mixing.metropolis,
    "uniform": mixing.uniform,
    "max degree": mixing.max_degree,
    "best constant": mixing.best_constant,
}

#: Of a client that is lit up, of those that it hears, and of all others.
_LIGHT = ListedColormap(["#cfe3f1", COLOURS[5], COLOURS[1]])


def explorer() -> widgets.Widget:
    """Return a widget to choose a topology, its size, the rule for weights, a client.

    It shows the graph, with that client and those that it hears lit up, its mixing
    matrix W, and what theory says of their speed, or why there is no such graph.
    """
    name = widgets.Dropdown(options=list(topology.NAMES), description="topology")
    size = widgets.IntSlider(16, 4, 32, description="clients", continuous_update=False)
    rule = widgets.Dropdown(options=list(WEIGHTS), description="weights")
    lit = widgets.IntSlider(0, 0, 31, description="light up", continuous_update=False)
    return _Picture([name, size, rule, lit], lambda: _explored(name, size, rule, lit))


def _explored(
    name: widgets.Dropdown,
    size: widgets.IntSlider,
    rule: widgets.Dropdown,
    lit: widgets.IntSlider,
) -> tuple[Figure, str]:
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.4))
    try:
        graph = topology.named(name.value, size.value)
        W = WEIGHTS[rule.value](graph)
    except (ValueError, nx.NetworkXError) as error:
        left.set_axis_off()
        right.set_axis_off()
        left.text(0, 0.5, str(error), wrap=True)
        return figure, str(error)
    degrees = [len(topology.senders(graph, i)) for i in graph]
    rounds = mixing.rounds_to_consensus(W)
    least, most = min(degrees), max(degrees)
    each = f"{least} neighbour{'s' * (least > 1)} each"
    neighbours = each if least == most else f"{least} to {most} neighbours"
    when = f"1 % after {rounds} round{'s' * (rounds > 1)}"
    when = when if math.isfinite(rounds) else "never at 1 %"
    speed = f"gap {mixing.spectral_gap(W):.3f}, {when}"
    client = min(lit.value, size.value - 1)
    heard = topology.senders(graph, client)
    light = np.zeros(len(graph))
    light[heard], light[client] = 1, 2
    drawings.graph(
        graph, [*light], ax=left, title=neighbours, cmap=_LIGHT, limits=(0, 2)
    )
    drawings.mixing_matrix(W, ax=right, title=speed)
    words = f"{name.value}, {size.value} clients, {rule.value} weights"
    hears = f"Client {client} hears {', '.join(map(str, heard))}."
    return figure, f"{words}: {neighbours}; {speed}. {hears}"


class _Picture(widgets.VBox):
    """Controls above a picture, which is drawn anew when one of them changes."""

    def __init__(
        self,
        controls: list[widgets.Widget],
        draw: Callable[[], tuple[Figure, str]],
    ) -> None:
        # As large as drawn, for a stretched picture is blurred, but not wider than the
        # page.
        fit = widgets.Layout(align_self="flex-start", max_width="100%")
        image = widgets.Image(format="png", layout=fit)
        caption = widgets.HTML()  # an Image has no text of its own
        self._still: tuple[bytes, str] = (b"", "")

        def redraw(change: object = None) -> None:
            figure, words = draw()
            image.value = shown = png(figure)
            image.width = f"{width_of(shown)}px"
            caption.value = html.escape(words)
            self._still = shown, words
            plt.close(figure)

        for control in controls:
            control.observe(redraw, names="value")
        redraw()
        row = widgets.HBox(controls, layout=widgets.Layout(flex_flow="row wrap"))
        super().__init__([row, image, caption])

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        """Add the picture, for pages that show no widgets."""
        bundle = super()._repr_mimebundle_(**kwargs)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        still, words = self._still
        kinds = {"image/png": b64encode(still).decode(), "text/plain": words}
        return {**data, **kinds}, {**metadata, **about(still, words)}
