"""How much memory is free, and whether a run fits: told before the work starts."""

from pathlib import Path

import psutil
import torch

__all__ = ["check_memory", "free_memory"]

#: Where Linux tells a container its limit, and what it has used: cgroup v2, then v1.
_CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)


def free_memory(device: torch.device) -> int:
    """Return the bytes that are free on a device; in a container, to its limit."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = psutil.virtual_memory().available
    for limit, used in _CGROUPS:
        try:
            left = int(Path(limit).read_text()) - int(Path(used).read_text())
        except (OSError, ValueError):  # not there, or "max": no limit
            continue
        free = min(free, max(0, left))
    return free


def check_memory(needed: int, device: torch.device, what: str) -> None:
    """Raise MemoryError if a run needs more bytes than are free.

    `what` says what needs them, and begins the message.
    """
    free = free_memory(device)
    if needed > free:
        raise MemoryError(
            f"{what} need about {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are "
            f"free on {device}: take fewer clients or a smaller model"
        )
