"""Processes that belong to one run, found by the private FLWR_HOME they carry.

Ray and Flower start processes that outlive the one that asked for them. They inherit
its environment, so a FLWR_HOME that nobody else has marks them and their children.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator

import psutil

QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TQDM_DISABLE": "1",  # on a slow machine a bar would differ from the saved output
}

# What the first notebooks, and whatever they import, do without.
HEAVY = (
    "torch",
    "flwr",
    "flwr_datasets",
    "datasets",
    "ray",
    "sklearn",
    "scipy",
    "pandas",
)


@contextlib.contextmanager
def private_environment() -> Iterator[dict[str, str]]:
    """Give an environment with a FLWR_HOME of its own; end what is left in it."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        try:
            yield os.environ | QUIET | {"FLWR_HOME": home}
        finally:
            stop(home)


def marked(home: str) -> list[psutil.Process]:
    """Return the processes whose FLWR_HOME is `home`, and all their descendants."""
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():  # a parent comes before its children
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid == os.getpid():
                continue
            if process.ppid() in found or process.environ().get("FLWR_HOME") == home:
                found[process.pid] = process
    return list(found.values())


def carrying(mark: str) -> list[psutil.Process]:
    """Return the processes that carry a mark, TEST_MARK, in their environment."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get("TEST_MARK") == mark:
                found.append(process)
    return found


def stop(home: str) -> None:
    """End the processes marked by `home`: politely, then for good."""
    for end in (psutil.Process.terminate, psutil.Process.kill):
        processes = marked(home)
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                end(process)
        psutil.wait_procs(processes, timeout=3)
