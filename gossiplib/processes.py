"""Processes that belong to a `with` block, and end with it.

`Processes` starts programs, keeps what they print, and ends them and their children when
the block ends, whatever ends it. It knows nothing of what the programs do.
"""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

import psutil

__all__ = ["Processes", "free_ports"]


def free_ports(n: int) -> list[int]:
    """Return n ports of 127.0.0.1 on which nobody listens now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class Processes:
    """Own processes for the time of a `with` block.

    Parameters
    ----------
    folder : Path
        Where the logs go, one file for each process.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._running: dict[str, subprocess.Popen] = {}

    def start(
        self, name: str, command: Sequence[str | Path], env: Mapping[str, str]
    ) -> subprocess.Popen:
        """Start a program; its output is added to the log with its name."""
        with self.log_file(name).open("a") as log:
            process = subprocess.Popen(
                [str(part) for part in command],
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us: we end it
            )
        self._running[name] = process
        return process

    def log_file(self, name: str) -> Path:
        """Return where the output of a process is."""
        return self.folder / f"{name}.log"

    def kill(self, name: str) -> None:
        """End a process and its children at once, as a crash would."""
        _end([self._running.pop(name)], patience=0)

    def wait_until(
        self, ready: Callable[[], bool], seconds: float, what: str, names: Sequence[str]
    ) -> None:
        """Wait for a condition, as long as these processes run.

        Raises
        ------
        RuntimeError
            If one of them ends first; with the end of its log.
        TimeoutError
            If it takes longer than so many seconds.
        """
        deadline = time.monotonic() + seconds
        while not ready():
            for name in names:
                if self._running[name].poll() is not None:
                    raise RuntimeError(f"{name} has ended:\n{self.tail(name)}")
            if time.monotonic() > deadline:
                logs = "\n".join(f"{n}:\n{self.tail(n)}" for n in names[:1])
                raise TimeoutError(f"{what} took more than {seconds:g} s. {logs}")
            time.sleep(0.05)

    def tail(self, name: str, characters: int = 2000) -> str:
        """Return the end of a log."""
        return self.log_file(name).read_text(errors="replace")[-characters:]

    def __enter__(self) -> "Processes":
        """Begin."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End all processes: politely, then for good."""
        _end(list(self._running.values()), patience=5)
        self._running.clear()


def _end(started: list[subprocess.Popen], patience: float) -> None:
    """End processes and all that they have started."""
    family: list[psutil.Process] = []
    for process in started:
        with contextlib.suppress(psutil.NoSuchProcess):
            parent = psutil.Process(process.pid)
            family += [*parent.children(recursive=True), parent]
    if patience:
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.terminate()
        _, family = psutil.wait_procs(family, timeout=patience)
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    for process in started:  # what is left of its group: children whose parent is gone
        with contextlib.suppress(OSError, AttributeError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
