"""Flower's simulation for a notebook's cell: only this file knows its entry point."""

import logging
import os
import sys
from collections.abc import Callable
from typing import TypeVar

from flwr.app import Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

#: Settings of Flower and Ray: no telemetry, no warning about GPUs that are not there.
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
#: How often Ray is started before a run is given up.
_TRIES = 3

T = TypeVar("T")


def run_on_ray(
    client_app: ClientApp,
    num_nodes: int,
    main: Callable[[Grid], T],
    *,
    num_workers: int | None = None,
) -> T:
    """Return what a server makes on Flower's simulation, with clients on Ray.

    Ray takes 5 to 30 s to start, and is shut down at the end. Flower's log is off, also
    of clients that fail: `Gossip` counts and names them, other strategies do not. From
    a command line, `flwr run` is the way.

    Parameters
    ----------
    client_app : flwr.clientapp.ClientApp
        The app that each client runs. It travels to Ray's processes by cloudpickle.
    num_nodes : int
        Number of clients.
    main : callable
        The server: called with the Grid, for example
        ``lambda grid: Gossip(graph).start(grid, initial_arrays)``. What it returns is
        returned, what it raises is raised.
    num_workers : int, optional
        Processes that run clients side by side; by default one for each processor
        core. Each loads what the app imports: PyTorch alone takes some 300 MB.

    Raises
    ------
    RuntimeError
        If Ray does not start, though it is tried again.
    """
    # On Colab Ray would ask, as it is imported, for newer ipywidgets than Colab has.
    logging.getLogger("ray.widgets").setLevel(logging.ERROR)
    from flwr.simulation import run_simulation

    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    ours = _start_ray(num_workers)
    server_app = ServerApp()
    results = []

    @server_app.main()
    def _(grid: Grid, context: Context) -> None:
        results.append(main(grid))

    logger = logging.getLogger("flwr")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # Flower logs each client's error; so does Gossip
    try:
        run_simulation(
            server_app,
            client_app,
            num_supernodes=num_nodes,
            backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
        )
    finally:
        logger.setLevel(level)
        if ours:  # Flower shuts it down, unless it fails before it has taken it over
            import ray

            ray.shutdown()
    return results[0]


def _start_ray(num_workers: int | None) -> bool:
    """Start Ray before Flower does, and try again; tell whether it was not running.

    Ray gives its own node 30 s to start, fixed in its code (2.55.1). A busy machine may
    need longer; a second try finds its files in memory.
    """
    import ray

    if ray.is_initialized():
        return False
    # Ray's processes get this process' path in their environment alone, as Flower does.
    path = filter(None, [*sys.path, os.environ.get("PYTHONPATH")])
    env = {"PYTHONPATH": os.pathsep.join(path)}
    for _ in range(_TRIES):
        try:
            ray.init(
                num_cpus=num_workers or None,
                runtime_env={"env_vars": env},
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
            return True
        except Exception as error:  # Ray raises a bare Exception here
            why = str(error).partition("\n")[0]
            ray.shutdown()
    raise RuntimeError(
        f"Ray did not start, tried {_TRIES} times. It allows itself 30 s: is this "
        f"machine very busy? Ray says: {why}"
    )
