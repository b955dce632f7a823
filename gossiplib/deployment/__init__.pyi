from . import superlink as superlink, supernodes as supernodes
from .superlink import SuperLink as SuperLink
from .supernodes import Deployment as Deployment, missing_commands as missing_commands
