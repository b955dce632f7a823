"""Gossip with no server: clients that talk to each other over gRPC."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
