"""Processes that end with their block, whatever ends it."""

import math
import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from gossiplib.system.processes import Processes, free_ports
from gossiplib.system.runs import wait_until
from processes import carrying

# Says that it is up, has a child that leaves the group, and ignores SIGTERM.
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = [sys.executable, "-c", "import time; time.sleep(600)"]
subprocess.Popen(child, start_new_session=True)
print("up", flush=True)
time.sleep(600)
"""
# A block with such a process, which tells its folder and then does what it is told.
OWNER = f"""
import os, signal, sys, time
from gossiplib.system.processes import Processes
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
with Processes() as processes:
    command = [sys.executable, "-c", {STUBBORN!r}]
    processes.start("stubborn", command, os.environ)
    up = lambda: "up" in processes.tail("stubborn")
    processes.wait_until(up, 30, "the start", ["stubborn"])
    print(processes.folder, flush=True)
    exec(sys.argv[1])
"""


@pytest.fixture
def mark(tmp_path):
    return str(tmp_path)


@pytest.fixture
def owner(mark):
    """Start a script that owns processes; what is left in the end is ended."""
    started = []

    def start(then):
        command = [sys.executable, "-c", OWNER, then]
        process = subprocess.Popen(
            command,
            env=os.environ | {"TEST_MARK": mark},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        folder = Path(process.stdout.readline().strip())
        assert folder.is_dir()
        return process, folder

    yield start
    for process in started:
        process.kill()
        process.communicate()
    for process in carrying(mark):
        process.kill()


def nothing_is_left(mark, folder):
    assert wait_until(lambda: carrying(mark) == [], 20), carrying(mark)
    assert wait_until(lambda: not folder.exists(), 20)


#: What holds the guard's pipe open as a fork of the owner would, such as one that loads
#: data; for longer than a test looks.
FORKED = """
quiet = dict.fromkeys(("stdin", "stdout", "stderr"), __import__("subprocess").DEVNULL)
held = processes._guard.stdin.fileno()
__import__("subprocess").Popen(["sleep", "25"], env={}, pass_fds=[held], **quiet)
"""


@pytest.mark.parametrize(
    "then",
    [
        "pass",
        "raise KeyError",
        "os._exit(3)",
        FORKED,
        FORKED + "os.kill(os.getpid(), 9)",
        "processes._guard.kill()",
    ],
)
def test_nothing_is_left_when_the_block_ends(owner, mark, then):
    process, folder = owner(then)
    process.wait(30)
    nothing_is_left(mark, folder)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_when_the_owner_is_ended(owner, mark, how):
    process, folder = owner("time.sleep(600)")
    assert len(carrying(mark)) >= 4  # owner, guard, process and its child
    process.send_signal(how)
    process.wait(30)
    nothing_is_left(mark, folder)


def test_nothing_is_left_of_a_block_in_a_process_of_another(mark):
    with Processes() as processes:
        env = os.environ | {"TEST_MARK": mark}
        owner = [sys.executable, "-c", OWNER, "time.sleep(600)"]
        processes.start("owner", owner, env)
        told = partial(processes.tail, "owner")
        processes.wait_until(lambda: "\n" in told(), 30, "the start", ["owner"])
        folder = Path(told().strip())
        processes.kill("owner")
        nothing_is_left(mark, folder)


def test_a_second_interrupt_does_not_save_anybody(owner, mark):
    process, folder = owner("time.sleep(600)")
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)  # now it waits for the process that ignores SIGTERM
    process.send_signal(signal.SIGINT)
    process.wait(30)
    nothing_is_left(mark, folder)


def test_a_log_has_all_that_was_started_under_its_name():
    with Processes() as processes:
        command = [sys.executable, "-c", "print('hello')"]
        processes.start("one", command, os.environ).wait(30)
        processes.start("one", command, os.environ).wait(30)
        assert processes.log_file("one").read_text().split() == ["hello", "hello"]


def test_kill_ends_a_process_and_its_children_alone(mark):
    env = os.environ | {"TEST_MARK": mark}
    with Processes() as processes:
        for name in ("one", "one-more"):
            processes.start(name, [sys.executable, "-c", STUBBORN], env)
        for name in ("one", "one-more"):
            processes.wait_until(
                lambda name=name: "up" in processes.tail(name), 30, "start", [name]
            )
        assert len(carrying(mark)) == 4
        processes.kill("one")
        assert not processes.is_running("one") and processes.is_running("one-more")
        assert len(carrying(mark)) == 2
        with pytest.raises(KeyError, match="one"):
            processes.kill("one")
    assert carrying(mark) == []


def test_waiting_has_a_limit_and_tells_why():
    with Processes() as processes:
        sleeps = [sys.executable, "-c", "import time; time.sleep(600)"]
        processes.start("sleeper", sleeps, os.environ)
        with pytest.raises(TimeoutError, match="its start took more than 0.2 s"):
            processes.wait_until(lambda: False, 0.2, "its start", ["sleeper"])
        ends = [sys.executable, "-c", "raise SystemExit('no such planet')"]
        processes.start("rocket", ends, os.environ)
        with pytest.raises(RuntimeError, match="rocket has ended:\nno such planet"):
            processes.wait_until(lambda: False, 30, "start", ["sleeper", "rocket"])


def test_start_refuses_what_cannot_be():
    processes = Processes()
    sleeps = [sys.executable, "-c", "import time; time.sleep(600)"]
    with pytest.raises(RuntimeError, match="block"):
        processes.start("early", sleeps, os.environ)
    with processes:
        processes.start("twin", sleeps, os.environ)
        with pytest.raises(RuntimeError, match="twin runs already"):
            processes.start("twin", sleeps, os.environ)
        with pytest.raises(OSError, match="no-such-program"):
            processes.start("x", ["no-such-program"], os.environ)


def test_a_block_can_be_entered_again():
    processes = Processes()
    for _ in range(2):
        with processes:
            folder = processes.folder
            assert folder.stat().st_mode & 0o077 == 0, "others can read it"
        assert not folder.exists()


def test_a_block_has_its_files_while_it_lasts_and_is_entered_once():
    processes = Processes()
    with processes, pytest.raises(RuntimeError, match="has not ended"):
        processes.__enter__()
    with pytest.raises(RuntimeError, match="only inside the `with` block"):
        processes.tail("x")


def test_a_fork_that_leaves_the_block_ends_nothing():
    with Processes() as processes:
        command = [sys.executable, "-c", "import time; time.sleep(600)"]
        processes.start("it", command, os.environ)
        if not (child := os.fork()):
            processes.__exit__()
            os._exit(0)
        os.waitpid(child, 0)
        assert processes.is_running("it") and processes.folder.exists()


def test_no_time_at_all_is_no_time_to_wait():
    assert not wait_until(lambda: False, math.nan)


def test_free_ports_differ_and_can_be_bound():
    ports = free_ports(5)
    assert len(set(ports)) == 5
    for port in ports:
        with socket.socket() as one:
            one.bind(("127.0.0.1", port))
