"""Gradient tracking: a client follows where all clients want to go."""

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

__all__ = ["GradientTracking"]

#: The model that the last averaging made, and the correction c_i.
_BEFORE, _CORRECTION = "tracking.before", "tracking.correction"


@dataclass(frozen=True)
class GradientTracking:
    """Average models, and what moves them, so that clients agree on where to go.

    Training moves client i from x_i to x_i + u_i. Its own data wants u_i; all clients
    together want the mean of all u_j. So it keeps a correction c_i, 0 at first, and

        x_i ← Σ_j w_ij (x_j + u_j + c_j)
        c_i ← Σ_j w_ij (c_j + u_j) - u_i

    The sum c_i + u_i tracks the mean update: the c_i of all clients sum to 0 for ever
    if the columns of W sum to 1, and gossip makes their c_i + u_i alike. A message
    carries two vectors, x_i + u_i + c_i and c_i + u_i: twice the bytes.

    Notes
    -----
    The update u_i is all that training did to the model in this round. Of one step on
    all examples, with learning rate η, it is -η ∇f_i(x_i), and with -(c_i + u_i) / η as
    y_i the above is the textbook's

        x_i ← Σ_j w_ij (x_j - η y_j)
        y_i ← Σ_j w_ij y_j + ∇f_i(x_i) - ∇f_i(x_i of the round before).

    At rest all models are alike, x, and Σ u_i(x) = 0: with one full-batch step, the
    gradients sum to 0, so x is the optimum of the mean loss, whatever η. With many
    steps in a round, Σ u_i(x) = 0 is where FedAvg rests that counts all clients alike:
    what FedAvg misses by its local steps, this misses too, and no more. A correction
    c_i / K added to each of K local steps would remove that as well (K-GT, Liu et al.);
    an average function cannot reach into training.

    A client sees its model only after training. So it cannot know u_i in its first
    round, takes it for 0, and averages as `weighted_mean` does.

    The sum of the corrections must stay 0. It does so if links fail both ways, if all
    of a client is away for some rounds, or if one comes late. If a message is lost one
    way only, or W has other column sums, or a client leaves for good with its c_i, then
    the sum is off from then on: the models still meet, but where Σ u_i(x) = -Σ c_i.
    Near rest nothing is lost that way, as all c_i + u_i are 0 there.

    References
    ----------
    Di Lorenzo and Scutari 2016, "NEXT: In-Network Nonconvex Optimization",
    arXiv:1602.00591. Nedić, Olshevsky and Shi 2017, "Achieving Geometric Convergence
    for Distributed Optimization over Time-Varying Graphs", arXiv:1607.03218 (DIGing).
    Koloskova, Lin and Stich 2021, "An Improved Analysis of Gradient Tracking for
    Decentralized Machine Learning", arXiv:2202.03836. Liu, Lin, Koloskova and Stich
    2024, "Decentralized Gradient Tracking with Local Steps", arXiv:2301.01313.
    """

    def send(self, model: Model, context: RoundContext) -> Model:
        """Return the corrected model, and then the tracked update."""
        correction, update = _parts(model, context)
        return [*shifted(model, correction), *shifted(correction, update)]

    def __call__(
        self, own: Model, neighbours: Models, weights: np.ndarray, context: RoundContext
    ) -> Model:
        """Average both, and renew the correction."""
        correction, update = _parts(own, context)
        mine = [*shifted(own, correction), *shifted(correction, update)]
        mixed = weighted_mean(mine, *context.read_models(neighbours, weights, mine))
        model, wanted = mixed[: len(own)], mixed[len(own) :]
        remember(context, _CORRECTION, difference(wanted, update))
        remember(context, _BEFORE, floats(model))
        return model


def _parts(model: Model, context: RoundContext) -> tuple[Model, Model]:
    """Return the correction, and what training did since the last averaging."""
    correction = kept(context, _CORRECTION, model)
    if _BEFORE not in context.state:
        return correction, [0 * c for c in correction]
    return correction, difference(model, kept(context, _BEFORE, model))
