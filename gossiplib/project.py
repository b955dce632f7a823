"""The project of notebook 13: a problem with a yardstick.

Sixteen clients read digits over a hostile network, with a budget of bytes. An *entry*
is a function that plans how they gossip. `score` runs its plan on networks that it does
not know, and measures the accuracy of the worst honest client.

What the network does:

- images are spread unevenly over the clients (Dirichlet, α = 0.5);
- a tenth of the links is lost in each round, and each client is offline in 5 % of them;
- two clients lie: they say minus what they have learned. Who lies, who is offline and
  who has which images depends on a seed that an entry does not see;
- when the budget is spent, the network is dark: all keep the models they have.

`score` refuses an entry that reaches for the data or that costs more than its budget.
It runs the *source* of the entry, alone, so that what is hashed is what was run. That
keeps honest people honest. Python cannot stop a program that is made to cheat: it may
pass models from client to client behind the engine's back, in a global variable, and
pay no bytes for them, or it may look up the seeds below. Read the best entries before
you praise them. `hostile` holds the network, `leaderboard` the scores of many.
"""

import ast
import hashlib
import inspect
import linecache
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import networkx as nx
import numpy as np

from gossiplib import averaging, choco, compression, mixing, robust, topology, weighing
from gossiplib.averaging import Average, weighted_mean
from gossiplib.checkpoint import fingerprint
from gossiplib.hostile import (
    NETWORK,
    EntryError,
    Network,
    Wire,
    liars,
    state_of,
    task_of,
)
from gossiplib.result import check_whole
from gossiplib.vectorized import gossip_learning

__all__ = [
    "FINAL",
    "PRACTICE",
    "VERSION",
    "Outcome",
    "Plan",
    "Score",
    "score",
    "source_of",
]

#: Of this yardstick. Scores of two versions cannot be compared.
VERSION = 1
#: Seeds to practise on, and those of the final score.
PRACTICE, FINAL = (0,), (1, 2, 3, 4, 5)
#: Passes over its own data that a client may plan, in all rounds together.
PASSES = 400
SMALLEST_BATCH = 8


@dataclass(frozen=True)
class Plan:
    """How the clients gossip: what an entry returns.

    The fields are arguments of `vectorized.gossip_learning`. `num_rounds` times
    `epochs` may be 400 at most, and a batch has 8 examples or more.
    """

    schedule: topology.Schedule
    num_rounds: int
    average: Average = weighted_mean
    weights: Callable[[nx.Graph], np.ndarray] = mixing.metropolis
    epochs: int = 1
    batch_size: int = 16
    lr: float = 0.5
    momentum: float = 0.0
    weight_decay: float = 0.0


class Outcome(NamedTuple):
    """What a plan reached on the network of one seed.

    Attributes
    ----------
    seed : int
        The network's seed.
    worst, mean : float
        Accuracy of the worst honest client on the common test set, and their mean.
    bytes : int
        What reached clients, in all rounds, as `GossipResult.bytes` counts it.
    rounds : int
        Rounds until the end, or until the budget was spent.
    digest : str
        SHA-256 of all clients' final models.
    """

    seed: int
    worst: float
    mean: float
    bytes: int
    rounds: int
    digest: str


class Score(NamedTuple):
    """What an entry reached on all seeds.

    Attributes
    ----------
    source : str
        The entry.
    planned : int
        Rounds that it planned.
    outcomes : tuple of Outcome
        One for each seed.
    """

    source: str
    planned: int
    outcomes: tuple[Outcome, ...]

    @property
    def worst(self) -> float:
        """The score: the worst honest client's accuracy, its mean over the seeds."""
        return float(np.mean([outcome.worst for outcome in self.outcomes]))

    def __str__(self) -> str:
        """Tell the score in a few lines."""
        worst = [outcome.worst for outcome in self.outcomes]
        mean = np.mean([outcome.mean for outcome in self.outcomes])
        spent = np.mean([outcome.bytes for outcome in self.outcomes]) / 1e6
        rounds = np.mean([outcome.rounds for outcome in self.outcomes])
        early = " (then its budget was spent)" if rounds < self.planned else ""
        return (
            f"worst honest client {self.worst:.3f}, from {min(worst):.3f} to "
            f"{max(worst):.3f} over {len(worst)} seeds\n"
            f"mean honest client {mean:.3f}\n"
            f"{spent:.2f} of {NETWORK.budget / 1e6:.2f} MB, {rounds:.0f} of "
            f"{self.planned} rounds{early}"
        )


#: What the source of an entry can name without importing it.
NAMES = {
    "Plan": Plan,
    "np": np,
    "nx": nx,
    "averaging": averaging,
    "choco": choco,
    "compression": compression,
    "mixing": mixing,
    "robust": robust,
    "topology": topology,
    "weighing": weighing,
}


