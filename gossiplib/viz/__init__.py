"""Pictures: graphs, curves, space-time diagrams, and widgets to play with."""

from typing import TYPE_CHECKING

from gossiplib._face import face

if TYPE_CHECKING:
    from . import (
        diagrams as diagrams,
        drawings as drawings,
        pictures as pictures,
        plots as plots,
        timeline as timeline,
    )
    from .display import show as show
    from .players import play as play, recolour as recolour, spread as spread
    from .widgets import explorer as explorer

__getattr__, __dir__, __all__ = face(__name__)
