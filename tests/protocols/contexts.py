"""Contexts of one client or of several, and models, for tests of average functions."""

import numpy as np
from flwr.app import Context, RecordDict

from gossiplib.core.context import RoundContext


def in_round(clients=0, server_round=1, *, senders=(), receivers=0, state=None):
    """Return a RoundContext; with a `state` of its own, records go there."""
    config = {"partition-id": clients, "num-partitions": 10_000}
    kept = RecordDict() if state is None else state
    context = Context(0, 0, config, kept, {})
    now = RoundContext(context, server_round, senders=senders, receivers=receivers)
    now.state = kept
    return now


def flat(model):
    """Return a model as one vector."""
    return np.concatenate([np.ravel(a) for a in model])


def alike(one, other, **tolerance):
    """Return whether two models have the same data types, shapes and numbers."""
    return len(one) == len(other) and all(
        a.dtype == b.dtype and a.shape == b.shape and np.allclose(a, b, **tolerance)
        for a, b in zip(one, other, strict=True)
    )
