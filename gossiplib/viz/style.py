"""How pictures look: one style, and one colour for each role, through the series.

Who imports `gossiplib.viz.plots` draws in this style; `matplotlib.rcdefaults()` ends
that. Colours are told apart by colour-blind eyes, and lines differ in more than colour.
"""

from typing import Any

import matplotlib
from cycler import cycler
from matplotlib.colors import LinearSegmentedColormap

__all__ = ["COLOURS", "GRAPHS", "INK", "QUIET", "ROLES", "WAVE", "use"]

#: Okabe and Ito's palette, without its yellow, which is faint on white.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000"]
#: Of words; and of what stands behind: links, axes, grids.
INK, QUIET = "#222222", "#9a9a9a"
#: Who is drawn in which colour, everywhere.
ROLES = {
    "gossip": COLOURS[0],
    "FedAvg": COLOURS[1],
    "alone": "#777777",
    "central": COLOURS[6],
    "liar": COLOURS[3],
    "guess": COLOURS[6],
    "server": COLOURS[1],  # as FedAvg, which needs one
    "client": COLOURS[0],
}
#: Which graph is drawn in which colour, where graphs are compared.
GRAPHS = {
    "ring": COLOURS[2],
    "regular": COLOURS[0],  # the series' own graph: that of gossip where it is alone
    "4-regular": COLOURS[0],
    "torus": COLOURS[5],
    "hypercube": COLOURS[5],
    "star": "#8c6bb1",
    "complete": INK,
}
#: Below and above an average, which is white; light enough for dark words.
WAVE = LinearSegmentedColormap.from_list("wave", [COLOURS[5], "white", COLOURS[4]])

_STYLE: Any = {
    "figure.dpi": 90,
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "axes.prop_cycle": cycler(color=COLOURS),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "grid.color": "#e4e4e4",
    "legend.fontsize": 9,
    "legend.frameon": False,
    "lines.linewidth": 2,
    "lines.markersize": 5,
    "xtick.color": QUIET,
    "xtick.labelcolor": INK,
    "ytick.color": QUIET,
    "ytick.labelcolor": INK,
}


def use() -> None:
    """Draw in this style from now on."""
    matplotlib.rcParams.update(_STYLE)
