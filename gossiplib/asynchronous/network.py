"""Messages on their way: who sends when, to whom, and what becomes of a message.

Time is cut into *slots*, some to a cycle. Each client has a timer that wakes it once in
a cycle, in a slot of its own. In a slot, first messages leave: of the clients that
wake, if their token accounts let them, and the answers to what arrived in the slot
before. Then messages arrive, in a random order. What is in them is the engines' matter.

A *token account* decides how many messages a client may send, so that news travels fast
and traffic stays low (Danner and Jelasity 2018, doi:10.1109/ICDCS.2018.00090). A client
gets a token in each cycle. When its timer wakes it, it sends a message, with the
probability `proactive`, or saves the token. When it receives a message, it spends
tokens on `reactive` messages of its own, at once. So it never sends more messages than
it was given tokens, and news need not wait for a timer.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from gossiplib.asynchronous.seconds import Pace
from gossiplib.core import mixing, topology
from gossiplib.core.adjacency import Graph, online
from gossiplib.system.numbers import (
    check_number,
    check_share,
    check_whole,
    rng,
    settle,
)

__all__ = [
    "GeneralizedTokenAccount",
    "NetworkModel",
    "RandomizedTokenAccount",
    "SimpleTokenAccount",
    "TokenAccount",
    "Traffic",
]


class TokenAccount(Protocol):
    """What flow control asks of an account; `tokens` are all clients' balances.

    Arrays have the shape (clients,). A client that does not send at its wake-up gains a
    token; one that sends gains none, so with ``proactive(C) == 1`` no balance grows
    beyond C.
    """

    def proactive(self, tokens: np.ndarray) -> np.ndarray:
        """Return the probability to send at the timer's wake-up."""

    def reactive(self, tokens: np.ndarray, useful: np.ndarray) -> np.ndarray:
        """Return how many messages the receipt of a (useful) one triggers.

        Each is paid with a token, so they are at most the balance. The number need not
        be whole: 1.3 is 1 message, and with probability 0.3 another one.
        """


@dataclass(frozen=True)
class SimpleTokenAccount:
    """Send at the timer if the account is full; answer each message if it is not empty.

    Its `capacity` C is the most tokens that can be saved. With 0 a client sends
    whenever its timer wakes it, and never else: plain gossip.
    """

    capacity: int

    def __post_init__(self) -> None:
        """Check the capacity."""
        settle(self, check_whole, "capacity", 0)

    def proactive(self, tokens: np.ndarray) -> np.ndarray:
        """Return 1 where tokens ≥ C, else 0."""
        return np.where(tokens >= self.capacity, 1.0, 0.0)

    def reactive(self, tokens: np.ndarray, useful: np.ndarray) -> np.ndarray:
        """Return 1 where there is a token, else 0.

        Parameters
        ----------
        tokens, useful : numpy.ndarray
            Of each client; the answer is the same to any message.
        """
        return np.where(tokens > 0, 1.0, 0.0)


@dataclass(frozen=True)
class GeneralizedTokenAccount(SimpleTokenAccount):
    """Send at the timer if the account is full; answer more, the more is saved.

    Parameters
    ----------
    capacity, reactivity : int
        C, the most tokens that can be saved, at least 1; and A, from 1 to C. With an A
        of 1 all tokens are spent at once; with C, one.
    """

    reactivity: int

    def __post_init__(self) -> None:
        """Check capacity and reactivity."""
        settle(self, check_whole, "capacity", 1)
        settle(self, check_whole, "reactivity", 1, self.capacity)

    def reactive(self, tokens: np.ndarray, useful: np.ndarray) -> np.ndarray:
        """Return ⌊(A - 1 + tokens) / A⌋, or about half of it for a useless message.

        Parameters
        ----------
        tokens, useful : numpy.ndarray
            Of each client.
        """
        parts = np.where(useful, self.reactivity, 2 * self.reactivity)
        return np.floor((self.reactivity - 1 + tokens) / parts)


@dataclass(frozen=True)
class RandomizedTokenAccount(GeneralizedTokenAccount):
    """Send at the timer the more often, and answer the more, the more is saved.

    Parameters
    ----------
    capacity, reactivity : int
        C, the most tokens that can be saved, at least 1; and A, from 1 to C. With a
        balance below A the timer never sends. An answer to a useful message takes a
        share 1/A of the balance, on average; a useless message gets none.
    """

    def proactive(self, tokens: np.ndarray) -> np.ndarray:
        """Return (tokens - A + 1) / (C - A + 1), but from 0 to 1."""
        above = tokens - self.reactivity + 1
        return np.clip(above / (self.capacity - self.reactivity + 1), 0, 1)

    def reactive(self, tokens: np.ndarray, useful: np.ndarray) -> np.ndarray:
        """Return tokens / A, and 0 for a useless message.

        Parameters
        ----------
        tokens, useful : numpy.ndarray
            Of each client.
        """
        return np.where(useful, tokens / self.reactivity, 0)


