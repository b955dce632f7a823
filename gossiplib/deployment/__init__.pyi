from . import superlink as superlink, supernodes as supernodes
from .superlink import SuperLink as SuperLink, missing_commands as missing_commands
from .supernodes import Deployment as Deployment
