"""Timing models from text in to label out, all of them in one interleaved run."""

from __future__ import annotations

import gc
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from distill_tasks.core.environment import describe_machine, variables
from distill_tasks.core.live import Progress
from distill_tasks.core.settings import Settings
from distill_tasks.core.wording import say_speed
from distill_tasks.scoring.intervals import LEVEL

Answers = Callable[[Sequence[str]], object]
"""The function that is timed: texts in, answers out, including tokenisation."""

ROUNDS = 20
BATCHES_EVERY = 4
"""Batches are timed in one round out of this many."""
SHORTEST_TURN_MS = 20
"""Least duration of a model's turn, so that a short disturbance does not fill a whole turn."""
MOST_REPEATS = 50
INTERVAL_DRAWS = 500
PARTS = ("short", "middle", "long")
"""Names of the thirds of the texts by length."""


class MeasureConfig(Settings):
    """How answers are timed."""

    calls: int = Field(
        200,
        ge=20,
        le=100_000,
        description="Single-text calls timed per model; quick models are asked more often.",
    )
    batch_rows: tuple[Annotated[PositiveInt, Field(le=10_000)], ...] = Field(
        (32,), min_length=1, description="Texts in a batch for rows per second; one rate for each."
    )
    threads: int = Field(1, ge=1, le=256, description="Threads one answer may use.")
    device: Literal["cpu", "cuda"] = Field(
        "cpu", description="Where torch models answer; other runtimes stay on the CPU."
    )


@dataclass(frozen=True)
class SpeedUp:
    """How many times faster one model is than another."""

    p50: float
    p95: float

    def __str__(self) -> str:
        return f"{say_speed(self.p50)} at p50, {say_speed(self.p95)} at p95"

    @property
    def faster(self) -> str:
        """The same as the end of a sentence."""
        return f"{say_speed(self.p50)} faster at p50, {say_speed(self.p95)} at p95"


@dataclass(frozen=True)
class Latency:
    """The time of one answer in milliseconds at batch 1, and rows per second in batches."""

    p50_ms: float
    p95_ms: float
    p99_ms: float
    mean_ms: float
    intervals: dict[str, tuple[float, float]]
    """Ends of the 95 % interval of p50_ms, p95_ms and p99_ms, over the rounds."""
    by_length: dict[str, float]
    """p50 in milliseconds for each third of the texts by length."""
    rows_per_s: dict[str, float]
    """By the number of rows in a batch."""
    calls: int
    threads: int
    device: str
    aa_p50: float
    """Relative difference of p50 between two measurements of the same model in the same run."""
    aa_p95: float
    cuda_p50_ms: float | None = None
    """p50 of the time between CUDA events around an answer; None for models on the CPU."""

    @property
    def throughput(self) -> float:
        """Rows per second at the best of the batches."""
        return max(self.rows_per_s.values())

    @property
    def values(self) -> dict[str, float]:
        """The figures by metric name."""
        return {
            "latency/p50_ms": self.p50_ms,
            "latency/p95_ms": self.p95_ms,
            "latency/p99_ms": self.p99_ms,
            "latency/aa_p50": self.aa_p50,
            "latency/aa_p95": self.aa_p95,
            **({} if self.cuda_p50_ms is None else {"latency/cuda_p50_ms": self.cuda_p50_ms}),
            **{f"latency/p50_ms_{part}_texts": value for part, value in self.by_length.items()},
            "throughput/rows_per_s": self.throughput,
            **{f"throughput/rows_per_s_of_{n}": rate for n, rate in self.rows_per_s.items()},
        }

    def speed_up_over(self, other: Latency) -> SpeedUp:
        """Return how many times faster this model is than another one."""
        return SpeedUp(other.p50_ms / self.p50_ms, other.p95_ms / self.p95_ms)

    def to_json(self) -> dict[str, Any]:
        """Return the values as plain data for JSON."""
        return asdict(self)


@dataclass
class Times:
    """The measured times of one model, in nanoseconds."""

    single: list[tuple[NDArray[np.int64], NDArray[np.int64]]]
    """For every round the times of its two turns on the same texts, in random order."""
    batched: dict[int, list[int]]
    repeats: int
    """How many times it answers each text in a turn."""


def time_models(
    models: dict[str, Answers], texts: Sequence[str], config: MeasureConfig, seed: int = 0
) -> dict[str, Latency]:
    """Time every model on the same real texts, in rounds of random order so that drift cancels.

    Each model has two turns in every round, which differ by chance alone: their difference is the
    noise of this run (an A/A test), and both together are the model's times.
    """
    generator = np.random.default_rng(seed)
    sample = [
        texts[row] for row in generator.integers(len(texts), size=math.ceil(config.calls / 2))
    ]
    batches = {
        rows: [texts[row] for row in generator.integers(len(texts), size=rows)]
        for rows in config.batch_rows
    }
    parts = [part for part in np.array_split(np.array(sample, object), ROUNDS) if len(part)]
    progress = Progress("measuring", "rounds")
    progress.start(len(parts))
    with fixed_threads(config.threads), _no_collection():
        times = {
            name: Times([], {rows: [] for rows in batches}, _warm_up(answer, sample, len(parts[0])))
            for name, answer in models.items()
        }
        for number, part in enumerate(parts):
            _run_round(models, part.tolist(), times, generator)
            if number % BATCHES_EVERY == 0:
                _run_batches(models, batches, times, generator)
            gc.collect()
            progress.reach(number + 1)
    progress.stop()
    return {name: _summarise(found, parts, config) for name, found in times.items()}


