"""Sixteen peers in bad weather: killed, stopped, restarted, cut off, on slow links.

    python tests/storm.py [SEED] [PEERS] [ROUNDS]

Each peer has a network namespace of its own, so that links can be cut without a word;
that needs Linux and root. Peer 0 and its last neighbour have never met when the storm
begins. At the end it says what happened, and fails unless

- all peers that were not left dead have come to the last round, with no traceback,
- they agree within the bound of the graph that is left,
- in each round each neighbour was heard, or is counted as lost,
- nothing is left running.
"""

import contextlib
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

import peer_apps
from gossiplib.core import mixing
from gossiplib.core.topology import named
from gossiplib.peers.launch import Peers
from gossiplib.peers.log import read_models
from gossiplib.system.records import flat

#: Seconds of the storm, and between two of its blows.
STORM, PAUSE = 30.0, 0.5


def ip(*words: object) -> None:
    """Run `ip`."""
    subprocess.run(["ip", *map(str, words)], check=True)


class Weather:
    """A network of one namespace a peer, whose links can be cut and mended."""

    def __init__(self, n: int) -> None:
        self.names = [f"storm-{i}" for i in range(n)]

    def __enter__(self) -> "Weather":
        """Connect all by a switch; each fourth peer's line to it is slow: 25 kB/s."""
        ip("link", "add", "storm", "type", "bridge")
        with contextlib.ExitStack() as stack:
            stack.callback(ip, "link", "del", "storm")
            ip("link", "set", "storm", "up")
            for i, name in enumerate(self.names):
                ip("netns", "add", name)
                stack.callback(ip, "netns", "del", name)
                peer = ("type", "veth", "peer", "eth0", "netns", name)
                ip("link", "add", f"s{i}", *peer)
                ip("link", "set", f"s{i}", "master", "storm", "up")
                ip("-n", name, "addr", "add", f"10.77.0.{i + 1}/24", "dev", "eth0")
                ip("-n", name, "link", "set", "eth0", "up")
                ip("-n", name, "link", "set", "lo", "up")
                if i % 4 == 3:
                    slow = "root tbf rate 200kbit burst 4kb latency 1s".split()
                    line = ["tc", "-n", name, "qdisc", "add", "dev", "eth0", *slow]
                    subprocess.run(line, check=True)
            self._down = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        """Take all down."""
        self._down.close()

    def cut(self, i: int, j: int) -> None:
        """Send what goes from i to j to a machine that does not exist, and back."""
        for a, b in ((i, j), (j, i)):
            where = ("to", f"10.77.0.{b + 1}", "lladdr", "02:00:00:00:00:01")
            nobody = (*where, "dev", "eth0", "nud", "permanent")
            ip("-n", self.names[a], "neigh", "replace", *nobody)

    def mend(self, i: int, j: int) -> None:
        """Connect i and j again."""
        for a, b in ((i, j), (j, i)):
            ip("-n", self.names[a], "neigh", "del", f"10.77.0.{b + 1}", "dev", "eth0")


class Storm:
    """What happens to peers, by chance, and what is to be undone."""

    def __init__(self, peers: Peers, weather: Weather, graph, seed: int) -> None:
        self.peers, self.weather, self.graph = peers, weather, graph
        self.rng = np.random.default_rng(seed)
        self.dead: set[int] = set()
        self.undo: list[tuple[float, tuple, object]] = []  # when, what, and how
        self.blows: Counter[str] = Counter()

    def blow(self) -> None:
        """Do one thing to a peer or a link that is well."""
        busy = {one for _, what, _ in self.undo for one in what} | self.dead
        well = sorted(set(self.graph) - busy)
        how = self.rng.choice(["kill", "stop", "cut"])
        if len(well) < len(self.graph) // 2:
            return
        i = int(self.rng.choice(well))
        seconds = time.monotonic() + self.rng.uniform(1, 5)
        if how == "kill" and len(self.dead) < 4:
            self.peers.kill(i)
            self.dead.add(i)
            if len(self.dead) > 1:  # the first stays dead
                self.undo.append((seconds, (i,), partial(self._restart, i)))
        elif how == "stop":
            process = psutil.Process(self.peers.processes.pid(f"peer-{i}"))
            process.suspend()
            self.undo.append((seconds, (i,), process.resume))
        elif how == "cut" and (others := sorted(set(self.graph[i]) & set(well))):
            j = int(self.rng.choice(others))
            self.weather.cut(i, j)
            self.undo.append((seconds, (i, j), partial(self.weather.mend, i, j)))
        else:
            return
        self.blows[str(how)] += 1

    def _restart(self, i: int) -> None:
        self.dead.discard(i)
        self.peers.restart(i)

    def calm(self, all_: bool = False) -> None:
        """Undo what has lasted long enough, or all."""
        for one in [u for u in self.undo if all_ or u[0] <= time.monotonic()]:
            self.undo.remove(one)
            one[2]()


