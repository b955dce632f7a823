"""Checks of the exercises of notebook 13: the project."""

from collections.abc import Callable
from typing import Any

import numpy as np

from gossiplib.classroom.checking import checks, need, untouched


@checks("13.1")
def _(neighbours: float) -> None:
    need(neighbours % 1 == 0 and neighbours > 0, "Neighbours are whole.")
    models = 1 + int(neighbours)  # the median is honest if lies are less than half
    need(2 * 2 < models, "Two lies that agree can still move the middle.")
    need(2 * 2 >= models - 1, "Fewer are enough: the own model counts, too.")


@checks("13.2")
def _(rounds: float) -> None:
    need(rounds % 1 == 0, "Count whole rounds.")
    need(rounds > 0, "The budget is enough for some.")
    links = 16 * 8 * 0.9 * 0.95**2
    need(
        rounds * links * 2600 <= 4_000_000,
        "That is more than the budget. A link carries a message each way, and a round "
        "for which it is not enough is none.",
    )
    need(
        (rounds + 1) * links * 2600 > 4_000_000,
        "More rounds fit: what does not arrive costs nothing.",
    )


@checks("13.3")
def _(average: Callable[..., Any]) -> None:
    rng = np.random.default_rng(0)
    for k in range(1, 12):
        for clients in ((), (3,)):
            models = [_model(rng, clients) for _ in range(k)]
            weights = np.full((k, *clients), 1 / k)
            with untouched("models", models):
                mixed = average(models[0], models[1:], weights, None)
            where = f"with {k} models" + (
                " of three clients at once" if clients else ""
            )
            shapes = [np.shape(a) for a in mixed]
            wanted = [a.shape for a in models[0]]
            need(shapes == wanted, f"Return arrays like those of own ({where}).")
            kinds = [np.asarray(a).dtype for a in mixed]
            need(
                kinds == [a.dtype for a in models[0]],
                f"Return the data types of own ({where}).",
            )
            for found, *layer in zip(mixed, *models, strict=True):
                need(
                    np.allclose(found, _kept(layer), rtol=1e-5, atol=1e-5),
                    f"It is not the mean of what is to be kept ({where}).",
                )


@checks("13.4")
def _(stopped_by: str) -> None:
    letters = "".join(str(stopped_by).lower().split())
    need(
        len(letters) == 5 and set(letters) <= set("mvp"), "Five letters of m, v and p."
    )
    rules = {
        "a": ("m", "does the checksum still fit?"),
        "b": ("v", "the row is whole, and its number is not what the entry reaches."),
        "c": ("m", "the row says its seeds."),
        "d": ("p", "all that the row says is true of that entry."),
        "e": ("p", "the entry reaches its score again, and pays few bytes again."),
    }
    for said, (case, (right, hint)) in zip(letters, rules.items(), strict=True):
        need(said == right, f"Look at ({case}) again: {hint}")


def _model(rng: np.random.Generator, clients: tuple[int, ...]) -> list[np.ndarray]:
    shapes = [(*clients, 2, 3), (*clients, 4)]
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def _kept(layer: list[np.ndarray]) -> np.ndarray:
    """Return the mean of what remains of each number, one after the other."""
    rows = np.reshape(layer, (len(layer), -1)).T.tolist()
    kept = []
    for values in map(sorted, rows):
        for _ in range(2):
            if len(values) > 2:
                values = values[1:-1]
        kept.append(sum(values) / len(values))
    return np.reshape(kept, layer[0].shape)
