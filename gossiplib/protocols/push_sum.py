"""Push-sum: averages on directed graphs, by messages that carry a weight."""

from dataclasses import dataclass

import numpy as np
from flwr.app import ArrayRecord

from gossiplib.core.averaging import Model, Models, weighted_mean
from gossiplib.core.context import RoundContext
from gossiplib.core.models import check_model
from gossiplib.system.records import unpack

__all__ = ["PushSum"]

_WEIGHT, _LEAST = "gossip.push-sum", np.finfo(np.float64).tiny


@dataclass(frozen=True)
class PushSum:
    """Average on directed graphs, where a client may reach more than reach it.

    A client has a value s and a weight w, 1 at first. In each round it cuts both into
    equal shares, one for each receiver and one for itself, and adds up what it gets.
    The sums of all s and of all w never change, so s / w tends to the mean of all
    clients. Plain averaging tends to another mean, in which clients count by how far
    their models travel.

    The client's model is s / w; so is what a message carries, with the share of w. The
    weights of the mixing matrix are not used. A client must know how many it sends to.

    Notes
    -----
    Between two averagings a client trains its model as it is. Assran et al. 2019
    (stochastic gradient push) train s, with the gradient at s / w, so there a step
    counts 1 / w times as much in s / w.

    If a message is lost that its sender believed sent, its share is lost from both
    sums: the limit is then Σ s / Σ w of what is left, a mean that favours others
    (Gerencsér and Hendrickx 2015). The training metric "push-sum-weight" is a client's
    w as it sends, so n less their sum is the weight that is lost. (Who comes back after
    it was killed begins with 1 again.) A schedule's lost links are known to the sender,
    as with acknowledgements.

    On a graph that never changes, totals in place of shares would make up for losses
    (Hadjicostis, Vaidya and Domínguez-García 2016), at the price of a copy of each
    neighbour's total. On one that does, a client cannot tell a lost message from one
    that was for others.

    References
    ----------
    Kempe, Dobra and Gehrke 2003, "Gossip-based computation of aggregate information",
    doi:10.1109/SFCS.2003.1238221. Gerencsér and Hendrickx 2015, "Push sum with
    transmission failures", arXiv:1504.08193. Hadjicostis, Vaidya and Domínguez-García
    2016, "Robust distributed average consensus via exchange of running sums",
    doi:10.1109/TAC.2015.2471695.
    """

    def send(self, model: Model, context: RoundContext) -> Model:
        """Return the model and, last, a share of the weight; keep a share."""
        context.metrics["push-sum-weight"] = weight = _weight(context)
        # Where all messages are lost for long, no weight becomes 0.
        share = np.asarray(
            np.maximum(weight / (1 + np.asarray(context.receivers)), _LEAST)
        )
        context.state[_WEIGHT] = ArrayRecord([share])
        return [*model, share]

    def __call__(
        self, own: Model, neighbours: Models, weights: np.ndarray, context: RoundContext
    ) -> Model:
        """Add up the shares."""
        weight = _weight(context)

        def read(message: Model) -> tuple[Model, np.ndarray]:
            *model, share = message
            check_model([*model, share], [*own, weight], whose="the message's")
            if (share <= 0).any():
                raise ValueError(f"a share of the weight is above 0, not {share.min()}")
            return model, share

        came, _ = context.read(neighbours, weights, read)
        shares = np.stack([weight, *(share for _, share in came)])
        total = np.asarray(shares.sum(axis=0))
        context.state[_WEIGHT] = ArrayRecord([total])
        return weighted_mean(own, [model for model, _ in came], shares / total)


def _weight(context: RoundContext) -> np.ndarray:
    if _WEIGHT not in context.state:
        return np.ones(context.batch)
    (weight,) = unpack(context.state.array_records[_WEIGHT])
    return weight
