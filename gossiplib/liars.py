"""Clients that lie: what reaches their neighbours is not their model.

`lying` makes a lie happen where it *arrives*: in front of the receiver's average
function, it replaces what came from the liars. So liars may know everything (who
listens, its model, its other neighbours' models), as the literature assumes of an
attacker, and may tell each neighbour something else. Everything else of a run stays as
it is, in each engine. The liars' own models go on as if they were honest.

`attacks` holds the lies, `robust` the defences.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from flwr.app import Context, RecordDict

from gossiplib.averaging import Average, Model, as_dtype
from gossiplib.turn import Turn

__all__ = ["Attack", "Scene", "lying"]


class Scene(NamedTuple):
    """What happens at a receiver, or at many with equally many liars around them.

    Of many receivers, all arrays have one axis more, the first (of weights the second),
    as in an average function.

    Attributes
    ----------
    own : list of numpy.ndarray
        The receiver's model.
    honest, true : list of models
        The models of its honest neighbours, and those that the liars really have.
    honest_weights, true_weights : numpy.ndarray
        The receiver's weights of both.
    turn : Turn
        Who the receiver is, and which round.
    """

    own: Model
    honest: list[Model]
    true: list[Model]
    honest_weights: np.ndarray
    true_weights: np.ndarray
    turn: Turn


#: Scene -> a lie for each model in `true`; arrays of their shapes.
Attack = Callable[[Scene], Sequence[Model]]


def lying(average: Average, liars: Iterable[int], attack: Attack) -> Average:
    """Return an average function whose models from the liars are lies.

    Parameters
    ----------
    average : callable
        The clients' average function, see `averaging`.
    liars : iterable of int
        Partition ids of the clients that lie. They do not lie to each other.
    attack : callable
        What they say, see `attacks`.

    Raises
    ------
    ValueError
        If clients send something else than models (`average` has a `send`), or, when
        averaging, if the attack returns what is not like models.
    """
    if hasattr(average, "send"):
        raise ValueError(
            "these attacks lie about models, and this average function sends something "
            "else: its `send` would have to lie"
        )
    liars = np.array(sorted(liars), dtype=np.int64)

    def average_lies(
        own: Model, neighbours: Sequence[Model], weights: np.ndarray, context: Turn
    ) -> Model:
        clients = np.asarray(context.node_config["partition-id"])
        lies = np.isin(context.senders, liars) & ~np.isin(clients, liars)
        if not lies.any():
            return average(own, neighbours, weights, context)
        if not clients.ndim:
            scene = _scene(own, neighbours, weights, context, lies)
            heard = _replaced(neighbours, lies, attack(scene))
            return average(own, heard, weights, context)
        heard = [[a.copy() for a in model] for model in neighbours]
        patterns, which = np.unique(lies, axis=1, return_inverse=True)
        for k, pattern in enumerate(patterns.T):
            if not pattern.any():
                continue
            at = np.flatnonzero(which.ravel() == k)
            near = [_pick(model, at) for model in neighbours]
            w, turn = weights[:, at], _turn_of(context, at)
            told = attack(_scene(_pick(own, at), near, w, turn, pattern))
            for model, said in zip(heard, _replaced(near, pattern, told), strict=True):
                for array, part in zip(model, said, strict=True):
                    array[at] = part
        return average(own, heard, weights, context)

    return average_lies


def _scene(
    own: Model,
    neighbours: Sequence[Model],
    weights: np.ndarray,
    turn: Turn,
    lies: np.ndarray,
) -> Scene:
    honest = [model for model, lie in zip(neighbours, lies, strict=True) if not lie]
    true = [model for model, lie in zip(neighbours, lies, strict=True) if lie]
    near = np.asarray(weights)[1:]
    return Scene(own, honest, true, near[~lies], near[lies], turn)


def _replaced(
    neighbours: Sequence[Model], lies: np.ndarray, told: Sequence[Model]
) -> list[Model]:
    """Return the neighbours' models with the lies in place, in the models' types."""
    if len(told) != lies.sum():
        raise ValueError(f"the attack told {len(told)} lies for {lies.sum()} liars")
    heard, told = [], iter(told)
    for model, lie in zip(neighbours, lies, strict=True):
        if not lie:
            heard.append(model)
            continue
        said = next(told)
        found, wanted = [np.shape(a) for a in said], [a.shape for a in model]
        if found != wanted:
            raise ValueError(f"a lie has arrays of shapes {found} instead of {wanted}")
        heard.append([as_dtype(a, b.dtype) for a, b in zip(said, model, strict=True)])
    return heard


def _pick(model: Model, at: np.ndarray) -> Model:
    return [array[at] for array in model]


def _turn_of(turn: Turn, at: np.ndarray) -> Turn:
    """Return the turn of some of the clients."""
    config = dict(turn.node_config)
    config["partition-id"] = np.asarray(config["partition-id"])[at]
    context = Context(turn.run_id, turn.node_id, config, RecordDict(), turn.run_config)
    return Turn(context, turn.server_round, senders=turn.senders[:, at])
