"""Processes, certificates, archives, long runs. Nothing here knows of gossip."""

from typing import TYPE_CHECKING

from gossiplib._face import face

if TYPE_CHECKING:
    from .certificates import Authority as Authority, key_pair as key_pair
    from .encoding import dump as dump, load as load
    from .processes import free_ports as free_ports
    from .records import array_bytes as array_bytes, flat as flat, unpack as unpack
    from .simulation import run_on_ray as run_on_ray

__getattr__, __dir__, __all__ = face(__name__)
