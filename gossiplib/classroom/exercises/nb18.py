"""Checks of the exercises of notebook 18: the project."""

import numpy as np

from gossiplib.classroom import leaderboard, project
from gossiplib.classroom.checking import Function, checks, need, untouched

LIARS = project.NETWORK.num_liars
#: What exercise 18.5 asks for: more than the notebook's last entry reaches.
ENOUGH = 0.87
#: The entry of exercise 18.4 (g): another graph in each run.
BY_CHANCE = """\
def by_chance(network):
    seed = int(np.random.default_rng().integers(2**31))
    graph = nx.random_regular_graph(4, network.num_clients, seed=seed)
    return Plan(graph, num_rounds=20)
"""


@checks("18.1")
def _(neighbours: float) -> None:
    need(neighbours % 1 == 0 and neighbours > 0, "Neighbours are whole.")
    models = 1 + int(neighbours)  # the median is honest if lies are less than half
    need(2 * LIARS < models, "Lies that all agree can still move the middle.")
    need(2 * LIARS >= models - 1, "Fewer are enough: the own model counts, too.")


@checks("18.2")
def _(rounds: float) -> str:
    need(rounds % 1 == 0, "Count whole rounds.")
    need(rounds > 0, "The budget is enough for some.")
    fit = project.NETWORK.budget / (16 * 10 * 0.9 * 0.95**2 * 1500)
    hint = "That is more than the budget. A link carries a message each way, and a "
    need(rounds <= fit, hint + "round for which it is not enough is none.")
    need(rounds + 1 > fit, "More rounds fit: what does not arrive costs nothing.")
    return f"The budget is enough for {fit:.1f} rounds, and part of a round is none."


@checks("18.3")
def _(average: Function) -> None:
    rng = np.random.default_rng(0)
    for k in range(1, 12):
        for clients in ((), (3,)):
            wanted = [(*clients, 2, 3), (*clients, 4)]
            models = [
                [rng.normal(size=shape).astype(np.float32) for shape in wanted]
                for _ in range(k)
            ]
            weights = np.full((k, *clients), 1 / k)
            with untouched("models", models):
                mixed = average(models[0], models[1:], weights, None)
            many = " of three clients at once" if clients else ""
            where = f"(with {k} model{'s' * (k > 1)}{many})."
            shapes = [np.shape(a) for a in mixed]
            need(shapes == wanted, f"Return arrays like those of own {where}")
            same = {np.asarray(a).dtype.name for a in mixed} == {"float32"}
            need(same, f"Return the data types of own {where}")
            for found, *layer in zip(mixed, *models, strict=True):
                right = np.allclose(found, _kept(layer), rtol=1e-5, atol=1e-5)
                need(right, f"It is not the mean of what is to be kept {where}")


@checks("18.4")
def _(stopped_by: str) -> str:
    letters = "".join(str(stopped_by).lower().split())
    right = len(letters) == 7 and set(letters) <= set("mvtp")
    need(right, "Seven letters of m, v, t and p.")
    hints = (
        "(a) again: does the checksum still fit?",
        "(b) again: the row is whole, and its number is not what the entry reaches.",
        "(c) again: the row says its seeds.",
        "(d) again: all that the row says is true of that entry.",
        "(e) again: all is true, but would it be good on another five?",
        "(f) again: the entry reaches its score on any seeds, and pays few bytes.",
        "(g) again: what does the same entry reach when it is run once more?",
    )
    for said, wanted, hint in zip(letters, "mvmptpv", hints, strict=True):
        need(said == wanted, f"Look at {hint}")
    scored = project.score(BY_CHANCE, project.PRACTICE)
    row = leaderboard.make_row("by chance", scored)
    problems = leaderboard.verify(row, BY_CHANCE).problems
    return f"Of such a row as in (g), verify says: {problems[-1]}."


@checks("18.5")
def _(entry: Function) -> str:
    reached = project.score(entry)
    told = f"{reached.worst:.3f} on the open board"
    hint = f"It reaches {told}. Where does its budget go, and whom does it believe?"
    need(reached.worst > ENOUGH, hint)
    rounds = np.mean([outcome.rounds for outcome in reached.outcomes])
    return f"It reaches {told}, in {rounds:.0f} rounds."


def _kept(layer: list[np.ndarray]) -> np.ndarray:
    """Return the mean of what remains of each number."""
    rows = np.sort(layer, axis=0)
    for _ in range(2):
        if len(rows) > 2:
            rows = rows[1:-1]
    return rows.mean(axis=0, dtype=float)
