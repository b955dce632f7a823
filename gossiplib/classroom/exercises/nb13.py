"""Checks of the exercises of notebook 13: eavesdroppers."""

import networkx as nx
import numpy as np

from gossiplib.classroom.checking import Function, checks, need, untouched
from gossiplib.core import mixing
from gossiplib.protocols.privacy import exact_epsilon, heard_share


@checks("13.1")
def _(image_of: Function) -> None:
    rng = np.random.default_rng(0)
    for label in (0, 3, 9):
        x = rng.uniform(size=64) * (rng.uniform(size=64) < 0.6)
        x /= x.max()
        p = rng.dirichlet(np.ones(10))
        change = -0.5 * np.outer(p - np.eye(10)[label], x)
        # A division by 0 is told below, in words.
        with untouched("dW", [change]), np.errstate(all="ignore"):
            found = np.asarray(image_of(change), dtype=float)
        need(
            found.shape == (64,),
            "Return one image, of as many pixels as W has columns.",
        )
        need(np.isfinite(found).all(), "It gave NaN: which rows and pixels may be 0?")
        need((found > -1e-9).all(), "Pixels are not below 0: which sign has a row?")
        need(abs(found.max() - 1) < 1e-6, "The darkest pixel is 1.")
        need(np.allclose(found, x, atol=1e-6), "It is another image.")


@checks("13.2")
def _(number: int) -> None:
    need(0 <= number < 1000, "Numbers are counted modulo 1000.")
    hint = "Which masks are in what client 2 sent, and with which sign?"
    need(number == (412 + 871 + 230) % 1000, hint)


@checks("13.3")
def _(difference: Function) -> str:
    rng = np.random.default_rng(0)
    worst = 0.0
    for most in (0.1, 100.0):
        models = rng.uniform(-most, most, size=(2, 50))
        fixed = np.rint(models * 2.0**40).astype(np.int64).view(np.uint64)
        mask = rng.integers(2**64, size=50, dtype=np.uint64)
        one, two = fixed + mask
        with untouched("a message", [one, two]):
            found = np.asarray(difference(one, two), dtype=float)
        need(found.shape == (50,), "Return as many numbers as a model has.")
        error = np.abs(found - (models[1] - models[0])).max()
        need(error < 2.0**41, "One unit is 2⁻⁴⁰.")
        need(error < 1e6, "What is below 0? Whole numbers modulo 2⁶⁴ have no sign.")
        hint = "Two floats of 64 bits keep 53: subtract before you make floats."
        need(error < 1e-10, hint if error > 1e-6 * most else "It is not exact.")
        worst = max(worst, float(error))
    return f"Nothing is hidden: you are wrong by {worst:.0e} at most."


@checks("13.4")
def _(std: float) -> None:
    need(std > 0, "A standard deviation is above 0.")
    epsilon = exact_epsilon(2, std, 1e-5, rounds=20)
    need(epsilon <= 1 + 1e-6, f"Then ε of the twenty together is {epsilon:.4g}.")
    least = exact_epsilon(2, std / 1.01, 1e-5, rounds=20)
    need(least > 1, "Less noise does it too.")


@checks("13.5")
def _(graph: nx.Graph) -> str:
    need(isinstance(graph, nx.Graph), "Give a networkx graph.")
    need(not graph.is_directed(), "Links go both ways here.")
    need(sorted(graph) == list(range(16)), "Its nodes are the clients 0 to 15.")
    need(nx.number_of_selfloops(graph) == 0, "A client is not its own neighbour.")
    need(nx.is_connected(graph), "News of all must reach all.")
    share = heard_share(mixing.metropolis(graph), 0, 30)
    others = [i for i in range(1, 16) if not graph.has_edge(0, i)]
    need(len(others) > 0, "There must be somebody who is not your neighbour.")
    worst = max(others, key=lambda i: share[i])
    hint = (
        f"Of client {worst} you have a share of {share[worst]:.2f}. In which messages "
    )
    need(share[worst] < 0.1, f"{hint}is news of it, and what else is in these?")
    return f"The largest share is {share[worst]:.3f}."
