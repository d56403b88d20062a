"""The main flow: one distillation from rows to champion."""

from __future__ import annotations

from dataclasses import dataclass

from prefect import flow

from distill_tasks.config import DistillConfig
from distill_tasks.core.errors import NothingQualifiesError
from distill_tasks.core.run_lock import WAIT_MINUTES
from distill_tasks.core.store import Store
from distill_tasks.reporting.findings import Findings
from distill_tasks.results.references import Grid, StudentReference, Trial, further_trials
from distill_tasks.results.selection import Selection
from distill_tasks.stages.evaluate import evaluate
from distill_tasks.stages.export import export
from distill_tasks.stages.halve import find_trials, halve
from distill_tasks.stages.label import label, teach
from distill_tasks.stages.measure import measure
from distill_tasks.stages.prepare import prepare
from distill_tasks.stages.prove import prove
from distill_tasks.stages.report import Report, report
from distill_tasks.stages.search import search
from distill_tasks.stages.select import narrow, select
from distill_tasks.stages.train import train
from distill_tasks.stages.tune import learning_curve, tune
from distill_tasks.tracking.runs import Distillation, tracked
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
def distill(config: DistillConfig, wait_minutes: float = WAIT_MINUTES) -> Outcome:
    """Distil a teacher into students, keep the best trade, and promote it if it wins.

    Another run in the same ``work_dir`` is waited for, for so many minutes at most.
    """
    with Store(config.work_dir).lock(f"distill {config.name}", wait_minutes):
        corpus = prepare(config)
        with tracked(config, corpus.open()) as distillation:
            teacher = teach(config, corpus)
            labels = label(config, corpus, teacher)
            tuned = tune(config, corpus, labels, teacher)

            def learn(trial: Trial) -> StudentReference:
                return train(config, trial, corpus, labels, teacher, tuned.objective)

            halving = halve(config, corpus, labels, teacher, tuned.objective)
            further = search(config, corpus, labels, teacher, tuned.objective).students
            config = config.model_copy(update={"students": (*config.students, *further)})
            grid = Grid([], {}).learn(find_trials(config, halving), learn)
            students = export(config, corpus, grid).students
            scores = evaluate(config, corpus, labels, students, "validation")
            latencies = measure(config, corpus, teacher, students)
            finalists = narrow(config, corpus, labels, students, scores, latencies)
            grid = grid.learn(further_trials(config, finalists), learn)
            exported = export(config, corpus, grid)
            students = exported.students
            finalists = [name for name in finalists if name not in grid.failed]
            scores = evaluate(config, corpus, labels, students, "validation")
            selection = select(config, corpus, labels, students, scores, latencies, finalists)
            tested = [student for student in students if student.student in finalists]
            held_out = evaluate(config, corpus, labels, tested, "held_out")
            proof = prove(config, corpus, labels, tested, selection.leading)
            curve = learning_curve(config, corpus, labels, teacher, tuned)
            findings = Findings(
                config,
                corpus,
                teacher,
                labels,
                tuned,
                halving,
                exported,
                scores,
                held_out,
                latencies,
                selection,
                proof,
                curve,
            )
            written = report(findings, distillation)
            if selection.choice is None:
                raise NothingQualifiesError(selection.why_none)
            registered = register(findings, written, distillation)
            verdict = gate(config, corpus, registered)
            promotion = promote(config, registered, verdict)
    return Outcome(distillation, selection, written, registered, promotion)
