"""How much of the machine do training and labelling use? Reuters R8, in bf16 matrix peaks.

The peak is what one product of two 8,192-square bf16 matrices reaches, measured before, between and
after in the same run, and taken at its best. Floating-point operations of training and labelling
are counted by `torch.utils.flop_counter` in a run of their own, with its formula for attention also
where that is one operator of the CPU, which it would count as nothing; the seconds are those from
the first training step to the last, data and optimizer included, and those of asking a teacher that
is loaded. Labelling is measured in both of its forms, in turns: for ten minutes of rows and more it
is compiled where a probe finds that faster, for fewer it is not. The profile, of what is not
compiled, says where the rest goes. Prints tables for people and, as its last line, one JSON object:

- ``train_fraction``: of the peak, in training a student of three layers.
- ``label_fraction``: of the peak, in labelling much with the six-layer teacher, compiling left out.
- ``label_fraction_uncompiled``: the same with fewer rows to label.
"""

from __future__ import annotations

from distill_tasks.core.process import set_up_process

set_up_process()

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from reuters import configure, say_machine
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count
from transformers import TrainerCallback

from distill_tasks.data.soft_labels import SoftLabels
from distill_tasks.reporting.tables import markdown_table
from distill_tasks.stages.prepare import check_config
from distill_tasks.students import LayersStudent
from distill_tasks.students.base import TrainingSet
from distill_tasks.training import trainer as training
from distill_tasks.training.checkpoint import Checkpoint
from distill_tasks.training.classifier import SequenceClassifier
from distill_tasks.training.compilation import compile_model
from distill_tasks.training.objective import Objective

ROWS, SIDE, DEPTH = 1_920, 8_192, 3
KINDS = {
    "attention in one operator": ("scaled_dot_product",),
    "matrix products": ("mm", "bmm", "linear", "matmul"),
    "copies and casts": ("copy", "to_copy", "cat", "fill", "zero"),
    "softmax, GELU, norms": ("softmax", "gelu", "layer_norm", "tanh"),
    "optimizer and clipping": ("adam", "foreach", "norm"),
    "embeddings": ("embedding", "index"),
}


class Clock(TrainerCallback):
    """The seconds from the first step to the last, without the scoring of validation."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Start with the first step."""
        if not self.seconds:
            self.started = time.perf_counter()
            self.seconds = 1e-9

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Know when the last step so far ended."""
        self.seconds = time.perf_counter() - self.started


def main() -> None:
    """Print the tables and the JSON line."""
    with tempfile.TemporaryDirectory() as folder:
        training_set, base = make_training_set(Path(folder))
        teacher, compiled = (SequenceClassifier(base.model, base.max_length) for _ in range(2))
        compiled.model = compile_model(compiled.model)
        compile_s = time_once(lambda: ask(compiled, training_set))
        peaks = [measure_peak()]
        train_once(training_set, Path(folder))  # what is compiled and cached once is no part of it
        train_s = time_training(training_set, Path(folder))
        peaks.append(measure_peak())
        label_s, compiled_s = time_turns(
            lambda: ask(teacher, training_set), lambda: ask(compiled, training_set)
        )
        peaks.append(measure_peak())
        train_flops = count(lambda: train_once(training_set, Path(folder)))
        label_flops = count(lambda: ask(teacher, training_set))
        profiles = {
            "training": profile_of(lambda: train_once(training_set, Path(folder))),
            "labelling": profile_of(lambda: ask(teacher, training_set)),
        }
    peak = max(peaks)
    fractions = {
        "train_fraction": train_flops / train_s / peak,
        "label_fraction": label_flops / compiled_s / peak,
        "label_fraction_uncompiled": label_flops / label_s / peak,
    }
    rows = len(training_set.rows)
    table = [
        {
            "work": work,
            "rows/s": f"{rows / seconds:.0f}",
            "TFLOP": f"{flops / 1e12:.2f}",
            "TFLOP/s": f"{flops / seconds / 1e12:.2f}",
            "of the peak": f"{100 * flops / seconds / peak:.0f} %",
        }
        for work, seconds, flops in (
            (f"training, {DEPTH} layers", train_s, train_flops),
            ("labelling, 6 layers", label_s, label_flops),
            ("labelling, 6 layers, compiled", compiled_s, label_flops),
        )
    ]
    print(markdown_table(table), end="\n\n")
    print(f"Peak: {' '.join(f'{one / 1e12:.2f}' for one in peaks)} TFLOP/s.", end=" ")
    print(f"Compiling: {compile_s:.0f} s.", end="\n\n")
    shares = [
        {
            "time in": kind,
            **{work: f"{100 * found[kind]:.0f} %" for work, found in profiles.items()},
        }
        for kind in (*KINDS, "the rest")
    ]
    print(markdown_table(shares), end="\n\n")
    print(say_machine(), end="\n\n")
    print(json.dumps({name: round(value, 4) for name, value in fractions.items()}))


def make_training_set(folder: Path) -> tuple[TrainingSet, Checkpoint]:
    """Return rows of R8 with answers that no teacher gave: only the time counts."""
    config = configure("r8", folder)
    corpus = check_config(config)
    rows = corpus.splits["train"].take(np.arange(ROWS))
    answers = np.random.default_rng(0).normal(size=(ROWS, len(corpus.classes)))
    soft_labels = SoftLabels(answers.astype(np.float32), corpus.classes, "nobody")
    base = Checkpoint(config.teacher.base, None, config.teacher.max_length)
    nothing = corpus.splits["validation"].take(np.arange(32))
    nothing = replace(nothing, gold=np.full(32, -1))  # without gold it is not scored
    return TrainingSet(
        rows, soft_labels, nothing, corpus.classes, Objective(2.0, 0.9), 0, base
    ), base


def train_once(training_set: TrainingSet, folder: Path) -> None:
    """Train one student for one epoch."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        LayersStudent(layers=DEPTH, epochs=1).train(training_set, Path(scratch))