@dataclass(frozen=True)
class NetworkModel:
    """What the network does to messages and clients; by default it is perfect.

    Parameters
    ----------
    drop, online : float
        Probability that a message is lost; and the share of clients that are online, on
        average. One that is offline sends nothing, and what arrives at it is lost.
    delay : int
        Most slots that a message takes; it takes 1, 2, ... or so many, at random. With
        1 it arrives in the slot in which it leaves.
    session : float, optional
        Mean number of cycles that a client stays online: sessions, and the breaks
        between them, are of random length (geometric), and go on no longer because they
        are long. By default, who is online is drawn afresh in each cycle.

    Raises
    ------
    ValueError
        If a number is out of its range; or if sessions, or the breaks that would lead
        to this share online, are shorter than a cycle.
    """

    drop: float = 0.0
    delay: int = 1
    online: float = 1.0
    session: float | None = None

    def __post_init__(self) -> None:
        """Check the numbers."""
        check_share("drop", self.drop)
        settle(self, check_whole, "delay", 1)
        check_share("online", self.online)
        if self.session is None:
            return
        check_number("session", self.session)
        if not 0 < self.online < 1:
            raise ValueError(f"online {self.online} leaves nobody to come and go")
        least = max(1, self.online / (1 - self.online))
        if not least <= self.session < float("inf"):
            raise ValueError(
                f"session must be at least {least:.4g} cycles, and finite, where "
                f"{self.online} are online; got {self.session}"
            )

    def stays(self, here: np.ndarray) -> np.ndarray:
        """Return the probability to be online in the next cycle, (clients,).

        Parameters
        ----------
        here : numpy.ndarray
            Who is online in this cycle, bool, shape (clients,).
        """
        q, length = self.online, self.session
        if length is None:
            return np.full(len(here), q)
        return np.where(here, 1 - 1 / length, q / ((1 - q) * length))


