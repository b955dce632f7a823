"""Widgets to play with: an explorer of topologies, and a scrubber over a run's rounds.

Core ipywidgets only, so that they work with versions 7.7 and 8. A widget is nothing
without a running kernel: a notebook shows a still picture beside each.
"""

from collections.abc import Callable

import ipywidgets as widgets
import matplotlib.pyplot as plt
import networkx as nx

from gossiplib import mixing, plots, topology

__all__ = ["explorer", "scrubber"]

WEIGHTS = {
    "metropolis": mixing.metropolis,
    "uniform": mixing.uniform,
    "max degree": mixing.max_degree,
    "best constant": mixing.best_constant,
}


def explorer() -> widgets.Widget:
    """Choose a topology, its size and weights; see graph, W and what theory says."""
    name = widgets.Dropdown(options=list(topology.NAMES), description="topology")
    size = widgets.IntSlider(16, 4, 32, description="clients", continuous_update=False)
    rule = widgets.Dropdown(options=list(WEIGHTS), description="weights")
    return _picture([name, size, rule], lambda: _explored(name, size, rule))


def _explored(
    name: widgets.Dropdown, size: widgets.IntSlider, rule: widgets.Dropdown
) -> plots.Figure:
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.4))
    try:
        graph = topology.named(name.value, size.value)
        W = WEIGHTS[rule.value](graph)
    except (ValueError, nx.NetworkXError) as error:
        left.set_axis_off()
        right.set_axis_off()
        left.text(0, 0.5, str(error), wrap=True)
        return figure
    degrees = [len(topology.senders(graph, i)) for i in graph]
    rounds = mixing.rounds_to_consensus(W)
    plots.graph(graph, ax=left, title=f"{min(degrees)} to {max(degrees)} neighbours")
    title = f"gap {mixing.spectral_gap(W):.3f}, 1 % after {rounds} rounds"
    return plots.matrix(W, ax=right, title=title)


def scrubber(
    graph: nx.Graph, frames: dict[str, list[float]], *, label: str = "value"
) -> widgets.Widget:
    """Scrub or play through frames (title -> one value a client) on a graph."""
    titles = list(frames)
    values = [v for frame in frames.values() for v in frame]
    limits = (min(values), max(values))
    pos = plots.layout(graph)
    play = widgets.Play(max=len(titles) - 1, interval=600)
    slider = widgets.IntSlider(max=len(titles) - 1, description="frame")
    widgets.jslink((play, "value"), (slider, "value"))

    def draw() -> plots.Figure:
        title = titles[slider.value]
        shown = frames[title]
        return plots.graph(
            graph, shown, title=title, label=label, limits=limits, pos=pos
        )

    return _picture([slider], draw, extra=[play])


def _picture(
    controls: list[widgets.Widget],
    draw: Callable[[], plots.Figure],
    extra: list[widgets.Widget] | None = None,
) -> widgets.Widget:
    """Return controls above a picture that is drawn anew when one of them changes."""
    image = widgets.Image(format="png")

    def redraw(change: object = None) -> None:
        figure = draw()
        image.value = plots.png(figure)
        plt.close(figure)

    for control in controls:
        control.observe(redraw, names="value")
    redraw()
    return widgets.VBox([widgets.HBox([*(extra or []), *controls]), image])
