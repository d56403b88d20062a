"""Training students into the store, completely or up to a share."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from distill_tasks.core.digests import digest, digest_folder
from distill_tasks.core.errors import PotstillError
from distill_tasks.core.progress import ProgressFile, TrainingStep
from distill_tasks.data.corpus import LEARNT, SYNTHETIC
from distill_tasks.measuring.latency import Latency, MeasureConfig
from distill_tasks.measuring.stopwatch import Served, time_served
from distill_tasks.results.cross_validation import open_carvings
from distill_tasks.results.grid import Trial
from distill_tasks.results.kept import identify, keep_served
from distill_tasks.results.references import PartOfTraining, StudentReference
from distill_tasks.results.run import OpenRun, Run, make_training_set
from distill_tasks.scoring.predictions import AnswerStore
from distill_tasks.students.base import TrainingSet
from distill_tasks.students.controls import without_teacher
from distill_tasks.students.folder import SERVED, count_parameters, measure_disk_mb
from distill_tasks.training.curve import Curve

logger = logging.getLogger("potstill")

CODE_VERSION = 7
"""Raised when a change of the code changes the students that come out."""
CALIBRATION_VERSION = 1
"""Raised when a change of the code changes what is fitted on validation after training."""
CLOCK = "seconds.json"
"""The file in a student's draft with the time its training has taken so far."""
TIMED_CALLS = 20
"""Calls for the quick timing of each shape of students while they are compared."""


def train_one(run: OpenRun, trial: Trial) -> StudentReference:
    """Train one student into the store and calibrate it, unless both were done before."""
    run = _without_synthetic(run, trial)
    store, key = run.store, digest_training(run, trial)
    manifest = store.manifest("students", key, "curve", "seconds", "parameters")
    reused = manifest is not None
    if manifest is None:
        training_set = _make_trial_set(run, trial)
        logger.info("train %s: learning from %d rows", trial.name, len(training_set.rows))
        manifest = {"name": trial.name}
        with store.build("students", key, manifest) as draft:
            manifest |= _learn(trial, training_set, draft, ProgressFile(store.root, trial.name))
            manifest["parameters"] = count_parameters(draft / SERVED)
            manifest["content"] = digest_folder(draft / SERVED)
    trained = identify(key, manifest)
    rows, precision = run.config.data, run.config.evaluate.answer_precision
    joined = [rows.fields, rows.template] if rows.fields else []
    served = digest(CALIBRATION_VERSION, trained, precision, *joined)
    source = store.folder("students", key) / SERVED

    def link_all(folder: Path) -> None:
        shutil.copytree(source, folder, copy_function=_link, dirs_exist_ok=True)

    kept = keep_served(run, served, trial.name, link_all)
    return StudentReference(
        name=trial.name,
        student=trial.student.name,
        candidate=trial.student.name,
        variant=trial.student.runtime,
        seed=trial.seed,
        distilled=trial.distilled,
        trained=key,
        digest=kept.digest,
        folder=kept.folder,
        calibration=kept.calibration,
        parameters=manifest["parameters"],
        disk_mb=measure_disk_mb(kept.folder),
        seconds=manifest["seconds"],
        curve=manifest["curve"],
        reused=reused,
    )


def find_trained(run: OpenRun, trials: Sequence[Trial]) -> set[str]:
    """Return the names of the trials that the store holds whole."""
    runs = open_carvings(run, trials)
    names = set()
    for trial in trials:
        key = digest_training(_without_synthetic(runs[trial.carving], trial), trial)
        if run.store.manifest("students", key) is not None:
            names.add(trial.name)
    return names


def train_there(run: Run, trial: Trial) -> StudentReference:
    """Train one student in the process that this is called in, of whatever machine."""
    return train_one(open_carvings(run.open(), [trial])[trial.carving], trial)


def train_partly(run: OpenRun, trial: Trial, share: float) -> PartOfTraining:
    """Train one student up to a share of its training, from which `train_one` continues.

    Its answers at that share are stored, so that later runs compare students at equal shares too.
    Raises PotstillError for a student that is past that share without stored answers.
    """
    store = run.store
    answers = AnswerStore(store, run.corpus.splits["validation"])
    key = digest_training(run, trial)
    whole, part = store.manifest("students", key) is not None, digest(key, share)
    folder = store.folder("students", key) if whole else store.draft("students", key)
    model = folder / SERVED
    kept = find_part(run, trial, share)
    known = kept is not None
    if kept is None:
        if whole:
            raise PotstillError("it was trained to its end before, and not stopped there")
        training_set = replace(_make_trial_set(run, trial), share=share)
        progress = ProgressFile(store.root, trial.name)
        kept = {"seconds": _learn(trial, training_set, folder, progress)["seconds"]}
    logits = answers.read(part, trial.name, lambda: trial.student.open_stopped(model))
    if not known:
        store.keep("halts", part, kept)
    return PartOfTraining(share, model, logits, kept["seconds"])


