"""Peers on this machine: start n of them, kill one, and read what they leave behind.

For notebooks, tests and `make peers`. The peers know nothing of this module: each is a
process of its own (`python -m gossiplib.peers`), and whoever starts it is no server.
"""

import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
from flwr.app import MetricRecord

from gossiplib.core import mixing, topology
from gossiplib.core.models import flat, mean_arrays
from gossiplib.core.result import GossipResult, Loss, mean_metrics
from gossiplib.peers.log import read_events, read_models
from gossiplib.peers.transport import name_of
from gossiplib.system.certificates import Authority
from gossiplib.system.processes import Processes, free_ports

__all__ = ["Peers", "can_start", "stored_events"]

#: One thread each, no telemetry, and no log of gRPC's own.
_ENV = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "GRPC_VERBOSITY": "NONE",
    "PYTHONWARNINGS": "ignore",
}


def can_start() -> bool:
    """Tell whether processes can be started here, and listen for each other."""
    try:
        with Processes() as processes:
            return (
                processes.start("try", [sys.executable, "-c", ""], os.environ).wait()
                == 0
            )
    except OSError:
        return False


def stored_events() -> pd.DataFrame:
    """Return the events of eight peers, of which two are killed and one comes back.

    It is what `Peers.events` returned in a run on the authors' machine.
    """
    file = resources.files("gossiplib") / "data" / "peers.csv.gz"
    with resources.as_file(file) as path:
        return pd.read_csv(path)


