"""The teacher alone: make it and have it answer every row, before any student is trained."""

from __future__ import annotations

from distill_tasks.core.process import set_up_process

set_up_process()  # a worker loads this file alone

from prefect import flow

from distill_tasks.config import DistillConfig
from distill_tasks.core.run_lock import WAIT_MINUTES
from distill_tasks.core.store import Store
from distill_tasks.results.references import LabelsReference
from distill_tasks.stages.label import label, teach
from distill_tasks.stages.prepare import prepare
from distill_tasks.stages.progress_artifacts import show_trainings
from flows.stage_lists import LABEL


@flow(name="label", flow_run_name="{config.name}")
def label_only(config: DistillConfig, wait_minutes: float = WAIT_MINUTES) -> LabelsReference:
    """Label all rows of a configuration; a later distillation reads the same store.

    Another run in the same ``work_dir`` is waited for, for so many minutes at most.
    """
    with (
        Store(config.work_dir).lock(f"label {config.name}", wait_minutes),
        show_trainings(config.work_dir, LABEL),
    ):
        corpus = prepare(config)
        return label(config, corpus, teach(config, corpus))
