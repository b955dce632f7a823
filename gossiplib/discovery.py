"""Who hears whom in a round: what the schedule offers, and what the clients choose.

The server's `Gossip` asks a `Neighbourhood` for each round's graph and mixing matrix.
"""

from collections.abc import Callable

import networkx as nx
import numpy as np
from flwr.app import ConfigRecord

from gossiplib import mixing, topology
from gossiplib.calls import Calls

__all__ = ["Neighbourhood"]


class Neighbourhood:
    """The graph and the weights of each round, in one run.

    Parameters
    ----------
    schedule : networkx.Graph or callable
        See `topology`.
    n : int
        Number of clients.
    weights : callable
        graph -> mixing matrix W; see `mixing`.
    every : int
        Rounds after which all clients choose anew; 0 is never.

    Attributes
    ----------
    chosen : dict[int, list[int]]
        Client -> the neighbours that it chose. It chooses again when it is not there.
    graph : networkx.Graph
        Who hears whom in this round; None before the first that is run.
    W : numpy.ndarray
        Its mixing matrix, shape (n, n).
    """

    def __init__(
        self,
        schedule: topology.Schedule,
        n: int,
        weights: Callable[[nx.Graph], np.ndarray],
        every: int,
    ) -> None:
        self._schedule, self._n = schedule, n
        self._weights, self._every = weights, every
        self._static = isinstance(schedule, nx.Graph)
        self.chosen: dict[int, list[int]] = {}
        self.graph: nx.Graph | None = None

    def update(self, server_round: int, calls: Calls) -> None:
        """Offer the round's candidates to clients that have to choose; form the graph.

        The schedule decides in each round who is online and which links hold. A choice
        lasts until it is due again. Clients that failed to choose are asked again in
        the next round; until then they hear nobody.
        """
        first = self.graph is None
        offer = topology.at(self._schedule, server_round)
        if first or not self._static:
            topology.check_graph(offer, self._n, connected=self._static)
        if self._every and (server_round - 1) % self._every == 0:
            self.chosen = {}
        online = [i for i in calls.nodes if topology.is_online(offer, i)]
        offered = {i: topology.senders(offer, i) for i in online}
        ask = [i for i in online if i not in self.chosen]
        if self._static and not first and not ask:
            return
        self._ask({i: offered[i] for i in ask}, server_round, calls)
        heard = {
            i: [j for j in self.chosen.get(i, []) if j in offered[i]] for i in online
        }
        self.graph = offer
        if heard != offered:
            self.graph = nx.DiGraph((j, i) for i in online for j in heard[i])
            self.graph.add_nodes_from(offer.nodes(data=True))
        self.W = self._weights(self.graph)
        mixing.check_weights(self.W, self.graph)

    def forget(self, client: int) -> None:
        """Let a client choose anew in the next round, as it has just come."""
        self.chosen.pop(client, None)

    def _ask(
        self, offered: dict[int, list[int]], server_round: int, calls: Calls
    ) -> None:
        """Call the discover function of clients; keep their choices."""
        messages = []
        for i, candidates in offered.items():
            offer = {"candidates": candidates, "server-round": server_round}
            told = ConfigRecord(offer)
            messages.append(calls.message("query.discover", i, gossip=told))
        for reply in calls.send(messages):
            i = calls.client_of(reply)
            chosen = reply.content.get("gossip", {}).get("neighbours")
            if isinstance(chosen, list) and set(chosen) <= set(offered[i]):
                self.chosen[i] = sorted({int(j) for j in chosen})
            else:
                reason = f"chose {chosen}, not of {offered[i]}"
                calls.lose(i, "query.discover", reason)
