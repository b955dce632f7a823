"""A SuperLink of Flower's on this machine, and the runs that it is given.

`SuperLink` is one process, and Flower's own commands that talk to it, over TLS. Its
apps run in this Python, with what it has installed. Nothing is downloaded.
"""

import contextlib
import itertools
import json
import os
import re
import shutil
import socket
import ssl
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from gossiplib.system.certificates import Authority
from gossiplib.system.processes import Processes, free_ports
from gossiplib.system.runs import wait_until
from gossiplib.system.simulation import QUIET

__all__ = ["SuperLink", "missing_commands"]

# What we read of Flower's texts, which are no interface: as 1.42.0 writes them.
_STARTED = re.compile(r"Successfully started run (\d+)")
_COMPLETED = "finished:completed"
_COLOUR = re.compile(r"\x1b\[[\d;]*m")
_NOISE = re.compile(
    r"(\(\w+ pid=\d+\) )?"  # Ray puts the worker's name before its lines
    r"(INFO |Using SuperLink|Successfully (started|installed) "
    r"|WARNING *: +(Since flwr|Manually terminating|fraction_evaluate))"
)

#: Where Flower's commands are. They call each other by name.
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"

_SETTINGS = QUIET | {
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.3",  # else a message waits for up to 1 s
    "NO_COLOR": "1",
    "PYTHONUNBUFFERED": "1",
    "TQDM_DISABLE": "1",
}


def missing_commands() -> list[str]:
    """Return those of Flower's commands that are needed and not installed here."""
    names = ("flwr", "flower-superlink", "flower-supernode", "flower-superexec")
    return [name for name in names if shutil.which(name, path=PATH) is None]


def app_output(text: str) -> str:
    """Return the text that an app has printed, without Flower's own log and colours."""
    lines = _COLOUR.sub("", text).splitlines(keepends=True)
    return "".join(line for line in lines if not _NOISE.match(line))


