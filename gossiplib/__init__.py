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
- `app`: the finished prototype for `flwr run`.

Names are loaded when asked for: `import gossiplib` alone is light. `__init__.pyi`
beside this file lists them.
"""

import lazy_loader as lazy

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
