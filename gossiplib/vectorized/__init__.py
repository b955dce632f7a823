"""Gossip on arrays: all clients as one stacked tensor, the same algorithm."""

from typing import TYPE_CHECKING

from gossiplib._face import face

if TYPE_CHECKING:
    from .consensus import averaging_rounds as averaging_rounds
    from .engine import gossip_learning as gossip_learning

__getattr__, __dir__, __all__ = face(__name__)
