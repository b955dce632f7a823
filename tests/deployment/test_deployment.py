"""Flower's deployment runtime, in its own processes, over TLS.

One deployment serves all tests that do no harm to it; the others start what they need.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from sklearn.datasets import load_digits

from deployed import client, server
from faults import shows
from gossiplib.core.grid import LocalGrid
from gossiplib.deployment import superlink
from gossiplib.deployment.superlink import (
    Deployment,
    SuperLink,
    app_output,
    missing_commands,
)
from gossiplib.system.certificates import Authority, key_pair
from gossiplib.system.encoding import load
from gossiplib.system.runs import wait_until
from notebooks import ROOT
from processes import carrying

APP = ROOT / "tests" / "deployed"
N, ROUNDS, KILLED = 4, 7, 3


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Write each client's digits to a file: only some of the classes to each."""
    folder = tmp_path_factory.mktemp("data")
    x, y = load_digits(return_X_y=True)
    for i in range(N):
        own = np.isin(y, [2 * i, 2 * i + 1, 8, 9])
        np.savez(folder / f"client-{i}.npz", x=x[own] / 16, y=y[own])
    return folder


@pytest.fixture(scope="module")
def deployment(tmp_path_factory):
    """A deployment in a folder of a strange name, beside a proxy that is not there."""
    with pytest.MonkeyPatch.context() as patch:
        strange = tmp_path_factory.mktemp("é 😀")
        patch.setattr(tempfile, "tempdir", str(strange))
        for name in ("http_proxy", "https_proxy", "grpc_proxy"):
            patch.setenv(name, "http://127.0.0.1:9")
        for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
            patch.delenv(name, raising=False)
        with Deployment(N) as running:
            yield running
    assert not running.folder.exists()
    assert not listening(running)


@pytest.mark.parametrize(("theirs", "ours"), [("*", "*"), ("a.b", "127.0.0.1,a.b")])
def test_what_a_user_keeps_from_the_proxy_stays_so(monkeypatch, tmp_path, theirs, ours):
    monkeypatch.delenv("no_grpc_proxy", raising=False)
    monkeypatch.setenv("no_proxy", theirs)
    started, link = [], object.__new__(SuperLink)
    link.processes = SimpleNamespace(start=lambda *given: started.append(given))
    link._start("it", tmp_path, "flwr")
    env = started[0][2]
    assert env["no_proxy"] == ours
    assert env["no_grpc_proxy"] == f"127.0.0.1,{theirs}"


@pytest.fixture(scope="module")
def seen(deployment, data):
    """Run gossip, with all that can go wrong.

    In round 3 the server is killed, and another goes on from its checkpoint. In round 6
    a SuperNode is killed, and started again.
    """
    out = data / "out"
    config = {"data": str(data), "out": str(out), "num-rounds": ROUNDS}
    config["checkpoint"] = str(data / "run.zip")
    lines, up = [], set(range(N))

    def watch(line):
        lines.append(line)
        if line == "round 6":
            up.remove(KILLED)
            deployment.kill(KILLED)
            deployment.restart(KILLED)

    def watch_death(line):
        if line == "round 3":
            wait_for_death("flwr-serverapp", deployment)
            raise ChildProcessError  # Flower would notice after a minute: stop the run

    with pytest.raises(ChildProcessError):
        deployment.run(APP, {**config, "die": 3}, watch=watch_death)
    printed = deployment.run(APP, config, watch=watch)
    assert printed.splitlines() == lines
    rounds = [line for line in lines if re.fullmatch(r"round \d+", line)]
    assert rounds == [f"round {t}" for t in range(3, ROUNDS + 1)]
    return load(out.read_bytes())


def wait_for_death(program, deployment):
    def dead():
        lines = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                lines.append(" ".join(process.cmdline()))
        return not any(program in x and deployment.address in x for x in lines)

    assert wait_until(dead, 30), f"{program} lives on"


def listening(deployment):
    with socket.socket() as one:
        port = int(deployment.address.split(":")[1])
        return one.connect_ex(("127.0.0.1", port)) == 0


def wait_for_end(processes, name):
    assert wait_until(lambda: not processes.is_running(name), 60)
    return processes.tail(name, 10**6)


