"""Averages whose messages carry a number beside the model: ages, push-sum's weights.

Average functions with a `send`, see `averaging`. Each keeps its number in the state of
the client.
"""

from collections.abc import Sequence

import numpy as np
from flwr.app import ArrayRecord

from gossiplib.core.averaging import Model, weighted_mean
from gossiplib.core.context import RoundContext
from gossiplib.core.models import unpack

__all__ = ["AgeWeighted", "PushSum"]


class PushSum:
    """Average on directed graphs, where clients hear more or fewer than hear them.

    A client has a value s and a weight w, 1 at first. In each round it cuts both into
    equal shares, one for each receiver and one for itself, and adds up what it gets.
    The sums of all s and of all w never change, so s / w tends to the mean of all
    clients. Plain averaging tends to another mean, in which clients count by how far
    they are heard.

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

    _KEY = "gossip.push-sum"

    def send(self, model: Model, turn: RoundContext) -> Model:
        """Send the model, and a share of the weight; keep a share."""
        weight = self._weight(turn)
        share = np.asarray(weight / (1 + np.asarray(turn.receivers)))
        turn.state[self._KEY] = ArrayRecord([share])
        return [*model, share]

    def __call__(
        self,
        own: Model,
        neighbours: Sequence[Model],
        weights: np.ndarray,
        turn: RoundContext,
    ) -> Model:
        """Add up the shares."""
        kept = self._weight(turn)
        shares = np.stack([kept, *(said[-1] for said in neighbours)])
        total = shares.sum(axis=0)
        turn.state[self._KEY] = ArrayRecord([np.asarray(total)])
        return weighted_mean(own, [said[:-1] for said in neighbours], shares / total)

    def _weight(self, turn: RoundContext) -> np.ndarray:
        if self._KEY not in turn.state:
            return np.ones(np.shape(turn.node_config["partition-id"]))
        (weight,) = unpack(turn.state[self._KEY])
        return weight


class AgeWeighted:
    """Average models by their ages: one that was trained longer counts more.

    The age of a model is the number of rounds of training in it. A client that was
    offline for long, or joins late, adopts what the others have learned instead of
    pulling it back. The weight of each model is that of the mixing matrix times its
    age, and the average is as old as the oldest.

    References
    ----------
    Hegedűs, Danner and Jelasity 2021, "Decentralized learning works: an empirical
    comparison of gossip learning and federated learning",
    doi:10.1016/j.jpdc.2020.10.006.
    """

    _KEY = "gossip.age"

    def send(self, model: Model, turn: RoundContext) -> Model:
        """Send the model and its age, one more than before, as it has been trained."""
        age = np.asarray(1 + self._age(turn))
        turn.state[self._KEY] = ArrayRecord([age])
        return [*model, age]

    def __call__(
        self,
        own: Model,
        neighbours: Sequence[Model],
        weights: np.ndarray,
        turn: RoundContext,
    ) -> Model:
        """Average with weights in proportion to the ages."""
        ages = np.stack([self._age(turn), *(said[-1] for said in neighbours)])
        by_age = np.asarray(weights) * ages
        turn.state[self._KEY] = ArrayRecord([np.asarray(ages.max(axis=0))])
        models = [said[:-1] for said in neighbours]
        return weighted_mean(own, models, by_age / by_age.sum(axis=0))

    def _age(self, turn: RoundContext) -> np.ndarray:
        if self._KEY not in turn.state:
            return np.zeros(np.shape(turn.node_config["partition-id"]))
        (age,) = unpack(turn.state[self._KEY])
        return age
