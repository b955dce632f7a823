"""Long runs: how far they are, and a Ctrl-C that keeps what they have."""

import signal
import warnings
from types import FrameType

from tqdm import tqdm

__all__ = ["Interrupt", "updates_bar"]


def updates_bar(num_rounds: int, num_clients: int) -> tqdm:
    """Return a progress bar that counts updates of clients, after 2 seconds."""
    return tqdm(
        total=num_rounds * num_clients,
        desc=f"{num_clients:,} clients",
        unit=" updates",
        unit_scale=True,
        delay=2,
        leave=False,
    )


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
        """Tell that a result is not of all the rounds that were asked for."""
        text = f"interrupted: the result is that of {done} of {asked} {rounds}"
        warnings.warn(text, stacklevel=3)

    def __exit__(self, *exception: object) -> None:
        """Give Ctrl-C back."""
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
