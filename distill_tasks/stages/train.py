"""Stage ``train``: one student learns the teacher's answers, or as a control gold alone."""

from __future__ import annotations

from distill_tasks.config import DistillConfig
from distill_tasks.results.references import (
    CorpusReference,
    LabelsReference,
    StudentReference,
    TeacherReference,
    Trial,
)
from distill_tasks.results.run import read_schooling
from distill_tasks.results.trained import train_one
from distill_tasks.stages.progress_artifacts import kept_in_prefect
from distill_tasks.stages.stage import stage
from distill_tasks.training.objective import Blend


@stage("train {trial.name}")
def train(
    config: DistillConfig,
    trial: Trial,
    corpus: CorpusReference,
    labels: LabelsReference,
    teacher: TeacherReference,
    blend: Blend,
) -> StudentReference:
    """Train one student."""
    schooling = read_schooling(config, corpus.open(), labels.open(), teacher, blend)
    with kept_in_prefect():
        return train_one(schooling, trial)
