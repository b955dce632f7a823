"""Ctrl-C that ends a long run after its round, and keeps what the run has."""

import signal
from types import FrameType

__all__ = ["Interrupt"]


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

    def __exit__(self, *exception: object) -> None:
        """Give Ctrl-C back."""
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
