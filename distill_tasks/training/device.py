"""The device for training and labelling, and the fastest settings on it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Device:
    """The device of training and labelling, its settings, and the reason for the log."""

    kind: str
    """``cpu`` or ``cuda``."""
    bf16: bool
    """Whether bfloat16 is faster than float32 here."""
    working_copy: bool
    """Whether training may compute in a bfloat16 copy of the model, else it uses autocast."""
    training_attention: str
    """Attention implementation for training; labelling always takes ``sdpa``."""
    reason: str
    compiles_training: bool = False
    """Whether training may try `torch.compile`; labelling always may."""
    gpus: int = 0
    """Number of GPUs that may train one model together."""


def present_ranks() -> int:
    """Return how many processes train this model together, including this one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use a single thread inside the block.

    For students whose vectors are short: a second thread saves half a second if a core is idle,
    and may cost many seconds if none is. The result then does not depend on the number of threads
    either.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def has_bf16_instructions() -> bool:
    """Return whether this CPU multiplies in bfloat16, and ONEDNN_MAX_CPU_ISA lets it."""
    import torch

    there = bool(torch.cpu._is_avx512_bf16_supported())
    return there and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # no op on other CPUs


def choose_device() -> Device:
    """Return the fastest device of this machine, with the settings measured to be fastest on it."""
    import torch

    alone = present_ranks() == 1  # processes share gradients of the model
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
        bf16 = torch.cuda.is_bf16_supported()
        return Device(
            "cuda",
            bf16,
            False,
            "sdpa",
            f"{name}: {'bf16' if bf16 else 'fp32'}, fused attention",
            compiles_training=True,
            gpus=torch.cuda.device_count() if alone else 1,
        )
    capabilities = torch.backends.cpu.get_cpu_capability()
    bf16 = has_bf16_instructions()
    if bf16:
        reason = f"CPU with bf16 instructions ({capabilities}): bf16, eager attention in training"
    else:
        reason = (
            f"CPU without bf16 instructions ({capabilities}): fp32, eager attention in training"
        )
    return Device("cpu", bf16, bf16 and alone, "eager", reason)
