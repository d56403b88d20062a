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
from distill_tasks.results.run import open_run
from distill_tasks.results.trained import train_one
from distill_tasks.stages.progress_artifacts import kept_in_prefect
from distill_tasks.stages.stage import stage
from distill_tasks.training.objective import Objective


@stage("train {trial.name}")
def train(
    config: DistillConfig,
    trial: Trial,
    corpus: CorpusReference,
    labels: LabelsReference,
    teacher: TeacherReference,
    objective: Objective,
) -> StudentReference:
    """Train one student."""
    run = open_run(config, corpus.open(), labels.open(), teacher, objective)
    with kept_in_prefect():
        return train_one(run, trial)
