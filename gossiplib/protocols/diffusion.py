"""D², or exact diffusion: what the last averaging took away is given back."""

from dataclasses import dataclass

import numpy as np

from gossiplib.core.averaging import Model, Models, weighted_mean
from gossiplib.core.context import RoundContext
from gossiplib.protocols.corrections import difference, kept, remember, shifted

__all__ = ["ExactDiffusion"]

_CORRECTION = "diffusion.correction"


@dataclass(frozen=True)
class ExactDiffusion:
    """D², also called exact diffusion: average, and remember what averaging changed.

    Training moves client i from x_i to x_i + u_i. It adds a correction c_i, 0 at first,
    averages, and keeps by how much the outcome differs from where its training led:

        x_i' = Σ_j w̃_ij (x_j + u_j + c_j)
        c_i' = x_i' - (x_i + u_i)

    with the lazy weights W̃ = (I + W) / 2. A message, x_i + u_i + c_i, costs what a
    model costs, and a client remembers c_i alone.

    Notes
    -----
    The update u_i is all that training did to the model in this round. Of one step on
    all examples, with learning rate η, it is -η ∇f_i(x_i), and the above is the paper's
    on exact diffusion; that on D² has W in place of W̃:

        x(t+1) = W̃ (2 x(t) - x(t-1) - η (∇f(x(t)) - ∇f(x(t-1)))).

    At rest all models are alike, x, and c_i = -u_i(x); as the c_i of all clients sum to
    0, Σ u_i(x) = 0: the optimum of the mean loss if a round is one full-batch step,
    whatever η. With many steps in a round, it is where FedAvg rests that counts all
    clients alike, which is not quite the optimum.

    The iteration is stable only if all eigenvalues of its weights are above -1/3 (Tang
    et al.), which Metropolis' weights do not promise: those of an even ring reach -1/3.
    The lazy weights have none below 0, so they are taken for every W. The price is
    half of the gap 1 - λ_2: models mix about half as fast.

    That the c_i sum to 0 needs a W whose columns sum to 1. A message that is lost one
    way only changes the sum, as does a client that leaves for good: from then on the
    models meet where Σ u_i(x) = -Σ c_i. Near rest nothing is lost that way, as all
    messages are alike there. A client that comes late starts with c_i = 0, and one that
    is away keeps its own. The papers' proofs are for a W that stays the same.

    References
    ----------
    Tang, Lian, Yan, Zhang and Liu 2018, "D²: Decentralized Training over Decentralized
    Data", arXiv:1803.07068. Yuan, Ying, Zhao and Sayed 2019, "Exact Diffusion for
    Distributed Optimization and Learning", arXiv:1702.05122.
    """

    def send(self, model: Model, context: RoundContext) -> Model:
        """Return the corrected model."""
        return shifted(model, kept(context, _CORRECTION, model))

    def __call__(
        self, own: Model, neighbours: Models, weights: np.ndarray, context: RoundContext
    ) -> Model:
        """Average by lazy weights, and keep what that changed."""
        mine = self.send(own, context)
        came, weights = context.read_models(neighbours, weights, mine)
        lazy = np.asarray(weights) / 2
        lazy[0] += 0.5
        mixed = weighted_mean(mine, came, lazy)
        remember(context, _CORRECTION, difference(mixed, own))
        return mixed
