"""Flower's deployment runtime on this machine: a SuperLink and SuperNodes."""

from typing import TYPE_CHECKING

from gossiplib._face import face

if TYPE_CHECKING:
    from .superlink import (
        Deployment as Deployment,
        missing_commands as missing_commands,
    )

__getattr__, __dir__, __all__ = face(__name__)
