from . import (
    archive as archive,
    certificates as certificates,
    numbers as numbers,
    processes as processes,
    runs as runs,
    simulation as simulation,
)
from .certificates import Authority as Authority, key_pair as key_pair
from .processes import Processes as Processes, free_ports as free_ports
from .simulation import run_on_ray as run_on_ray