def uncounted(events: pd.DataFrame, graph) -> list[tuple[int, int, int]]:
    """Return (round, peer, neighbour) of what was neither heard nor counted."""
    found = []
    for (t, i), part in events.groupby(["round", "peer"]):
        if "round" not in set(part.event):
            continue
        heard = [j for e in part[part.event == "averaged"].senders for j in e]
        lost = part[part.event == "lost"].other
        found += [(t, i, j) for j in {*graph[i]} - {*heard, *lost}]
    return found


def bound(result, events: pd.DataFrame, kept: dict, last: int) -> tuple[float, float]:
    """Return the distance of the survivors' models, and what theory allows.

    Training takes a model a part of the way to its client's own goal. So from the
    round on in which all hear whom they hear at the end, a round takes the distance D
    to at most |λ₂| ((1 - step) D + step D_goals).
    """
    left = sorted(result.node_arrays)
    averaged = events[(events.event == "averaged") & events.peer.isin(left)]
    senders = averaged.groupby(["round", "peer"]).senders.last().map(tuple).unstack()
    same = (senders == senders.loc[last]).all(axis=1)
    begin = int(same[~same].index.max()) if not same.all() else 0
    begin = next(t for t in range(begin, last) if all(t in kept[i] for i in left))
    sent = events[(events.event == "sent") & (events["round"] == last)]
    degree = sent.groupby("peer").other.nunique()
    mix = pd.DataFrame(0.0, left, left)
    for i in left:
        for j in senders.loc[last, i]:
            mix.loc[i, j] = 1 / (1 + max(degree[i], degree[j]))
        mix.loc[i, i] = 1 - mix.loc[i].sum()
    slem, step = mixing.slem(mix.to_numpy()), peer_apps.STEP
    goals = np.stack([peer_apps.goal(i) for i in left])
    at_first = mixing.consensus_distance(np.stack([flat(kept[i][begin]) for i in left]))
    apart = slem * step * mixing.consensus_distance(goals)
    factor, rounds = slem * (1 - step), last - begin
    most = factor**rounds * at_first + apart * (1 - factor**rounds) / (1 - factor)
    print(
        f"{len(left)} peers are left; |λ₂| = {slem:.3f}; as it is for {rounds} rounds"
    )
    return mixing.consensus_distance(result.models()), most


def main(seed: int = 0, n: int = 16, rounds: int = 60) -> None:
    """Let it storm."""
    graph = named("regular", n, seed=seed)
    here = Path(__file__).parent
    options = {"num_rounds": rounds, "timeout": 3, "start_timeout": 20}
    options |= {"evaluate_every": 0, "config": {"nap": 0.5}}
    peers = Peers("peer_apps:pulling", "peer_apps:zeros", graph, path=here, **options)
    peers.addresses = [f"10.77.0.{i + 1}:5000" for i in range(n)]
    start = peers.processes.start

    def in_namespace(name, command, env):
        place = ["ip", "netns", "exec", name.replace("peer", "storm")]
        return start(name, [*place, *command], env)

    peers.processes.start = in_namespace
    with Weather(n) as weather:
        strangers = (0, max(graph[0]))
        weather.cut(*strangers)
        with peers:
            peers.wait_for_round(2, 300)
            storm = Storm(peers, weather, graph, seed)
            end = time.monotonic() + STORM
            while time.monotonic() < end:
                storm.calm()
                storm.blow()
                time.sleep(PAUSE)
            storm.calm(all_=True)
            weather.mend(*strangers)
            slowest = min(peers._round(i) for i in set(graph) - storm.dead)
            peers.wait(300)
            result, events = peers.result(), peers.events()
            folder = peers.processes.folder
            logs = "".join(peers.processes.tail(f"peer-{i}") for i in range(n))
            kept = {i: read_models(folder / f"peer-{i}") for i in range(n)}
    counts = events.event.value_counts()
    print(f"seed {seed}, {n} peers, {rounds} rounds; {dict(storm.blows)}")
    print(f"it ended when the slowest was in round {slowest}; {counts.to_dict()}")
    distance, most = bound(result, events, kept, rounds)
    missed = uncounted(events, graph)
    print(f"distance {distance:.4f}, at most {most:.4f}; not counted: {missed}")
    assert set(result.node_arrays) == set(graph) - storm.dead
    assert {max(kept[i]) for i in result.node_arrays} == {rounds}
    assert "Traceback" not in logs, logs
    assert 0 < distance <= most
    assert not missed
    words = [
        " ".join(one.info["cmdline"] or ()) for one in psutil.process_iter(["cmdline"])
    ]
    assert not [one for one in words if str(folder) in one]
    assert not folder.exists()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
