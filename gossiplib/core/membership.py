"""The clients of a run, as the server sees them: who has a model, and who comes late.

A client that joins after the first round, or again after it was killed, starts from
the model of one of its neighbours. The calls themselves are in `calls`; what the server
does with models in `server`.

Who hears whom in a round: what the schedule offers, and what the clients choose.

The server's `Gossip` asks a `Neighbourhood` for each round's graph and mixing matrix.
"""

from collections.abc import Callable

import networkx as nx
import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message

from gossiplib.core import mixing, topology
from gossiplib.core.averaging import check_model
from gossiplib.core.calls import Calls
from gossiplib.core.models import check_arrays, only_arrays, unpack

__all__ = ["Members", "Neighbourhood"]


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


class Members:
    """The clients of one run, and their models.

    Parameters
    ----------
    calls : Calls
        Calls to the clients.
    neighbourhood : Neighbourhood
        Who hears whom.
    initial : flwr.app.ArrayRecord
        The first model of those that are there in the first round.

    Attributes
    ----------
    have_model : set of int
        Clients that have trained.
    late : set of int
        Clients that joined after the first round, and wait for a first model.
    first : dict[int, flwr.app.ArrayRecord]
        The first models of those that got one from a neighbour.
    """

    def __init__(
        self, calls: Calls, neighbourhood: Neighbourhood, initial: ArrayRecord
    ) -> None:
        self.calls, self.neighbourhood = calls, neighbourhood
        self.have_model: set[int] = set()
        self.late: set[int] = set()
        self.first: dict[int, ArrayRecord] = {}
        self._initial = initial

    def welcome(self, n: int) -> None:
        """Let clients join that come late, or come back after they were killed."""
        for i in self.calls.welcome(n):
            self.have_model.discard(i)
            self.first.pop(i, None)
            self.neighbourhood.forget(i)
            self.late.add(i)

    def catch_up(self) -> list[ArrayRecord]:
        """Fetch a first model from a neighbour for each client that came late.

        Returns the models, which have travelled.
        """
        graph, fetched = self.neighbourhood.graph, []
        for i in sorted(self.late):
            for j in topology.senders(graph, i):
                if i in self.late and j in self.have_model:
                    for arrays in self.look([j], counted=True).values():
                        self.first[i] = arrays
                        self.late.remove(i)
                        fetched.append(arrays)
        return fetched

    def first_model(self, client: int) -> dict[str, ArrayRecord]:
        """Return what a client needs that has no model yet: the first one."""
        if client in self.have_model:
            return {}
        return {"arrays": self.first.get(client, self._initial)}

    def look(
        self, clients: list[int], *, counted: bool = False
    ) -> dict[int, ArrayRecord]:
        """Ask clients for their models."""
        asked = [self.calls.message("query.model", i) for i in clients]
        replies = self.calls.send(asked, counted=counted)
        models = {self.calls.client_of(r): self.sound_model(r) for r in replies}
        return {i: arrays for i, arrays in models.items() if arrays is not None}

    def sound_model(self, reply: Message) -> ArrayRecord | None:
        """Return the model in a reply, or book the call as lost.

        A message that the client has encoded (see `averaging`, `send`) is for its
        neighbours to read.
        """
        trained = reply.metadata.message_type == "train"
        encoded = trained and "gossip" in reply.content
        try:
            arrays = only_arrays(reply.content)
            if encoded:
                check_model(unpack(arrays), unpack(arrays), whose="its encoded")
            else:
                check_arrays(arrays, self._initial)
        except Exception as error:  # whatever comes of bytes that a client has made up
            call, client = reply.metadata.message_type, self.calls.client_of(reply)
            self.calls.lose(client, call, f"its model cannot be used: {error}")
            return None
        return arrays
