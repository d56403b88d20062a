"""The main flow: one distillation from rows to champion."""

from __future__ import annotations

from dataclasses import dataclass

from prefect import flow

from distill_tasks.config import DistillConfig
from distill_tasks.errors import NothingQualifiesError
from distill_tasks.evaluate import evaluate
from distill_tasks.label import label, teach
from distill_tasks.measure import measure
from distill_tasks.prepare import prepare
from distill_tasks.report import Report, report
from distill_tasks.select import Selection, select
from distill_tasks.store import Store
from distill_tasks.tracking import Distillation, tracked
from distill_tasks.train import train
from registry.aliases import Registered
from registry.gate import gate
from registry.promote import Promotion, promote
from registry.register import register


@dataclass(frozen=True)
class Outcome:
    """What a distillation came to."""

    distillation: Distillation
    selection: Selection
    report: Report
    registered: Registered
    promotion: Promotion


@flow(name="distill", flow_run_name="{config.name}")
def distill(config: DistillConfig) -> Outcome:
    """Distil a teacher into students, keep the best trade, and promote it if it wins."""
    with Store(config.work_dir).lock():
        corpus = prepare(config)
        with tracked(config, corpus.open()) as distillation:
            teacher = teach(config, corpus)
            labels = label(config, corpus, teacher)
            students = [
                train(config, student, corpus, labels, teacher) for student in config.students
            ]
            scores = evaluate(config, corpus, labels, students)
            latencies = measure(config, corpus, teacher, students)
            selection = select(config, students, scores, latencies)
            findings = report(
                config,
                distillation,
                corpus,
                teacher,
                labels,
                students,
                scores,
                latencies,
                selection,
            )
            if selection.choice is None:
                raise NothingQualifiesError(selection.why_none)
            registered = register(config, selection, findings, distillation)
            verdict = gate(config, corpus, registered)
            promotion = promote(config, registered, verdict)
    return Outcome(distillation, selection, findings, registered, promotion)
