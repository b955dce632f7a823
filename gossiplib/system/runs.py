"""Long runs: progress, a Ctrl-C that keeps what is there, memory, waiting, configs."""

import json
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import psutil
from tqdm import tqdm

if TYPE_CHECKING:
    import torch


def toml(value: str | int | float | bool) -> str:
    """Return a value in TOML: as in JSON, but for what the two escape differently."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def wait_until(
    condition: Callable[[], bool], seconds: float, *, every: float = 0.05
) -> bool:
    """Wait until a condition holds, asked at least once; tell whether it does."""
    end = time.monotonic() + seconds  # no change of the date moves this clock
    while not condition():
        left = end - time.monotonic()
        if not left > 0:  # or it is NaN
            return False
        time.sleep(min(every, left))
    return True


def progress(
    rounds: Iterable[int] | None, what: str, total: int, unit: str, scale: bool = False
) -> tqdm:
    """Return a progress bar, which shows after 2 seconds and goes when it is done.

    In a notebook it goes to stdout: what was on stderr leaves a red strip there, also
    when it is gone.
    """
    in_notebook = type(sys.stderr).__module__.startswith("ipykernel")
    return tqdm(
        rounds,
        what,
        total,
        unit=unit,
        unit_scale=scale,
        delay=2,
        leave=False,
        file=sys.stdout if in_notebook else sys.stderr,
    )


def updates_bar(num_rounds: int, num_clients: int) -> tqdm:
    """Return a progress bar that counts updates of clients."""
    total, what = num_rounds * num_clients, f"{num_clients:,} clients"
    return progress(None, what, total, " updates", scale=True)


class Interrupt:
    """Within the `with` block, Ctrl-C sets `asked`; a second one interrupts at once.

    In a notebook, Ctrl-C is "interrupt the kernel". In a thread that is not the main
    one, Python passes no signals on, and nothing is changed.
    """

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> "Interrupt":
        """Take Ctrl-C over."""
        try:
            self._before = signal.signal(signal.SIGINT, self._ask)
        except ValueError:  # not the main thread
            self._before = None
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def warn(self, done: int, asked: int, rounds: str = "rounds") -> None:
        """Warn whoever called the engine: of the rounds `asked` for, `done` were."""
        text = f"interrupted: the result is that of {done} of {asked} {rounds}"
        warnings.warn(text, stacklevel=4)  # above the engine and `each_round`

    def __exit__(self, *exception: object) -> None:
        """Give Ctrl-C back."""
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)


#: Where Linux tells a container its limit, and what it has used: cgroup v2, then v1.
_V1 = "/sys/fs/cgroup/memory/memory."
CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (f"{_V1}limit_in_bytes", f"{_V1}usage_in_bytes"),
)


def free_memory(
    device: "torch.device", cgroups: Iterable[tuple[str, str]] = CGROUPS
) -> int:
    """Return the bytes that are free on a device; in a container, to its limit."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    free: int = psutil.virtual_memory().available
    for limit, used in cgroups:
        try:
            left = int(Path(limit).read_text()) - int(Path(used).read_text())
        except (OSError, ValueError):  # not there, or "max": no limit
            continue
        free = min(free, max(0, left))
    return free


def check_memory(needed: int, device: "torch.device", what: str) -> None:
    """Raise MemoryError if fewer bytes are free than `what` needs."""
    free = free_memory(device)
    if needed > free:
        raise MemoryError(
            f"{what} need about {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are "
            f"free on {device}: take fewer clients or a smaller model"
        )


def due(server_round: int, every: int) -> bool:
    """Tell whether something that is done every few rounds is due; 0 is never."""
    return every > 0 and server_round % every == 0


def each_round(
    first: int,
    last: int,
    *,
    observe: Callable[[int], None],
    observe_every: int,
    save: Callable[[int], None] | None = None,
    save_every: int = 0,
    interrupt: Interrupt | None = None,
    unit: str = "rounds",
) -> Iterator[int]:
    """Yield the rounds of a run, each before its body, and do what is due behind it.

    A run looks at itself every few rounds, and after the last in any case; likewise it
    writes its checkpoints. Where nothing is left to do, as when a run that has ended is
    resumed, it looks once. If `interrupt` was asked for, the round is the last, and a
    warning tells, in which rounds have the name `unit`.
    """
    for t in range(first, last + 1):
        yield t
        looks = due(t, observe_every)
        if looks:
            observe(t)  # which may take long, and be interrupted
        ends = t == last or (interrupt is not None and interrupt.asked)
        if save and (ends or due(t, save_every)):
            save(t)
        if ends and not looks:  # not in the checkpoint: a longer run has no such look
            observe(t)
        if interrupt is not None and ends and t < last:
            interrupt.warn(t, last, unit)
            return
    if first > last:
        observe(first - 1)
