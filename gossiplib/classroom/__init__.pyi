from . import (
    diagnosis as diagnosis,
    exercises as exercises,
    leaderboard as leaderboard,
    project as project,
    unplugged as unplugged,
)
from .check import check as check
from .diagnosis import (
    CLIENTS as CLIENTS,
    KINDS as KINDS,
    by_link as by_link,
    by_round as by_round,
    case as case,
)
from .project import (
    PRACTICE as PRACTICE,
    Plan as Plan,
    score as score,
    source_of as source_of,
)
from .unplugged import as_written as as_written, game as game, page as page
