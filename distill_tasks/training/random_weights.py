"""Random first weights that a seed determines, in whatever thread a student is trained."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_drawing = threading.Lock()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Let torch's random numbers inside the block be determined by ``seed`` alone.

    All threads of a process share torch's generator, so that one of them draws at a time.
    """
    import torch

    with _drawing:
        torch.manual_seed(seed)
        yield