@shows("server", "deployment", "resumes with the same models")
@shows("partition", "deployment", "each part goes on; they mix again when it heals")
@shows("lost", "deployment", "its weight goes to the own model; not counted as failure")
@shows("reordered", "deployment", "nothing: the same models")
def test_models_are_those_of_local_grid(seen, data):
    config = {"data": str(data), "num-rounds": 5, "timeout": 20.0}
    expected = server.serve(LocalGrid(client.app, N, run_config=config), config)
    for i in range(N):
        for name in seen[f"5 {i}"]:
            np.testing.assert_allclose(
                seen[f"5 {i}"][name].numpy(),
                expected[f"5 {i}"][name].numpy(),
                rtol=0,
                atol=1e-5,
            )
    weights = [seen[f"5 {i}"]["0"].numpy() for i in range(N)]
    assert np.ptp(weights, axis=0).max() > 1e-3, "all clients hold the same model"


@shows("killed", "deployment", "counted; neighbours go on without it")
@shows(
    "restarted",
    "deployment",
    "counted; joins again on a new node, from a neighbour's model",
)
def test_a_killed_supernode_is_counted_and_comes_back(seen):
    trained = seen["trained"]
    assert all(len(trained[f"{t}"]) == N for t in (1, 2, 3, 5))
    assert KILLED not in trained["6"]
    assert {1, 2} <= set(trained[f"{ROUNDS}"])
    # It lost calls in round 6, and in round 4, when all did.
    lost = {int(e.split()[0]) for e in seen["lost"]["lost"] if e.split()[1] == "3"}
    assert 6 in lost and lost <= {4, 6, 7}


def test_a_restarted_supernode_catches_up(seen):
    assert KILLED in seen["trained"][f"{ROUNDS}"]
    models = {i: seen[f"end {i}"]["0"].numpy() for i in (1, 2, KILLED)}
    mean = np.mean(list(models.values()), axis=0)
    away = {i: np.abs(m - mean).max() for i, m in models.items()}
    assert away[KILLED] < 3 * max(away[1], away[2])


@shows("hangs", "deployment", "counted; not called until it answers")
@shows("delayed", "deployment", "counted beyond the timeout")
@shows("malformed", "deployment", "counted; neighbours go on without it")
def test_a_client_that_hangs_and_one_whose_reply_holds_two_models(seen):
    lost = [entry.split(maxsplit=3) for entry in seen["lost"]["lost"]]
    reasons = {int(i): why for t, i, call, why in lost if (t, call) == ("6", "train")}
    assert reasons[0] == "no reply in 20 s"
    assert "it holds 2" in reasons[1]
    assert seen["trained"]["6"] == [2]


@shows("disk", "deployment", "warned and counted; the old checkpoint stays")
def test_a_full_disk_is_no_end(seen):
    assert seen["lost"]["unsaved"] == [7]


@shows("raises", "deployment", "counted; neighbours go on without it")
@shows("none", "deployment", "counted; neighbours go on without it")
@shows("nan", "deployment", "counted; neighbours go on without it")
@shows("shape", "deployment", "counted; neighbours go on without it")
def test_clients_that_fail_are_counted_with_the_reason(seen):
    lost = [entry.split(maxsplit=3) for entry in seen["lost"]["lost"]]
    reasons = {int(i): why for t, i, call, why in lost if (t, call) == ("4", "train")}
    said = {
        0: "no more digits",
        1: "returned None",
        2: "NaN",
        3: "shape",
    }
    assert set(reasons) == set(said)
    assert all(text in reasons[i] for i, text in said.items()), reasons


def test_a_run_that_fails_says_why(deployment, data):
    with pytest.raises(RuntimeError, match="this app fails on purpose"):
        deployment.run(APP, {"fail": True})


def test_a_run_that_cannot_start_says_why(deployment, tmp_path):
    with pytest.raises(RuntimeError, match="not started"):
        deployment.run(tmp_path)


@shows("unknown", "deployment", "refused at once; it ends, and says so")
def test_strangers_are_refused(deployment):
    processes = deployment.processes
    unregistered, _ = key_pair(deployment.folder, "stranger")
    deployment.start_supernode("no-key", 0, None)
    deployment.start_supernode("unregistered", 0, unregistered)
    deployment.start_supernode("twin", 0, deployment.keys[0])
    assert "must be registered" in wait_for_end(processes, "no-key")
    assert "Failed to activate" in wait_for_end(processes, "unregistered")
    assert "Failed to activate" in wait_for_end(processes, "twin")
    assert deployment.online() == set(deployment.node_ids.values())


