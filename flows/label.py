"""The teacher alone: make it and have it answer every row, before any student is trained."""

from __future__ import annotations

from prefect import flow

from distill_tasks.config import DistillConfig
from distill_tasks.label import LabelsReference, label, teach
from distill_tasks.prepare import prepare
from distill_tasks.store import Store


@flow(name="label", flow_run_name="{config.name}")
def label_only(config: DistillConfig) -> LabelsReference:
    """Label all rows of a configuration; a later distillation reads the same store."""
    with Store(config.work_dir).lock():
        corpus = prepare(config)
        return label(config, corpus, teach(config, corpus))
