"""The project of notebook 18: a problem with a yardstick.

Sixteen clients read digits over a hostile network, with a budget of bytes. Images are
spread unevenly (Dirichlet, α = 0.5), links are lost, clients are offline, and four lie:
two say minus what they have learned, and two learn labels that are forged. An *entry*
is a function that plans how they gossip. When the budget is spent, the network is dark,
and all keep their models.

`score` runs the *source* of the entry, alone, so that what is hashed is what was run.
Python cannot stop a program that is made to cheat: it may pass models from client to
client in a global variable, and pay no bytes for them. Read the best entries before you
praise them.
"""

import ast
import contextlib
import hashlib
import inspect
import linecache
import re
import textwrap
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import networkx as nx
import numpy as np
from flwr.app import ArrayRecord

from gossiplib.core import averaging, mixing, topology
from gossiplib.core.averaging import Average, Model, per_client, weighted_mean
from gossiplib.core.checkpoint import fingerprint
from gossiplib.core.context import RoundContext
from gossiplib.protocols import codecs, compressed, push_sum, robust
from gossiplib.system.numbers import check_whole, rng, settle
from gossiplib.system.records import array_bytes, ravel
from gossiplib.tasks.poisoning import poisoned
from gossiplib.tasks.task import Task, digits
from gossiplib.vectorized.engine import gossip_learning

#: Seconds after which the run of one network is given up.
SECONDS = 60


class EntryError(ValueError):
    """What is wrong with an entry, in words for its author."""


@dataclass(frozen=True)
class Network:
    """What an entry is told of the network.

    Attributes
    ----------
    num_clients, num_liars : int
        Clients in all, and how many of them lie, half of them in either way.
    budget, model_bytes : int
        Bytes that may reach clients in all rounds together, and those of a whole model.
    lost_links, online : float
        Share of the links that a round loses, and of the clients that take part in it.
    """

    num_clients: int = 16
    num_liars: int = 4
    budget: int = 2_000_000
    model_bytes: int = 10_152
    lost_links: float = 0.1
    online: float = 0.95


NETWORK = Network()


def liars(seed: int) -> dict[str, list[int]]:
    """Return who lies in the network of a seed, and how."""
    drawn = rng(seed, use="liars").choice(NETWORK.num_clients, NETWORK.num_liars, False)
    half = NETWORK.num_liars // 2
    kinds = {"sign flip": drawn[:half], "label flipping": drawn[half:]}
    return {kind: sorted(who.tolist()) for kind, who in kinds.items()}


def task_of(seed: int) -> Task:
    """Return the data of the network of a seed, a copy that nobody else holds."""
    task = digits(NETWORK.num_clients, alpha=0.5, hidden=32, holdout=0, seed=seed)
    return poisoned(task, liars(seed)["label flipping"], lambda x, y: (x, 9 - y))


def rough(schedule: topology.Schedule, seed: int) -> topology.Schedule:
    """Return a `schedule` with the lost links and absent clients of a `seed`."""
    lossy = topology.drop_links(schedule, NETWORK.lost_links, seed)
    return topology.churn(lossy, NETWORK.online, seed)


def state_of(task: Task) -> tuple[str, int, int]:
    """Return a digest of all of a `task` that an entry must leave as it is."""
    arrays = [a.numpy() for a in (task.x, task.y, *task.test)]
    return fingerprint(*arrays, *task.parts), task.seed, task.num_clients


class _Budget:
    """The schedule that the engine sees: rough, and dark once the bytes are spent."""

    def __init__(self, schedule: topology.Schedule, seed: int) -> None:
        self.rough = rough(schedule, seed)
        self.message_bytes = 0  # of the longest so far; `_Lies` tells it
        self.messages: dict[int, int] = {}
        self.dark: int | None = None  # the first round without links
        self.end = time.monotonic() + SECONDS

    def __call__(self, server_round: int) -> nx.Graph:
        """Return the round's links, none of them if they would cost too much."""
        if time.monotonic() > self.end:
            text = f"it took more than {SECONDS} s for one seed, by round "
            raise EntryError(f"{text}{server_round}")
        graph = self.rough(server_round)
        links = graph.number_of_edges() * (1 if graph.is_directed() else 2)
        self.messages[server_round] = links
        needed = sum(self.messages.values()) * self.message_bytes
        if self.dark is None and needed > NETWORK.budget:
            self.dark = server_round
        if self.dark is not None:
            graph = nx.create_empty_copy(graph)
            nx.set_node_attributes(graph, False, "online")
        return graph


