"""Flower's deployment runtime on this machine, for the time of a `with` block.

`Deployment` starts a SuperLink and SuperNodes, each a process as on a machine of its
own, and runs Flower apps on them. All is done by Flower's own commands. SuperNodes
reach the SuperLink over TLS, and show who they are by keys; certificates and keys are
made for the block.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType

from gossiplib.deployment.superlink import SuperLink, environment, find_command
from gossiplib.system.certificates import Authority, key_pair
from gossiplib.system.processes import Processes, free_ports

__all__ = ["Deployment", "missing_commands"]

_COMMANDS = ("flwr", "flower-superlink", "flower-supernode", "flower-superexec")


def missing_commands() -> list[str]:
    """Return those of Flower's commands that are needed and not installed here."""
    return [name for name in _COMMANDS if find_command(name) is None]


class Deployment:
    """Own a SuperLink and SuperNodes for the time of a `with` block.

    Parameters
    ----------
    num_clients : int
        Number of SuperNodes; their partition ids are 0..num_clients-1.
    days : float
        For how long the SuperLink's certificate is valid, see `certificates`.
    patience : float
        Seconds to wait for each step of the start.

    Attributes
    ----------
    processes : Processes
        Those of the block: "superlink", "supernode-0" and so on, with their logs.
    folder : Path
        Certificates, keys, logs and apps. It goes with the block.
    address : str
        Host and port of the SuperLink.
    authority : Authority
        By whose certificate the SuperNodes know the SuperLink.
    node_ids : dict[int, int]
        Partition id -> Flower's number of the node.
    keys : dict[int, Path]
        Partition id -> the private key of the node.

    Examples
    --------
    >>> with Deployment(4) as deployment:  # doctest: +SKIP
    ...     print(deployment.run("my_app", {"num-rounds": 5}))
    """

    def __init__(
        self, num_clients: int, *, days: float = 1.0, patience: float = 60.0
    ) -> None:
        if num_clients < 1:
            raise ValueError(f"num_clients must be at least 1; got {num_clients}")
        self.num_clients = num_clients
        self.processes = Processes()
        self.node_ids: dict[int, int] = {}
        self.keys: dict[int, Path] = {}
        self._days, self._patience = days, patience
        self._numbers = itertools.count(1)

    def __enter__(self) -> "Deployment":
        """Start all processes; wait until all SuperNodes are online.

        Raises
        ------
        FileNotFoundError
            If Flower's commands are not installed.
        RuntimeError
            If a process ends, or is refused; with the end of its log.
        TimeoutError
            If a step takes longer than `patience`.
        """
        if missing := missing_commands():
            raise FileNotFoundError(f"not installed: {missing}. Is flwr installed?")
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.processes)
            self.folder = self.processes.folder
            self.authority = Authority(self.folder)
            self._superlink = SuperLink(
                self.processes,
                self.authority,
                days=self._days,
                patience=self._patience,
            )
            self.address = self._superlink.address
            self._start_supernodes(range(self.num_clients))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End all processes, and remove the folder."""
        self._stack.close()

    def run(
        self,
        app: str | Path,
        config: Mapping[str, str | int | float | bool] | None = None,
        *,
        watch: Callable[[str], object] | None = None,
        seconds: float = 600.0,
    ) -> str:
        """Run a Flower app, and return what it has printed; see `SuperLink.run`."""
        return self._superlink.run(app, config, watch=watch, seconds=seconds)

    def online(self) -> set[int]:
        """Return Flower's numbers of the nodes that the SuperLink takes for online."""
        nodes = self._superlink.answer(self._superlink.ask("supernode", "list"))
        return {int(n["node-id"]) for n in nodes["nodes"] if n["status"] == "online"}

    def kill(self, client: int) -> None:
        """End a client's SuperNode as a crash would, with all that it has started.

        The SuperLink does not know. It takes the node for online until heartbeats are
        missing for a minute, and until then messages to it find no answer.
        """
        self.processes.kill(_name(client))

    def restart(self, client: int) -> None:
        """Start a client's SuperNode again, on a new node; wait until it is online.

        Flower refuses a key whose node it takes for online. So the old node is
        unregistered, which answers the messages that wait for it by errors, and the
        new one has a new key. What the client kept in its `context.state` is lost.
        """
        if self.processes.is_running(_name(client)):
            self.kill(client)
        gone = self._superlink.ask("supernode", "unregister", self.node_ids[client])
        self._start_supernodes([client])
        self._superlink.answer(gone)

    def start_supernode(self, name: str, client: int, key: Path | None) -> None:
        """Start a SuperNode, and do not wait. Its log tells how it fares.

        Parameters
        ----------
        name : str
            Of the process.
        client : int
            Partition id.
        key : Path, optional
            The private key by which it shows who it is.
        """
        command = [
            *[find_command("flower-supernode"), "--superlink", self.address],
            *["--host", "127.0.0.1", "--port", free_ports(1)[0]],
            *["--root-certificates", self.authority.certificate],
            "--node-config",
            f"partition-id={client} num-partitions={self.num_clients}",
        ]
        if key is not None:
            command += ["--auth-supernode-private-key", key]
        home = self.folder / f"flwr-{name}"  # a machine of its own would have its own
        self.processes.start(name, command, environment(home))

    def _start_supernodes(self, clients: Iterable[int]) -> None:
        """Register a new key for each client, start its SuperNode, wait for all."""
        asked = {}
        for i in clients:
            self.keys[i], public = key_pair(self.folder, f"key-{next(self._numbers)}")
            asked[i] = self._superlink.ask("supernode", "register", public)
        for i, name in asked.items():
            self.node_ids[i] = int(self._superlink.answer(name)["node-id"])
            self.start_supernode(_name(i), i, self.keys[i])
        wanted = {self.node_ids[i] for i in asked}
        self.processes.wait_until(
            lambda: wanted <= self.online(),
            self._patience,
            "the SuperNodes' start",
            [_name(i) for i in asked],
        )


def _name(client: int) -> str:
    return f"supernode-{client}"
