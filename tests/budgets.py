"""What each notebook takes while nbval runs it: told at the end, and held.

Memory is held to the notebook's limit, the processors' time to thrice its limit: the
tests run two at a time, on machines that may be busy with something else, so time by
the clock says nothing. What fails here has grown; what a notebook takes on a quiet
machine is measured by `make budget`, and test_notebooks holds that to the limit itself.
"""

import contextlib
import os
import resource
import time

import pytest
from nbval.plugin import IPyNbFile

from notebooks import limits, peak_memory
from processes import private_environment

TIMES = 3
PROPERTY = "budget"


def processor_time() -> float:
    """Return the seconds that the processes begun from here, and ended, have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Budgets:
    """A plugin of pytest."""

    def __init__(self) -> None:
        self.open = contextlib.ExitStack()
        self.notebook = self.peak = None
        self.start = self.used = 0.0
        self.rows: dict[str, tuple[float, float, float]] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Begin to measure with a notebook's first cell, before its kernel starts."""
        notebook = item.parent
        if isinstance(notebook, IPyNbFile) and self.notebook is not notebook:
            self.notebook, self.start = notebook, time.perf_counter()
            self.used = processor_time()
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
        used = processor_time() - self.used
        name, megabytes = self.notebook.path.name, self.peak[0] / 1e6
        self.notebook = None
        item.user_properties.append((PROPERTY, (name, seconds, used, megabytes)))
        most_seconds, most = limits(name)
        if used > TIMES * most_seconds or megabytes > most:
            pytest.fail(
                f"{name} took {used:.0f} s of processors' time and {megabytes:.0f} MB; "
                f"it may take {TIMES} times {most_seconds} s, and {most} MB",
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
            for name, (seconds, used, megabytes) in sorted(self.rows.items()):
                terminalreporter.line(
                    f"{name:36} {seconds:5.0f} s, {used:4.0f} s of processors, "
                    f"{megabytes:5.0f} MB, "
                    "limits {} s and {} MB".format(*limits(name))
                )
