"""Settings for all tests: quiet libraries, and who runs what when, on several workers.

What takes long begins first, so that no worker is left with it at the end: notebooks,
by the time that they state, then the files in `LONG`. `make test` lets xdist give whole
files to its workers, in this order, as the cells or tests of one share what they built.
"""

import logging
import os

import pytest
from nbval.plugin import IPyNbFile

from budgets import Budgets
from notebooks import RUN_TIME, read
from processes import QUIET

os.environ |= QUIET
#: Workers share the cores: more threads of one would wait for those of the others.
os.environ.setdefault("OMP_NUM_THREADS", "1")

#: Files that take long, the longest first.
LONG = (
    "test_peers",
    "test_deployment",
    "test_ray",
    "test_nbgrader",
    "test_site",
    "test_browser",
    "test_solutions",
    "test_project",
    "test_when_clients_differ",
    "test_teaching",
)


def pytest_configure(config):
    """Measure the notebooks: a plugin, as this file's hooks see its folder alone."""
    config.pluginmanager.register(Budgets())
    config.pluginmanager.register(Order())


class Order:
    """Put the long ones first, and let no notebook fail for what is on stderr.

    A slow machine says more there: Ray tells that it waits. What is stored has no
    stderr, test_notebooks sees to that.
    """

    def pytest_collectstart(self, collector):
        """Tell nbval not to compare it."""
        if isinstance(collector, IPyNbFile):
            collector.skip_compare += ("stderr",)

    def pytest_collection_modifyitems(self, items):
        """Sort the tests by file."""
        seconds = {}
        for item in items:
            file = item.parent
            if isinstance(file, IPyNbFile):
                if file not in seconds:
                    found = RUN_TIME.search(read(file.path).cells[0].source)
                    seconds[file] = int(found[1]) if found else 0

        def turn(item):
            if isinstance(item.parent, IPyNbFile):
                return 0, -seconds[item.parent], item.parent.path.stem
            stem = item.path.stem
            return (1, LONG.index(stem), "") if stem in LONG else (2, 0, "")

        items.sort(key=turn)  # stable: cells stay in their order


@pytest.fixture(autouse=True)
def quiet_flwr():
    """Let Flower log errors alone: a strategy logs each of its rounds."""
    logger = logging.getLogger("flwr")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)
