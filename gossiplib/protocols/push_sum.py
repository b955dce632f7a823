"""Push-sum: averages on directed graphs, by messages that carry a weight."""

from dataclasses import dataclass

import numpy as np
from flwr.app import ArrayRecord

from gossiplib.core.averaging import Model, Models, weighted_mean
from gossiplib.core.context import RoundContext
from gossiplib.system.records import unpack

__all__ = ["PushSum"]

_WEIGHT = "gossip.push-sum"


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
    sums: the limit is then a mean that favours others. A schedule's lost links are
    known to the sender, as with acknowledgements.

    References
    ----------
    Kempe, Dobra and Gehrke 2003, "Gossip-based computation of aggregate information",
    doi:10.1109/SFCS.2003.1238221.
    """

    def send(self, model: Model, context: RoundContext) -> Model:
        """Return the model and, last, a share of the weight; keep a share."""
        share = np.asarray(_weight(context) / (1 + np.asarray(context.receivers)))
        context.state[_WEIGHT] = ArrayRecord([share])
        return [*model, share]

    def __call__(
        self, own: Model, neighbours: Models, weights: np.ndarray, context: RoundContext
    ) -> Model:
        """Add up the shares."""
        shares = np.stack([_weight(context), *(sent[-1] for sent in neighbours)])
        total = np.asarray(shares.sum(axis=0))
        context.state[_WEIGHT] = ArrayRecord([total])
        return weighted_mean(own, [sent[:-1] for sent in neighbours], shares / total)


def _weight(context: RoundContext) -> np.ndarray:
    if _WEIGHT not in context.state:
        return np.ones(context.batch)
    (weight,) = unpack(context.state.array_records[_WEIGHT])
    return weight
