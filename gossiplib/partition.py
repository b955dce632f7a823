"""Who gets which examples: flwr-datasets' partitioners, and the parts of a client."""

import warnings

import numpy as np

__all__ = ["SMALLEST", "spread", "split"]

#: Examples that a client needs: one each for training, validation and test.
SMALLEST = 3


def spread(
    y: np.ndarray, num_clients: int, partition: str, alpha: float, seed: int
) -> list[np.ndarray]:
    """Return the indices into y of each client's examples."""
    import datasets
    from flwr_datasets import partitioner as flwr_partitioners

    if num_clients < 1:
        raise ValueError(f"num_clients must be at least 1; got {num_clients}")
    makers = {
        "iid": lambda: flwr_partitioners.IidPartitioner(num_clients),
        "dirichlet": lambda: flwr_partitioners.DirichletPartitioner(
            num_clients, "y", float(alpha), min_partition_size=SMALLEST, seed=seed
        ),
        "classes": lambda: flwr_partitioners.PathologicalPartitioner(
            num_clients,
            "y",
            num_classes_per_partition=2,
            class_assignment_mode="first-deterministic",  # leaves few classes out
            seed=seed,
        ),
    }
    if partition not in makers:
        raise ValueError(f"no partition {partition!r}; there are {', '.join(makers)}")
    partitioner = makers[partition]()
    partitioner.dataset = datasets.Dataset.from_dict({"y": y, "index": range(len(y))})
    what = f"{len(y)} examples over {num_clients} clients"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # each of the Dirichlet partitioner's tries
            parts = [partitioner.load_partition(i) for i in range(num_clients)]
    except (ValueError, IndexError) as error:
        mend = f" or an alpha above {alpha}" if partition == "dirichlet" else ""
        raise ValueError(
            f"cannot spread {what} (partition {partition!r}) with at least {SMALLEST} "
            f"for each: take fewer clients{mend}"
        ) from error
    for client, part in enumerate(parts):
        if len(part) < SMALLEST:
            raise ValueError(
                f"client {client} gets {len(part)} of {what}, and needs at least "
                f"{SMALLEST}: take fewer clients"
            )
    return [np.asarray(part["index"]) for part in parts]


def split(index: np.ndarray) -> dict[str, np.ndarray]:
    """Split a client's examples: a tenth, at least one, for validation and for test."""
    tenth = max(1, len(index) // 10)
    return {
        "validation": index[:tenth],
        "test": index[tenth : 2 * tenth],
        "train": index[2 * tenth :],
    }
