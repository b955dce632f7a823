"""Who gets which examples, and what each client uses them for."""

import warnings
from typing import NamedTuple

import numpy as np

from gossiplib.system.numbers import check_number, check_whole, rng

#: The parts of a client's examples.
PARTS = ("validation", "test", "train")


class Parts(NamedTuple):
    """All clients' examples in one array, client by client, in the order of `PARTS`.

    `index` has rows of the data set, int32; `starts` where each client's begin in it,
    and the end of the last; `held` how many of each are kept for validation, and as
    many for test. Of a million clients, small arrays would take most of the memory.
    """

    index: np.ndarray  # type: ignore[assignment]  # instead of the tuple's own method
    starts: np.ndarray
    held: np.ndarray

    def span(
        self, clients: int | np.ndarray, name: str
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return where a part of each client begins in `index`, and its length."""
        if name not in PARTS:
            raise ValueError(f"no part {name!r}; there are {', '.join(PARTS)}")
        if np.ndim(clients) == 0:
            clients = check_whole("client", clients, 0, len(self.held) - 1)
        elif np.less(clients, 0).any():  # which would count from the end
            raise ValueError(f"clients must be 0 or more; got {np.min(clients)}")
        start, held = self.starts[clients], self.held[clients]
        if name == "train":
            first = start + 2 * held
            return first, self.starts[clients + 1] - first
        return start + PARTS.index(name) * held, held


def parts(index: np.ndarray, sizes: np.ndarray, holdout: float) -> Parts:
    """Divide clients' rows, `index`: a share, at least one, for each small part."""
    if not 0 <= check_number("holdout", holdout) < 0.5:
        raise ValueError(f"holdout is a share, from 0 to below 0.5; got {holdout}")
    needed = 3 if holdout else 1
    if (small := np.flatnonzero(sizes < needed)).size:
        raise ValueError(
            f"client {small[0]} gets {sizes[small[0]]} of {sizes.sum()} examples over "
            f"{len(sizes)} clients, and needs at least {needed}: take fewer clients"
        )
    starts = np.concatenate([[0], np.cumsum(sizes)])
    held = np.maximum(1, (holdout * sizes).astype(np.int64)) if holdout else 0 * sizes
    return Parts(index.astype(np.int32), starts, held)


def deal(
    pool: int, num_clients: int, examples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Deal examples like cards: when a shuffled deck is through, shuffle a new one.

    A client's examples differ from each other, but other clients hold them too, as if
    each had drawn its own from one source. Returned are numbers below `pool`.
    """
    examples = check_whole("examples", examples, 1, pool)
    hands = pool // examples
    decks = np.tile(np.arange(pool, dtype=np.int32), (-(-num_clients // hands), 1))
    rng(seed).permuted(decks, axis=1, out=decks)
    dealt = decks[:, : hands * examples].ravel()
    return dealt[: num_clients * examples], np.full(num_clients, examples)


def spread(
    y: np.ndarray,
    num_clients: int,
    partition: str,
    alpha: float,
    smallest: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices into y of the clients' examples, and how many each has."""
    import datasets
    from flwr_datasets import partitioner as flwr

    makers = {
        "iid": lambda: flwr.IidPartitioner(num_clients),
        "dirichlet": lambda: flwr.DirichletPartitioner(
            num_clients, "y", float(alpha), min_partition_size=smallest, seed=seed
        ),
        # This mode leaves few classes out.
        "classes": lambda: flwr.PathologicalPartitioner(
            num_clients, "y", 2, class_assignment_mode="first-deterministic", seed=seed
        ),
    }
    if partition not in [*makers]:  # it may be anything
        there = ", ".join([*makers, "dealt"])
        raise ValueError(f"no partition {partition!r}; there are {there}")
    partitioner = makers[partition]()
    partitioner.dataset = datasets.Dataset.from_dict({"y": y, "index": range(len(y))})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # each of the Dirichlet partitioner's tries
            loaded = [partitioner.load_partition(i) for i in range(num_clients)]
    except (ValueError, IndexError) as error:
        mend = f" or an alpha above {alpha}" if partition == "dirichlet" else ""
        raise ValueError(
            f"cannot spread {len(y)} examples over {num_clients} clients (partition "
            f"{partition!r}), {smallest} or more for each: take fewer clients{mend}"
        ) from error
    index = np.concatenate([part["index"] for part in loaded])
    return index, np.array([len(part) for part in loaded])
