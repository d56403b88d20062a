"""`torch.compile` for long work: tried on some batches, and kept where it is faster."""

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
"""Work that takes less is not compiled: compiling takes up to a minute (docs/decisions.md)."""
PROBED_BATCHES = 20
LEAST_GAIN = 1.05
"""How much faster compiled code must be to be kept."""

Read = Callable[..., Any]
"""Takes a batch's tensors by name, returns what the model returns."""


def compile_model(model: Module) -> Read:
    """Return what reads batches of any shape by compiled code, made when it first reads.

    Where nothing is learnt on a CPU, weights are frozen into it, packed for its instructions:
    labelling was 22 % faster so, and 5 % without (docs/decisions.md).
    """

    @cache
    def compiled() -> Read:
        return torch.compile(model, dynamic=True)

    def read(**inputs: Any) -> Any:
        from torch._inductor import config

        # around the call, as the tracer asks for it too, not only the compiler
        on_cpu = inputs["input_ids"].device.type == "cpu"
        with config.patch(freezing=on_cpu and not torch.is_grad_enabled()):
            return compiled()(**inputs)

    return read


class FasterReader:
    """Reads about so many tokens by a model, or by its compiled form where a probe finds it faster.

    A batch's time ends where the next one begins, so that it holds the backward pass and the step.
    """

    def __init__(self, model: Module, tokens: float) -> None:
        self.model = model
        self.tokens_left = tokens
        self.compiled = False
        self.turns = self._turns()
        self.times: dict[Read, deque[float]] = defaultdict(lambda: deque(maxlen=PROBED_BATCHES))
        """Seconds for a token, of the batches that each read last."""
        self.last: tuple[Read, float, int] | None = None

    def __call__(self, **inputs: Any) -> Any:
        """Read one batch."""
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
            logger.warning("compile: torch.compile failed, going on without it: %s", reason)
            self.turns = repeat(self.model)
            return self.model(**inputs)

    def close(self) -> None:
        """Let go of compiled code and the weights in it."""
        if self.compiled:
            torch._dynamo.reset()

    def _count(self, tokens: int) -> None:
        if self.last is not None:
            read, start, read_tokens = self.last
            self.times[read].append((time.perf_counter() - start) / read_tokens)
        self.tokens_left -= tokens

    def _turns(self) -> Iterator[Read]:
        """Yield who reads the next batch."""
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
