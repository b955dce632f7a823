from . import (
    averaging as averaging,
    consensus as consensus,
    engine as engine,
    rows as rows,
    training as training,
)
from .consensus import averaging_rounds as averaging_rounds
from .engine import gossip_learning as gossip_learning
