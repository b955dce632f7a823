"""What clients may say and how they may average: beyond the weighted mean."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
