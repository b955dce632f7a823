"""What an average function is told beside the models: who, when, and from whom.

A `Turn` is Flower's `Context` of the client, and a little more. An average function may
keep records in its `state` from one round to the next.
"""

import numpy as np
from flwr.app import Context, RecordDict

__all__ = ["Turn", "uniforms"]


class Turn(Context):
    """A client's Context, in one round.

    Where an engine calls a function for many clients at once, see `averaging`, all
    arrays in `state` have one axis more, the first, for the clients, and so has
    ``node_config["partition-id"]``.

    Parameters
    ----------
    context : flwr.app.Context
        The client's own. Records that the function puts in `state` are kept, unless
        it fails.
    server_round : int
        The round, 1, 2, ...
    senders : sequence of int
        Partition ids of the neighbours whose models came, in their order; shape
        (neighbours,) or (neighbours, clients).
    receivers : int or numpy.ndarray
        For `send`: to how many clients the message goes.
    """

    def __init__(
        self,
        context: Context,
        server_round: int,
        *,
        senders: np.ndarray | list[int] = (),
        receivers: int | np.ndarray = 0,
    ) -> None:
        super().__init__(**vars(context))
        self.state = RecordDict(context.state)  # the engine takes it, if all goes well
        self.server_round = server_round
        self.senders = np.asarray(senders, dtype=np.int64)
        self.receivers = receivers


def uniforms(seed: int, turn: Turn, size: int) -> np.ndarray:
    """Return random numbers in [0, 1) for this client and round.

    The same for a client alone as among many: each has a place of its own in one
    random stream a round.

    Parameters
    ----------
    seed : int
        Two protocols at once need two seeds.
    turn : Turn
        Which client and round.
    size : int
        How many numbers a client needs. It must be the same for all clients.

    Returns
    -------
    numpy.ndarray
        Shape (size,), or (clients, size).
    """
    clients = np.asarray(turn.node_config["partition-id"])
    first, last = int(clients.min()), int(clients.max())
    bits = np.random.PCG64([seed, turn.server_round, *b"turn"]).advance(first * size)
    numbers = np.random.Generator(bits).random((last + 1 - first, size))
    return numbers[clients - first]
