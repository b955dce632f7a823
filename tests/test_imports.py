"""A notebook pays only for what it imports."""

import subprocess
import sys

import pytest

from processes import HEAVY as WITHOUT_PICTURES

HEAVY = (*WITHOUT_PICTURES, "matplotlib", "ipywidgets")


def loaded(statement: str) -> set[str]:
    """Return which of the heavy packages a fresh Python loads by this statement."""
    program = f"{statement}\nimport sys\nprint(*(set(sys.modules) & set({HEAVY})))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("statement", "may"),
    [
        ("import gossiplib", set()),
        ("from gossiplib import topology, mixing, averaging", set()),
        ("from gossiplib import Gossip, LocalGrid, gossip", {"flwr", "pandas"}),
        ("from gossiplib.classroom import verdict; verdict('02.3', 54)", set()),
        ("from gossiplib.classroom import verdict; verdict('03.1', 56, 0.88)", set()),
        ("import gossiplib.tasks", set()),
        ("from gossiplib.tasks import digits", {"torch", "flwr"}),
        ("import gossiplib.new", set()),
        ("import gossiplib.core.client", {"flwr"}),
        ("import gossiplib.core.grid", {"flwr"}),
        ("import gossiplib.core.server", {"flwr", "pandas"}),
    ],
)
def test_a_module_loads_no_more_than_it_needs(statement, may):
    assert loaded(statement) <= may


def test_theory_without_scipy_and_pandas():
    statement = """
import sys
sys.modules.update(dict.fromkeys(("scipy", "pandas", "torch", "flwr", "ray")))
from gossiplib import mixing, topology
for name in topology.NAMES:
    graph = topology.named(name, 16)
    mixing.slem(mixing.metropolis(graph))
mixing.best_constant(topology.named("ring", 16))
"""
    assert loaded(statement) <= {"scipy", "pandas", "torch", "flwr", "ray"}


def test_a_run_on_local_grid_needs_neither_ray_nor_torch():
    statement = """
import sys
sys.modules.update(dict.fromkeys(("ray", "torch", "flwr_datasets", "sklearn")))
sys.path.insert(0, {here!r})
import networkx as nx
from toy_apps import still_app, zeros
from gossiplib import Gossip, LocalGrid, gossip
Gossip(nx.cycle_graph(4)).start(LocalGrid(gossip(still_app()), 4), zeros())
"""
    here = __file__.rsplit("/", 1)[0]
    assert "matplotlib" not in loaded(statement.format(here=here))