def time_training(training_set: TrainingSet, folder: Path) -> float:
    """Return the seconds of all steps of one training."""
    clock, callbacks = Clock(), training._callbacks
    training._callbacks = lambda *arguments: [*callbacks(*arguments), clock]
    try:
        train_once(training_set, folder)
    finally:
        training._callbacks = callbacks
    return clock.seconds


def ask(teacher: SequenceClassifier, training_set: TrainingSet) -> None:
    """Have every row answered."""
    for _ in teacher.answer(training_set.rows.texts):
        pass


def time_turns(*works: Callable[[], None]) -> list[float]:
    """Return the seconds of every work, the median of three turns after one that is not counted."""
    turns = [[time_once(work) for work in works] for _ in range(4)]
    return [median(seconds) for seconds in zip(*turns[1:], strict=True)]


def time_once(work: Callable[[], None]) -> float:
    """Return the seconds of some work."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure_peak() -> float:
    """Return the floating-point operations per second of a large bf16 product; best of four."""
    one, other = (torch.randn(SIDE, SIDE, dtype=torch.bfloat16) for _ in range(2))
    return 2 * SIDE**3 / min(time_once(lambda: torch.mm(one, other)) for _ in range(4))


def count(work: Callable[[], None]) -> int:
    """Return the floating-point operations of the matrix products in some work."""
    counted = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: count_attention}
    with FlopCounterMode(display=False, custom_mapping=counted) as counter:
        work()
    return int(counter.get_total_flops())


def count_attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Return the floating-point operations of an attention, from the shapes of its factors."""
    return int(sdpa_flop_count(query, key, value))


def profile_of(work: Callable[[], None]) -> dict[str, float]:
    """Return the share of processor time that each kind of operation takes."""
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        work()
    times = {event.key: event.self_cpu_time_total for event in recorded.key_averages()}
    total, found = sum(times.values()), dict.fromkeys((*KINDS, "the rest"), 0.0)
    for name, microseconds in times.items():
        plain = name.removeprefix("aten::")
        kinds = (kind for kind, words in KINDS.items() if any(word in plain for word in words))
        found[next(kinds, "the rest")] += microseconds / total
    return found


if __name__ == "__main__":
    main()
