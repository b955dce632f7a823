"""Gossip without rounds: messages that merge when they arrive."""

from typing import TYPE_CHECKING

from gossiplib._face import face

if TYPE_CHECKING:
    from . import merging as merging
    from .client import gossip_on_arrival as gossip_on_arrival
    from .engine import gossip_cycles as gossip_cycles
    from .merging import (
        Linear as Linear,
        merge_update as merge_update,
        random_walk as random_walk,
        update_merge as update_merge,
    )
    from .network import (
        GeneralizedTokenAccount as GeneralizedTokenAccount,
        NetworkModel as NetworkModel,
        RandomizedTokenAccount as RandomizedTokenAccount,
        SimpleTokenAccount as SimpleTokenAccount,
        Traffic as Traffic,
    )
    from .seconds import Devices as Devices, Pace as Pace
    from .server import AsyncServer as AsyncServer

__getattr__, __dir__, __all__ = face(__name__)
