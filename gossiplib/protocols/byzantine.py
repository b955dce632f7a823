"""Byzantine clients, and attacks: what reaches their neighbours is not their model.

`Byzantine` makes a lie happen where it *arrives*: in front of the receiver's average
function. So liars may know everything (who listens, its model, its other neighbours'
models), as the literature assumes of an attacker, and may tell each neighbour something
else. Everything else of a run stays as it is, in each engine, and the liars' own models
go on as if they were honest. An *attack* makes the lies; `robust` has the defences.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import NamedTuple, TypeAlias

import numpy as np
from flwr.app import Context, RecordDict
from scipy.special import ndtri
from scipy.stats import norm

from gossiplib.core.averaging import Average, Model, Models, as_dtypes, per_client
from gossiplib.core.context import RoundContext, uniforms
from gossiplib.system.numbers import check_number, check_whole, settle
from gossiplib.system.records import unravel

__all__ = [
    "ALittleIsEnough",
    "Attack",
    "AttackView",
    "Byzantine",
    "Dissensus",
    "Inconsistent",
    "Noise",
    "SignFlip",
    "z_max",
]


class AttackView(NamedTuple):
    """What an attack knows of a receiver, or of many with as many liars around them.

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
    context : RoundContext
        Who the receiver is, and which round.
    """

    own: Model
    honest: list[Model]
    true: list[Model]
    honest_weights: np.ndarray
    true_weights: np.ndarray
    context: RoundContext


#: A lie for each model in `true`; arrays of their shapes.
Attack: TypeAlias = Callable[[AttackView], Sequence[Model]]


@dataclass(frozen=True)
class Byzantine:
    """Average as another function does, with lies in place of the liars' models.

    Parameters
    ----------
    average : callable
        The clients' average function.
    nodes : iterable of int
        Partition ids of the Byzantine clients. They do not lie to each other.
    attack : callable
        What they send: `SignFlip`, ..., or any function of an `AttackView`.

    Raises
    ------
    ValueError
        If `average` has a `send`, so that clients send something else than models; or,
        when averaging, if a node is no client, or the attack returns what is not like
        models.
    """

    average: Average
    nodes: Iterable[int]
    attack: Attack

    def __post_init__(self) -> None:
        """Check that clients send models, and sort the nodes."""
        if hasattr(self.average, "send"):
            raise ValueError(
                "these attacks lie about models, and this average function sends "
                "something else: its `send` would have to lie"
            )
        liars = sorted(check_whole("a liar", j, 0) for j in self.nodes)
        object.__setattr__(self, "nodes", tuple(liars))

    def __call__(
        self, own: Model, neighbours: Models, weights: np.ndarray, context: RoundContext
    ) -> Model:
        """Replace what came from the liars, and average."""
        liars, clients = np.array(self.nodes, dtype=np.int64), context.clients
        n = int(context.node_config.get("num-partitions", 2**62))
        if liars.size and liars[-1] >= n:
            raise ValueError(f"client {liars[-1]}, a liar, is none of 0..{n - 1}")
        lies = np.isin(context.senders, liars) & ~np.isin(clients, liars)
        if not lies.any():
            return self.average(own, neighbours, weights, context)
        if not context.batch:
            models = self._lied_to(own, neighbours, weights, context, lies)
            return self.average(own, models, weights, context)
        models = [[array.copy() for array in model] for model in neighbours]
        patterns, which = np.unique(lies, axis=1, return_inverse=True)
        for k in np.flatnonzero(patterns.any(axis=0)):
            at = np.flatnonzero(which.ravel() == k)
            mine, *near = [[a[at] for a in model] for model in (own, *neighbours)]
            some, w = _some(context, at), weights[:, at]
            made = self._lied_to(mine, near, w, some, patterns[:, k])
            for model, part in zip(models, made, strict=True):
                for array, piece in zip(model, part, strict=True):
                    array[at] = piece
        return self.average(own, models, weights, context)

    def _lied_to(
        self,
        own: Model,
        neighbours: Models,
        weights: np.ndarray,
        context: RoundContext,
        lies: np.ndarray,
    ) -> Models:
        """Return what arrives: the neighbours' models, or lies where `lies` is True."""
        honest, true = (list(compress(neighbours, who)) for who in (~lies, lies))
        near, models = np.asarray(weights)[1:], list(neighbours)
        made = self.attack(
            AttackView(own, honest, true, near[~lies], near[lies], context)
        )
        if len(made) != len(true):
            raise ValueError(f"the attack made {len(made)} lies for {len(true)} liars")
        for j, lie in zip(np.flatnonzero(lies).tolist(), made, strict=True):
            found, wanted = [np.shape(a) for a in lie], [a.shape for a in models[j]]
            if found != wanted:
                wrong = f"shapes {found} instead of {wanted}"
                raise ValueError(f"a lie has arrays of {wrong}")
            models[j] = as_dtypes(lie, models[j])
        return models


def _some(context: RoundContext, at: np.ndarray) -> RoundContext:
    """Return the context of some of the clients, without their state."""
    config = context.node_config | {"partition-id": context.clients[at]}
    ids = context.run_id, context.node_id
    part = Context(*ids, config, RecordDict(), context.run_config)
    return RoundContext(part, context.server_round, senders=context.senders[:, at])


