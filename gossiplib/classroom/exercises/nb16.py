"""Checks of the exercises of notebook 16: out of the notebook."""

import tempfile
from functools import cache, partial
from pathlib import Path

import networkx as nx
import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from gossiplib.classroom.checking import Function, checks, need, need_words, untouched
from gossiplib.core.client import gossip
from gossiplib.core.grid import LocalGrid
from gossiplib.core.server import Gossip


@checks("16.1")
def _(opens: set[tuple[str, str]]) -> None:
    names = {"superlink", "supernode", "flwr"}
    pairs = {tuple(pair) for pair in opens}
    need(all(len(pair) == 2 for pair in pairs), "Give pairs.")
    strange = {name for pair in pairs for name in pair} - names
    need(not strange, f"Use the three words; these are others: {sorted(strange)}.")
    into = {target for _, target in pairs}
    need("supernode" not in into, "No firewall of a hospital lets anybody in.")
    need("flwr" not in into, "Your laptop only asks; it does not listen.")
    need(all(a != b for a, b in pairs), "A part does not need a way to itself.")
    need(len(pairs) >= 2, "Somebody cannot reach whom it needs.")


@checks("16.2")
def _(seconds: float) -> None:
    need(seconds > 0, "A time is above 0.")
    need(seconds % 6 == 0, "It is a whole number of phases.")
    phases = seconds // 6
    need(phases > 2 * 60, "There are two phases in each round, and others besides.")
    need(phases <= 2 * 60 + 4, "Some happen once in a run, not once in a round.")
    need(phases == 2 * 60 + 3, "Count what happens once: before the rounds and after.")


@checks("16.3")
def _(is_online: Function) -> None:
    rng = np.random.default_rng(0)
    need(not is_online([], 10.0, 30.0), "A node that was never heard of is not online.")
    need(is_online([0.0], 60.0, 30.0), "Exactly twice the interval ago is still good.")
    need(not is_online([0.0], 60.5, 30.0), "Half a second later it is not.")
    need(not is_online([90.0], 80.0, 30.0), "What comes after now is not known yet.")
    need(is_online([80.0], 80.0, 30.0), "What comes just now is known.")
    for _ in range(200):
        times = rng.integers(0, 300, size=rng.integers(1, 6)).astype(float).tolist()
        now, interval = float(rng.integers(0, 300)), float(rng.integers(1, 50))
        past = [now - t for t in times if t <= now]
        wanted = bool(past) and min(past) <= 2 * interval
        with untouched("list", times):
            answer = is_online(times, now, interval)
        hint = f"heartbeats {times}, now {now:g}, interval {interval:g}: look again."
        need(bool(answer) == wanted, hint)


@checks("16.4")
def _(T: float) -> str:
    C, M = 2.0, 6 * 3600.0

    def lost(seconds: float) -> float:
        return C / seconds + seconds / (2 * M)

    need(T > 0, "A time is above 0.")
    need(T > 60, "That much writing costs more than it saves.")
    near = min(np.arange(60.0, 6 * 3600.0, 0.25), key=lost)
    hint = f"With it you lose {lost(T):.3%} of your time; it can be less."
    need(abs(T - near) < 1.5, hint)
    told = f"You lose {lost(T):.2%}; with one a minute {lost(60):.2%},"
    return f"{told} with one an hour {lost(3600):.2%}."


@checks("16.5")
def _(older: str, noisy: str, momentum: str) -> str:
    need_words((older, noisy, momentum), "equal", "different")
    apart = {}
    for name, answer, kind, saved, hint in (
        ("older", older, "plain", 2, "What does a client need to repeat a round?"),
        ("noisy", noisy, "noisy", 3, "Where is what the generator has drawn so far?"),
        ("momentum", momentum, "momentum", 3, "What is in a checkpoint?"),
    ):
        apart[name] = np.abs(_six_rounds(kind) - _six_rounds(kind, saved)).max()
        need(answer == ("different" if apart[name] else "equal"), f"{name}: {hint}")
    told = ", ".join(f"{name} {far:.2g}" for name, far in apart.items())
    return f"Largest difference of a number in the models: {told}."


@cache
def _six_rounds(kind: str, saved: int = 6) -> np.ndarray:
    """Return the models of six rounds, resumed from the checkpoint of a round."""
    start = ArrayRecord([np.zeros(3)])
    with tempfile.TemporaryDirectory() as folder:
        ring, file = nx.cycle_graph(4), Path(folder) / "run.zip"
        for last in sorted({saved, 6}):
            grid = LocalGrid(_client(kind), 4)  # a new process imports it anew
            strategy = Gossip(ring, evaluate_every=0, observe_every=0, checkpoint=file)
            run = partial(strategy.resume, file) if file.exists() else strategy.start
            result = run(grid, start, num_rounds=last)
    return result.models()


def _client(kind: str) -> ClientApp:
    """Return a gossip client; what makes it noisy, it keeps outside of its state."""
    app, rng = ClientApp(), np.random.default_rng(0)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        (x,) = message.content.array_records["arrays"].to_numpy_ndarrays()
        step = np.cos(x + context.node_config["partition-id"])
        if kind == "noisy":
            step = step + rng.normal(size=x.shape)
        if kind == "momentum":
            if "step" in context.state:
                (last,) = context.state.array_records["step"].to_numpy_ndarrays()
                step = step + 0.5 * last
            context.state["step"] = ArrayRecord([step])
        content = RecordDict({"arrays": ArrayRecord([x + step])})
        content["metrics"] = MetricRecord({"num-examples": 1})
        return Message(content, reply_to=message)

    return gossip(app)