def source_of(entry: Callable | str) -> str:
    """Return the text of an entry, a function or its source, without indentation."""
    if not isinstance(entry, str):
        try:
            entry = inspect.getsource(entry)
        except (OSError, TypeError):
            raise EntryError(
                "an entry is a function that was written in a cell or a file: "
                "def my_entry(network): ..."
            ) from None
    return textwrap.dedent(entry).strip() + "\n"


def score(entry: Callable | str, seeds: Sequence[int] = FINAL) -> Score:
    """Run an entry on the networks of some seeds.

    Parameters
    ----------
    entry : callable or str
        network -> Plan; or the source of such a function. It must be complete in
        itself: it can name only `NAMES`, and what it imports or defines inside.
    seeds : sequence of int
        By default those that count. `PRACTICE` has one, to try things on.

    Raises
    ------
    EntryError
        If the entry raises an error, breaks a rule or is over its budget in the first
        round. The message says what to do.
    """
    source = source_of(entry)
    planned, outcomes = 0, []
    for seed in seeds:
        plan = _plan(source)
        planned = plan.num_rounds
        outcomes.append(_run(plan, seed))
    if not outcomes:
        raise ValueError("name at least one seed")
    return Score(source, planned, tuple(outcomes))


def _plan(source: str) -> Plan:
    """Run the source of an entry, and return its plan if that keeps to the rules."""
    name = f"<entry {hashlib.sha256(source.encode()).hexdigest()[:12]}>"
    try:
        body = ast.parse(source, name).body
    except SyntaxError as error:
        raise EntryError(f"the entry is not Python: {error}") from error
    if len(body) != 1 or not isinstance(body[0], ast.FunctionDef):
        raise EntryError(
            "an entry is one function, def my_entry(network): ..., with all that it "
            "needs inside"
        )
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    own = dict(NAMES)
    with _Blame():
        exec(compile(source, name, "exec"), own)
        plan = own[body[0].name](Network())
    if type(plan) is not Plan:
        raise EntryError(f"an entry returns a Plan, not a {type(plan).__name__}")
    return _checked(Plan(**{f.name: getattr(plan, f.name) for f in fields(Plan)}))


def _checked(plan: Plan) -> Plan:
    with _Blame():
        check_whole("num_rounds", plan.num_rounds, 1, PASSES)
        check_whole("epochs", plan.epochs, 1, PASSES)
        check_whole("batch_size", plan.batch_size, SMALLEST_BATCH)
        if isinstance(plan.schedule, nx.Graph):
            topology.check_graph(plan.schedule, NETWORK.num_clients)
    if plan.num_rounds * plan.epochs > PASSES:
        raise EntryError(
            f"{plan.num_rounds} rounds of {plan.epochs} epochs are "
            f"{plan.num_rounds * plan.epochs} passes over the data, and {PASSES} are "
            "allowed: plan fewer rounds or epochs"
        )
    return plan


def _run(plan: Plan, seed: int) -> Outcome:
    task, lying = task_of(seed), liars(seed)
    before = state_of(task)
    wire = Wire(plan.average, plan.schedule, seed)
    with _Blame():
        result = gossip_learning(
            task,
            wire.schedule,
            plan.num_rounds,
            average=wire,
            weights=plan.weights,
            epochs=plan.epochs,
            batch_size=plan.batch_size,
            lr=plan.lr,
            momentum=plan.momentum,
            weight_decay=plan.weight_decay,
            evaluate_every=0,
            observe_every=0,
            evaluate_fn=task.evaluate_fn,
            device="cpu",
        )
    if state_of(task) != before:
        raise EntryError("the entry changed the data or the seed of the network")
    spent = sum(result.bytes.values())
    if spent > NETWORK.budget:
        raise EntryError(
            f"its messages are {spent:,} bytes and the budget is {NETWORK.budget:,}: "
            "the first round alone is over it, or messages became longer later"
        )
    found = result.node_server_metrics[plan.num_rounds]
    honest = [i for i in range(NETWORK.num_clients) if i not in lying]
    # A client that was never online has no model, and reads nothing.
    accuracy = [found[i]["accuracy"] if i in found else 0.0 for i in honest]
    return Outcome(
        seed=int(seed),
        worst=round(float(np.min(accuracy)), 4),
        mean=round(float(np.mean(accuracy)), 4),
        bytes=int(spent),
        rounds=plan.num_rounds if wire.dark is None else wire.dark - 1,
        digest=fingerprint(result.models()),
    )


class _Blame:
    """Turn an error inside the entry into an EntryError that says where."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, Exception) or isinstance(error, EntryError):
            return
        at, where = trace, ""
        while at is not None:
            if at.tb_frame.f_code.co_filename.startswith("<entry"):
                where = f" in line {at.tb_lineno} of it"
            at = at.tb_next
        hint = ""
        if isinstance(error, NameError):
            hint = (
                f". An entry can name {', '.join(NAMES)}; all else must be imported or "
                "defined inside the function"
            )
        raise EntryError(
            f"the entry failed{where}: {type(error).__name__}: {error}{hint}"
        ) from error
