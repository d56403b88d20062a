"""The teacher alone: make it and have it answer every row, before any student is trained."""

from __future__ import annotations

from distill_tasks.core.process import set_up_process

set_up_process()  # a worker loads this file alone


from prefect import flow

from distill_tasks.core.run_lock import WAIT_MINUTES
from distill_tasks.results.references import LabelsReference
from distill_tasks.results.run import start_run
from distill_tasks.stages.audit import audit
from distill_tasks.stages.label import drop_unanswered, label, teach
from distill_tasks.stages.prepare import prepare
from flows.deployed import ConfigOrPath, Overrides, name_run, open_config, working
from flows.stage_lists import LABEL


@flow(name="label", flow_run_name=name_run)
def label_only(
    config: ConfigOrPath,
    wait_minutes: float = WAIT_MINUTES,
    accept_licence: bool = False,
    overrides: Overrides | None = None,
) -> LabelsReference:
    """Label all rows of a configuration; a later distillation reads the same store.

    ``config`` is a configuration, or the path of one from the working directory; ``overrides`` set
    some of its keys anew, as in ``{"seed": 7}``. Another run in the same ``work_dir`` is waited
    for, for so many minutes at most. ``accept_licence`` accepts the terms of a teacher that asks
    for it.
    """
    settings = open_config(config, accept_licence, overrides)
    with working(settings, "label", wait_minutes, LABEL):
        corpus = prepare(settings)
        teacher = teach(settings, corpus)
        labels = label(settings, corpus, teacher)
        corpus = drop_unanswered(settings, corpus, labels)
        audit(start_run(settings, corpus, teacher, labels))
    return labels
