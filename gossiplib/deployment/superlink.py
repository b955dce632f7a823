"""A SuperLink of Flower's on this machine, and the runs that it is given.

`SuperLink` is one process, and Flower's own commands that talk to it. What the runtime
is, a simulation or SuperNodes, see `deployment`, is not its concern. The apps run in
this Python, with what it has installed. Nothing is downloaded.
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
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gossiplib.system.certificates import Authority
from gossiplib.system.processes import Processes, free_ports

__all__ = ["SuperLink", "app_output", "environment", "find_command"]

#: Where Flower's commands are. They call each other by name.
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"

_SETTINGS = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.3",  # else a message waits for up to 1 s
    "NO_COLOR": "1",
    "PYTHONUNBUFFERED": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TQDM_DISABLE": "1",
}
_COLOUR = re.compile(r"\x1b\[[\d;]*m")
_NOISE = re.compile(
    r"(\(\w+ pid=\d+\) )?"  # Ray puts the worker's name before its lines
    r"(INFO |Using SuperLink|Successfully (started|installed) "
    r"|WARNING *: +(Since flwr|Manually terminating|fraction_evaluate))"
)


def environment(home: Path) -> dict[str, str]:
    """Return an environment for Flower's commands: quiet, offline, with its own home.

    Parameters
    ----------
    home : Path
        FLWR_HOME, where Flower keeps its settings and the apps that it runs.
    """
    env = os.environ | _SETTINGS | {"PATH": PATH, "FLWR_HOME": str(home)}
    env.pop("FORCE_COLOR", None)  # Jupyter's, which colours even JSON
    return env


def find_command(name: str) -> str | None:
    """Return where a command of Flower's is, None if it is not installed."""
    return shutil.which(name, path=PATH)


def app_output(text: str) -> str:
    """Return what an app has printed, without Flower's own log and colours."""
    lines = _COLOUR.sub("", text).splitlines(keepends=True)
    return "".join(line for line in lines if not _NOISE.match(line))


