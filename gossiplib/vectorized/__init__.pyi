from .consensus import averaging_rounds as averaging_rounds
from .engine import gossip_learning as gossip_learning
