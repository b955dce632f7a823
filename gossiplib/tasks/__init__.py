"""What clients learn: data sets, their partitions over clients, models to train."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
