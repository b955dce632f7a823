"""Peers on this machine: start n of them, kill one, and read what they leave behind.

Each is a process that knows nothing of this module, and who starts it is no server.
"""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from operator import itemgetter
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
from flwr.app import ArrayRecord, MetricRecord

from gossiplib.core import mixing, topology
from gossiplib.core.models import mean_arrays
from gossiplib.core.result import GossipResult, Loss
from gossiplib.peers.config import PeerConfig
from gossiplib.peers.log import read_events, read_models
from gossiplib.peers.node import ALONE
from gossiplib.peers.transport import name_of
from gossiplib.system.certificates import Authority
from gossiplib.system.numbers import check_whole
from gossiplib.system.processes import Processes, free_ports
from gossiplib.system.records import flat, mean_metrics
from gossiplib.system.runs import wait_until
from gossiplib.system.simulation import QUIET

#: One thread each, no telemetry, and no log of gRPC's own.
_ENV = QUIET | {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "GRPC_VERBOSITY": "NONE",
    "PYTHONWARNINGS": "ignore",
}


def can_start() -> bool:
    """Tell whether processes can be started here, and hear each other."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as heard:
            socket.create_connection(heard.getsockname(), 1).close()
        with Processes() as processes:
            nothing = [sys.executable, "-c", ""]
            return processes.start("try", nothing, os.environ).wait() == 0
    except OSError:
        return False


class Peers:
    """Run peers for the time of a `with` block.

    Parameters
    ----------
    app, initial : str
        "module:name" of the gossip ClientApp and of the function that makes the first
        model. Each peer imports them.
    graph : networkx.Graph or int
        Who is whose neighbour, nodes 0..n-1. Or the number of peers: then all know
        peer 0 alone, and find their neighbours themselves.
    path : Path, optional
        A folder in which Python looks for the module.
    **options
        The rest of `PeerConfig`: `num_rounds=30`, `timeout=10`, ...

    Attributes
    ----------
    addresses : list of str
        Where each peer listens.
    processes : Processes
        They are named peer-0, peer-1, ...; all files are in their `folder`.

    Raises
    ------
    ValueError
        If peers cannot have this graph, or an option.
    """

    def __init__(
        self,
        app: str,
        initial: str,
        graph: nx.Graph | int,
        *,
        path: Path | None = None,
        **options: Any,
    ) -> None:
        n = len(graph) if isinstance(graph, nx.Graph) else graph
        n = check_whole("graph, or the number of peers,", n, 2)
        if isinstance(graph, nx.Graph):
            topology.check_graph(graph, n, connected=False)
            if graph.is_directed():
                raise ValueError("peers' links are mutual: the graph is directed")
        self.processes = Processes()
        self.addresses = [f"127.0.0.1:{port}" for port in free_ports(n)]
        self._names, self._graph, self._clients = (app, initial), graph, range(n)
        self._path, self._options = path, options
        self._config(0, Path()).arguments()  # an error here, not in each process
        self._processes: dict[int, subprocess.Popen[bytes]] = {}  # but of the killed

    def __enter__(self) -> "Peers":
        """Make certificates, and start all peers."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.processes)
            authority = Authority(self.processes.folder)
            for i in self._clients:
                authority.issue(name_of(i), days=365)  # a run may be long
                self._start(i)
            stack.pop_all()  # they end with the block, unless something failed here
        return self

    def __exit__(self, *error: Any) -> None:
        """End all peers."""
        self.processes.__exit__(*error)

    def _config(self, i: int, folder: Path) -> PeerConfig:
        known, neighbours = [0 if i else 1], None
        if isinstance(self._graph, nx.Graph):
            known = neighbours = topology.senders(self._graph, i)
        return PeerConfig(
            client=i,
            num_clients=len(self._clients),
            address=self.addresses[i],
            folder=folder,
            known=[self.addresses[j] for j in known if j in self._clients],
            neighbours=neighbours,
            **self._options,
        )

    def _start(self, i: int) -> None:
        words = self._config(i, self.processes.folder).arguments()
        command = [sys.executable, "-m", "gossiplib.peers", *self._names, *words]
        places = (self._path, os.environ.get("PYTHONPATH"))
        path = os.pathsep.join(str(place) for place in places if place)
        owner = f"{os.getpid()} {self.processes.folder}"
        env = os.environ | _ENV | {"PYTHONPATH": path, "GOSSIPLIB_OWNER": owner}
        self._processes[i] = self.processes.start(name_of(i), command, env)

    def kill(self, i: int) -> None:
        """End peer `i` at once, as a crash would."""
        self.processes.kill(name_of(i))
        del self._processes[i]

    def restart(self, i: int) -> None:
        """Start peer `i`, which was killed, at the same address."""
        self._start(i)

    def wait_for_round(self, server_round: int, timeout: float = 60.0) -> None:
        """Wait until all peers that run have finished the round `server_round`.

        Raise RuntimeError if one fails, with the end of its log, and TimeoutError if it
        takes more than `timeout` seconds.
        """

        def late() -> list[int]:
            return [i for i in self._running() if self._round(i) < server_round]

        self._wait(late, timeout, f"are not in round {server_round}")

    def wait(self, timeout: float = 60.0) -> None:
        """Wait until all have ended that were not killed; for `timeout`, see above."""
        self._wait(self._running, timeout, "still run")

    def _wait(self, late: Callable[[], list[int]], timeout: float, what: str) -> None:
        """Wait until nobody is late, as long as nobody fails."""

        def done() -> bool:
            for i, process in self._processes.items():
                if process.poll() not in (None, 0, ALONE):
                    log = self.processes.tail(name_of(i))
                    raise RuntimeError(f"peer {i} has failed:\n{log}")
            return not late()

        if not wait_until(done, timeout):
            raise TimeoutError(f"peers {late()} {what} after {timeout:g} s")

    def _running(self) -> list[int]:
        return [i for i, one in self._processes.items() if one.poll() is None]

    def _round(self, i: int) -> int:
        rounds = [e["round"] for e in self._events_of(i) if e["event"] == "round"]
        return max(rounds, default=0)

    def _events_of(self, *clients: int) -> list[dict[str, Any]]:
        folder = self.processes.folder
        return [e for i in clients for e in read_events(folder / name_of(i))]

    def events(self) -> pd.DataFrame:
        """Return what all peers did, one row an event, in the order of time.

        Its time is in seconds since the first event. `viz.timeline` draws it.
        """
        none = pd.DataFrame(columns=["time", "peer", "event", "round"])
        rows = pd.DataFrame(self._events_of(*self._clients) or none)
        table = rows.sort_values("time", ignore_index=True)
        return table.assign(time=table["time"] - table["time"].min())

    def refused(self) -> dict[int, dict[str, int]]:
        """Return partition id -> reason -> messages that it did not use."""
        events = [e for e in self._events_of(*self._clients) if "refused" in e]
        none: dict[int, dict[str, int]] = {i: {} for i in self._clients}
        return none | {e["peer"]: e["refused"] for e in events}

    def result(self) -> GossipResult:
        """Return what `Gossip` would: models, metrics, messages, losses, by round.

        `node_arrays` has the peers that came to their end. Models that other peers
        have written down count for the consensus distance of their rounds, if one of
        those has kept its own. What a disk had no room for is a loss of "write".
        """
        result, folder = GossipResult(), self.processes.folder
        kept = {i: read_models(folder / name_of(i)) for i in self._clients}
        final: dict[int, ArrayRecord] = {}
        events = self._events_of(*self._clients)
        for event in sorted(events, key=itemgetter("round")):
            _add(result, event)
            i, t = event["peer"], event["round"]
            if event["event"] == "ended" and t in kept[i]:
                final[i] = kept[i][t]
        for t in sorted({t for i in final or kept for t in kept[i]}):
            rows = [flat(kept[i][t]) for i in kept if t in kept[i]]
            result.consensus_distance[t] = mixing.consensus_distance(np.stack(rows))
        for metrics, means in (
            (result.node_train_metrics, result.train_metrics_clientapp),
            (result.node_evaluate_metrics, result.evaluate_metrics_clientapp),
        ):
            means.update({t: mean_metrics(of_all) for t, of_all in metrics.items()})
        result.lost.sort()
        result.node_arrays = final
        if final:
            result.arrays = mean_arrays(list(final.values()))
        return result


def _add(result: GossipResult, event: dict[str, Any]) -> None:
    """Add an event of a peer to a result."""
    t, kind = event["round"], event["event"]
    if kind in ("trained", "evaluated"):
        trained = kind == "trained"
        rounds = result.node_train_metrics if trained else result.node_evaluate_metrics
        rounds[t] = {**rounds.get(t, {}), event["peer"]: MetricRecord(event["metrics"])}
    elif kind == "lost":
        result.lost.append(Loss(t, event["other"], event["call"], event["reason"]))
    elif kind == "ended" and (unwritten := event.get("unwritten")):
        reason = f"not written: {unwritten}"
        result.lost.append(Loss(t, event["peer"], "write", reason))
    elif kind in ("averaged", "learned", "round"):
        messages = {"averaged": len(event.get("senders", ())), "learned": 1}
        result.messages[t] = result.messages.get(t, 0) + messages.get(kind, 0)
        result.bytes[t] = result.bytes.get(t, 0) + event.get("bytes", 0)