@dataclass(frozen=True)
class _Lies:
    """The average function that the engine sees: the plan's, and liars who use it."""

    average: Average
    liars: list[int]  # who say minus what they have learned
    budget: _Budget

    def send(self, model: Model, turn: RoundContext) -> Model:
        """Return what the plan makes of clients' models, or of lies."""
        sign = np.where(np.isin(turn.clients, self.liars), -1, 1)
        told = [(a * per_client(sign, a)).astype(a.dtype) for a in model]
        send = getattr(self.average, "send", None)
        said = [np.asarray(a) for a in (send(told, turn) if send else told)]
        if not {array.dtype.kind for array in said} <= set("biuf"):
            raise EntryError("a message is a list of arrays of numbers")
        if turn.batch:
            one = array_bytes(ArrayRecord([np.asarray(array[0]) for array in said]))
            self.budget.message_bytes = max(self.budget.message_bytes, one)
        return said

    def __call__(self, *heard: Any) -> Model:
        """Average as the plan does."""
        return self.average(*heard)


#: Of this yardstick. Scores of two versions cannot be compared.
VERSION = 2
#: Seeds to practise on, and those of the open board. Who judges has other ones.
PRACTICE, OPEN = (0,), (1, 2, 3, 4, 5)
#: Passes over its own data that a client may plan, in all rounds together.
PASSES = 200


@dataclass(frozen=True)
class Plan:
    """How the clients gossip: what an entry returns, arguments of `gossip_learning`.

    Attributes
    ----------
    schedule : networkx.Graph or callable
        Who hears whom: a graph, or a function from the round (1, 2, ...) to one.
    num_rounds, epochs, batch_size : int
        Rounds, passes of a client over its data in each, and examples in a batch: 8 or
        more, and `PASSES` or fewer in all rounds together.
    average, weights : callable
        An average function, see `averaging.Average`; graph -> mixing matrix, shape
        (clients, clients).
    lr, momentum, weight_decay : float
        Of the clients' SGD.
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


@dataclass(frozen=True)
class Outcome:
    """What a plan reached on the network of one seed.

    Attributes
    ----------
    seed, bytes, rounds : int
        The seed; bytes that reached clients; rounds until the end, or until the budget
        was spent.
    worst, mean : float
        Accuracy of the worst honest client on the common test set, and their mean.
    digest : str
        The SHA-256 of all final models.

    Raises
    ------
    ValueError
        If no plan can have reached that.
    """

    seed: int
    worst: float
    mean: float
    bytes: int
    rounds: int
    digest: str

    def __post_init__(self) -> None:
        """Check what a row may claim."""
        whose = f"the outcome of seed {self.seed!r:.20}"
        kinds = all(type(getattr(self, f.name)) is f.type for f in fields(self))
        if not kinds or not is_hash(self.digest):
            raise ValueError(f"{whose} has a value of another type")
        could = 0 <= self.worst <= self.mean <= 1 and 1 <= self.rounds <= PASSES
        if not could or not 0 <= self.seed < 2**32:
            raise ValueError(f"{whose} cannot be")
        if not 0 <= self.bytes <= NETWORK.budget:
            raise ValueError(f"{whose} has {self.bytes!s:.20} bytes, over the budget")


def is_hash(value: object) -> bool:
    """Tell whether a value is a SHA-256, in 64 hexadecimal digits."""
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


class Score(NamedTuple):
    """The source of an entry, the rounds that it planned, and an outcome a seed."""

    source: str
    planned: int
    outcomes: tuple[Outcome, ...]

    @property
    def worst(self) -> float:
        """The score: the worst honest client's accuracy, its mean over the seeds."""
        return float(np.mean([outcome.worst for outcome in self.outcomes]))

    def __str__(self) -> str:
        """Tell the score in a few lines."""
        numbers = [(o.mean, o.bytes / 1e6, o.rounds) for o in self.outcomes]
        mean, spent, rounds = np.mean(numbers, axis=0)
        worst = [outcome.worst for outcome in self.outcomes]
        early = " (then its budget was spent)" if rounds < self.planned else ""
        spread = f", from {min(worst):.3f} to {max(worst):.3f} over {len(worst)} seeds"
        return (
            f"worst honest client {self.worst:.3f}{spread if len(worst) > 1 else ''}\n"
            f"mean honest client {mean:.3f}\n"
            f"{spent:.2f} of {NETWORK.budget / 1e6:.2f} MB, {rounds:.0f} of "
            f"{self.planned} rounds{early}"
        )