class Peers:
    """Run peers for the time of a `with` block.

    Parameters
    ----------
    client, initial : str
        "module:name" of the gossip ClientApp and of the function that makes the first
        model, as the command line of `peer` takes them.
    graph : networkx.Graph or int
        Who is whose neighbour, nodes 0..n-1. Or the number of peers: then all know
        peer 0 alone, and find their neighbours themselves.
    path : Path, optional
        A folder in which Python looks for the module.
    folder : Path, optional
        Where all files go; by default one that goes with the block.
    **options
        More options of the command line: `rounds=30`, `evaluate_every=0` ...

    Attributes
    ----------
    addresses : list of str
        Where each peer listens.
    """

    def __init__(
        self,
        client: str,
        initial: str,
        graph: nx.Graph | int,
        *,
        path: Path | None = None,
        folder: Path | None = None,
        **options: Any,
    ) -> None:
        self.graph = graph if isinstance(graph, nx.Graph) else None
        self.n = len(graph) if isinstance(graph, nx.Graph) else graph
        if self.graph is not None:
            topology.check_graph(self.graph, self.n, connected=False)
        self._app = [client, "--initial", initial]
        self._options = options
        self._path = path
        self.processes = Processes(folder)
        self.addresses: list[str] = []
        self._killed: set[int] = set()

    def __enter__(self) -> "Peers":
        """Make certificates, and start all peers."""
        self.processes.__enter__()
        try:
            authority = Authority(self.processes.folder)
            self.addresses = [f"127.0.0.1:{port}" for port in free_ports(self.n)]
            for i in range(self.n):
                authority.issue(name_of(i))
                self._start(i)
        except BaseException:
            self.processes.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(self, *error: Any) -> None:
        """End all peers."""
        self.processes.__exit__(*error)

    def _start(self, i: int) -> None:
        told = self.neighbours_given(i)
        know = [0 if i else 1] if told is None else told
        know = [self.addresses[j] for j in know if j < self.n]
        command = [sys.executable, "-m", "gossiplib.peers", *self._app]
        command += ["--id", i, "--of", self.n, "--listen", self.addresses[i]]
        command += ["--folder", self.processes.folder, "--know", *know]
        if told is not None:
            command += ["--neighbours", *told]
        for name, value in self._options.items():
            command += [f"--{name.replace('_', '-')}", value]
        path = [str(self._path)] if self._path else []
        path += [p for p in (os.environ.get("PYTHONPATH"),) if p]
        env = os.environ | _ENV | {"PYTHONPATH": os.pathsep.join(path)}
        self.processes.start(name_of(i), list(map(str, command)), env)

    def neighbours_given(self, i: int) -> list[int] | None:
        """Return the neighbours that the graph gives to a peer; None if it has none."""
        return None if self.graph is None else topology.senders(self.graph, i)

    def kill(self, i: int) -> None:
        """End a peer at once, as a crash would."""
        self.processes.kill(name_of(i))
        self._killed.add(i)

    def restart(self, i: int) -> None:
        """Start a peer that was killed, at the same address."""
        self._killed.discard(i)
        self._start(i)

    def round_of(self, i: int) -> int:
        """Return the last round that a peer has finished."""
        events = read_events(self._folder_of(i))
        return max((e["round"] for e in events if e["event"] == "round"), default=0)

    def wait_for_round(self, t: int, seconds: float = 60.0) -> None:
        """Wait until all peers that run have finished a round."""
        running = [i for i in range(self.n) if i not in self._killed]
        self.processes.wait_until(
            lambda: all(self.round_of(i) >= t for i in running),
            seconds,
            f"round {t}",
            [],
        )
        self._check()

    def wait(self, seconds: float = 60.0) -> None:
        """Wait until all peers that were not killed have ended.

        Raises
        ------
        RuntimeError
            If one of them failed; with the end of its log.
        TimeoutError
            If it takes longer than so many seconds.
        """
        names = [name_of(i) for i in range(self.n) if i not in self._killed]
        deadline = time.monotonic() + seconds
        while running := [n for n in names if self.processes.is_running(n)]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{running} still run after {seconds:g} s")
            time.sleep(0.05)
        self._check()

    def _check(self) -> None:
        for i in range(self.n):
            ended = [e for e in self._events_of(i) if e["event"] == "ended"]
            running = self.processes.is_running(name_of(i))
            if i not in self._killed and not running and not ended:
                log = self.processes.tail(name_of(i))
                raise RuntimeError(f"peer {i} has failed:\n{log}")

    def _folder_of(self, i: int) -> Path:
        return self.processes.folder / name_of(i)

    def _events_of(self, i: int) -> list[dict[str, Any]]:
        return read_events(self._folder_of(i))

    def events(self) -> pd.DataFrame:
        """Return what all peers did: time, peer, event, round, other, bytes ...

        One row an event, in the order of time (seconds since the first). `timeline`
        draws it.
        """
        rows = [event for i in range(self.n) for event in self._events_of(i)]
        table = pd.DataFrame(rows).sort_values("time", ignore_index=True)
        return table.assign(time=table["time"] - table["time"].min())

    def refused(self) -> dict[int, dict[str, int]]:
        """Return partition id -> reason -> messages that it did not use."""
        counts = {}
        for i in range(self.n):
            told = [e["refused"] for e in self._events_of(i) if "refused" in e]
            counts[i] = told[-1] if told else {}
        return counts

    def result(self) -> GossipResult:
        """Return what `Gossip` would: models, metrics, messages, losses, by round.

        `node_arrays` has the peers that came to their end. Models that other peers
        have written down count for the consensus distance of their rounds.
        """
        result = GossipResult()
        models: dict[int, dict[int, Any]] = {}
        for i in range(self.n):
            kept = read_models(self._folder_of(i))
            for t, arrays in kept.items():
                models.setdefault(t, {})[i] = arrays
            events = self._events_of(i)
            _add(result, i, events)
            if kept and any(e["event"] == "ended" for e in events):
                result.node_arrays[i] = kept[max(kept)]
        for t in sorted(models):
            rows = np.stack([flat(arrays) for arrays in models[t].values()])
            result.consensus_distance[t] = mixing.consensus_distance(rows)
        for rounds, means in (
            (result.node_train_metrics, result.train_metrics_clientapp),
            (result.node_evaluate_metrics, result.evaluate_metrics_clientapp),
        ):
            means.update({t: mean_metrics(rounds[t]) for t in sorted(rounds)})
        result.lost.sort()
        if result.node_arrays:
            result.arrays = mean_arrays(list(result.node_arrays.values()))
        return result


def _add(result: GossipResult, i: int, events: Sequence[dict[str, Any]]) -> None:
    """Add the events of one peer to a result."""
    messages, size = Counter(), Counter()
    for event in events:
        t = event["round"]
        if event["event"] == "trained":
            metrics = MetricRecord(event["metrics"])
            result.node_train_metrics.setdefault(t, {})[i] = metrics
        elif event["event"] == "evaluated":
            metrics = MetricRecord(event["metrics"])
            result.node_evaluate_metrics.setdefault(t, {})[i] = metrics
        elif event["event"] == "averaged":
            messages[t] += len(event["senders"])
            size[t] += event["bytes"]
        elif event["event"] == "learned":
            messages[t] += 1
            size[t] += event["bytes"]
        elif event["event"] == "lost":
            loss = Loss(t, event["other"], event["call"], event["reason"])
            result.lost.append(loss)
        elif event["event"] == "round":
            messages[t] += 0
    for t in sorted(messages):
        result.messages[t] = result.messages.get(t, 0) + messages[t]
        result.bytes[t] = result.bytes.get(t, 0) + size[t]
