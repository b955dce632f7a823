"""Run the app by `flwr run` on one of Flower's own runtimes: `make run`, `make deploy`.

    python tests/run_app.py [--deploy] [APP]

By default on the simulation, with a SuperLink for this run alone; with `--deploy` on
the deployment runtime, with four SuperNodes. Shows what the app prints without Flower's
log, and stops all that it started, come what may. Exits with 1 when the run fails:
`flwr run` does not say so.
"""

import argparse
import functools
import signal
import sys
import tomllib
from pathlib import Path
from typing import Any

from gossiplib.deployment.superlink import Deployment, SuperLink

ROOT = Path(__file__).resolve().parents[1]
#: Few: each message to a client starts a process there, which imports PyTorch.
FEW = {"num-clients": 4, "num-rounds": 2, "every": 2, "topology": "ring"}

say = functools.partial(print, flush=True)


def settings(app: Path) -> dict[str, Any]:
    """Return the settings of an app, from its pyproject.toml."""
    project = tomllib.loads((app / "pyproject.toml").read_text())
    return project["tool"]["flwr"]["app"]["config"]


def simulate(app: Path) -> None:
    """Run the app on Flower's simulation."""
    clients = settings(app)["num-clients"]
    federation = f"num-supernodes={clients} client-resources-num-cpus=1"
    say("Starting Flower's simulation: 1 to 2 minutes in all, on two cores ...")
    with SuperLink() as superlink:
        superlink.run(
            app,
            {"output": str(Path.cwd() / "out")},
            *("--federation-config", federation),
            watch=say,
        )


def deploy(app: Path) -> None:
    """Run the app on SuperNodes, each a process that talks over TLS."""
    say(f"Starting a SuperLink and {FEW['num-clients']} SuperNodes ...")
    with Deployment(FEW["num-clients"]) as deployment:
        say(f"All are online, at {deployment.address}. Each message to one starts a")
        say("process, which imports PyTorch: 2 to 4 minutes in all, on two cores.")
        deployment.run(app, FEW, watch=say)
    say("All that was started is stopped.")


def main() -> None:
    """Run the app named on the command line, or the project's own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--deploy", action="store_true", help="run it on SuperNodes")
    parser.add_argument("app", nargs="?", type=Path, default=ROOT)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        (deploy if given.deploy else simulate)(given.app)
    except KeyboardInterrupt:
        sys.exit("interrupted; all that was started is stopped")
    except (OSError, RuntimeError) as error:
        sys.exit(f"The run failed: {error}")


if __name__ == "__main__":
    main()
