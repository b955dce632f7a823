"""Gossip on Flower: the graph, the mixing matrix, the averages, client and server."""

from typing import TYPE_CHECKING

from gossiplib._face import face

if TYPE_CHECKING:
    from . import (
        averaging as averaging,
        mixing as mixing,
        topology as topology,
    )
    from .averaging import (
        SoftmaxDistance as SoftmaxDistance,
        weighted_mean as weighted_mean,
    )
    from .client import accept_all as accept_all, choose as choose, gossip as gossip
    from .context import RoundContext as RoundContext, uniforms as uniforms
    from .grid import LocalGrid as LocalGrid, LocalNode as LocalNode
    from .result import GossipResult as GossipResult, Loss as Loss
    from .server import Gossip as Gossip
    from .topology import churn as churn, drop_links as drop_links, named as named

__getattr__, __dir__, __all__ = face(__name__)