def quantise(model: Model, batch: tuple[int, ...] = ()) -> Model:
    """Return a message of a byte a number: a unit, and each array in whole units.

    The unit is a 127th of the largest number of the model. What is rounded is off by
    half a unit at most.

    Parameters
    ----------
    model : list of numpy.ndarray
        Arrays of floats, of shapes ``(*batch, ...)``.
    batch : tuple of int
        As in `RoundContext`: () for one client, (clients,) for many at once.

    Returns
    -------
    list of numpy.ndarray
        The unit, shape `batch`, and arrays of int8, of the shapes of the model's.

    Examples
    --------
    >>> quantise([np.array([127.0, -63.6])])
    [np.float64(1.0), array([127, -64], dtype=int8)]
    """
    top = np.abs(ravel(model, batch)).max(axis=-1)
    unit = np.where(top > 0, top, 1) / 127
    return [unit, *(np.rint(a / per_client(unit, a)).astype(np.int8) for a in model)]


def restore(message: Model) -> Model:
    """Return the model that a message of `quantise` tells of.

    Parameters
    ----------
    message : list of numpy.ndarray
        What `quantise` returned.

    Returns
    -------
    list of numpy.ndarray
        The model, in float32.
    """
    unit, *arrays = message
    return [(a * per_client(unit, a)).astype(np.float32) for a in arrays]


#: What the source of an entry can name without importing it.
NAMES: dict[str, Any] = {"Plan": Plan, "np": np, "nx": nx, "averaging": averaging}
NAMES |= {"codecs": codecs, "compressed": compressed, "mixing": mixing}
NAMES |= {"push_sum": push_sum, "robust": robust, "topology": topology}
NAMES |= {"quantise": quantise, "restore": restore}


def source_of(entry: Callable[..., Any] | str) -> str:
    """Return the text of an entry, a function or its source, without indentation.

    Raises
    ------
    EntryError
        If it is no function, or one whose source Python cannot find, or no text.
    """
    try:
        source = entry if isinstance(entry, str) else inspect.getsource(entry)
        source.encode()
    except (OSError, TypeError, UnicodeEncodeError):
        text = "an entry is a function that was written in a cell or a file, in UTF-8: "
        raise EntryError(f"{text}def my_entry(network): ...") from None
    return textwrap.dedent(source).strip() + "\n"


def score(entry: Callable[..., Any] | str, seeds: Sequence[int] = OPEN) -> Score:
    """Return what an entry reaches on the networks of some seeds: print it.

    Parameters
    ----------
    entry : callable or str
        network -> Plan; or the source of such a function. It must be complete in
        itself: it can name only `NAMES`, and what it imports or defines inside.
    seeds : sequence of int
        By default those of the open board. `PRACTICE` has one, to try things on.

    Raises
    ------
    EntryError
        If the entry raises an error, breaks a rule or is over its budget in the first
        round. The message says what to do.
    ValueError
        If there are no seeds.
    """
    source, outcomes = source_of(entry), []
    for seed in seeds:
        plan = _plan(source)
        outcomes.append(_run(plan, seed))
    if not outcomes:
        raise ValueError("name at least one seed")
    return Score(source, plan.num_rounds, tuple(outcomes))


