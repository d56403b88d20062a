"""Exported models: a trained transformer, or the teacher, in the forms of other runtimes."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from distill_tasks.core.digests import digest
from distill_tasks.core.errors import say_error, stop_if_disk_full
from distill_tasks.results.kept import keep_served
from distill_tasks.results.references import TEACHER, StudentReference
from distill_tasks.results.run import OpenRun, Run
from distill_tasks.serving.served_model import ABOUT, GRAPH, open_model
from distill_tasks.students.folder import SERVED, check_reading, measure_disk_mb
from distill_tasks.students.formats import (
    CALIBRATION_ROWS,
    Variant,
    choose_variants,
    export_variant,
    save_teacher,
)

logger = logging.getLogger("potstill")

CODE_VERSION = 1
"""Raised when a change of the code changes what is exported."""


@dataclass(frozen=True)
class Forms:
    """A model in the forms in which it could be exported."""

    made: list[StudentReference]
    failed: dict[str, str]
    """Why not in the others, by their names."""


def export_there(run: Run, student: StudentReference | None, left_out: Collection[str]) -> Forms:
    """Export one model in the process that this is called in, of whatever machine."""
    return export_forms(run.open(), student, left_out)


def export_forms(
    run: OpenRun, student: StudentReference | None, left_out: Collection[str] = ()
) -> Forms:
    """Export a student, or the teacher if none is given, in every chosen form.

    A form that is ``left_out``, by its name, is not tried.
    """
    made, failed = [], {}
    for variant in choose_variants(run.config.export):
        name = name_variant(student.student if student else TEACHER, variant)
        if name in left_out:
            continue
        try:
            made.append(
                export_one(run, student, variant) if student else export_teacher(run, variant)
            )
        except Exception as error:  # noqa: BLE001  # as many kinds as there are operators
            stop_if_disk_full(error)
            failed[name] = f"its export failed: {say_error(error)}"
            logger.warning("export %s: left out, %s", name, failed[name])
    return Forms(made, failed)


def has_all_forms(run: OpenRun, student: StudentReference | None) -> bool:
    """Return whether a student, or the teacher, is stored in every chosen form."""
    variants = choose_variants(run.config.export)
    return all(_is_stored(run, _key(run, student, variant)) for variant in variants)


def export_teacher(run: OpenRun, variant: Variant) -> StudentReference:
    """Export the teacher itself in one form, as a control, or find it done.

    It shows what distillation gains over a quantised teacher.
    """
    model, name = run.teacher.model, name_variant(TEACHER, variant)
    assert model is not None  # only a teacher with weights here is exported
    key = _key(run, None, variant)
    reused = _is_stored(run, key)

    def write(folder: Path) -> None:
        logger.info("export %s", name)
        with TemporaryDirectory() as source:
            save_teacher(model, run.corpus.problem, run.teacher.classes, Path(source))
            _write_form(run, None, variant, source=Path(source), target=folder)

    kept = keep_served(run, key, name, write)
    about = json.loads((kept.folder / ABOUT).read_text(encoding="utf-8"))
    return StudentReference(
        name=name,
        student=TEACHER,
        candidate=name,
        variant=variant,
        seed=run.config.seed,
        distilled=False,
        trained=run.teacher.digest,
        digest=kept.digest,
        folder=kept.folder,
        calibration=kept.calibration,
        parameters=about["parameters"],
        disk_mb=measure_disk_mb(kept.folder),
        seconds=0.0,
        curve=[],
        reused=reused,
    )


def export_one(run: OpenRun, student: StudentReference, variant: Variant) -> StudentReference:
    """Export a student in one form and calibrate it anew, or find both done."""
    key = _key(run, student, variant)
    candidate = name_variant(student.student, variant)
    name = candidate + student.name.removeprefix(student.student)
    reused = _is_stored(run, key)

    def write(folder: Path) -> None:
        logger.info("export %s", name)
        _write_form(run, student, variant, source=student.folder, target=folder)

    kept = keep_served(run, key, name, write)
    return replace(
        student,
        name=name,
        candidate=candidate,
        variant=variant,
        digest=kept.digest,
        folder=kept.folder,
        calibration=kept.calibration,
        disk_mb=measure_disk_mb(kept.folder),
        reused=reused,
    )


def _write_form(
    run: OpenRun, student: StudentReference | None, variant: Variant, *, source: Path, target: Path
) -> None:
    """Write a form of the model that lies in ``source``, from its float32 graph if it has one."""
    texts = run.corpus.training_rows.texts[-CALIBRATION_ROWS:]
    export_variant(source, variant, _find_graph(run, student), texts, target)
    _check_reading(target, source, run.corpus.splits["validation"].texts)


def _check_reading(folder: Path, source: Path, texts: Sequence[str]) -> None:
    """Raise PotstillError unless a variant reads what the model in ``source`` reads."""
    from transformers import AutoTokenizer

    from distill_tasks.training.tokens import encode, pick_rows

    picked = [texts[row] for row in pick_rows(texts)]
    about = json.loads((source / ABOUT).read_text(encoding="utf-8"))
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    ids = encode(tokenizer, picked, about["max_length"])["input_ids"]
    check_reading(open_model(folder), picked, ids)


def name_variant(student: str, variant: Variant) -> str:
    """Return the name of a student's variant among the candidates."""
    return f"{student}-{variant.replace('_', '-')}"


def _key(run: OpenRun, student: StudentReference | None, variant: Variant) -> str:
    """Return the digest under which a form of a student, or of the teacher, is stored."""
    if student is None:
        return digest(CODE_VERSION, run.teacher.digest, variant, run.teacher.classes)
    return digest(CODE_VERSION, student.digest, variant)


def _is_stored(run: OpenRun, key: str) -> bool:
    return run.store.manifest("served", key) is not None


def _find_graph(run: OpenRun, student: StudentReference | None) -> Path | None:
    """Return a model's float32 graph where it was exported already."""
    graph = run.store.folder("served", _key(run, student, "onnx")) / SERVED / GRAPH
    return graph if graph.is_file() else None