@dataclass(frozen=True)
class SignFlip:
    """Send -scale times the model that the liar really has."""

    scale: float = 1.0

    def __post_init__(self) -> None:
        """Check the scale."""
        settle(self, check_number, "scale")

    def __call__(self, view: AttackView) -> list[Model]:
        """Return the lies."""
        return [[-self.scale * a for a in model] for model in view.true]


@dataclass(frozen=True)
class Noise:
    """Add Gaussian noise to the true model, fresh for each receiver and round.

    Parameters
    ----------
    std : float
        Standard deviation of the noise on each parameter.
    seed : int
        Of the noise.

    Raises
    ------
    ValueError
        If one is no such number, or below 0.
    """

    std: float
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the numbers."""
        settle(self, check_number, "std")
        if not self.std >= 0:
            raise ValueError(f"std must be 0 or more; got {self.std}")
        settle(self, check_whole, "seed", 0)

    def __call__(self, view: AttackView) -> list[Model]:
        """Return the lies."""
        lead = len(view.context.batch)
        shapes = {str(k): a.shape[lead:] for k, a in enumerate(view.own)}
        size = sum(map(math.prod, shapes.values()))
        lies = []
        for k, model in enumerate(view.true):
            kth = int(np.random.SeedSequence([self.seed, k]).generate_state(1)[0])
            # ndtri turns uniform numbers into normal ones; 0 would become -inf.
            u = np.maximum(uniforms(kth, view.context, size), 2.0**-54)
            noise = unravel(self.std * ndtri(u), shapes).values()
            lies.append([a + b for a, b in zip(model, noise, strict=True)])
        return lies


def z_max(n: int, m: int) -> float:
    """Return z of "a little is enough", for m liars among n models that reach a client.

    z = Φ⁻¹((n - m - s) / (n - m)) with s = ⌊n/2 + 1⌋ - m: as far as the lies can go
    from the mean while s honest ones are expected still farther out, so that they and
    the liars together are the majority (Baruch et al. 2019). Where liars are few it is
    0 or less: they cannot outvote anyone.

    Parameters
    ----------
    n, m : int
        How many models reach a client, its own among them, and how many are lies.

    Raises
    ------
    ValueError
        If the liars are a majority on their own, or there are none.
    """
    needed = n // 2 + 1 - m
    if m < 1 or needed < 1:
        most = f"1 to {n // 2} liars among {n} models"
        raise ValueError(f"z is defined for {most}; there are {m}")
    return float(norm.ppf((n - m - needed) / (n - m)))


@dataclass(frozen=True)
class ALittleIsEnough:
    """Hide within the spread of the honest models.

    All liars send mean - z std of the honest models that the receiver knows, its own
    among them, for each parameter (Baruch et al. 2019, arXiv:1902.06156; for gossip as
    in the program of He et al. 2022). By default z is `z_max` of the models that reach
    the receiver.
    """

    z: float | None = None

    def __post_init__(self) -> None:
        """Check z."""
        if self.z is not None:
            check_number("z", self.z)

    def __call__(self, view: AttackView) -> list[Model]:
        """Return the lies."""
        n, liars = 1 + len(view.honest) + len(view.true), len(view.true)
        z = z_max(n, liars) if self.z is None else self.z
        lie = []
        for layer in zip(view.own, *view.honest, strict=True):
            values = np.asarray(layer, dtype=np.float64)
            spread = values.std(axis=0, ddof=1) if len(values) > 1 else 0.0
            lie.append(values.mean(axis=0) - z * spread)
        return [lie] * liars


@dataclass(frozen=True)
class Inconsistent:
    """Pull clients apart: those with an even number one way, the others the other way.

    The lie is the receiver's own model plus or minus `strength` times a fixed random
    direction of length 1.

    Parameters
    ----------
    strength : float
        Length of the pull.
    seed : int
        Of the direction.
    """

    strength: float
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the numbers."""
        settle(self, check_number, "strength")
        settle(self, check_whole, "seed", 0)

    def __call__(self, view: AttackView) -> list[Model]:
        """Return the lies."""
        lead, rng = len(view.context.batch), np.random.default_rng(self.seed)
        pull = [rng.normal(size=a.shape[lead:]) for a in view.own]
        length = math.sqrt(sum(np.square(p).sum() for p in pull))
        way = 1 - 2 * (view.context.clients % 2)
        lie = [
            a + per_client(way, a) * self.strength / length * p
            for a, p in zip(view.own, pull, strict=True)
        ]
        return [lie] * len(view.true)


@dataclass(frozen=True)
class Dissensus:
    """Keep neighbours from agreeing: pull each away from what draws it to the others.

    The lie is x_i - epsilon Σ_{honest k} w_ik (x_k - x_i) / Σ_{liars j} w_ij. With 1 a
    plain weighted mean stands still (He et al. 2022, the dissensus attack).
    """

    epsilon: float = 1.0

    def __post_init__(self) -> None:
        """Check epsilon."""
        settle(self, check_number, "epsilon")

    def __call__(self, view: AttackView) -> list[Model]:
        """Return the lies."""
        share = -self.epsilon * view.honest_weights / view.true_weights.sum(axis=0)
        lie = []
        for own, *others in zip(view.own, *view.honest, strict=True):
            x = own.astype(np.float64)
            pulls = zip(share, others, strict=True)
            lie.append(x + sum(per_client(s, x) * (other - x) for s, other in pulls))
        return [lie] * len(view.true)