class Traffic:
    """The messages of a run: a timer for each client, their accounts, the network.

    Parameters
    ----------
    num_clients, slots : int
        Number of clients, at least 2, and of slots in a cycle.
    seed : int
        Decides everything that is random. Loss and delay have random numbers of their
        own, so they change neither timers nor receivers.
    graph : networkx.Graph or scipy.sparse.csr_array, optional
        To which clients each may send; by default to any other.
    network, account : NetworkModel, TokenAccount
        Loss, delay and churn; and when clients send.
    pace : Pace, optional
        Then timers are not alike: a client's wakes it when it has trained. What arrives
        waits until then, of several models the last that was sent, and is given to it
        when it has been trained on as well. By default training takes no time.

    Attributes
    ----------
    tokens, owed, sent : numpy.ndarray
        Of each client, shape (num_clients,): its balance; the answers that it has paid
        for, which leave in the next slot in which it is online; and the messages that
        it sent in this cycle.
    longest : int
        The most slots from the one in which a message leaves to the one after it is
        given to its receiver.

    Raises
    ------
    TypeError, ValueError
        If the graph does not fit, or a number is wrong.
    """

    def __init__(
        self,
        num_clients: int,
        seed: int,
        *,
        graph: Graph | None = None,
        slots: int = 1,
        network: NetworkModel = NetworkModel(),  # noqa: B008  it cannot change
        account: TokenAccount = SimpleTokenAccount(0),  # noqa: B008
        pace: Pace | None = None,
    ) -> None:
        self.num_clients = n = check_whole("num_clients", num_clients, 2)
        self.slots_a_cycle = check_whole("slots", slots, 1)
        if not isinstance(network, NetworkModel):
            raise TypeError(f"network must be a NetworkModel; got {network!r}")
        if not (hasattr(account, "proactive") and hasattr(account, "reactive")):
            raise TypeError(f"account must be a TokenAccount; got {account!r}")
        self.network, self.account = network, account
        self.tokens, self.owed, self.sent = np.zeros((3, n), dtype=np.int64)
        self._seed = seed
        self._links = None if graph is None else _links(graph, n)
        ones, self._waits = np.ones(n, dtype=np.int64), pace is not None
        pace = Pace(*map(np.asarray, pace or (slots * ones, ones)))
        for name, numbers in pace._asdict().items():
            if np.shape(numbers) != (n,):
                raise ValueError(f"pace has not one {name} for each of {n} clients")
            check_whole(f"the least {name}", np.asarray(numbers).min(), 1)
        self._period, self._transfer = pace
        self._phase = rng(seed, use="phase").integers(self._period)
        self.longest = network.delay - 1 + int(np.max(self._transfer))
        self.longest += 2 * int(np.max(self._period)) * self._waits
        self._online = rng(seed, 0, use="online").random(n) < network.online
        self._flying = np.zeros((4, 0), dtype=np.int64)  # id, sender, receiver, due
        self._next_id = 0

    def slots(self, cycle: int) -> Iterator[int]:
        """Go through the slots of a cycle, 1, 2, ...

        Yields
        ------
        int
            The slot's number in the run, 1, 2, ...
        """
        draws = rng(self._seed, cycle, use="online").random(self.num_clients)
        self._online = draws < self.network.stays(self._online)
        self.sent[:] = 0
        for slot in range(self.slots_a_cycle):
            self._now = (cycle - 1) * self.slots_a_cycle + slot + 1
            self._main = rng(self._seed, self._now, use="cycle")
            self._chance = rng(self._seed, self._now, use="tokens")
            yield self._now

    def leave(self) -> np.ndarray:
        """Return who sends in this slot, (messages,), and let these messages leave.

        They are numbered through the run, from 0.
        """
        awake = np.flatnonzero((self._until_awake(self._now) == 0) & self._online)
        chance = self.account.proactive(self.tokens[awake])
        sends = self._chance.random(len(awake)) < chance
        self.tokens[awake[~sends]] += 1
        answers = np.where(self._online, self.owed, 0)
        self.owed -= answers
        answering = np.repeat(np.arange(self.num_clients), answers)
        senders = np.concatenate([awake[sends], answering])
        self.sent += np.bincount(senders, minlength=self.num_clients)
        receivers = self._receivers(senders)
        ids = self._next_id + np.arange(len(senders))
        self._next_id += len(senders)
        faults = rng(self._seed, self._now, use="network")
        takes = faults.integers(1, self.network.delay + 1, size=len(senders))
        arrives = faults.random(len(senders)) >= self.network.drop
        due = self._now + takes - 2 + self._transfer[senders]
        if self._waits:  # for the receiver to begin to train, and to end
            due += self._until_awake(due, receivers) + self._period[receivers] - 1
        new = np.stack([ids, senders, receivers, due])
        self._flying = np.concatenate([self._flying, new[:, arrives]], axis=1)
        return senders

    def _until_awake(self, slot: Any, clients: Any = slice(None)) -> np.ndarray:
        """Return the slots from one, or from one for each client, to its next timer."""
        period = self._period[clients]
        return np.asarray((self._phase[clients] + 1 - slot) % period)

    def _receivers(self, senders: np.ndarray) -> np.ndarray:
        """Draw a receiver for each sender."""
        if self._links is None:
            # One of the n - 1 others: those from the client itself on are one further.
            draws = self._main.integers(self.num_clients - 1, size=len(senders))
            return np.where(draws >= senders, draws + 1, draws)
        receivers, starts, degree = self._links
        places = starts[senders] + self._main.integers(degree[senders])
        return np.take(receivers, places)

    def arrive(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Go through what arrives in this slot, in a random order, many at a time.

        Yields
        ------
        tuple of numpy.ndarray
            Number, sender and receiver of the k-th message that each receiver gets, for
            k = 1, 2, ..., shape (messages,) each.
        """
        due = self._flying[3] == self._now
        came, self._flying = self._flying[:, due], self._flying[:, ~due]
        came = came[:, self._online[came[2]]]
        if self._waits:  # one training, one model: the last that was sent
            came = came[:, ::-1]
            came = came[:, np.unique(came[2], return_index=True)[1]]
        ids, senders, receivers, _ = came
        order = self._main.permutation(len(receivers))
        order = order[np.argsort(receivers[order], kind="stable")]
        ordered = receivers[order]
        number = np.arange(len(order)) - np.searchsorted(ordered, ordered)
        for k in range(number.max(initial=-1) + 1):
            some = order[number == k]
            yield ids[some], senders[some], receivers[some]

    def flying(self) -> list[int]:
        """Return the numbers of the messages that have not arrived yet."""
        return self._flying[0].tolist()

    def react(self, receivers: np.ndarray, useful: np.ndarray) -> None:
        """Let receivers spend tokens on answers, which leave in the next slot.

        It is the receiver that answers, to a client of its own choice, and it pays.

        Parameters
        ----------
        receivers, useful : numpy.ndarray
            Clients that received a message, no client twice; and whether it was useful
            to them, bool.

        Raises
        ------
        ValueError
            If the account spends more tokens than there are.
        """
        tokens = self.tokens[receivers]
        number = self.account.reactive(tokens, useful)
        number = np.floor(number + self._chance.random(len(receivers))).astype(np.int64)
        if (wrong := (number < 0) | (number > tokens)).any():
            k = wrong.argmax()
            raise ValueError(
                f"{self.account} spends {number[k]} tokens; the balance is {tokens[k]}"
            )
        self.tokens[receivers] -= number
        self.owed[receivers] += number


def _links(graph: Graph, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return all links' receivers, sender by sender, and where each begins; degrees."""
    topology.check_graph(graph, n)
    if len(away := np.flatnonzero(~online(graph))):
        raise ValueError(f"client {away[0]} is offline in the graph, for the whole run")
    receivers, senders = mixing.links(graph)
    degree = np.bincount(senders, minlength=n)
    by_sender = receivers[np.argsort(senders, kind="stable")]
    return by_sender, np.cumsum(degree) - degree, degree
