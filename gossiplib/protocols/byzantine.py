"""Clients that lie: what reaches their neighbours is not their model.

`lying` makes a lie happen where it *arrives*: in front of the receiver's average
function, it replaces what came from the liars. So liars may know everything (who
listens, its model, its other neighbours' models), as the literature assumes of an
attacker, and may tell each neighbour something else. Everything else of a run stays as
it is, in each engine. The liars' own models go on as if they were honest.

`byzantine` holds the lies, `robust` the defences.

Lies: what clients that attack tell their neighbours.

Each function returns an attack, for `byzantine.lying`: from a `Scene`, what happens at
a receiver, to the lies that it hears. `robust` holds the defences.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from flwr.app import Context, RecordDict
from scipy.special import ndtri
from scipy.stats import norm

from gossiplib.core.averaging import Average, Model, as_dtype
from gossiplib.core.context import RoundContext, uniforms

__all__ = [
    "Attack",
    "Scene",
    "a_little_is_enough",
    "dissensus",
    "inconsistent",
    "little_z",
    "lying",
    "noise",
    "sign_flip",
]


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
    turn : RoundContext
        Who the receiver is, and which round.
    """

    own: Model
    honest: list[Model]
    true: list[Model]
    honest_weights: np.ndarray
    true_weights: np.ndarray
    turn: RoundContext


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
        What they say, see `byzantine`.

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
        own: Model,
        neighbours: Sequence[Model],
        weights: np.ndarray,
        context: RoundContext,
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
    turn: RoundContext,
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


def _turn_of(turn: RoundContext, at: np.ndarray) -> RoundContext:
    """Return the turn of some of the clients."""
    config = dict(turn.node_config)
    config["partition-id"] = np.asarray(config["partition-id"])[at]
    context = Context(turn.run_id, turn.node_id, config, RecordDict(), turn.run_config)
    return RoundContext(context, turn.server_round, senders=turn.senders[:, at])


def sign_flip(scale: float = 1.0) -> Attack:
    """Return an attack that sends -scale times the liar's true model."""

    def attack(scene: Scene) -> list[Model]:
        return [[-scale * a for a in model] for model in scene.true]

    return attack


def noise(std: float, seed: int = 0) -> Attack:
    """Return an attack that adds Gaussian noise, fresh for each receiver and round.

    Parameters
    ----------
    std : float
        Standard deviation of the noise on each parameter.
    seed : int
        Seed of the noise.
    """

    def attack(scene: Scene) -> list[Model]:
        clients = np.shape(scene.turn.node_config["partition-id"])
        sizes = [math.prod(a.shape[len(clients) :]) for a in scene.own]
        lies = []
        for k, model in enumerate(scene.true):
            kth = int(np.random.SeedSequence([seed, k]).generate_state(1)[0])
            u = uniforms(kth, scene.turn, sum(sizes))
            # ndtri turns uniform numbers into normal ones; 0 would become -inf.
            drawn = std * ndtri(np.maximum(u, 2.0**-54))
            parts = np.split(drawn, np.cumsum(sizes)[:-1], axis=-1)
            lies.append(
                [a + p.reshape(a.shape) for a, p in zip(model, parts, strict=True)]
            )
        return lies

    return attack


def little_z(n: int, m: int) -> float:
    """Return z of "a little is enough", for m liars among n.

    z = Φ⁻¹((n - m - s) / (n - m)) with s = ⌊n/2 + 1⌋ - m: as far as the lies can go
    from the mean while s honest ones are expected still farther out, so that they and
    the liars together are the majority (Baruch et al. 2019). Where liars are few it is
    0 or less: they cannot outvote anyone.

    Raises
    ------
    ValueError
        If the liars are a majority on their own, or there are none.
    """
    needed = n // 2 + 1 - m
    if m < 1 or needed < 1:
        raise ValueError(
            f"z is defined for 1 to {n // 2} liars among {n} models; there are {m}"
        )
    return float(norm.ppf((n - m - needed) / (n - m)))


def a_little_is_enough(z: float | None = None) -> Attack:
    """Return an attack that hides within the spread of the honest models.

    All liars send mean - z std of the honest models that the receiver knows, its own
    among them, for each parameter (Baruch et al. 2019, arXiv:1902.06156; for gossip as
    in the program of He et al. 2022).

    Parameters
    ----------
    z : float, optional
        By default `little_z` of the models that the receiver sees.
    """

    def attack(scene: Scene) -> list[Model]:
        liars = len(scene.true)
        far = little_z(1 + len(scene.honest) + liars, liars) if z is None else z
        lie = []
        for layer in zip(scene.own, *scene.honest, strict=True):
            values = np.asarray(layer, dtype=np.float64)
            lie.append(values.mean(axis=0))
            if len(values) > 1:
                lie[-1] = lie[-1] - far * values.std(axis=0, ddof=1)
        return [lie] * liars

    return attack


def inconsistent(strength: float, seed: int = 0) -> Attack:
    """Return an attack that pulls clients apart: some one way, some the other.

    A client with an even number hears its own model plus `strength` times a fixed
    random direction of length 1, one with an odd number its own minus it.

    Parameters
    ----------
    strength : float
        Length of the pull.
    seed : int
        Seed of the direction.
    """

    def attack(scene: Scene) -> list[Model]:
        clients = np.asarray(scene.turn.node_config["partition-id"])
        rng = np.random.default_rng(seed)
        pull = [rng.normal(size=a.shape[clients.ndim :]) for a in scene.own]
        length = math.sqrt(sum(np.square(p).sum() for p in pull))
        lie = []
        for a, p in zip(scene.own, pull, strict=True):
            sign = (1 - 2 * (clients % 2)).reshape(clients.shape + (1,) * p.ndim)
            lie.append(a + sign * strength / length * p)
        return [lie] * len(scene.true)

    return attack


def dissensus(epsilon: float = 1.0) -> Attack:
    """Return the attack that keeps neighbours from agreeing.

    x_i - ε Σ_{honest k} w_ik (x_k - x_i) / Σ_{liars j} w_ij: away from what the honest
    neighbours of client i draw it to. With ε = 1 a plain weighted mean stands still
    (He et al. 2022, the dissensus attack).

    Parameters
    ----------
    epsilon : float
        Strength of the attack.
    """

    def attack(scene: Scene) -> list[Model]:
        share = -epsilon * scene.honest_weights / scene.true_weights.sum(axis=0)
        lie = []
        for own, *others in zip(scene.own, *scene.honest, strict=True):
            x = own.astype(np.float64)
            axes = (1,) * (x.ndim - (share.ndim - 1))
            drawn = [
                s.reshape(s.shape + axes) * (other - x)
                for s, other in zip(share, others, strict=True)
            ]
            lie.append(x + sum(drawn))
        return [lie] * len(scene.true)

    return attack
