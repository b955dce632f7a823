"""The clients of a run, as the server sees them: who has a model, and who comes late.

A client that joins after the first round, or again after it was killed, starts from
the model of one of its neighbours. The calls themselves are in `calls`; what the server
does with models in `server`.
"""

from flwr.app import ArrayRecord, Message

from gossiplib import topology
from gossiplib.arrays import check_arrays, only_arrays, unpack
from gossiplib.averaging import check_model
from gossiplib.calls import Calls
from gossiplib.discovery import Neighbourhood

__all__ = ["Members"]


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
