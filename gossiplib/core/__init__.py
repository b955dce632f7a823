"""Gossip on Flower: the graph, the mixing matrix, the averages, client and server."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
