"""Messages on their way, without rounds: who sends when, to whom, and what gets lost.

Time is cut into *slots*, some to a cycle. Each client has a timer that wakes it once in
a cycle, in a slot of its own. In a slot, first messages leave: of the clients that
wake, if their token accounts let them (see `tokens`), and the answers to what arrived
in the slot before. Then messages arrive, in a random order. What is in a message is
the engine's matter: `asynchronous.engine` or `asynchronous.client`.

Token accounts: who may send when, so that news travels fast and traffic stays low.

In Danner and Jelasity's flow control (2018, doi:10.1109/ICDCS.2018.00090) a client gets
one token in each period. When its timer wakes it, it sends a message, or it saves the
token: `proactive` is the probability that it sends. When it receives a message, it
spends tokens on messages of its own, at once: `reactive` is their number. So it never
sends more messages than it was given tokens, and news need not wait for a timer.

An *account* has these two functions, of one client's balance or of many at once. All
accounts of a run are alike; `network` keeps the balances.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import networkx as nx
import numpy as np

from gossiplib.core import mixing, topology
from gossiplib.system.numbers import check_whole

__all__ = [
    "Account",
    "Generalised",
    "Network",
    "Randomised",
    "Simple",
    "Traffic",
    "arrivals",
]


class Account(Protocol):
    """What flow control needs to know of an account.

    A client that does not send at its wake-up gains a token. One that sends then gains
    none, so with ``proactive(C) == 1`` no balance grows beyond C.
    """

    def proactive(self, tokens: np.ndarray) -> np.ndarray:
        """Return the probability to send at the timer's wake-up.

        Parameters
        ----------
        tokens : numpy.ndarray
            Balance of each client, shape (clients,).
        """

    def reactive(self, tokens: np.ndarray, useful: np.ndarray) -> np.ndarray:
        """Return how many messages the receipt of one triggers, at most the balance.

        Parameters
        ----------
        tokens : numpy.ndarray
            Balance of each client, shape (clients,).
        useful : numpy.ndarray
            Whether the message that it received was useful, shape (clients,), bool.

        Returns
        -------
        numpy.ndarray
            Number of messages, each paid with a token. It need not be whole: 1.3 is 1
            message, and with probability 0.3 another one.
        """


@dataclass(frozen=True)
class Simple:
    """Send at the timer if the account is full; answer each message if it is not empty.

    Parameters
    ----------
    capacity : int
        C, the most tokens that can be saved. With 0 a client sends whenever its timer
        wakes it, and never else: plain gossip.
    """

    capacity: int

    def __post_init__(self) -> None:
        """Check the capacity."""
        check_whole("capacity", self.capacity, 0)

    def proactive(self, tokens: np.ndarray) -> np.ndarray:
        """Return 1 where tokens ≥ C, else 0."""
        return (np.asarray(tokens) >= self.capacity).astype(float)

    def reactive(self, tokens: np.ndarray, useful: np.ndarray) -> np.ndarray:
        """Return 1 where there is a token, else 0."""
        return (np.asarray(tokens) > 0).astype(float)


@dataclass(frozen=True)
class Generalised(Simple):
    """Answer with more messages where many tokens are saved.

    Parameters
    ----------
    capacity : int
        C, the most tokens that can be saved, at least 1.
    reactivity : int
        A, from 1 to C. With 1 all tokens are spent at once; with C, one.
    """

    reactivity: int

    def __post_init__(self) -> None:
        """Check capacity and reactivity."""
        check_whole("capacity", self.capacity, 1)
        check_whole("reactivity", self.reactivity, 1, self.capacity)

    def reactive(self, tokens: np.ndarray, useful: np.ndarray) -> np.ndarray:
        """Return ⌊(A - 1 + tokens) / A⌋, or about half of it for a useless message."""
        parts = np.where(useful, self.reactivity, 2 * self.reactivity)
        return np.floor((self.reactivity - 1 + np.asarray(tokens)) / parts)


@dataclass(frozen=True)
class Randomised(Generalised):
    """Send at the timer the more often, the more tokens are saved.

    Parameters as in `Generalised`.
    """

    def proactive(self, tokens: np.ndarray) -> np.ndarray:
        """Return (tokens - A + 1) / (C - A + 1), but from 0 to 1."""
        above = np.asarray(tokens) - self.reactivity + 1
        return np.clip(above / (self.capacity - self.reactivity + 1), 0, 1)

    def reactive(self, tokens: np.ndarray, useful: np.ndarray) -> np.ndarray:
        """Return tokens / A, and 0 for a useless message."""
        return np.where(useful, np.asarray(tokens) / self.reactivity, 0)


Choose = Callable[[np.ndarray, np.random.Generator], np.ndarray]


class Network(NamedTuple):
    """What the network does to messages and clients.

    Attributes
    ----------
    drop : float
        Probability that a message is lost.
    delay : int
        Most slots that a message takes; it takes 1, 2, ... or so many, at random. With
        1 it arrives in the slot in which it leaves.
    online : float
        Probability that a client is online in a cycle, drawn afresh in each. A client
        that is offline sends nothing, and what arrives at it is lost.
    """

    drop: float = 0.0
    delay: int = 1
    online: float = 1.0


class Traffic:
    """The messages of a run.

    Parameters
    ----------
    n : int
        Number of clients.
    seed : int
        Decides everything that is random. Loss and delay have random numbers of their
        own, so they change neither timers nor receivers.
    graph : networkx.Graph, optional
        To which clients each may send; by default to any other.
    slots : int
        Slots in a cycle.
    network : Network
        Loss, delay and churn.
    account : Account
        When clients send.

    Attributes
    ----------
    tokens : numpy.ndarray
        Balance of each client, shape (n,).
    sent : numpy.ndarray
        Messages that each client sent in this cycle, shape (n,).

    Raises
    ------
    ValueError
        If the graph does not fit, or a number is wrong.
    """

    def __init__(
        self,
        n: int,
        seed: int,
        *,
        graph: nx.Graph | None = None,
        slots: int = 1,
        network: Network = Network(),  # noqa: B008  it cannot change
        account: Account = Simple(0),  # noqa: B008
    ) -> None:
        if n < 2:
            raise ValueError("gossip takes at least 2 clients")
        check_whole("slots", slots, 1)
        check_whole("delay", network.delay, 1)
        for name in ("drop", "online"):
            if not 0 <= (p := getattr(network, name)) <= 1:
                raise ValueError(f"{name} is a probability, from 0 to 1; got {p}")
        self.n, self.slots_a_cycle = n, slots
        self.network, self.account = network, account
        self.tokens = np.zeros(n, dtype=np.int64)
        self.sent = np.zeros(n, dtype=np.int64)
        self._seed = seed
        self._choose = _receivers(graph, n)
        self._phase = np.random.default_rng([seed, *b"phase"]).integers(slots, size=n)
        self._owed = np.zeros(n, dtype=np.int64)  # answers that leave in the next slot
        self._flying = np.zeros((4, 0), dtype=np.int64)  # id, sender, receiver, due
        self._next_id = 0

    def slots(self, cycle: int) -> Iterator[int]:
        """Go through the slots of a cycle; their numbers in the run are 1, 2, ..."""
        self._online = self._rng("online", cycle).random(self.n) < self.network.online
        self.sent[:] = 0
        for slot in range(self.slots_a_cycle):
            self._slot = slot
            self._now = (cycle - 1) * self.slots_a_cycle + slot + 1
            self._main = self._rng("cycle", self._now)
            self._chance = self._rng("tokens", self._now)
            yield self._now

    def _rng(self, use: str, number: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, number, *use.encode()])

    def leave(self) -> np.ndarray:
        """Let the messages of this slot leave.

        Returns
        -------
        numpy.ndarray
            The sender of each. Messages are numbered through the run, from 0.
        """
        awake = np.flatnonzero((self._phase == self._slot) & self._online)
        chance = self.account.proactive(self.tokens[awake])
        sends = self._chance.random(len(awake)) < chance
        self.tokens[awake[~sends]] += 1
        answers = np.where(self._online, self._owed, 0)
        self._owed -= answers
        senders = [awake[sends], np.repeat(np.arange(self.n), answers)]
        senders = np.concatenate(senders)
        self.sent += np.bincount(senders, minlength=self.n)
        receivers = self._choose(senders, self._main)
        ids = self._next_id + np.arange(len(senders))
        self._next_id += len(senders)
        faults, (drop, delay, _) = self._rng("network", self._now), self.network
        takes = faults.integers(1, delay, size=len(senders), endpoint=True)
        arrives = faults.random(len(senders)) >= drop
        new = np.stack([ids, senders, receivers, self._now + takes - 1])
        self._flying = np.concatenate([self._flying, new[:, arrives]], axis=1)
        return senders

    def arrive(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Go through what arrives in this slot, many receivers at a time.

        Yields
        ------
        tuple of numpy.ndarray
            Number, sender and receiver of the k-th message that each receiver gets, for
            k = 1, 2, ...; no receiver is in it twice.
        """
        due = self._flying[3] == self._now
        came, self._flying = self._flying[:, due], self._flying[:, ~due]
        ids, senders, receivers, _ = came[:, self._online[came[2]]]
        for places, to in arrivals(receivers, self._main):
            yield ids[places], senders[places], to

    def flying(self) -> list[int]:
        """Return the numbers of the messages that have not arrived yet."""
        return self._flying[0].tolist()

    def react(self, receivers: np.ndarray, useful: np.ndarray) -> None:
        """Let receivers spend tokens on answers, which leave in the next slot.

        It is the receiver that answers, to a client of its own choice, and it pays.

        Parameters
        ----------
        receivers : numpy.ndarray
            Clients that received a message.
        useful : numpy.ndarray
            Whether the message was useful to them.
        """
        tokens = self.tokens[receivers]
        number = self.account.reactive(tokens, useful)
        number = np.floor(number + self._chance.random(len(receivers))).astype(np.int64)
        wrong = (number < 0) | (number > tokens)
        if wrong.any():
            k = wrong.argmax()
            raise ValueError(
                f"{self.account} spends {number[k]} tokens; the balance is {tokens[k]}"
            )
        self.tokens[receivers] -= number
        self._owed[receivers] += number