def _plan(source: str) -> Plan:
    """Run the source of an entry, and return its plan if that keeps to the rules."""
    name = f"<entry {hashlib.sha256(source.encode()).hexdigest()[:12]}>"
    try:
        body = ast.parse(source, name).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise EntryError(f"the entry is not Python: {error}") from error
    if len(body) != 1 or not isinstance(body[0], ast.FunctionDef):
        text = "an entry is one function, def my_entry(network): ..., with all that it "
        raise EntryError(f"{text}needs inside")
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    own = dict(NAMES)
    with _blame():
        exec(compile(source, name, "exec"), own)
        plan = own[body[0].name](Network())
    if type(plan) is not Plan:
        raise EntryError(f"an entry returns a Plan, not a {type(plan).__name__}")
    with _blame():
        settle(plan, check_whole, "num_rounds", 1, PASSES)  # else 8 bits overflow below
        settle(plan, check_whole, "epochs", 1, PASSES)
        settle(plan, check_whole, "batch_size", 8)
        if isinstance(plan.schedule, nx.Graph):
            topology.check_graph(plan.schedule, NETWORK.num_clients)
    passes = plan.num_rounds * plan.epochs
    if passes > PASSES:
        text = f"{plan.num_rounds} rounds of {plan.epochs} epochs are {passes} passes"
        text += f" over the data, and {PASSES} are allowed: plan fewer rounds or epochs"
        raise EntryError(text)
    return replace(plan)  # its fields, and nothing that an entry hung on it


def _run(plan: Plan, seed: int) -> Outcome:
    task, who, budget = task_of(seed), liars(seed), _Budget(plan.schedule, seed)
    before, lies = state_of(task), _Lies(plan.average, who["sign flip"], budget)
    options = vars(plan) | {"evaluate_fn": task.evaluate_fn, "device": "cpu"}
    options |= {"schedule": budget, "average": lies}
    with _blame():
        result = gossip_learning(task, **options, evaluate_every=0, observe_every=0)
        if state_of(task) != before:
            raise EntryError("the entry changed the data or the seed of the network")
    spent = sum(result.bytes.values())
    if spent > NETWORK.budget:
        text = f"its messages are {spent:,} bytes and the budget is {NETWORK.budget:,}"
        text += ": the first round alone is over it, or messages became longer later"
        raise EntryError(text)
    found = result.node_server_metrics[plan.num_rounds]
    honest = {*range(NETWORK.num_clients)}.difference(*who.values())
    # A client that was never online has no model, and reads nothing.
    accuracy = [found[i]["accuracy"] if i in found else 0.0 for i in honest]
    worst, mean = (round(float(f(accuracy)), 4) for f in (np.min, np.mean))
    rounds = int(budget.dark or plan.num_rounds + 1) - 1
    digest = fingerprint(result.models())
    return Outcome(int(seed), worst, mean, int(spent), rounds, digest)


@contextlib.contextmanager
def _blame() -> Iterator[None]:
    """Turn an error inside the entry into an EntryError that says where."""
    try:
        yield
    except (EntryError, KeyboardInterrupt):
        raise
    except BaseException as error:  # an entry may also call sys.exit
        frames = traceback.extract_tb(error.__traceback__)
        lines = [f.lineno for f in frames if f.filename.startswith("<entry")]
        where = f" in line {lines[-1]} of it" if lines else ""
        text = f"the entry failed{where}: {type(error).__name__}: {error}"
        if isinstance(error, NameError):
            text += (
                f". An entry can name {', '.join(NAMES)}; all else must be imported "
            )
            text += "or defined inside the function"
        raise EntryError(text) from error
