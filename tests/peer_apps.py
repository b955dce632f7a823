"""Clients that the tests' peers run; peers import this module by its name."""

import time
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from gossiplib.core.client import choose, gossip
from toy_apps import drifting_app, zeros

__all__ = ["chosen", "drifting", "pulling", "zeros"]

drifting = gossip(drifting_app())
chosen = gossip(drifting_app(), discover=choose(2, seed=0))

app = ClientApp()

#: How far a round of training moves a model to its client's own goal.
STEP = 0.2


@app.train()
def train(message: Message, context: Context) -> Message:
    """Go a part of the way to the client's goal; take the time that config tells."""
    config = message.content["config"]
    time.sleep(config.get("nap", 0.0))
    while (
        config["server-round"] == config.get("last") and not Path(config["go"]).exists()
    ):
        time.sleep(0.05)
    (model,) = message.content["arrays"].to_numpy_ndarrays()
    client = context.node_config["partition-id"]
    moved = model + STEP * (goal(client) - model)
    metrics = MetricRecord({"num-examples": 1})
    content = RecordDict({"arrays": ArrayRecord([moved]), "metrics": metrics})
    return Message(content, reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Tell how far the model is from the client's goal."""
    (model,) = message.content["arrays"].to_numpy_ndarrays()
    far = float(np.linalg.norm(model - goal(context.node_config["partition-id"])))
    content = RecordDict({"metrics": MetricRecord({"far": far, "num-examples": 1})})
    return Message(content, reply_to=message)


def goal(client: int) -> np.ndarray:
    """Return the model that a client would have alone."""
    return np.random.default_rng([7, client]).normal(size=3)


pulling = gossip(app)
