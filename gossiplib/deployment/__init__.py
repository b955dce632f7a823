"""Flower's deployment runtime on this machine: a SuperLink and SuperNodes."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
