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
you praise them. `project` holds the network, `leaderboard` the scores of many.

The hostile network of the project: who lies, who is away, and where the bytes end.

All of it follows from one seed. `Wire` puts it between the clients of a plan and the
engine, as an average function and a schedule. `project` tells the rules.

Four entries for the project of notebook 13: where to start, and three references.

Each adds one idea to the one before. Each is complete in itself, as `project.score`
runs nothing but its source; the imports here stand for `project.NAMES`.
"""

import ast
import hashlib
import inspect
import linecache
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import networkx as nx
import numpy as np
from flwr.app import ArrayRecord

from gossiplib.core import averaging, mixing, topology
from gossiplib.core.averaging import Average, Model, weighted_mean
from gossiplib.core.checkpoint import fingerprint
from gossiplib.core.context import RoundContext
from gossiplib.core.models import array_bytes
from gossiplib.protocols import codecs, compressed, push_sum, robust
from gossiplib.system.numbers import check_whole
from gossiplib.tasks.task import Task, digits
from gossiplib.vectorized.engine import gossip_learning

__all__ = [
    "EntryError",
    "FINAL",
    "NETWORK",
    "Network",
    "Outcome",
    "PRACTICE",
    "Plan",
    "REFERENCES",
    "Score",
    "VERSION",
    "Wire",
    "at_home",
    "brief",
    "liars",
    "rough",
    "score",
    "source_of",
    "start",
    "state_of",
    "task_of",
    "wary",
]

#: Seconds after which a run is given up: nothing may hang.
SECONDS = 120


class EntryError(ValueError):
    """What is wrong with an entry, in words for its author."""


@dataclass(frozen=True)
class Network:
    """What an entry is told of the network.

    Attributes
    ----------
    num_clients, num_liars : int
        Clients in all, and how many of them lie.
    budget : int
        Bytes that may reach clients in all rounds together.
    model_bytes : int
        Size of one whole model, as it is sent.
    lost_links, online : float
        Share of the links that a round loses, and of the clients that take part in it.
    """

    num_clients: int = 16
    num_liars: int = 2
    budget: int = 4_000_000
    model_bytes: int = 10_152
    lost_links: float = 0.1
    online: float = 0.95


NETWORK = Network()


def task_of(seed: int) -> Task:
    """Return the data of the network of a seed, a copy that nobody else holds."""
    # `digits` keeps what it made, and would give it to an entry that asks for the same.
    make = digits.__wrapped__
    return make(NETWORK.num_clients, alpha=0.5, hidden=32, holdout=0, seed=seed)


def liars(seed: int) -> np.ndarray:
    """Return who lies in the network of a seed."""
    rng = np.random.default_rng([seed, *b"liars"])
    return np.sort(rng.choice(NETWORK.num_clients, NETWORK.num_liars, replace=False))


def rough(schedule: topology.Schedule, seed: int) -> topology.Schedule:
    """Return a schedule with the lost links and absent clients of a seed."""
    lossy = topology.drop_links(schedule, NETWORK.lost_links, seed)
    return topology.churn(lossy, NETWORK.online, seed)


def state_of(task: Task) -> tuple:
    """Return a digest of all that an entry must leave as it is."""
    arrays = [a.numpy() for a in (task.x, task.y, *task.test)]
    return fingerprint(*arrays, *task.parts), task.seed, task.num_clients


class Wire:
    """What stands between the clients of a plan: lies, losses, and the count of bytes.

    It is the average function and the schedule that the engine sees.
    """

    def __init__(
        self, average: Average, schedule: topology.Schedule, seed: int
    ) -> None:
        self.average, self.liars = average, liars(seed)
        self.rough = rough(schedule, seed)
        self.message_bytes = 0
        self.messages: dict[int, int] = {}
        self.dark: int | None = None
        self.end = time.monotonic() + SECONDS

    def schedule(self, server_round: int) -> nx.Graph:
        """Return the round's links; none from the round on that would cost too much."""
        if time.monotonic() > self.end:
            raise EntryError(
                f"it took more than {SECONDS} s for one seed, by round {server_round}"
            )
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

    def send(self, model: Model, turn: RoundContext) -> Model:
        """Return what clients say: what the plan makes of their models, or of lies."""
        clients = np.asarray(turn.node_config["partition-id"])
        sign = np.where(np.isin(clients, self.liars), -1.0, 1.0)
        told = []
        for array in model:
            axes = (1,) * (array.ndim - clients.ndim)
            told.append((array * sign.reshape(sign.shape + axes)).astype(array.dtype))
        send = getattr(self.average, "send", None)
        said = told if send is None else send(told, turn)
        said = [np.asarray(array) for array in said]
        kinds = {array.dtype.kind for array in said}
        if not kinds <= set("biuf"):
            raise EntryError("a message is a list of arrays of numbers")
        if clients.ndim:
            one = ArrayRecord([np.asarray(array[0]) for array in said])
            self.message_bytes = max(self.message_bytes, array_bytes(one))
        return said

    def __call__(
        self,
        own: Model,
        neighbours: Sequence[Model],
        weights: np.ndarray,
        turn: RoundContext,
    ) -> Model:
        """Average as the plan does."""
        return self.average(own, neighbours, weights, turn)


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
    "codecs": codecs,
    "compressed": compressed,
    "mixing": mixing,
    "push_sum": push_sum,
    "robust": robust,
    "topology": topology,
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
    """RoundContext an error inside the entry into an EntryError that says where."""

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


def start(network):
    """Gossip as in notebook 05: a ring, whole models, the weighted mean."""
    ring = topology.named("ring", network.num_clients)
    return Plan(ring, num_rounds=20)


def at_home(network):
    """Learn more between two messages, as they are dear."""
    ring = topology.named("ring", network.num_clients)
    return Plan(ring, num_rounds=20, epochs=8)


def wary(network):
    """Trust nobody (notebook 09): the median, among six neighbours."""
    graph = nx.random_regular_graph(6, network.num_clients, seed=1)
    return Plan(graph, num_rounds=20, average=robust.coordinate_median, epochs=8)


def brief(network):
    """Say a number in one byte (notebook 08), to ten neighbours; then the median."""

    class Bytes:
        def send(self, model, turn):
            first = np.ndim(turn.node_config["partition-id"])  # 1 axis if many clients
            most = [np.abs(a).max(axis=tuple(range(first, a.ndim))) for a in model]
            unit = np.max(most, axis=0) / 127
            return [unit, *(np.rint(a.T / unit).T.astype(np.int8) for a in model)]

        def __call__(self, own, neighbours, weights, turn):
            heard = [[(a.T * unit).T for a in said] for unit, *said in neighbours]
            return robust.coordinate_median(own, heard)

    graph = nx.random_regular_graph(10, network.num_clients, seed=1)
    return Plan(graph, num_rounds=20, average=Bytes(), epochs=8)


#: By growing skill.
REFERENCES = (start, at_home, wary, brief)
