"""What each notebook takes while nbval runs it: told at the end, and held.

Memory is held to the notebook's limit, time to thrice its limit: the tests run two at a
time, on machines whose speed changes by half within minutes. What fails here has grown
or hangs; what a notebook takes on a quiet machine is measured by `make budget`, and
test_notebooks holds that to the limit itself.
"""

import contextlib
import os
import time

import pytest
from nbval.plugin import IPyNbFile

from notebooks import limits, peak_memory
from processes import private_environment

TIMES = 3
PROPERTY = "budget"


class Budgets:
    """A plugin of pytest."""

    def __init__(self) -> None:
        self.open = contextlib.ExitStack()
        self.notebook = self.peak = None
        self.start = 0.0
        self.rows: dict[str, tuple[float, float]] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Begin to measure with a notebook's first cell, before its kernel starts."""
        notebook = item.parent
        if isinstance(notebook, IPyNbFile) and self.notebook is not notebook:
            self.notebook, self.start = notebook, time.perf_counter()
            env = self.open.enter_context(private_environment())
            before = os.environ.get("FLWR_HOME", "")  # it marks a kernel's processes
            self.open.callback(os.environ.__setitem__, "FLWR_HOME", before)
            os.environ["FLWR_HOME"] = env["FLWR_HOME"]
            self.peak = self.open.enter_context(peak_memory(env["FLWR_HOME"]))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item: pytest.Item, nextitem: pytest.Item | None):
        """Hold a notebook to its limits after its last cell."""
        if self.notebook is None or item.parent is not self.notebook:
            return (yield)
        if nextitem is not None and nextitem.parent is self.notebook:
            return (yield)
        seconds = time.perf_counter() - self.start
        result = yield  # its kernel ends here
        self.open.close()
        name, megabytes = self.notebook.path.name, self.peak[0] / 1e6
        self.notebook = None
        item.user_properties.append((PROPERTY, (name, seconds, megabytes)))
        most_seconds, most = limits(name)
        if seconds > TIMES * most_seconds or megabytes > most:
            pytest.fail(
                f"{name} took {seconds:.0f} s and {megabytes:.0f} MB; it may take "
                f"{TIMES} times {most_seconds} s, and {most} MB",
                pytrace=False,
            )
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Collect what was measured, from the processes that run tests."""
        if report.when == "teardown":
            for name, value in report.user_properties:
                if name == PROPERTY:
                    self.rows[value[0]] = tuple(value[1:])

    def pytest_terminal_summary(self, terminalreporter) -> None:
        """Tell it."""
        if self.rows:
            terminalreporter.section("notebooks: seconds and peak memory")
            for name, (seconds, megabytes) in sorted(self.rows.items()):
                terminalreporter.line(
                    f"{name:36} {seconds:5.0f} s {megabytes:6.0f} MB, "
                    "limits {} s and {} MB".format(*limits(name))
                )
