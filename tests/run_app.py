"""Run the app by `flwr run` on Flower's own simulation runtime: `make run`.

    python tests/run_app.py [APP]

Starts a SuperLink for this run alone, on a free port and with a FLWR_HOME of its own,
shows what the app prints without Flower's log, and stops all that it started, come
what may. Exits with 1 when the run fails: `flwr run` does not say so.
"""

import contextlib
import io
import json
import re
import signal
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path

from processes import private_environment

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
NOISE = re.compile(
    r"(\(\w+ pid=\d+\) )?"  # Ray puts the worker's name before its lines
    r"(INFO |Using SuperLink|Successfully (started|installed) "
    r"|WARNING *: +(Since flwr|Manually terminating|fraction_evaluate))"
)
COLOUR = re.compile(r"\x1b\[\d*m")


def start_superlink(env: dict[str, str]) -> None:
    """Start a SuperLink for simulations, and make it the one that `flwr` talks to."""
    home = Path(env["FLWR_HOME"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = "127.0.0.1:{1}".format(*free.getsockname())
    (home / "config.toml").write_text(
        '[superlink]\ndefault = "here"\n\n'
        f'[superlink.here]\naddress = "{address}"\ninsecure = true\n'
    )
    host, port = address.split(":")
    log = home / "superlink.log"
    command = [BIN / "flower-superlink", "--insecure", "--simulation"]
    with log.open("w") as file:
        superlink = subprocess.Popen(
            [*command, "--host", host, "--port", port],
            env=env,
            stdout=file,
            stderr=file,
            start_new_session=True,  # Ctrl-C is for us: we stop it
        )
    for _ in range(300):
        with contextlib.suppress(OSError), socket.create_connection((host, port), 1):
            return
        if superlink.poll() is not None:
            break
        time.sleep(0.1)
    sys.exit(f"the SuperLink did not start:\n{log.read_text()}")


def show(stream: io.BufferedReader) -> None:
    """Pass on what the app prints, without Flower's own log."""
    live = sys.stdout.isatty()
    # A progress bar ends each of its states, but the last, by a carriage return.
    for line in io.TextIOWrapper(stream, encoding="utf-8", newline=""):
        if (live or line[-1] == "\n") and not NOISE.match(COLOUR.sub("", line)):
            print(line, end="", flush=True)


def run(app: Path, env: dict[str, str]) -> str:
    """Run the app and return its status, `finished:completed` if all went well."""
    project = tomllib.loads((app / "pyproject.toml").read_text())
    clients = project["tool"]["flwr"]["app"]["config"]["num-clients"]
    config = [
        "--federation-config",
        f"num-supernodes={clients} client-resources-num-cpus=1",
        "--run-config",
        f"output={json.dumps(str(Path.cwd() / 'out'))}",
    ]
    process = subprocess.Popen(
        [BIN / "flwr", "run", app, "--stream", *config],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    show(process.stdout)
    if process.wait():
        return f"not started, `flwr run` exited with {process.returncode}"
    answer = subprocess.run(
        [BIN / "flwr", "list", "--format", "json"],
        env=env,
        stdout=subprocess.PIPE,
        check=True,
    )
    (only,) = json.loads(answer.stdout)["runs"]
    return only["status"]


def main() -> None:
    """Run the app named on the command line, or the project's own."""
    app = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with private_environment() as env:
        env |= {
            "PATH": f"{BIN}:{env['PATH']}",  # a SuperLink calls its helpers by name
            "PYTHONUNBUFFERED": "1",
        }
        print("Starting Flower's simulation runtime ...", flush=True)
        start_superlink(env)
        status = run(app, env)
    if status != "finished:completed":
        sys.exit(f"The run failed: {status}.")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted; all that was started is stopped")