def test_who_does_not_trust_the_authority_gets_no_connection(deployment, tmp_path):
    host, port = deployment.address.split(":")
    for authority in (deployment.authority, Authority(tmp_path)):
        known = ssl.create_default_context(cafile=authority.certificate)
        wrong = authority is not deployment.authority
        with (
            socket.create_connection((host, int(port)), 10) as plain,
            pytest.raises(ssl.SSLCertVerificationError)
            if wrong
            else contextlib.nullcontext(),
            known.wrap_socket(plain, server_hostname=host) as secure,
        ):
            assert secure.version() == "TLSv1.3"


def test_all_listen_on_this_machine_alone(deployment):
    listening = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            home = process.environ().get("FLWR_HOME", "")
            if home.startswith(str(deployment.folder)):
                connections = process.net_connections("inet")
                listening += [c.laddr.ip for c in connections if c.status == "LISTEN"]
    assert listening == ["127.0.0.1"] * (1 + N)


@shows("port", "deployment", "refused at once, with the reason")
def test_a_port_that_is_taken_is_named(monkeypatch):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        monkeypatch.setattr(superlink, "free_ports", lambda n: [port] * n)
        block = SuperLink()
        with pytest.raises(RuntimeError, match="address already in use"):
            block.__enter__()
    assert not block.folder.exists()


def test_stop_stops_the_runs_that_go_on(monkeypatch):
    block, asked = SuperLink(), []
    states = ["finished:failed", "running", "pending", "finished:completed"]
    runs = [{"run-id": str(k), "status": state} for k, state in enumerate(states)]
    monkeypatch.setattr(block, "_ask", lambda *words: asked.append(words))
    monkeypatch.setattr(block, "_answer", lambda name: {"runs": runs})
    block.stop()
    assert asked == [("list",), ("stop", "1"), ("stop", "2")]


def test_supernodes_outlive_a_superlink_that_remembers_them():
    with Deployment(1) as deployment:
        nodes = set(deployment.node_ids.values())
        deployment.kill_superlink()
        assert not listening(deployment)
        deployment.restart_superlink()
        assert wait_until(lambda: deployment.online() == nodes, 60)
        assert deployment.runs() == []
        deployment.kill_superlink()
        for file in deployment.folder.glob("superlink.db*"):
            file.unlink()  # as if it had kept all in memory
        deployment.restart_superlink()
        wait_for_end(deployment.processes, "supernode-0")
        assert '" 401' in deployment.processes.tail("superlink", 10**6)


@shows("expired", "deployment", "refused at once, with the reason")
def test_an_expired_certificate_is_named():
    deployment = Deployment(1, days=-1)
    with pytest.raises(RuntimeError, match="certificate has expired"):
        deployment.__enter__()
    assert not deployment.folder.exists()


def test_the_project_itself_can_be_run_from_its_bundle(tmp_path):
    program = [shutil.which("flwr", path=superlink.PATH), "build", "--app", str(ROOT)]
    quiet = os.environ | {"FLWR_HOME": str(tmp_path), "FLWR_TELEMETRY_ENABLED": "0"}
    subprocess.run(program, cwd=tmp_path, env=quiet, check=True, capture_output=True)
    (bundle,) = tmp_path.glob("*.fab")
    with zipfile.ZipFile(bundle) as file:
        file.extractall(tmp_path / "app")
    paths = str(tmp_path / "app")  # as Flower puts it first
    script = "import gossiplib.app; print(gossiplib.app.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith(paths), done.stderr


def test_missing_commands_are_named(monkeypatch, tmp_path):
    assert missing_commands() == []
    monkeypatch.setattr(superlink, "PATH", str(tmp_path))
    assert len(missing_commands()) == 4
    with pytest.raises(FileNotFoundError, match="flower-superlink"):
        Deployment(1).__enter__()


def test_a_script_that_is_interrupted_leaves_nothing_behind(tmp_path):
    script = (
        "import signal, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from gossiplib.deployment import Deployment\n"
        "with Deployment(1) as deployment:\n"
        "    print(deployment.folder, deployment.address, flush=True)\n"
        "    time.sleep(600)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        env=os.environ | {"TEST_MARK": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        folder, address = process.stdout.readline().split()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert "KeyboardInterrupt" in errors
    assert not Path(folder).exists()
    with socket.socket() as one:
        assert one.connect_ex(("127.0.0.1", int(address.split(":")[1]))) != 0
    assert carrying(str(tmp_path)) == []


def test_flowers_own_log_is_taken_away():
    text = "\x1b[92mINFO \x1b[0m:      Start\nround 1\nUsing SuperLink: here\nend\n"
    assert app_output(text) == "round 1\nend\n"
