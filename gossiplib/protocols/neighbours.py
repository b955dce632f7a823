"""Whom to hear: discover functions, by what a client heard or by what others tell.

`LikeModels` goes by models: it hears each candidate once, and then those whose models
were nearest to its own. ‖M_i - M_j‖ was measured when M_j came last.

The others go by data. p_i are the shares of the classes that client i told once, see
`labels`, and p is their mean over all clients. `LikeLabels` takes the candidates with
the least ‖p_i - p_j‖₁, `UnlikeLabels` those who, one after another, bring the mean of
the shares nearest to p.
"""

from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Context

from gossiplib.core.averaging import Model, Models
from gossiplib.core.context import RoundContext
from gossiplib.protocols.labels import shares_of, skew
from gossiplib.protocols.robust import distances
from gossiplib.system.numbers import check_share, check_whole, rng, settle

__all__ = ["LikeLabels", "LikeModels", "UnlikeLabels"]


@dataclass(frozen=True)
class LikeModels:
    """Hear the clients whose models were nearest to its own: a discover function.

    A client cannot judge whom it never heard. So those come first, in an order of
    chance, and the nearest when all have been heard once. A distance stays as it was
    until the client hears that one again: where clients change with time, `explore`.

    Parameters
    ----------
    k : int
        How many clients to hear; with fewer candidates all.
    explore : float
        Probability that a place goes to any candidate, by chance.
    seed : int
        With the client and the round, it decides the draws.

    Raises
    ------
    ValueError
        If k is not at least 1, or `explore` is no share.

    References
    ----------
    The idea, with losses on the client's data for distances: Onoszko and others 2021,
    "Decentralized federated learning of deep neural networks on non-iid data" (PENS),
    arXiv:2107.08517; Listo Zec and others 2022, "Decentralized adaptive clustering of
    deep nets is beneficial for client collaboration" (DAC), arXiv:2206.08839.
    """

    k: int
    _: KW_ONLY
    explore: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check what is given."""
        settle(self, check_whole, "k", 1)
        check_share("explore", self.explore)

    def hear(self, own: Model, neighbours: Models, context: RoundContext) -> None:
        """Remember how far each model that came is from its own.

        Parameters
        ----------
        own, neighbours, context
            The client's own model, those that came, and a context that names `senders`.
        """
        kept: Any = context.state.get("distances", {})
        known = ConfigRecord({**kept})
        for j, far in zip(context.senders, distances(own, neighbours), strict=True):
            known[str(j)] = float(far)
        context.state["distances"] = known

    def __call__(
        self, candidates: list[int], server_round: int, context: Context
    ) -> list[int]:
        """Return those never heard, then the nearest; some by chance."""
        known: Any = context.state.get("distances", {})
        draw = rng(self.seed, int(context.node_config["partition-id"]), server_round)
        order = draw.permutation(candidates).tolist()
        near = sorted(order, key=lambda j: known.get(str(j), -1.0))
        near = near[: self.k - draw.binomial(self.k, self.explore)]
        others = [j for j in order if j not in near]
        return near + others[: self.k - len(near)]


@dataclass(frozen=True, eq=False)
class LikeLabels:
    """Hear the k clients whose labels are most alike: a discover function.

    Parameters
    ----------
    told : numpy.ndarray
        What each client told, see `tell_labels`, shape (clients, classes).
    k : int
        How many clients to hear; with fewer candidates all.

    Raises
    ------
    ValueError
        If k is not at least 1.
    """

    told: np.ndarray = field(repr=False)  # a checkpoint would name them all
    k: int

    def __post_init__(self) -> None:
        """Check what is given."""
        settle(self, check_whole, "k", 1)

    def __call__(
        self, candidates: list[int], server_round: int, context: Context
    ) -> list[int]:
        """Return the candidates with the least ‖p_i - p_j‖₁."""
        shares = shares_of(self.told)
        apart = np.abs(shares - shares[int(context.node_config["partition-id"])])
        return sorted(candidates, key=lambda j: apart[j].sum())[: self.k]


@dataclass(frozen=True, eq=False)
class UnlikeLabels(LikeLabels):
    """Hear k clients who make up for its labels: a discover function.

    One after another it takes whoever brings the mean of its own shares and those of
    the chosen nearest to the mean of all. What it takes is as for `LikeLabels`.
    """

    def __call__(
        self, candidates: list[int], server_round: int, context: Context
    ) -> list[int]:
        """Return the chosen, one after another."""
        shares, left = shares_of(self.told), [*candidates]
        chosen = [int(context.node_config["partition-id"])]
        while left and len(chosen) <= self.k:
            best = min(left, key=lambda j: skew(shares, [*chosen, j]))
            left.remove(best)
            chosen.append(best)
        return chosen[1:]
