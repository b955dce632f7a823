"""Whom to hear: discover functions, by what a client heard or by what others tell.

`LikeModels` goes by models: it hears the candidates whose models were nearest to the
own one, dist_ij = ‖M_i - M_j‖, measured when M_j came; and some at random.

The others go by data. p_i are the shares of the classes that client i told once, see
`labels`, and p is their mean over all clients. `like_labels` takes the candidates with
the least ‖p_i - p_j‖₁, `unlike_labels` those who, one after another, bring the mean of
the shares nearest to p.
"""

from dataclasses import KW_ONLY, dataclass
from math import inf
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Context

from gossiplib.core.averaging import Model, Models
from gossiplib.core.client import Discover
from gossiplib.core.context import RoundContext
from gossiplib.protocols.labels import shares_of, skew
from gossiplib.system.numbers import check_share, check_whole, rng

__all__ = ["LikeModels", "like_labels", "unlike_labels"]


@dataclass(frozen=True)
class LikeModels:
    """Hear the clients whose models were nearest to the own one: a discover function.

    A client cannot know whom it never heard. So each of its places goes, with
    probability `explore`, to a candidate at random; in the first round all do.

    Parameters
    ----------
    k : int
        How many clients to hear; with fewer candidates all.
    explore : float
        Share of places for candidates at random.
    seed : int
        With the client and the round, it decides the draws.

    Raises
    ------
    ValueError
        If k is not at least 1, or `explore` is no share.

    References
    ----------
    The idea, with losses on the own data for distances: Onoszko and others 2021,
    "Decentralized federated learning of deep neural networks on non-iid data" (PENS),
    arXiv:2107.08517; Listo Zec and others 2022, "Decentralized adaptive clustering of
    deep nets is beneficial for client collaboration" (DAC), arXiv:2206.08839.
    """

    k: int
    _: KW_ONLY
    explore: float = 0.25
    seed: int = 0

    def __post_init__(self) -> None:
        """Check what is given."""
        check_whole("k", self.k, 1)
        check_share("explore", self.explore)

    def hear(self, own: Model, neighbours: Models, context: RoundContext) -> None:
        """Remember how far each model that came is from the own one.

        Parameters
        ----------
        own, neighbours, context
            The client's own model, those that came, and a context that names `senders`.
        """
        kept: Any = context.state.get("distances", {})
        distances = ConfigRecord({**kept})
        for j, model in zip(context.senders, neighbours, strict=True):
            apart = [
                np.subtract(a, b, dtype=np.float64)
                for a, b in zip(own, model, strict=True)
            ]
            distances[str(j)] = float(np.sqrt(sum((a**2).sum() for a in apart)))
        context.state["distances"] = distances

    def __call__(
        self, candidates: list[int], server_round: int, context: Context
    ) -> list[int]:
        """Return the nearest of the candidates, and some at random."""
        known: Any = context.state.get("distances", {})
        draw = rng(self.seed, int(context.node_config["partition-id"]), server_round)
        order = draw.permutation(candidates).tolist()
        near = sorted(order, key=lambda j: known.get(str(j), inf))
        near = near[: self.k - draw.binomial(self.k, self.explore)]
        others = [j for j in order if j not in near]
        return near + others[: self.k - len(near)]


def like_labels(told: np.ndarray, k: int) -> Discover:
    """Return a discover function: the k candidates whose labels are most alike.

    Parameters
    ----------
    told : numpy.ndarray
        What each client told, see `tell_labels`, shape (clients, classes).
    k : int
        How many; with fewer candidates it takes all.
    """
    shares = shares_of(told)

    def discover(
        candidates: list[int], server_round: int, context: Context
    ) -> list[int]:
        own = shares[int(context.node_config["partition-id"])]
        return sorted(candidates, key=lambda j: np.abs(shares[j] - own).sum())[:k]

    return discover


def unlike_labels(told: np.ndarray, k: int) -> Discover:
    """Return a discover function: k candidates who make up for the own labels.

    One after another it takes whoever brings the mean of its own shares and those of
    the chosen nearest to the mean of all clients.

    Parameters
    ----------
    told, k
        Those of `like_labels`.
    """
    shares = shares_of(told)

    def discover(
        candidates: list[int], server_round: int, context: Context
    ) -> list[int]:
        chosen, left = [int(context.node_config["partition-id"])], [*candidates]
        while left and len(chosen) <= k:
            best = min(left, key=lambda j: skew(shares, [*chosen, j]))
            left.remove(best)
            chosen.append(best)
        return chosen[1:]

    return discover