class SuperLink:
    """Own a SuperLink for the time of a `with` block; apps run on the simulation.

    Parameters
    ----------
    days, start_timeout : float
        Days for which the SuperLink's certificate is valid (below 0: it expired so long
        ago); seconds that each step of the start, and each command but a run, may take.

    Attributes
    ----------
    processes : Processes
        Those of the block, with their logs: "superlink", and what talks to it.
    folder : Path
        Certificates, logs and apps. It goes with the block.
    address, authority
        Host and port of the SuperLink, and by whose certificate the others know it.
    """

    def __init__(self, *, days: float = 1.0, start_timeout: float = 60.0) -> None:
        self.processes = Processes()
        self._days, self._timeout = days, start_timeout
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        """Start all processes; wait until they answer.

        Raise FileNotFoundError if Flower's commands are not installed, RuntimeError if
        a process ends or is refused (with the end of its log) or the certificate cannot
        be used, and TimeoutError if a step takes longer than `start_timeout`.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.processes)
            self.folder = self.processes.folder
            self._start_all()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        """End all processes, and remove the folder."""
        self._stack.close()

    def _start_all(self) -> None:
        self._home = self.folder / "flwr"
        self._home.mkdir()
        self._port = free_ports(1)[0]
        self.address = f"127.0.0.1:{self._port}"
        self.authority = Authority(self.folder)
        trusted = self.authority.certificate
        shown = self.authority.issue("superlink", days=self._days)
        (self._home / "config.toml").write_text(
            f'[superlink]\ndefault = "here"\n\n[superlink.here]\n'
            f'address = "{self.address}"\n'
            f"root-certificates = {json.dumps(str(trusted))}\n"
        )
        self._command = (
            *("--host", "127.0.0.1", "--port", str(self._port)),
            *("--ssl-certfile", shown.certificate, "--ssl-keyfile", shown.key),
            *("--ssl-ca-certfile", trusted, *self._options()),
        )
        self._start_superlink()

    def _options(self) -> list[str | Path]:
        """Return more options of the SuperLink's command: for whom it is."""
        return ["--simulation"]

    def _start_superlink(self) -> None:
        self._start("superlink", self._home, "flower-superlink", *self._command)
        self.processes.wait_until(
            self._answers, self._timeout, "the SuperLink's start", ["superlink"]
        )

    def _start(self, name: str, home: Path, program: str, *more: str | Path) -> None:
        """Start a command of Flower's: quiet, offline, with a FLWR_HOME."""
        found = shutil.which(program, path=PATH)
        if found is None:
            raise FileNotFoundError(f"{program} is not installed. Is flwr?")
        env = os.environ | _SETTINGS | {"PATH": PATH, "FLWR_HOME": str(home)}
        env.pop("FORCE_COLOR", None)  # Jupyter's, which colours even JSON
        self.processes.start(name, [found, *more], env)

    def _answers(self) -> bool:
        """Tell whether the SuperLink answers, with a certificate that holds."""
        known = ssl.create_default_context(cafile=self.authority.certificate)
        try:
            with socket.create_connection(("127.0.0.1", self._port), 1) as connection:
                with known.wrap_socket(connection, server_hostname="localhost"):
                    return True
        except ssl.SSLCertVerificationError as error:
            raise RuntimeError(
                f"the SuperLink's certificate cannot be used: {error.verify_message}"
            ) from error
        except OSError:
            return False

    def _ask(self, *arguments: str) -> str:
        """Start a command of `flwr`, such as "list"; return its name, for `_answer`."""
        return self._flwr(*arguments, "--format", "json")

    def _answer(self, name: str) -> dict[str, Any]:
        """Return a command's answer, as Flower's JSON has it, when it has ended."""
        if not wait_until(lambda: not self.processes.is_running(name), self._timeout):
            raise TimeoutError(f"{name} took more than {self._timeout:g} s")
        text = self._log(name)
        try:
            answer: dict[str, Any] = json.loads(text[text.index("{") :])
        except ValueError:
            answer = {"success": False}
        if not answer["success"]:
            raise RuntimeError(f"{name} failed: {answer.get('error-message', text)}")
        return answer

    def run(
        self,
        app: str | Path,
        config: Mapping[str, str | int | float | bool] | None = None,
        *options: str,
        watch: Callable[[str], object] | None = None,
        timeout: float = 600.0,
    ) -> str:
        """Return what a Flower app prints, from its start by `flwr run` to its end.

        Flower's own log is left out.

        Parameters
        ----------
        app : str or Path
            The app's folder, with its pyproject.toml.
        config : mapping, optional
            Values in place of those in ``[tool.flwr.app.config]``.
        *options : str
            More options of `flwr run`.
        watch : callable, optional
            Called with each line that the app prints, as it comes.
        timeout : float
            How many seconds the run may take.

        Raises
        ------
        RuntimeError
            If the run fails; with the end of what it has printed.
        TimeoutError
            If it takes longer; the run is stopped.
        """
        values = " ".join(f"{k}={json.dumps(v)}" for k, v in (config or {}).items())
        if values:
            options += ("--run-config", values)
        name = self._flwr("run", str(Path(app).resolve()), "--stream", *options)
        seen = ""

        def ended() -> bool:
            nonlocal seen
            running = self.processes.is_running(name)
            printed = app_output(self._log(name))
            printed = printed[: printed.rfind("\n") + 1]
            for line in printed[len(seen) :].splitlines():
                if watch is not None:
                    watch(line)
            seen = printed
            return not running

        try:
            if not wait_until(ended, timeout, every=0.1):
                raise TimeoutError(f"the run took more than {timeout:g} s:\n{seen}")
        except BaseException:  # Ctrl-C too: else the run would go on
            self._stop(name)
            raise
        self._check(name)
        return seen

    def runs(self) -> list[str]:
        """Return the status of each run, the newest first: "running" and so on."""
        return [run["status"] for run in self._answer(self._ask("list"))["runs"]]

    def _check(self, name: str) -> None:
        """Raise RuntimeError if a run has failed: `flwr run` does not say so."""
        if (run_id := self._run_id(name)) is None:
            raise RuntimeError(f"the run was not started:\n{self._log(name)}")
        (run,) = self._answer(self._ask("list", "--run-id", run_id))["runs"]
        status, details = run["status"], run["status-details"]
        if status != _COMPLETED:
            end = _COLOUR.sub("", self.processes.tail(name))
            raise RuntimeError(f"the run failed ({status}, {details}):\n{end}")

    def _stop(self, name: str) -> None:
        """Stop a run, if it goes on."""
        if (run_id := self._run_id(name)) is not None:
            with contextlib.suppress(RuntimeError):  # it may have ended by itself
                self._answer(self._ask("stop", run_id))
        if self.processes.is_running(name):
            self.processes.kill(name)

    def _run_id(self, name: str) -> str | None:
        """Return Flower's number of a run, None if it was not started."""
        started = _STARTED.search(self._log(name))
        return started and started[1]

    def _flwr(self, *arguments: str) -> str:
        name = f"flwr-{arguments[0]}-{next(self._numbers)}"
        self._start(name, self._home, "flwr", *arguments)
        return name

    def _log(self, name: str) -> str:
        return self.processes.log_file(name).read_text(errors="replace")
