"""Small apps, grids and the numpy model of gossip that several tests compare with.

The apps' functions hold all they need, so that they can travel to Ray's processes,
which do not find this module.
"""

from collections.abc import Callable, Iterable

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from gossiplib.core import mixing, topology
from gossiplib.core.grid import LocalGrid

SIZE = 3


def zeros() -> ArrayRecord:
    """Return the initial model of the toy apps."""
    return ArrayRecord([np.zeros(SIZE)])


def vector(client: int) -> np.ndarray:
    """Return X_i, the model that client i begins with where training is off."""
    return np.random.default_rng(client).normal(size=SIZE)


def still_app() -> ClientApp:
    """Return an app with training off: client i puts X_i for zeros, no more."""
    size = SIZE
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        (model,) = message.content["arrays"].to_numpy_ndarrays()
        client = context.node_config["partition-id"]
        if not model.any():
            model = np.random.default_rng(client).normal(size=size)
        metrics = MetricRecord({"client": client, "num-examples": 1})
        content = RecordDict({"arrays": ArrayRecord([model]), "metrics": metrics})
        return Message(content, reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        (model,) = message.content["arrays"].to_numpy_ndarrays()
        metrics = MetricRecord({"sum": float(model.sum()), "num-examples": 1})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return app


def drifting_app(
    fault: str = "", *, client: int = 1, rounds: Iterable[int] = (), nap: float = 0
) -> ClientApp:
    """Return an app where client i adds (i + 1) (1, 2, 3) to its model in each round.

    One client has a fault when it trains, in some rounds. Or `train_config` names all
    "faults" of a run, each as "round client fault".
    """
    default = [f"{t} {client} {fault}" for t in rounds]
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message | None:
        import time

        import numpy as np
        from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict

        config = message.content["config"]
        (model,) = message.content["arrays"].to_numpy_ndarrays()
        i = context.node_config["partition-id"]
        model = model + (i + 1) * np.arange(1.0, 4.0)
        faults = config.get("faults", default)
        if f"{config['server-round']} {i} raises" in faults:
            raise RuntimeError("the disk is full")
        if f"{config['server-round']} {i} exits" in faults:
            raise SystemExit(0)
        if f"{config['server-round']} {i} none" in faults:
            return None
        if f"{config['server-round']} {i} shape" in faults:
            model = np.zeros((2, 2))
        if f"{config['server-round']} {i} nan" in faults:
            model = np.full(3, np.nan)
        if f"{config['server-round']} {i} late" in faults:
            time.sleep(config.get("nap", nap))
        metrics = MetricRecord({"mean": float(model.mean()), "num-examples": 1})
        content = RecordDict({"arrays": ArrayRecord([model]), "metrics": metrics})
        return Message(content, reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        (model,) = message.content["arrays"].to_numpy_ndarrays()
        metrics = MetricRecord({"sum": float(model.sum()), "num-examples": 1})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return app


def drift(
    schedule: topology.Schedule,
    n: int,
    num_rounds: int,
    *,
    weights: Callable = mixing.metropolis,
    untrained: set[tuple[int, int]] = frozenset(),
    unmixed: set[tuple[int, int]] = frozenset(),
    apart: set[tuple[int, int]] = frozenset(),
) -> np.ndarray:
    """Return what `drifting_app` must lead to, by numpy alone: one model a row.

    The sets hold (round, client). One that is `untrained` keeps its model and takes
    no part in averaging; one that is `apart` does train, but takes no part either; one
    that is `unmixed` is heard by its neighbours, but keeps its own model.
    """
    X = np.zeros((n, SIZE))
    for t in range(1, num_rounds + 1):
        graph = topology.at(schedule, t)
        W = weights(graph).copy()
        for i in range(n):
            away = not topology.is_online(graph, i) or (t, i) in untrained
            if not away:
                X[i] += (i + 1) * np.arange(1.0, SIZE + 1)
            if away or (t, i) in apart:
                # Its neighbours keep the weight they gave to it, and it keeps its own.
                W[np.arange(n), np.arange(n)] += W[:, i]
                W[:, i] = 0
                W[i] = 0
                W[i, i] = 1
            if (t, i) in unmixed:
                W[i] = np.eye(n)[i]
        X = W @ X
    return X


class SpyGrid(LocalGrid):
    """A LocalGrid that keeps what was sent, and may hide some of its nodes."""

    def __init__(self, *args, hidden: tuple[int, ...] = (), **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.sent: list[Message] = []
        self._hidden = hidden
        self._client = {node: i for i, node in enumerate(super().get_node_ids())}

    def get_node_ids(self) -> list[int]:
        """Return the node ids that are not hidden."""
        nodes = super().get_node_ids()
        return [node for i, node in enumerate(nodes) if i not in self._hidden]

    def send_and_receive(self, messages, *, timeout=None):
        """Note the messages, and pass them on."""
        messages = list(messages)
        self.sent += messages
        return super().send_and_receive(messages, timeout=timeout)

    def calls(self, message_type: str) -> list[tuple[int, RecordDict]]:
        """Return the clients that got such a message, and what was in it."""
        return [
            (self._client[m.metadata.dst_node_id], m.content)
            for m in self.sent
            if m.metadata.message_type == message_type
        ]
