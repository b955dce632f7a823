"""Flower's deployment runtime on this machine, for the time of a `with` block.

`Deployment` starts a SuperLink and SuperNodes, each a process as on a machine of its
own, and runs Flower apps on them. All is done by Flower's own commands. SuperNodes
reach the SuperLink over TLS, and show who they are by keys; certificates and keys are
made for the block.
"""

from collections.abc import Iterable
from pathlib import Path

from gossiplib.deployment.superlink import SuperLink
from gossiplib.system.certificates import key_pair
from gossiplib.system.numbers import check_whole
from gossiplib.system.processes import free_ports

__all__ = ["Deployment"]


class Deployment(SuperLink):
    """Own a SuperLink and SuperNodes for the time of a `with` block.

    Parameters
    ----------
    num_clients : int
        Number of SuperNodes; their partition ids are 0..num_clients-1.
    days, start_timeout : float
        Days for which the SuperLink's certificate is valid; seconds that each step of
        the start, and each command but a run, may take.

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

    Examples
    --------
    >>> with Deployment(4) as deployment:  # doctest: +SKIP
    ...     print(deployment.run("my_app", {"num-rounds": 5}))
    """

    def __init__(
        self, num_clients: int, *, days: float = 1.0, start_timeout: float = 60.0
    ) -> None:
        super().__init__(days=days, start_timeout=start_timeout)
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
        do not go on: they have failed when heartbeats were missing for a minute.
        """
        self._start_superlink()

    def start_supernode(self, name: str, client: int, key: Path | None) -> None:
        """Start a SuperNode, and do not wait. Its log tells how it fares.

        Parameters
        ----------
        name, client : str, int
            Of the process, and its partition id.
        key : Path, optional
            The private key by which it shows who it is.
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
            self.start_supernode(_name(i), i, self.keys[i])
        wanted = {self.node_ids[i] for i in asked}
        self.processes.wait_until(
            lambda: wanted <= self.online(),
            self._timeout,
            "the SuperNodes' start",
            [_name(i) for i in asked],
        )


def _name(client: int) -> str:
    return f"supernode-{client}"
