"""What many tests build: predictions, runs, students, candidates, latencies, screens and clocks."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray
from samples import CLASSES

from distill_tasks.config import DistillConfig, parse_config
from distill_tasks.core.errors import InputError
from distill_tasks.data.corpus import Corpus, Split
from distill_tasks.data.rows import read_corpus
from distill_tasks.measuring.footprint import Footprint
from distill_tasks.measuring.latency import Latency
from distill_tasks.results.grid import Trial, first_trials, further_trials
from distill_tasks.results.outcomes import Latencies
from distill_tasks.results.references import StudentReference, TeacherReference
from distill_tasks.results.run import OpenRun, Run, start_run
from distill_tasks.results.teacher import make_teacher
from distill_tasks.results.trained import train_one
from distill_tasks.scoring.calibration import Calibration
from distill_tasks.scoring.scorecard import EvalSplit, Predictions
from distill_tasks.stages.label import label_rows
from distill_tasks.stages.prepare import check_config, keep_corpus
from distill_tasks.students import LayersStudent


def predict(logits: ArrayLike, **calibration: Any) -> Predictions:
    """Return the predictions of some logits (rows, classes)."""
    return Predictions(np.asarray(logits, np.float32), Calibration(**calibration))


def predict_surely(decisions: NDArray[Any]) -> Predictions:
    """Return predictions that say exactly these decisions (rows, classes), all as surely."""
    return predict(6.0 * decisions - 3)


def make_eval_split(
    gold: ArrayLike,
    teacher: Predictions,
    classes: Sequence[str] = CLASSES,
    problem: str = "single_label",
    *,
    name: str = "held_out",
    metric: str = "accuracy",
    texts: Sequence[str] | None = None,
    slices: tuple[str, ...] | None = None,
) -> EvalSplit:
    """Return an evaluation split on rows of some gold."""
    rows = np.asarray(gold)
    texts = [f"row {number}" for number in range(len(rows))] if texts is None else texts
    split = Split(tuple(texts), rows, slices)
    return EvalSplit(name, split, teacher, tuple(classes), problem, metric)


def open_run(config: DistillConfig, corpus: Corpus | None = None) -> OpenRun:
    """Return a run whose teacher was made and has answered every row, opened."""
    return make_run(config, corpus).open()


def make_run(config: DistillConfig, corpus: Corpus | None = None) -> Run:
    """Return a run whose teacher was made and has answered every row."""
    corpus = corpus or read_corpus(config.data, config.seed, problem=config.problem)
    teacher = make_teacher(config, corpus)
    labels = label_rows(config, corpus, teacher)
    return start_run(config, keep_corpus(config, corpus), teacher, labels)


def train_students(run: OpenRun, trials: Sequence[Trial] | None = None) -> list[StudentReference]:
    """Return trained students, by default those of the grid from their first seed."""
    return [train_one(run, trial) for trial in trials or first_trials(run.config)]


def train_finalists(run: OpenRun) -> list[StudentReference]:
    """Return the students of the grid with all seeds and controls that finalists have."""
    students = run.config.students
    further = [trial for student in students for trial in further_trials(run.config, student)]
    return train_students(run, [*first_trials(run.config), *further])


def without_weights(classes: Sequence[str] = CLASSES) -> TeacherReference:
    """Return a teacher that is known by its answers alone."""
    return TeacherReference("saved", tuple(classes), None, 0.0, [], reused=True)


def make_student(name: str, **changes: Any) -> StudentReference:
    """Return a trained student that has no files."""
    usual = {
        "student": name,
        "candidate": name,
        "variant": "torch",
        "seed": 0,
        "distilled": True,
        "trained": f"training of {name}",
        "digest": f"digest of {name}",
        "folder": Path(name),
        "calibration": Calibration(),
        "parameters": 1000,
        "disk_mb": 1.0,
        "seconds": 1.0,
        "curve": [],
        "reused": False,
    }
    return StudentReference(name=name, **usual | changes)


def spread_weights(folder: Path, std: float) -> Path:
    """Make the weights of a saved classifier so large that its answers differ from text to text."""
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(2)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    for weight in model.parameters():
        if weight.ndim == 2:
            torch.nn.init.normal_(weight, std=std)
    model.save_pretrained(folder)
    return folder


def make_latency(p95_ms: float, noise: float = 0.0) -> Latency:
    """Return times whose mean is half of p95, measured with some noise."""
    ends = {"p50_ms": p95_ms / 2, "p95_ms": p95_ms, "p99_ms": p95_ms * 2}
    return Latency(
        **ends,
        mean_ms=p95_ms / 2,
        intervals={name: (value, value) for name, value in ends.items()},
        by_length=dict.fromkeys(("short", "middle", "long"), p95_ms / 2),
        rows_per_s={"4": 1000.0},
        calls=20,
        threads=1,
        device="this machine",
        aa_p50=noise,
        aa_p95=noise,
    )


def make_footprint(resident_mb: float = 60.0) -> Footprint:
    """Return what a model without torch takes."""
    return Footprint(installed_mb=90.0, cold_start_s=0.25, resident_mb=resident_mb)


def make_latencies(p95_ms: dict[str, float]) -> Latencies:
    """Return what students take, by name, if p95 is given."""
    timed = {name: make_latency(milliseconds) for name, milliseconds in p95_ms.items()}
    return Latencies(timed, {name: make_footprint() for name in p95_ms}, {}, reused=False)


class Screen(io.StringIO):
    """A file that says it is a terminal."""

    def isatty(self) -> bool:
        """Return whether it is one."""
        return True


@dataclass
class Clock:
    """Stands for the module `time`: it stands still until it is moved."""

    now: float

    def monotonic(self) -> float:
        """Return the moment, in seconds."""
        return self.now


@contextmanager
def clock_of(module: ModuleType, now: float) -> Iterator[Clock]:
    """Give a module a clock of its own while the block runs."""
    with pytest.MonkeyPatch.context() as patch:
        clock = Clock(now)
        patch.setattr(module, "time", clock)
        yield clock


NARROW_STUDENT = LayersStudent(
    layers=2,
    take="1-3",
    width=16,
    feed_forward=32,
    vocabulary="corpus",
    epochs=12,
    learning_rate=0.005,
    batch_rows=16,
    freeze_embeddings=False,  # half as wide, random embeddings of words are too much alike
)
"""Half as wide as the tiny teacher, with the vocabulary of its corpus."""


def refuse_layers(written: dict[str, Any], **student: Any) -> str:
    """Return what `check` says of a student of family layers that it refuses."""
    written["students"] = [{"family": "layers", "layers": 2, **student}]
    with pytest.raises(InputError) as caught:
        check_config(parse_config(written, "test"))
    return str(caught.value)


def answer_plainly(folder: Path, texts: Sequence[str]) -> NDArray[np.float32]:
    """Return the logits (rows, classes) of a classifier in float32, asked text by text."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype="float32").eval()
    cut = {"truncation": True, "max_length": 16, "return_tensors": "pt"}
    with torch.inference_mode():
        return np.concatenate([model(**tokenizer(text, **cut)).logits.numpy() for text in texts])


def change_weights(folder: Path) -> None:
    """Move the bias of a classifier's head."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights["classifier.bias"] = weights["classifier.bias"] + 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
