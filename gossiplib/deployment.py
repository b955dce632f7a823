"""Flower's deployment runtime on this machine, for the time of a `with` block.

`Deployment` starts a SuperLink and SuperNodes as processes that talk over TLS, with
certificates and keys made for the block, and runs Flower apps on them. It adds nothing
to Flower: all is done by Flower's own commands, as on several machines.
"""

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

from gossiplib.certificates import Authority, key_pair
from gossiplib.processes import Processes, free_ports

__all__ = ["Deployment"]

BIN = Path(sys.executable).parent

SETTINGS = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.05",
    "PYTHONUNBUFFERED": "1",
    "TQDM_DISABLE": "1",
}


class Deployment:
    def __init__(self, num_clients):
        self.n = num_clients
        self.processes = Processes()
        self.node_ids = {}

    def __enter__(self):
        t0 = time.time()
        self.processes.__enter__()
        self.folder = self.processes.folder
        self.authority = Authority(self.folder)
        me = self.authority.issue("superlink")
        self.env = os.environ | SETTINGS | {"PATH": f"{BIN}:{os.environ['PATH']}", "FLWR_HOME": str(self.folder)}
        port, *self.ports = free_ports(1 + self.n)
        self.address = f"127.0.0.1:{port}"
        (self.folder / "config.toml").write_text(
            '[superlink]\ndefault = "here"\n\n'
            f'[superlink.here]\naddress = "{self.address}"\nroot-certificates = "{self.authority.certificate}"\n'
        )
        self.processes.start("superlink", [BIN / "flower-superlink", "--host", "127.0.0.1", "--port", str(port),
            "--ssl-certfile", me.certificate, "--ssl-keyfile", me.key, "--ssl-ca-certfile", self.authority.certificate,
            "--enable-supernode-auth", "--disable-runtime-dependency-installation"], self.env)
        def up():
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return True
            except OSError:
                return False
        self.processes.wait_until(up, 60, "the SuperLink's start", ["superlink"])
        print("superlink up", time.time() - t0)
        regs = []
        for i in range(self.n):
            private, public = key_pair(self.folder, f"node-{i}")
            regs.append(subprocess.Popen([BIN / "flwr", "supernode", "register", public, "--format", "json"], env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
        for i, r in enumerate(regs):
            out = r.communicate()[0]
            self.node_ids[i] = json.loads(out)["node-id"]
            self.start_node(i)
        print("registered", time.time() - t0)
        while len(self.online()) < self.n:
            pass
        print("online", time.time() - t0)
        return self

    def start_node(self, i, key=None):
        self.processes.start(f"supernode-{i}", [BIN / "flower-supernode", "--superlink", self.address, "--root-certificates", self.authority.certificate,
            "--auth-supernode-private-key", key or self.folder / f"node-{i}", "--host", "127.0.0.1", "--port", str(self.ports[i]),
            "--node-config", f"partition-id={i} num-partitions={self.n}"], self.env | {"FLWR_HOME": str(self.folder / f"home-{i}")})

    def flwr(self, *args):
        r = subprocess.run([BIN / "flwr", *args, "--format", "json"], env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return r.stdout

    def nodes(self):
        return json.loads(self.flwr("supernode", "list"))

    def online(self):
        return [n for n in self.nodes()["nodes"] if n["status"] == "online"]

    def __exit__(self, *a):
        t0 = time.time()
        self.processes.__exit__(*a)
        print("exit", time.time() - t0)
