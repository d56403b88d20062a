"""The stopwatch: text in, label out, all models in one interleaved run."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from distill_tasks.progress import Progress
from distill_tasks.settings import Settings

Answers = Callable[[Sequence[str]], object]
"""What is timed: texts in, answers out, tokenisation included."""

ROUNDS = 10
WARM_UP_CALLS = 5


class MeasureConfig(Settings):
    """How answers are timed."""

    calls: int = Field(200, ge=20, le=100_000, description="Single-text calls timed per model.")
    batch_rows: int = Field(32, ge=1, le=4096, description="Texts in a batch for rows per second.")
    threads: int = Field(1, ge=1, le=256, description="Threads one answer may use.")


@dataclass(frozen=True)
class Latency:
    """What one answer costs, in milliseconds at batch 1, and rows per second in batches."""

    p50_ms: float
    p95_ms: float
    p99_ms: float
    rows_per_s: float
    calls: int
    batch_rows: int
    threads: int
    device: str
    noise: float
    """Relative difference of p50 between odd and even rounds of the same model."""

    @property
    def values(self) -> dict[str, float]:
        """The figures by metric name."""
        return {
            "latency/p50_ms": self.p50_ms,
            "latency/p95_ms": self.p95_ms,
            "latency/p99_ms": self.p99_ms,
            "latency/noise": self.noise,
            "throughput/rows_per_s": self.rows_per_s,
        }

    def to_json(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return asdict(self)


def time_models(
    models: dict[str, Answers], texts: Sequence[str], config: MeasureConfig, seed: int = 0
) -> dict[str, Latency]:
    """Time every model on the same real texts, in rounds of random order so that drift cancels."""
    generator = np.random.default_rng(seed)
    sample = [texts[row] for row in generator.integers(len(texts), size=config.calls)]
    batch = [texts[row] for row in generator.integers(len(texts), size=config.batch_rows)]
    single: dict[str, list[list[int]]] = {name: [] for name in models}
    batched: dict[str, list[int]] = {name: [] for name in models}
    progress = Progress("measuring", "rounds")
    progress.start(ROUNDS)
    with _fixed_threads(config.threads), _no_collection():
        for answer in models.values():
            for text in sample[:WARM_UP_CALLS]:
                answer([text])
        for number, calls in enumerate(np.array_split(np.arange(config.calls), ROUNDS)):
            for name in generator.permutation(list(models)):
                single[name].append([_time(models[name], [sample[call]]) for call in calls])
                batched[name].append(_time(models[name], batch))
            gc.collect()
            progress.reach(number + 1)
    progress.stop()
    return {name: _summarise(single[name], batched[name], config) for name in models}


def describe_machine() -> str:
    """Return the processor's name and how many of its cores this process may use."""
    import os
    import platform

    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores"


def _time(answer: Answers, texts: Sequence[str]) -> int:
    start = time.perf_counter_ns()
    answer(texts)
    return time.perf_counter_ns() - start


def _summarise(single: list[list[int]], batched: list[int], config: MeasureConfig) -> Latency:
    every = np.concatenate([np.array(calls) for calls in single]) / 1e6
    p50, p95, p99 = np.quantile(every, [0.5, 0.95, 0.99])
    odd, even = (np.median(np.concatenate(single[start::2])) for start in (0, 1))
    return Latency(
        p50_ms=float(p50),
        p95_ms=float(p95),
        p99_ms=float(p99),
        rows_per_s=float(config.batch_rows / (np.median(batched) / 1e9)),
        calls=config.calls,
        batch_rows=config.batch_rows,
        threads=config.threads,
        device=describe_machine(),
        noise=float(abs(odd - even) / min(odd, even)),
    )


@contextmanager
def _fixed_threads(threads: int) -> Iterator[None]:
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(threads):
            yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _no_collection() -> Iterator[None]:
    frozen_before = gc.get_freeze_count()
    gc.collect()
    gc.freeze()  # what is loaded by now is never looked at again, which makes collecting quick
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        if not frozen_before:
            gc.unfreeze()
