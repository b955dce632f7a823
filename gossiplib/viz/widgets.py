"""A widget to play with: an explorer of topologies.

Core ipywidgets only, so that they work with versions 7.7 and 8. Each can be used with
the keyboard alone, and says below its picture in words what it shows. A widget is
nothing without a running kernel: beside each, a notebook has a picture that needs none.
"""

import html
import math
from collections.abc import Callable

import ipywidgets as widgets
import matplotlib.pyplot as plt
import networkx as nx
from matplotlib.figure import Figure

from gossiplib.core import mixing, topology
from gossiplib.viz import drawings
from gossiplib.viz.display import png, width_of

__all__ = ["WEIGHTS", "explorer"]

#: Name -> rule that makes weights of a graph.
WEIGHTS = {
    "metropolis": mixing.metropolis,
    "uniform": mixing.uniform,
    "max degree": mixing.max_degree,
    "best constant": mixing.best_constant,
}


def explorer() -> widgets.Widget:
    """Return a widget to choose a topology, its size, and the rule for its weights.

    It shows the graph, its mixing matrix W, and what theory says of their speed, or why
    there is no such graph.
    """
    name = widgets.Dropdown(options=list(topology.NAMES), description="topology")
    size = widgets.IntSlider(16, 4, 32, description="clients", continuous_update=False)
    rule = widgets.Dropdown(options=list(WEIGHTS), description="weights")
    return _picture([name, size, rule], lambda: _explored(name, size, rule))


def _explored(
    name: widgets.Dropdown, size: widgets.IntSlider, rule: widgets.Dropdown
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
    drawings.graph(graph, ax=left, title=neighbours)
    drawings.mixing_matrix(W, ax=right, title=speed)
    words = f"{name.value}, {size.value} clients, {rule.value} weights"
    return figure, f"{words}: {neighbours}; {speed}."


def _picture(
    controls: list[widgets.Widget],
    draw: Callable[[], tuple[Figure, str]],
) -> widgets.Widget:
    """Return controls above a picture that is drawn anew when one of them changes."""
    # As large as drawn, for a stretched picture is blurred, but no wider than the page.
    fit = widgets.Layout(align_self="flex-start", max_width="100%")
    image = widgets.Image(format="png", layout=fit)
    caption = widgets.HTML()  # an Image has no text of its own

    def redraw(change: object = None) -> None:
        figure, words = draw()
        image.value = shown = png(figure)
        image.width = f"{width_of(shown)}px"
        caption.value = html.escape(words)
        plt.close(figure)

    for control in controls:
        control.observe(redraw, names="value")
    redraw()
    wrap = widgets.Layout(flex_flow="row wrap")
    row = widgets.HBox(controls, layout=wrap)
    return widgets.VBox([row, image, caption])
