"""Lies: what clients that attack tell their neighbours.

Each function returns an attack, for `liars.lying`: from a `Scene`, what happens at a
receiver, to the lies that it hears. `robust` holds the defences.
"""

import math

import numpy as np
from scipy.special import ndtri
from scipy.stats import norm

from gossiplib.averaging import Model
from gossiplib.liars import Attack, Scene
from gossiplib.turn import uniforms

__all__ = [
    "a_little_is_enough",
    "dissensus",
    "inconsistent",
    "little_z",
    "noise",
    "sign_flip",
]


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
