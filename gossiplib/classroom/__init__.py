"""For class: checks of the exercises, the project, games, fault diagnosis."""

from typing import TYPE_CHECKING

from gossiplib._face import face

if TYPE_CHECKING:
    from . import leaderboard as leaderboard, project as project
    from .checking import check as check, verdict as verdict
    from .diagnosis import (
        CLIENTS as CLIENTS,
        COLUMNS as COLUMNS,
        KINDS as KINDS,
        by_link as by_link,
        by_round as by_round,
        case as case,
    )
    from .observed import Observed as Observed
    from .project import (
        Plan as Plan,
        quantise as quantise,
        restore as restore,
        score as score,
    )
    from .unplugged import as_written as as_written, game as game, page as page

__getattr__, __dir__, __all__ = face(__name__)
