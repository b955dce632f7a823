"""Data attacks: some clients train on changed examples, and are honest otherwise."""

import copy
from collections.abc import Callable, Iterable

import numpy as np
import torch

from gossiplib.system.numbers import check_whole
from gossiplib.tasks.task import Examples, Task

__all__ = ["poisoned"]


def poisoned(
    task: Task, clients: Iterable[int], change: Callable[..., Examples]
) -> Task:
    """Return a task in which some clients' training examples are changed.

    This is a data attack, or *data poisoning*: the attacker trains and sends as all
    others do. The task that is given stays as it is, and so do the common test set and
    all validation and test parts. For *label flipping* (Tolpegin et al. 2020,
    arXiv:2007.08432), `change` is ``lambda x, y: (x, 9 - y)``, with ten classes; for a
    *backdoor* (Gu et al. 2017, arXiv:1708.06733) it puts a trigger into images, and a
    target in place of their classes.

    Parameters
    ----------
    task : Task
        What the clients learn.
    clients : iterable of int
        Whose examples are changed.
    change : callable
        (x, y) -> (x, y), of a client's training part, see `Task.part`, to as many
        examples of the same shapes and data types. It gets copies.

    Returns
    -------
    Task
        The same, with other examples for these clients.

    Raises
    ------
    ValueError
        If there is no such client, or `change` returns what is not like its examples.
    """
    other = copy.deepcopy(task)
    index, xs, ys = other.parts.index, [other.x], [other.y]
    for client in clients:
        check_whole("client", client, 0, task.num_clients - 1)
        first, count = map(int, task.parts.span(client, "train"))
        given = task.part(client, "train")
        made = change(*(tensor.clone() for tensor in given))
        for name, old, new in zip("xy", given, made, strict=True):
            if (new.shape, new.dtype) != (old.shape, old.dtype):
                wrong = f"{new.dtype} of shape {tuple(new.shape)}"
                right = f"{old.dtype} of shape {tuple(old.shape)}"
                raise ValueError(f"change must return {name} as {right}, not {wrong}")
        if len(made[1]) and not (
            0 <= made[1].min() and made[1].max() < task.num_classes
        ):
            raise ValueError(f"classes must be from 0 to {task.num_classes - 1}")
        # New rows, as where examples are dealt, other clients hold the old ones too.
        index[first : first + count] = sum(map(len, ys)) + np.arange(count)
        for kept, new in zip((xs, ys), made, strict=True):
            kept.append(new)
    other.x, other.y = torch.cat(xs), torch.cat(ys)
    return other