class SuperLink:
    """A running SuperLink. It ends with the processes that it is one of.

    Parameters
    ----------
    processes : Processes
        Take it, as "superlink", and the commands that talk to it.
    authority : Authority, optional
        Signs its certificate, for TLS. By default there is no TLS, and apps run on
        Flower's simulation.
    days : float
        For how long the certificate is valid, see `certificates`.
    patience : float
        Seconds that its start, and each command but a run, may take.

    Attributes
    ----------
    address : str
        Host and port.

    Raises
    ------
    RuntimeError
        If it ends, or its certificate cannot be used.
    TimeoutError
        If it does not answer in time.
    """

    def __init__(
        self,
        processes: Processes,
        authority: Authority | None = None,
        *,
        days: float = 1.0,
        patience: float = 60.0,
    ) -> None:
        self._processes, self._authority = processes, authority
        self._patience = patience
        self._numbers = itertools.count(1)
        home = processes.folder / "flwr"
        home.mkdir()
        self._env = environment(home)
        self._port = free_ports(1)[0]
        self.address = f"127.0.0.1:{self._port}"
        if authority is None:
            known, how = "insecure = true", ["--insecure", "--simulation"]
        else:
            known = f"root-certificates = {json.dumps(str(authority.certificate))}"
            shown = authority.issue("superlink", days=days)
            how = [
                *["--ssl-certfile", shown.certificate, "--ssl-keyfile", shown.key],
                *["--ssl-ca-certfile", authority.certificate],
                "--enable-supernode-auth",
            ]
        (home / "config.toml").write_text(
            '[superlink]\ndefault = "here"\n\n'
            f'[superlink.here]\naddress = "{self.address}"\n{known}\n'
        )
        command = ["flower-superlink", "--host", "127.0.0.1", "--port", self._port]
        self._start("superlink", [*command, *how])
        processes.wait_until(
            self._answers, patience, "the SuperLink's start", ["superlink"]
        )

    def ask(self, *arguments: str | int | Path) -> str:
        """Start a command of `flwr`, such as "list"; return its name for `answer`."""
        return self._flwr(*arguments, "--format", "json")

    def answer(self, name: str) -> dict[str, Any]:
        """Wait for a command to end; return its answer.

        Raises
        ------
        RuntimeError
            If the command fails, with what it says.
        TimeoutError
            If it takes too long.
        """
        deadline = time.monotonic() + self._patience
        while self._processes.is_running(name):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{name} took more than {self._patience:g} s")
            time.sleep(0.05)
        text = self._log(name)
        try:
            answer = json.loads(text[text.index("{") :])
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
        seconds: float = 600.0,
    ) -> str:
        """Run a Flower app by `flwr run`, and wait for its end.

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
        seconds : float
            How long the run may take.

        Returns
        -------
        str
            What the app has printed, without Flower's log.

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
        name = self._flwr("run", Path(app).resolve(), "--stream", *options)
        try:
            printed = self._follow(name, watch, seconds)
        except BaseException:  # Ctrl-C too: else the run would go on
            self._stop(name)
            raise
        self._check(name)
        return printed

    def _follow(
        self, name: str, watch: Callable[[str], object] | None, seconds: float
    ) -> str:
        """Pass on what an app prints until its run ends."""
        deadline = time.monotonic() + seconds
        seen, running = "", True
        while running:
            running = self._processes.is_running(name)
            printed = app_output(self._log(name))
            printed = printed[: printed.rfind("\n") + 1]
            for line in printed[len(seen) :].splitlines():
                if watch is not None:
                    watch(line)
            seen = printed
            if time.monotonic() > deadline:
                raise TimeoutError(f"the run took more than {seconds:g} s:\n{seen}")
            time.sleep(0.1)
        return seen

    def _check(self, name: str) -> None:
        """Raise RuntimeError if a run has failed: `flwr run` does not say so."""
        run_id = self._run_id(name)
        if run_id is None:
            raise RuntimeError(f"the run was not started:\n{self._log(name)}")
        runs = self.answer(self.ask("list", "--run-id", run_id))["runs"]
        status, details = runs[0]["status"], runs[0]["status-details"]
        if status != "finished:completed":
            end = _COLOUR.sub("", self._processes.tail(name))
            raise RuntimeError(f"the run failed ({status}, {details}):\n{end}")

    def _stop(self, name: str) -> None:
        """Stop a run, if it goes on."""
        if (run_id := self._run_id(name)) is not None:
            with contextlib.suppress(RuntimeError):  # it may have ended by itself
                self.answer(self.ask("stop", run_id))
        if self._processes.is_running(name):
            self._processes.kill(name)

    def _run_id(self, name: str) -> int | None:
        """Return Flower's number of a run, None if it was not started."""
        started = re.search(r"Successfully started run (\d+)", self._log(name))
        return int(started[1]) if started else None

    def _answers(self) -> bool:
        """Tell whether the SuperLink answers, with a certificate that holds."""
        try:
            with socket.create_connection(("127.0.0.1", self._port), 1) as connection:
                if self._authority is None:
                    return True
                known = ssl.create_default_context(cafile=self._authority.certificate)
                with known.wrap_socket(connection, server_hostname="localhost"):
                    return True
        except ssl.SSLCertVerificationError as error:
            raise RuntimeError(
                f"the SuperLink's certificate cannot be used: {error.verify_message}"
            ) from error
        except OSError:
            return False

    def _flwr(self, *arguments: str | int | Path) -> str:
        name = f"flwr-{arguments[0]}-{next(self._numbers)}"
        self._start(name, ["flwr", *arguments])
        return name

    def _start(self, name: str, command: list) -> None:
        if (program := find_command(command[0])) is None:
            raise FileNotFoundError(f"{command[0]} is not installed. Is flwr?")
        self._processes.start(name, [program, *map(str, command[1:])], self._env)

    def _log(self, name: str) -> str:
        return self._processes.log_file(name).read_text(errors="replace")
