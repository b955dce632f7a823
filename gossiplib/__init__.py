"""Gossip learning on Flower: clients average their models with their neighbours'.

What most readers need is here; each wing of the house is a package, with its public
names on its face:

- `core`: gossip on Flower. First evening: `topology`, `mixing`, `averaging`, `client`,
  `server`;
- `tasks`: data, its partitions over clients, and models to train (torch);
- `vectorized`: the same on arrays, for very many clients;
- `asynchronous`: gossip without rounds;
- `protocols`: more average functions: push-sum, compression, robust rules, privacy;
- `deployment`: SuperLink and SuperNodes on this machine; `peers`: with no server;
- `system`: processes, certificates, long runs; it knows nothing of gossip;
- `viz`: pictures and widgets; `classroom`: checks of exercises, project, games;
- `app`: the finished prototype for `flwr run`; `new` begins an app of your own.

Names are loaded when asked for: `import gossiplib` alone is light.
"""

from typing import TYPE_CHECKING

from gossiplib._face import face

if TYPE_CHECKING:
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

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = face(__name__)
