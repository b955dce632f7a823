"""Gossip learning on Flower: the helper package of the notebook series.

Low to high, each module knows only those before it:

- `topology` (with `graphs`), `mixing`, `averaging`: who talks to whom, how much each
  counts, and how models are averaged (numpy and networkx alone);
- `task` (with `partition`, `training`): data, its partitions and a model (torch);
- `turn`, `weighing`, `compression`, `choco`, `robust`, `liars`, `attacks`: more average
  functions, which keep records or send something else than a model;
- `client`, `grid`, `server` (with `arrays`, `calls`, `discovery`, `result`): gossip on
  Flower; `privacy`: what a neighbour learns;
- `vectorized` (with `batched`, `batched_averaging`, `stacked`, `rows`, `links`,
  `memory`, `progress`): the same on arrays, for many clients; `consensus`: without
  learning;
- `cycles` (with `walks`, `traffic`, `tokens`): gossip without rounds, on arrays;
  `arrivals`, `relay`: on Flower;
- `plots` (with `drawing`), `widgets`, `check`: pictures, and checks of the exercises;
- `app`: the finished prototype for `flwr run`.

Importing `gossiplib` imports none of them, so that a notebook pays for what it uses.
"""

__version__ = "0.1.0"