def find_band(latencies: Sequence[Latency]) -> float:
    """Return the noise band of a run: its largest A/A difference, as a share of p95."""
    return max(latency.aa_p95 for latency in latencies)


def tie(values_ms: NDArray[np.float64], band: float) -> NDArray[np.float64]:
    """Return latencies with those inside the noise band set to the fastest of their group.

    Groups are formed from the fastest one on, so that all members of a group are tied.
    """
    tied = values_ms.copy()
    start = -np.inf
    for number in np.argsort(values_ms, kind="stable"):
        if values_ms[number] > start * (1 + band):
            start = values_ms[number]
        tied[number] = start
    return tied


@contextmanager
def fixed_threads(threads: int) -> Iterator[None]:
    """Limit the threads inside the block, for libraries loaded already and for models opened."""
    from threadpoolctl import threadpool_limits

    torch = sys.modules.get("torch")  # one that is imported later reads the environment
    torch_before = torch and torch.get_num_threads()
    with variables(thread_settings(threads)):
        if torch:
            torch.set_num_threads(threads)
        try:
            with threadpool_limits(threads):
                yield
        finally:
            if torch:
                torch.set_num_threads(torch_before)


def thread_settings(threads: int) -> dict[str, str]:
    """Return the environment variables that limit the threads of every runtime."""
    parallel = "true" if threads > 1 else "false"
    return {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": parallel}


def _run_round(
    models: dict[str, Answers],
    texts: Sequence[str],
    times: dict[str, Times],
    generator: np.random.Generator,
) -> None:
    """Time two turns of each model on a part of the texts, in random order."""
    names = list(models)
    turns: dict[tuple[str, int], NDArray[np.int64]] = {}
    for place in generator.permutation(2 * len(names)):
        turn, number = divmod(int(place), len(names))
        name = names[number]
        answer, asked = models[name], list(texts) * times[name].repeats
        turns[name, turn] = np.array([_time(answer, [text]) for text in asked])
    for name in names:
        times[name].single.append((turns[name, 0], turns[name, 1]))


def _run_batches(
    models: dict[str, Answers],
    batches: dict[int, list[str]],
    times: dict[str, Times],
    generator: np.random.Generator,
) -> None:
    """Time every batch once on each model, in random order."""
    for name in generator.permutation(list(models)):
        for rows, batch in batches.items():
            times[name].batched[rows].append(_time(models[name], batch))


def _warm_up(answer: Answers, texts: Sequence[str], texts_per_turn: int) -> int:
    """Warm a model up on every text, and return how often it answers each text in a turn.

    Runtimes prepare kernels for every new text length, so a warm-up of five texts was not enough.
    """
    taken = [_time(answer, [text]) for text in texts]
    turn_ms = texts_per_turn * float(np.median(taken)) / 1e6
    return min(MOST_REPEATS, math.ceil(SHORTEST_TURN_MS / turn_ms))


def _time(answer: Answers, texts: Sequence[str]) -> int:
    start = time.perf_counter_ns()
    answer(texts)
    return time.perf_counter_ns() - start


def _split_by_length(parts: list[NDArray[np.object_]], repeats: int) -> NDArray[np.int64]:
    """Return the third by length to which each call's text belongs, in the order of the calls."""
    lengths = np.concatenate([np.tile([len(text) for text in part], repeats) for part in parts])
    return np.searchsorted(np.quantile(lengths, [1 / 3, 2 / 3]), lengths)


def _summarise(times: Times, parts: list[NDArray[np.object_]], config: MeasureConfig) -> Latency:
    first, second = (np.concatenate(turns) / 1e6 for turns in zip(*times.single, strict=True))
    every = np.concatenate([first, second])
    p50, p95, p99 = _read_off(every)
    both = np.tile(_split_by_length(parts, times.repeats), 2)
    difference = np.abs(np.log(_read_off(first) / _read_off(second)))
    return Latency(
        p50_ms=float(p50),
        p95_ms=float(p95),
        p99_ms=float(p99),
        mean_ms=float(every.mean()),
        intervals=_intervals(times),
        by_length={
            name: float(np.median(every[both == number]))
            for number, name in enumerate(PARTS)
            if (both == number).any()
        },
        rows_per_s={
            str(rows): float(rows / (np.median(taken) / 1e9))
            for rows, taken in times.batched.items()
        },
        calls=len(every),
        threads=config.threads,
        device=describe_machine(),
        aa_p50=float(np.expm1(difference[0])),
        aa_p95=float(np.expm1(difference[1])),
    )


def _read_off(milliseconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return p50, p95 and p99."""
    return np.quantile(milliseconds, [0.5, 0.95, 0.99])


def _intervals(times: Times) -> dict[str, tuple[float, float]]:
    """Return the bootstrap intervals of the quantiles, drawing whole rounds because of drift."""
    rounds = [np.concatenate(turns) / 1e6 for turns in times.single]
    generator = np.random.default_rng(0)
    drawn = np.array(
        [
            _read_off(np.concatenate([rounds[n] for n in picks]))
            for picks in generator.integers(len(rounds), size=(INTERVAL_DRAWS, len(rounds)))
        ]
    )
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    names = ("p50_ms", "p95_ms", "p99_ms")
    return {name: (float(low[n]), float(high[n])) for n, name in enumerate(names)}


@contextmanager
def _no_collection() -> Iterator[None]:
    frozen_before, enabled_before = gc.get_freeze_count(), gc.isenabled()
    gc.collect()
    gc.freeze()  # what is loaded by now is never looked at again, which makes collecting quick
    gc.disable()
    try:
        yield
    finally:
        if enabled_before:
            gc.enable()
        if not frozen_before:
            gc.unfreeze()
