from . import (
    app as app,
    asynchronous as asynchronous,
    classroom as classroom,
    core as core,
    deployment as deployment,
    peers as peers,
    protocols as protocols,
    system as system,
    tasks as tasks,
    vectorized as vectorized,
    viz as viz,
)
from .core import (
    Gossip as Gossip,
    GossipResult as GossipResult,
    LocalGrid as LocalGrid,
    averaging as averaging,
    gossip as gossip,
    mixing as mixing,
    topology as topology,
)
from .vectorized import gossip_learning as gossip_learning

__version__: str
