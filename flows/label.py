"""The teacher alone: make it and have it answer every row, before any student is trained."""

from __future__ import annotations

from prefect import flow

from distill_tasks.config import DistillConfig
from distill_tasks.label import LabelsReference, label, teach
from distill_tasks.prepare import prepare
from distill_tasks.run_lock import WAIT_MINUTES
from distill_tasks.store import Store


@flow(name="label", flow_run_name="{config.name}")
def label_only(config: DistillConfig, wait_minutes: float = WAIT_MINUTES) -> LabelsReference:
    """Label all rows of a configuration; a later distillation reads the same store.

    Another run in the same ``work_dir`` is waited for, for so many minutes at most.
    """
    with Store(config.work_dir).lock(f"label {config.name}", wait_minutes):
        corpus = prepare(config)
        return label(config, corpus, teach(config, corpus))
