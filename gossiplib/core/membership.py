"""The clients of a run, as the server sees them: who is there, and who hears whom.

In each round the schedule offers neighbours, clients choose among them, and the choice
becomes the round's graph and its mixing matrix W. A client that joins after the first
round, or again after it was killed, starts from the model of one of its neighbours.
"""

import logging
from typing import Protocol

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from gossiplib.core import adjacency, mixing, topology
from gossiplib.core.calls import Calls
from gossiplib.core.models import check_arrays, check_model
from gossiplib.system.records import only_arrays, unpack
from gossiplib.system.runs import due

logger = logging.getLogger("gossiplib")


class Plan(Protocol):
    """What decides who hears whom, and how much: see `server.Gossip`."""

    num_clients: int
    schedule: topology.Schedule
    weights: mixing.Weights
    discover_every: int


class Membership:
    """The clients of one run of a plan, a `Gossip` strategy.

    Those that are there in the first round begin with the model `initial`.
    """

    offer: topology.Graph  # what the schedule gives in this round
    graph: topology.Graph  # who hears whom in it
    W: mixing.Matrix  # its mixing matrix

    def __init__(self, calls: Calls, plan: Plan, initial: ArrayRecord) -> None:
        self.calls = calls
        #: Client -> the neighbours that it chose. Who is not in it chooses next round.
        self.chosen: dict[int, list[int]] = {}
        #: Clients that have trained.
        self.have_model: set[int] = set()
        #: Clients that joined after the first round, and wait for a first model; and
        #: the first models of those that got one from a neighbour.
        self.late: set[int] = set()
        self.first: dict[int, ArrayRecord] = {}
        #: What clients have for their neighbours in this round: models, or messages
        #: that they encoded.
        self.trained: dict[int, ArrayRecord] = {}
        self._plan, self._initial = plan, initial
        self._static = not callable(plan.schedule)
        self._offer: object = None  # what tells the last one from the next
        self._warned = False

    def welcome(self) -> None:
        """Let clients join that come late, or come back after they were killed."""
        for i in self.calls.welcome(self._plan.num_clients):
            self.have_model.discard(i)
            self.first.pop(i, None)
            self.chosen.pop(i, None)
            self.late.add(i)

    def discover(self, server_round: int) -> None:
        """Let clients choose that have to; form the round's graph and its W.

        A choice lasts until it is due again, or the one graph of all rounds has been
        changed. Clients that failed to choose are asked again in the next round; until
        then they hear nobody.
        """
        plan, offer = self._plan, topology.at(self._plan.schedule, server_round)
        self.offer = offer
        before, self._offer = self._offer, adjacency.seen(offer)
        changed = self._offer != before
        if changed or not self._static:
            topology.check_graph(offer, plan.num_clients, connected=self._static)
        replaced = changed and self._static and before is not None
        if replaced or due(server_round - 1, plan.discover_every):
            self.chosen = {}
        online = [i for i in self.calls.nodes if topology.is_online(offer, i)]
        offered = {i: topology.senders(offer, i) for i in online}
        undecided = {i: offered[i] for i in online if i not in self.chosen}
        if self._static and not changed and not undecided:
            return
        self._choose(undecided, server_round)
        heard = {
            i: [j for j in self.chosen.get(i, []) if j in offered[i]] for i in online
        }
        self.graph = offer
        if heard != offered:
            pairs = [(j, i) for i in online for j in heard[i]]
            senders, receivers = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
            away = ~adjacency.online(offer)
            self.graph = adjacency.alike(
                offer, senders, receivers, directed=True, away=away
            )
        W = plan.weights(self.graph)
        mixing.check_weights(W, self.graph)
        self.W = W.tocsr() if hasattr(W, "tocsr") else W  # others give no W[i, j]
        if self.W.min() < 0 and not self._warned:
            self._warned = True
            logger.warning(
                "some weights are below 0: averages may leave the range of the models"
            )

    def _choose(self, offered: dict[int, list[int]], server_round: int) -> None:
        """Call the discover function of clients; keep their choices."""
        messages = []
        for i, candidates in offered.items():
            offer = ConfigRecord({"server-round": server_round})
            offer["candidates"] = candidates
            messages.append(self.calls.message("query.discover", i, gossip=offer))
        for reply in self.calls.send(messages):
            i = self.calls.client_of(reply)
            answer = reply.content.config_records.get("gossip", ConfigRecord())
            chosen = answer.get("neighbours")
            if isinstance(chosen, list) and set(chosen) <= set(offered[i]):
                self.chosen[i] = sorted({int(j) for j in chosen})
            else:
                reason = f"chose {chosen!r}, not of {offered[i]}"
                self.calls.lose(i, "query.discover", reason)

    def catch_up(self) -> list[ArrayRecord]:
        """Fetch a first model for each late client from a neighbour; return them."""
        fetched = []
        for i in sorted(self.late):
            for j in topology.senders(self.graph, i):
                if i in self.late and j in self.have_model:
                    for arrays in self.models([j], counted=True).values():
                        self.first[i] = arrays
                        self.late.remove(i)
                        fetched.append(arrays)
        return fetched

    def first_model(self, client: int) -> dict[str, ArrayRecord]:
        """Return what a client needs that has no model yet: the first one."""
        if client in self.have_model:
            return {}
        return {"arrays": self.first.get(client, self._initial)}

    def models(
        self, clients: list[int], *, counted: bool = False
    ) -> dict[int, ArrayRecord]:
        """Ask clients for their models, `counted` as traffic; return the sound ones."""
        asked = [self.calls.message("query.model", i) for i in clients]
        replies = self.calls.send(asked, counted=counted)
        models = {self.calls.client_of(r): self.sound_model(r) for r in replies}
        return {i: arrays for i, arrays in models.items() if arrays is not None}

    def sound_model(self, reply: Message) -> ArrayRecord | None:
        """Return the model in a reply, or book the call as lost.

        What the client has encoded is for its neighbours to read.
        """

        def parse(content: RecordDict) -> ArrayRecord:
            arrays = only_arrays(content)
            if reply.metadata.message_type == "train" and "gossip" in content:
                check_model(unpack(arrays), whose="its encoded")
                return arrays
            return check_arrays(arrays, self._initial)

        return self.calls.read(reply, parse)
