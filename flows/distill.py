"""The main flow: one distillation from rows to champion."""

from __future__ import annotations

from distill_tasks.core.process import set_up_process

set_up_process()  # a worker loads this file alone

from dataclasses import dataclass, replace

from prefect import flow

from distill_tasks.core.errors import NothingQualifiesError
from distill_tasks.core.run_lock import WAIT_MINUTES
from distill_tasks.results.findings import Findings
from distill_tasks.results.grid import cheap_control
from distill_tasks.results.references import TEACHER
from distill_tasks.results.review import GateReport, Promotion
from distill_tasks.results.run import start_run
from distill_tasks.results.selection import Selection
from distill_tasks.results.teacher import identify_teacher
from distill_tasks.stages.ablate import ablate
from distill_tasks.stages.audit import audit
from distill_tasks.stages.cross_validate import cross_validate
from distill_tasks.stages.evaluate import evaluate
from distill_tasks.stages.export import export
from distill_tasks.stages.halve import halve
from distill_tasks.stages.label import drop_unanswered, label, teach
from distill_tasks.stages.measure import measure
from distill_tasks.stages.plan import fit
from distill_tasks.stages.prepare import prepare
from distill_tasks.stages.prove import prove
from distill_tasks.stages.report import conclude, report
from distill_tasks.stages.search import search
from distill_tasks.stages.select import choose, narrow, select
from distill_tasks.stages.train import train_all
from distill_tasks.stages.tune import learning_curve, tune
from distill_tasks.stages.vet import vet
from distill_tasks.tracking.model_runs import Report
from distill_tasks.tracking.runs import Distillation, tracked
from flows.deployed import ConfigOrPath, Overrides, name_run, open_config, working
from flows.outcome import end_as
from flows.promote import gate_and_promote
from flows.stage_lists import DISTILL
from registry.aliases import Registered
from registry.register import describe, register


@dataclass(frozen=True)
class Outcome:
    """The result of a distillation."""

    distillation: Distillation
    findings: Findings
    report: Report
    registered: Registered | None = None
    """None where no candidate keeps its promises."""
    gate: GateReport | None = None
    promotion: Promotion | None = None

    @property
    def selection(self) -> Selection:
        """The candidates and the one that was chosen."""
        return self.findings.selection


@flow(name="distill", flow_run_name=name_run)
def distill(
    config: ConfigOrPath,
    wait_minutes: float = WAIT_MINUTES,
    accept_licence: bool = False,
    overrides: Overrides | None = None,
) -> Outcome:
    """Distil a teacher into students, keep the best trade, and promote it if it wins.

    ``config`` may be a path. A run in its store, or of its model on this Prefect, is waited for.
    """
    config = open_config(config, accept_licence, overrides)
    with working(config, "distill", wait_minutes, DISTILL, model=config.registry.model):
        corpus = prepare(config)
        identity = identify_teacher(config, corpus.open())
        with tracked(config, corpus.open(), identity) as distillation:
            left_out = fit(config, corpus).left_out
            teacher = teach(config, corpus, identity)
            labels = label(config, corpus, teacher)
            corpus = drop_unanswered(config, corpus, labels)
            run = start_run(config, corpus, teacher, labels, left_out=tuple(left_out))
            audit(run)
            vet(run)
            tuning = tune(run)
            run = replace(run, objective=tuning.objective)
            halving = halve(run)
            trials = [*search(run, halving).trials, *cheap_control(run)]
            grid = export(run, train_all(run, trials))
            cross = cross_validate(run, trials)
            scores = evaluate(run, grid.students, split="validation")
            latencies = measure(run, grid.students)
            finalists = narrow(run, grid, scores, latencies, cross=cross)
            grid = export(run, train_all(run, grid.further_trials(config, finalists), grid))
            scores = evaluate(run, grid.students, split="validation")
            selection = select(run, grid, scores, latencies, cross=cross, finalists=finalists)
            tested = grid.of(selection.finalists)
            proof = prove(run, tested, selection.leading)
            selection = choose(run, selection, proof)
            findings = Findings(
                run=run,
                tuning=tuning,
                halving=halving,
                grid=grid,
                validation=scores,
                held_out=evaluate(run, [*tested, *grid.of([TEACHER])], split="held_out"),
                latencies=latencies,
                selection=selection,
                proof=proof,
                curve=learning_curve(run),
                ablation=ablate(run, grid, selection) if config.data.synthetic else None,
            )
            written = report(findings, distillation)
            outcome = Outcome(distillation, findings, written)
            if findings.to_register is None:
                raise NothingQualifiesError(findings.why_nothing_is_registered, outcome)
            registered = register(findings, written, distillation)
            review = gate_and_promote(config, corpus, registered)
            written = conclude(findings, distillation, written, review)
            describe(config, registered, written.card)
    outcome = replace(outcome, registered=registered, gate=review.gate, promotion=review.promotion)
    return end_as(outcome, review)
