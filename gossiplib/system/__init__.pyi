from . import (
    archive as archive,
    certificates as certificates,
    numbers as numbers,
    processes as processes,
    runs as runs,
)
from .certificates import Authority as Authority, key_pair as key_pair
from .processes import Processes as Processes, free_ports as free_ports
