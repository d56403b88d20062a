"""Memory that nobody uses any more is given back, often enough that it must take little time."""

from __future__ import annotations

import ctypes
import functools
import gc
import os
import sys
from pathlib import Path

CONTROL_GROUPS = ("memory.max", "memory/memory.limit_in_bytes")
"""Where Linux says, below this folder, what a container may take: of version 2, and of 1."""
CONTROL_GROUP_ROOT = Path("/sys/fs/cgroup")


def find_memory_gb() -> float:
    """Return the memory in 10⁹ bytes that this machine, or the container it is, may use."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in (CONTROL_GROUP_ROOT / name for name in CONTROL_GROUPS):
        limit = path.read_text().strip() if path.is_file() else "max"
        total = min(total, int(limit)) if limit.isdigit() else total
    return total / 1e9


def collect_garbage() -> None:
    """Free what only refers to itself, as a Trainer does.

    A collection looks at every object there is: 0.3 s each once torch, Prefect and MLflow are
    loaded. So what is there with the newest module is left out from then on.
    """
    gc.collect()
    _leave_out(len(sys.modules))


def release_memory() -> None:
    """Give memory that was freed back to the system; glibc keeps it otherwise.

    Without this the stages of one run added up to 3.3 GB (docs/decisions.md).
    """
    collect_garbage()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


@functools.cache
def _leave_out(modules: int) -> None:  # noqa: ARG001  # it is what the cache knows
    """Leave all that is there out of later collections, once for a number of loaded modules."""
    gc.freeze()
