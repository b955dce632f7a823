"""Flower's deployment runtime on this machine, for the time of a `with` block.

All is done by Flower's own commands, each a process as on a machine of its own. They
talk over TLS, with certificates and keys that are made for the block. Apps run in this
Python, with what it has installed; nothing is downloaded.
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
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from gossiplib.system.certificates import Authority, key_pair
from gossiplib.system.numbers import check_whole
from gossiplib.system.processes import Processes, free_ports
from gossiplib.system.runs import toml, wait_until
from gossiplib.system.simulation import QUIET

# What we read of Flower's texts, which are no interface: as 1.42.0 writes them.
_STARTED = re.compile(r"Successfully started run (\d+)")
_COMPLETED = "finished:completed"
_COLOUR = re.compile(r"\x1b\[[\d;]*m")
_NOISE = re.compile(
    r"(\(\w+ pid=\d+\) )?"  # Ray puts the worker's name before its lines
    r"(INFO |Using SuperLink|Successfully (started|installed) "
    r"|WARNING *: +(Since flwr|Manually terminating|fraction_evaluate))"
)

#: What each step of the start, and each command but a run, may take: far more than it
#: does, as a machine may be busy.
_SECONDS = 180.0

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
    """Own a SuperLink whose apps run on the simulation; see `Deployment`."""

    def __init__(self, *, days: float = 1.0) -> None:
        self.processes = Processes()
        self._days = days
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        """Start all processes; wait until they answer."""
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
            f"root-certificates = {toml(str(trusted))}\n",
            "utf-8",
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
            self._answers, _SECONDS, "the SuperLink's start", ["superlink"]
        )

    def _start(self, name: str, home: Path, program: str, *more: str | Path) -> None:
        """Start a command of Flower's: quiet, offline, with a FLWR_HOME."""
        found = shutil.which(program, path=PATH)
        if found is None:
            raise FileNotFoundError(f"{program} is not installed. Is flwr?")
        env = os.environ | _SETTINGS | {"PATH": PATH, "FLWR_HOME": str(home)}
        env.pop("FORCE_COLOR", None)  # Jupyter's, which colours even JSON
        # A proxy for the world is none for this machine.
        for one, other in (("no_grpc_proxy", "no_proxy"), ("no_proxy", "NO_PROXY")):
            theirs = env.get(one) or env.get(other, "")
            if one == "no_grpc_proxy" or theirs != "*":  # alone, it means all
                env[one] = f"127.0.0.1,{theirs}"
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
        if not wait_until(lambda: not self.processes.is_running(name), _SECONDS):
            raise TimeoutError(f"{name} took more than {_SECONDS:g} s")
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
        """Return what a Flower app prints in a `flwr run`, without Flower's own log.

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
        values = " ".join(f"{k}={toml(v)}" for k, v in (config or {}).items())
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

    def stop(self) -> None:
        """Stop all runs that go on, or of which the SuperLink believes it."""
        for run in self._answer(self._ask("list"))["runs"]:
            if not run["status"].startswith("finished"):
                with contextlib.suppress(RuntimeError):  # it has just ended by itself
                    self._answer(self._ask("stop", str(run["run-id"])))

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


class Deployment(SuperLink):
    """Own a SuperLink and SuperNodes for the time of a `with` block.

    Parameters
    ----------
    num_clients : int
        Number of SuperNodes; their partition ids are 0..num_clients-1.
    days : float
        How long the SuperLink's certificate is valid; below 0, it expired so long ago.

    Attributes
    ----------
    processes : Processes
        Those of the block: "superlink", "supernode-0" and so on, with their logs.
    folder : Path
        Certificates, keys, logs and apps. It goes with the block.
    address, authority
        Host and port of the SuperLink, and by whose certificate the SuperNodes know it.
    node_ids, keys : dict
        Partition id -> Flower's number of the node, and the file of its private key.

    Raises
    ------
    FileNotFoundError, RuntimeError, TimeoutError
        At the start of the block, if Flower's commands are not installed; if a process
        ends or is refused, or the certificate cannot be used; if a step takes three
        minutes.

    Examples
    --------
    >>> with Deployment(4) as deployment:  # doctest: +SKIP
    ...     print(deployment.run("my_app", {"num-rounds": 5}))
    """

    def __init__(self, num_clients: int, *, days: float = 1.0) -> None:
        super().__init__(days=days)
        self.num_clients = check_whole("num_clients", num_clients, 1)
        self.node_ids: dict[int, int] = {}
        self.keys: dict[int, Path] = {}

    def _start_all(self) -> None:
        super()._start_all()
        self._start_supernodes(range(self.num_clients))

    def _options(self) -> list[str | Path]:
        # In a file, else a SuperLink that was killed has forgotten its SuperNodes.
        database = self.folder / "superlink.db"
        return ["--enable-supernode-auth", "--database", database]

    def online(self) -> set[int]:
        """Return Flower's numbers of the nodes that the SuperLink takes for online."""
        nodes = self._answer(self._ask("supernode", "list"))
        return {int(n["node-id"]) for n in nodes["nodes"] if n["status"] == "online"}

    def kill(self, client: int) -> None:
        """End the SuperNode of a `client` as a crash would, with all that it started.

        The SuperLink takes it for online until heartbeats are missing for a minute.
        """
        self.processes.kill(_name_of(client))

    def restart(self, client: int) -> None:
        """Start a `client`'s SuperNode again, on a new node; wait until it is online.

        The old one is unregistered, which answers the messages that wait for it by
        errors. What the client kept in its `context.state` is lost.
        """
        if self.processes.is_running(_name_of(client)):
            self.kill(client)
        old = str(self.node_ids[client])
        gone = self._ask("supernode", "unregister", old)
        self._start_supernodes([client])
        self._answer(gone)

    def kill_superlink(self) -> None:
        """End the SuperLink as a crash would, and with it the ServerApp of a run.

        SuperNodes go on trying to reach it.
        """
        self.processes.kill("superlink")

    def restart_superlink(self) -> None:
        """Start the SuperLink again, at its address; wait until it answers.

        It has its SuperNodes and their messages from its database. The runs that it had
        do not go on: they have failed when heartbeats were missing for a minute. Before
        that, a SuperNode that fetches a message of theirs may wait for the rest of it:
        `stop` them.
        """
        self._start_superlink()

    def start_supernode(self, name: str, client: int, key: Path | None) -> None:
        """Start a process `name`, SuperNode of a `client`, and do not wait.

        Its log tells how it fares. By the private `key` it shows who it is.
        """
        numbers = f"partition-id={client} num-partitions={self.num_clients}"
        self._start(
            name,
            self.folder / f"flwr-{name}",  # a machine of its own would have its own
            *("flower-supernode", "--superlink", self.address),
            *("--host", "127.0.0.1", "--port", str(free_ports(1)[0])),
            *("--root-certificates", self.authority.certificate),
            *("--node-config", numbers),
            *(() if key is None else ("--auth-supernode-private-key", key)),
        )

    def _start_supernodes(self, clients: Iterable[int]) -> None:
        """Register a new key for each client, start its SuperNode, wait for all."""
        asked = {}
        for i in clients:
            self.keys[i], public = key_pair(self.folder, f"key-{next(self._numbers)}")
            asked[i] = self._ask("supernode", "register", str(public))
        for i, name in asked.items():
            self.node_ids[i] = int(self._answer(name)["node-id"])
            self.start_supernode(_name_of(i), i, self.keys[i])
        wanted = {self.node_ids[i] for i in asked}
        self.processes.wait_until(
            lambda: wanted <= self.online(),
            _SECONDS,
            "the SuperNodes' start",
            [_name_of(i) for i in asked],
        )


def _name_of(client: int) -> str:
    return f"supernode-{client}"
