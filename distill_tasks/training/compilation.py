"""`torch.compile` for long work: tried on a few batches, and kept if it is faster."""

from __future__ import annotations

import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from functools import cache
from itertools import repeat
from statistics import median
from typing import Any

import torch
from torch.nn import Module

from distill_tasks.core.errors import say_error

logger = logging.getLogger("potstill")

LONG_S = 600.0
"""Shorter work is not compiled, since compiling takes up to a minute (docs/decisions.md)."""
PROBED_BATCHES = 20
LEAST_GAIN = 1.05
"""How much faster compiled code must be to be kept."""

Read = Callable[..., Any]
"""A function that takes a batch's tensors by name and returns the model's output."""


def compile_model(model: Module) -> Read:
    """Return a model compiled for batches of any shape; it is compiled on its first batch.

    For inference on a CPU the weights are frozen into the code, packed for its instructions: this
    made labelling 22 % faster, and compiling without it 5 % (docs/decisions.md).
    """

    @cache
    def compiled() -> Read:
        return torch.compile(model, dynamic=True)

    def read(**inputs: Any) -> Any:
        from torch._inductor import config

        # set around the call, because the tracer reads the settings as well as the compiler
        on_cpu = inputs["input_ids"].device.type == "cpu"
        with config.patch(freezing=on_cpu and not torch.is_grad_enabled()):
            return compiled()(**inputs)

    return read


class FasterReader:
    """Runs a model on about ``tokens`` tokens, in compiled form if that proves faster.

    The time of a batch lasts until the next one begins, so that it includes the backward pass and
    the optimiser's step.
    """

    def __init__(self, model: Module, tokens: float) -> None:
        self.model = model
        self.tokens_left = tokens
        self.compiled = False
        self.turns = self._turns()
        self.times: dict[Read, deque[float]] = defaultdict(lambda: deque(maxlen=PROBED_BATCHES))
        """Seconds for each token of the latest batches, of the plain and the compiled model."""
        self.last: tuple[Read, float, int] | None = None

    def __call__(self, **inputs: Any) -> Any:
        """Run the model on one batch."""
        tokens = inputs["input_ids"].numel()
        self._count(tokens)
        read = next(self.turns)
        self.last = read, time.perf_counter(), tokens
        try:
            return read(**inputs)
        except Exception as error:  # of compiler, linker, driver: any of dozens
            if read is self.model:
                raise
            reason = say_error(error)
            logger.warning("compile: torch.compile failed, continuing without it: %s", reason)
            self.turns = repeat(self.model)
            return self.model(**inputs)

    def close(self) -> None:
        """Release the compiled code and the weights in it."""
        if self.compiled:
            torch._dynamo.reset()

    def _count(self, tokens: int) -> None:
        if self.last is not None:
            read, start, read_tokens = self.last
            self.times[read].append((time.perf_counter() - start) / read_tokens)
        self.tokens_left -= tokens

    def _turns(self) -> Iterator[Read]:
        """Yield for each batch the function that runs it: plain, compiled, then the faster one."""
        yield from repeat(self.model, PROBED_BATCHES)
        left_s = self.tokens_left * self._token_s(self.model)
        if left_s < LONG_S:
            yield from repeat(self.model)
        logger.info("compile: about %.0f minutes are left, trying torch.compile", left_s / 60)
        self.compiled = True
        compiled = compile_model(self.model)
        yield from repeat(compiled, PROBED_BATCHES)  # some shapes are compiled once more
        for _ in range(PROBED_BATCHES):
            yield from (self.model, compiled)
        gain = self._token_s(self.model) / self._token_s(compiled)
        kept = gain >= LEAST_GAIN
        logger.info("compile: %.2f times as fast, %s", gain, "kept" if kept else "not kept")
        yield from repeat(compiled if kept else self.model)

    def _token_s(self, read: Read) -> float:
        return median(self.times[read])
