"""Quasi-global momentum: a velocity of what averaging makes, not of a client's own."""

from dataclasses import dataclass

import numpy as np

from gossiplib.core.averaging import Model, Models, weighted_mean
from gossiplib.core.context import RoundContext
from gossiplib.protocols.corrections import (
    difference,
    floats,
    kept,
    remember,
    shifted,
)
from gossiplib.system.numbers import check_share

__all__ = ["QuasiGlobalMomentum"]

#: The model that the last averaging made, and the velocity v_i.
_BEFORE, _VELOCITY = "momentum.before", "momentum.velocity"


@dataclass(frozen=True)
class QuasiGlobalMomentum:
    """Add momentum whose velocity is that of the averaged models.

    Training moves client i from x_i to x_i + u_i. It goes on in the direction v_i, 0 at
    first, in which the *averages* have moved, not its own training:

        x_i' = Σ_j w_ij (x_j + u_j + β v_j)
        v_i' = μ v_i + (1 - μ) (x_i' - x_i)

    Averages of neighbours know more of what all clients want than u_i does, and cost
    nothing more: the message has the size of a model.

    Notes
    -----
    The update u_i is all that training did to the model in this round. Of one step with
    learning rate η, -v_i / η is the paper's m̂_i, and this is its QG-DSGDm. With many
    steps in a round, the paper adds the momentum to each of them; here it is added once
    a round, as an average function cannot reach into training.

    It is faster, not more exact. At rest v_i = 0 and x_i = Σ_j w_ij (x_j + u_j): where
    `weighted_mean` rests, which is not the optimum where clients differ. But the mean
    of all models moves 1 / (1 - β) times as fast, and plain averaging with an η that is
    so much larger would rest farther off, as would momentum that each client keeps for
    itself. On its way it may pass better models than that, and fall back.

    A client sees its model only after training, so its first round is that of
    `weighted_mean`. Whatever is lost is forgotten with v_i, within some 1 / (1 - μ)
    rounds.

    Parameters
    ----------
    beta : float
        β, how much of the velocity is added, 0 to 1, 1 excluded.
    mu : float
        μ, how much of the old velocity is kept, 0 to 1, 1 excluded.

    Raises
    ------
    ValueError
        If one of them is not in that range.

    References
    ----------
    Lin, Karimireddy, Stich and Jaggi 2021, "Quasi-Global Momentum: Accelerating
    Decentralized Deep Learning on Heterogeneous Data", arXiv:2102.04761, with 0.9 for
    both.
    """

    beta: float = 0.9
    mu: float = 0.9

    def __post_init__(self) -> None:
        """Check both."""
        for name in ("beta", "mu"):
            check_share(name, getattr(self, name))
            if getattr(self, name) == 1:
                raise ValueError(f"{name} must be below 1: or the models never rest")

    def send(self, model: Model, context: RoundContext) -> Model:
        """Return the model, pushed on."""
        return shifted(model, kept(context, _VELOCITY, model), self.beta)

    def __call__(
        self, own: Model, neighbours: Models, weights: np.ndarray, context: RoundContext
    ) -> Model:
        """Average, and renew the velocity."""
        mine, velocity = self.send(own, context), kept(context, _VELOCITY, own)
        mixed = weighted_mean(mine, *context.read_models(neighbours, weights, mine))
        known = _BEFORE in context.state
        before = kept(context, _BEFORE, own) if known else floats(mixed)
        way = difference(floats(mixed), before)
        slower = [v.dtype.type(self.mu) * v for v in velocity]
        remember(context, _VELOCITY, shifted(slower, way, 1 - self.mu))
        remember(context, _BEFORE, floats(mixed))
        return mixed
