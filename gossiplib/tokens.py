"""Token accounts: who may send when, so that news travels fast and traffic stays low.

In Danner and Jelasity's flow control (2018, doi:10.1109/ICDCS.2018.00090) a client gets
one token in each period. When its timer wakes it, it sends a message, or it saves the
token: `proactive` is the probability that it sends. When it receives a message, it
spends tokens on messages of its own, at once: `reactive` is their number. So it never
sends more messages than it was given tokens, and news need not wait for a timer.

An *account* has these two functions, of one client's balance or of many at once. All
accounts of a run are alike; `traffic` keeps the balances.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from gossiplib.result import check_whole

__all__ = ["Account", "Generalised", "Randomised", "Simple"]


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