def find_part(run: OpenRun, trial: Trial, share: float) -> dict[str, Any] | None:
    """Return what is kept of a training that was stopped at a share, or None."""
    return run.store.manifest("halts", digest(digest_training(run, trial), share), "seconds")


def train_partly_there(run: Run, trial: Trial, share: float) -> None:
    """Train one student up to a share in the process that this is called in.

    What that comes to is in the store, where `train_partly` finds it.
    """
    train_partly(run.open(), trial, share)


def time_shapes(run: OpenRun, folders: dict[str, Path]) -> dict[str, Latency]:
    """Time one student of each shape, side by side and quickly, on validation rows."""
    models = {shape: Served(str(folder)) for shape, folder in folders.items()}
    quick = MeasureConfig(**{**run.config.measure.model_dump(), "calls": TIMED_CALLS})
    return time_served(models, run.corpus.splits["validation"].texts, quick, run.config.seed)


def _learn(
    trial: Trial, training_set: TrainingSet, draft: Path, progress: ProgressFile
) -> dict[str, Any]:
    """Train in a draft, or continue there; return the curve, and the seconds of all parts."""
    folder, clock = draft / SERVED, draft / CLOCK
    folder.mkdir(exist_ok=True)
    before = json.loads(clock.read_text()) if clock.is_file() else 0.0
    start = time.monotonic()
    with progress.told():
        epochs = trial.student.train(replace(training_set, progress=progress), folder)
    seconds = before + time.monotonic() - start
    clock.write_text(json.dumps(seconds))
    return {"curve": join_losses(epochs, progress.read()), "seconds": seconds}


def join_losses(epochs: list[Curve], steps: Iterable[TrainingStep]) -> list[Curve]:
    """Return the points of epochs and of the steps that reported a loss, as one curve.

    ``train/loss`` of each point is the mean of the steps since the point before.
    """
    points = {point["step"]: point for point in epochs}
    for step in steps:
        if step.loss is None:
            continue
        point = {"step": step.step, "train/loss": step.loss}
        if step.rows_per_s is not None:
            point["train/rows_per_s"] = step.rows_per_s
        points[step.step] = points.get(step.step, {}) | point
    return [points[step] for step in sorted(points)]


def _without_synthetic(run: OpenRun, trial: Trial) -> OpenRun:
    """Return the run with the rows that a trial learns from."""
    if trial.synthetic:
        return run
    return replace(run, corpus=run.corpus.without(SYNTHETIC))


def _make_trial_set(run: OpenRun, trial: Trial) -> TrainingSet:
    training_set = make_training_set(run, trial.seed)
    if trial.distilled:
        return training_set
    return without_teacher(training_set, trial.student, run.config.teacher.start)


def digest_training(run: OpenRun, trial: Trial) -> str:
    """Return the digest under which a training is stored, of everything its outcome depends on."""
    corpus = run.corpus
    splits = {
        name: split.digest
        for name, split in corpus.splits.items()
        if name in (*LEARNT, "validation")
    }
    source: list[object] = [run.lesson_digest, asdict(run.objective)]
    if not trial.distilled:
        start = run.config.teacher.start
        source = ["gold", corpus.classes]
        if start is not None:
            source += [start.digest(), start.max_length]
    if _reads_end(run, trial):
        source.append("left")  # before, these were served by their beginning
    own, balanced = trial.student.own_start(None), run.config.loss.balance_classes
    brought = None if own is None else own.digest()
    settings = trial.student.model_dump(exclude={"model", "revision"})
    return digest(
        CODE_VERSION, settings, brought, trial.seed, splits, corpus.problem, balanced, source
    )


def _reads_end(run: OpenRun, trial: Trial) -> bool:
    """Return whether the end of a long text is read instead of its beginning."""
    model = run.teacher.model if trial.distilled else run.config.teacher.start
    model = trial.student.own_start(model) or model
    return model is not None and model.read_truncation_side() == "left"


def _link(source: str, target: str) -> None:
    """Make a hard link to a file, or copy it if links are not possible."""
    Path(target).unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