def _receivers(graph: nx.Graph | None, n: int) -> Choose:
    """Return a function that draws a receiver for each of some senders."""
    if graph is None:
        # One of the n - 1 others: those from the client itself on are one further.
        return lambda senders, rng: (
            (draws := rng.integers(n - 1, size=len(senders))) + (draws >= senders)
        )
    topology.check_graph(graph, n)
    if away := [i for i in graph if not topology.is_online(graph, i)]:
        raise ValueError(f"client {away[0]} is offline in the graph, for the whole run")
    to, senders = mixing.links(graph)
    order = np.argsort(senders, kind="stable")
    degree = np.bincount(senders, minlength=n)
    starts = np.cumsum(degree) - degree
    return lambda some, rng: to[order[starts[some] + rng.integers(degree[some])]]


def arrivals(
    receivers: np.ndarray, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Go through messages in the order of arrival, many receivers at a time.

    Parameters
    ----------
    receivers : numpy.ndarray
        The receiver of each message.
    rng : numpy.random.Generator
        For the order, which is random.

    Yields
    ------
    tuple of numpy.ndarray
        Places in `receivers`, and the receivers there, of the k-th message that each
        receiver gets, for k = 1, 2, ...; no receiver is in it twice.
    """
    places = rng.permutation(len(receivers))
    places = places[np.argsort(receivers[places], kind="stable")]
    ordered = receivers[places]
    number = np.arange(len(ordered)) - np.searchsorted(ordered, ordered)
    for k in range(number.max(initial=-1) + 1):
        yield places[number == k], ordered[number == k]
