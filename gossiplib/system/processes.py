"""Processes that belong to a `with` block, and end with it.

They end with all that they have started, whatever ends the block: an exception, Ctrl-C,
or the death of the process that owns them. Every process carries a mark in its
environment, which its children inherit. So a child is found also when its parent is
gone, or when it has left its group. A guard, one small process for each block, holds a
pipe from the owner: when the pipe closes, however that comes about, or the owner is
gone and a child of its own holds the pipe open, it kills what is left.
"""

import contextlib
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

if __name__ != "__main__":  # the guard runs this file alone, and needs no gossiplib
    from gossiplib.system.runs import wait_until

_MARK = "GOSSIPLIB_PROCESSES"


def free_ports(n: int) -> list[int]:
    """Return n ports of 127.0.0.1 on which nobody listens now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class Processes:
    """Own processes for the time of a `with` block.

    What is in `folder` goes with the block. A fork of its owner owns nothing.
    """

    def __init__(self) -> None:
        self._mark = uuid.uuid4().hex
        self._started: dict[str, subprocess.Popen[bytes]] = {}
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def folder(self) -> Path:
        """Where the logs are, one file for each process; only this user can read it."""
        if self._guard is None:
            raise RuntimeError("files and processes exist only inside the `with` block")
        return self._folder

    def start(
        self, name: str, command: Sequence[str | Path], env: Mapping[str, str]
    ) -> subprocess.Popen[bytes]:
        """Start a program under a name; its output is added to the log of that name."""
        if self._guard is None:
            raise RuntimeError(f"{name} can be started in the `with` block only")
        if self.is_running(name):
            raise RuntimeError(f"{name} runs already; kill it first")
        with self.log_file(name).open("a") as log:
            process = subprocess.Popen(
                [str(part) for part in command],
                env={**env, _MARK: f"{self._mark} {name}"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us: we end it
            )
        self._started[name] = process
        return process

    def log_file(self, name: str) -> Path:
        """Return the file with the output of a process, by its name."""
        return self.folder / f"{name}.log"

    def tail(self, name: str, characters: int = 2000) -> str:
        """Return the end of a process's log."""
        return self.log_file(name).read_text(errors="replace")[-characters:]

    def pid(self, name: str) -> int:
        """Return the number by which the system knows a process with this name."""
        return self._started[name].pid

    def is_running(self, name: str) -> bool:
        """Tell whether a process with this name was started and has not ended."""
        return name in self._started and self._started[name].poll() is None

    def kill(self, name: str) -> None:
        """End a process and all that it has started, as a crash would."""
        if name not in self._started:
            raise KeyError(f"no process named {name} was started")
        _kill(f"{self._mark} {name}")
        self._started.pop(name).wait()

    def wait_until(
        self, ready: Callable[[], bool], seconds: float, what: str, names: Sequence[str]
    ) -> None:
        """Wait for a condition, `what` in a message, as long as these processes run.

        Raise RuntimeError if one of them ends first, and TimeoutError if it takes
        longer, both with the end of a log.
        """

        def decided() -> bool:
            if ready():
                return True
            for name in names:
                if not self.is_running(name):
                    raise RuntimeError(f"{name} has ended:\n{self.tail(name)}")
            return False

        if not wait_until(decided, seconds):
            log = f"{names[0]}:\n{self.tail(names[0])}"
            raise TimeoutError(f"{what} took more than {seconds:g} s. {log}")

    def __enter__(self) -> "Processes":
        """Begin: from here on the guard watches."""
        if self._guard is not None:
            raise RuntimeError("this `with` block has begun, and has not ended")
        self._folder = Path(tempfile.mkdtemp(prefix="gossiplib-"))
        self._owner = os.getpid()
        told = self._mark, str(self._folder), str(self._owner)
        self._guard = subprocess.Popen(
            [sys.executable, "-P", __file__, *told],
            # Nobody's mark: a block around its owner's does not kill it.
            env={k: v for k, v in os.environ.items() if k != _MARK},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # it must outlive us, whatever our terminal sends
        )
        return self

    def __exit__(self, *exception: object) -> None:
        """End all processes: politely, then for good."""
        if os.getpid() != self._owner:
            return
        try:
            for process in self._started.values():
                process.terminate()
            wait_until(lambda: not any(map(self.is_running, self._started)), 3)
        finally:
            guard, self._guard = self._guard, None
            if guard is not None:
                with guard:  # it does the rest when Ctrl-C comes once more
                    _clean(self._mark, self._folder)
                    guard.kill()
            for process in self._started.values():
                process.wait()
            self._started.clear()


def _marked(mark: str) -> list[psutil.Process]:
    """Return the processes of a block, or of one name in it."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if f"{process.environ().get(_MARK)} ".startswith(f"{mark} "):
                found.append(process)
    return found


def _kill(mark: str) -> None:
    """Kill processes until there are none: one may have started another meanwhile."""
    deadline = time.monotonic() + 10  # a killed process may still wait for its disk
    while (found := _marked(mark)) and time.monotonic() < deadline:
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(0.02)


def _clean(mark: str, folder: Path | str) -> None:
    """Leave nothing of a block behind."""
    _kill(mark)
    shutil.rmtree(folder, ignore_errors=True)


def _guard(mark: str, folder: str, owner: str) -> None:
    """Wait for the end of the owner or of its block, then leave nothing behind."""
    while os.getppid() == int(owner) and not select.select([sys.stdin], [], [], 1)[0]:
        pass
    _clean(mark, folder)


if __name__ == "__main__":
    _guard(*sys.argv[1:])
