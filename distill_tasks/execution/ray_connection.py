"""The connection of a process to a Ray cluster, or to a Ray of its own."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

OWN_STORE_BYTES = 10**8
"""Memory of a Ray of our own for objects, which are references alone."""


@contextmanager
def connect(address: str | None) -> Iterator[None]:
    """Connect to the cluster at an address inside the block, unless this process is connected.

    Without one a Ray is started on this machine, which ends with the block.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    stop = signal.getsignal(signal.SIGTERM)
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address is None:
        room = OWN_STORE_BYTES
        ray.init("local", include_dashboard=False, object_store_memory=room, **quiet)
    else:
        ray.init(address, **quiet)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)  # Ray sets one of its own, and leaves it
    try:
        yield
    finally:
        ray.shutdown()
