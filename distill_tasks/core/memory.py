"""Returning unused memory to the system, quickly, because it is done often."""

from __future__ import annotations

import ctypes
import functools
import gc
import os
import sys
from pathlib import Path

CONTROL_GROUPS = ("memory.max", "memory/memory.limit_in_bytes")
"""Files in the folder below with a container's memory limit: control groups version 2, and 1."""
CONTROL_GROUP_ROOT = Path("/sys/fs/cgroup")


def find_memory_gb() -> float:
    """Return the memory in 10⁹ bytes that this machine or container may use."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in (CONTROL_GROUP_ROOT / name for name in CONTROL_GROUPS):
        limit = path.read_text().strip() if path.is_file() else "max"
        total = min(total, int(limit)) if limit.isdigit() else total
    return total / 1e9


def collect_garbage() -> None:
    """Free objects that are in a reference cycle, such as a Trainer.

    A collection visits every object: 0.3 s each once torch, Prefect and MLflow are loaded. So all
    objects that exist when the number of modules has grown are exempted from later collections.
    """
    gc.collect()
    _leave_out(len(sys.modules))


def release_memory() -> None:
    """Return freed memory to the system, which glibc would keep.

    Without this the stages of one run added up to 3.3 GB (docs/decisions.md).
    """
    collect_garbage()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


@functools.cache
def _leave_out(modules: int) -> None:  # noqa: ARG001  # the key of the cache
    """Exempt all present objects from later collections, once for each number of modules."""
    gc.freeze()
