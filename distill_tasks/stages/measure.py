"""Stage ``measure``: time everything that may be served, and the teacher, side by side."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from distill_tasks.core.digests import digest
from distill_tasks.core.environment import describe_machine, list_versions
from distill_tasks.measuring.footprint import Footprint, measure_footprint
from distill_tasks.measuring.latency import MeasureConfig
from distill_tasks.measuring.stopwatch import Served, time_served
from distill_tasks.results.outcomes import Latencies
from distill_tasks.results.references import TEACHER, StudentReference, TeacherReference
from distill_tasks.results.run import OpenRun, Run
from distill_tasks.stages.stage import stage

logger = logging.getLogger("potstill")

CODE_VERSION = 3
"""Raised when a change of the code changes the times that come out."""


@stage("time every model")
def measure(run: Run, students: list[StudentReference]) -> Latencies:
    """Measure every model."""
    return measure_all(run.open(), students)


def measure_all(run: OpenRun, students: list[StudentReference]) -> Latencies:
    """Time all that may be served in one run, or read the times of the same on this machine."""
    config, teacher = run.config, run.teacher
    served = [student for student in students if student.served]
    held_out = run.corpus.splits["held_out"]
    key = digest(
        CODE_VERSION,
        [describe_machine(), list_versions()],
        config.measure.model_dump(),
        [student.digest for student in served],
        teacher.digest,
        held_out.digest,
    )

    def time_all() -> Latencies:
        logger.info("measure: %d students, %s", len(served), describe_machine())
        models = _name_models(teacher, served)
        by_name = time_served(models, held_out.texts, config.measure, config.seed)
        footprints = _find_footprints(config.measure, served, held_out.texts)
        return Latencies(by_name, footprints, list_versions(), reused=False)

    found, kept = run.store.remember("latencies", key, Latencies, time_all)
    return replace(found, reused=kept)


def _find_footprints(
    config: MeasureConfig, students: list[StudentReference], texts: Sequence[str]
) -> dict[str, Footprint]:
    """Return what serving each student takes, in a Python of its own."""
    footprints = {}
    for student in students:
        logger.info("measure %s: memory and cold start", student.name)
        footprints[student.name] = measure_footprint(student.folder, texts[0], config.threads)
    return footprints


def _name_models(teacher: TeacherReference, students: list[StudentReference]) -> dict[str, Served]:
    models = {student.name: Served(str(student.folder)) for student in students}
    if teacher.model is not None:
        about = {
            "runtime": "transformers",
            "classes": list(teacher.classes),
            "max_length": teacher.model.max_length,
            "revision": teacher.model.revision,
        }
        models[TEACHER] = Served(str(teacher.model.model), about=about)
    return models
