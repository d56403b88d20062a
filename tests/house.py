"""A finished distillation whose students the tests of tracking and of the registry register."""

from __future__ import annotations

from dataclasses import dataclass, replace

import mlflow
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from samples import LAYERS, STATIC, WORDS_STUDENT

from distill_tasks.config import DistillConfig, RegistryConfig, TrackingConfig
from distill_tasks.data.corpus import Corpus
from distill_tasks.reporting.model_card import CardLinks, write_card
from distill_tasks.results.findings import Findings
from distill_tasks.results.outcomes import Judgement
from distill_tasks.results.review import GateReport
from distill_tasks.results.selection import Candidate
from distill_tasks.scoring.verdicts import Verdict
from distill_tasks.stages.evaluate import score_all
from distill_tasks.stages.prove import prove_all
from distill_tasks.stages.report import write_report
from distill_tasks.tracking.logged_models import log_student
from distill_tasks.tracking.model_runs import Report
from distill_tasks.tracking.runs import Distillation, tracked
from distill_tasks.tracking.store import open_store
from registry.aliases import aliases_of
from registry.gate import keep_gate
from registry.promote import promote_version
from registry.register import Registered, register_candidate


@dataclass
class House:
    """A finished distillation, and short ways to register and promote its students."""

    config: DistillConfig
    corpus: Corpus
    findings: Findings
    distillation: Distillation
    report: Report

    def open(self) -> None:
        """Point MLflow at this distillation's records, wherever another test has pointed it."""
        open_store(self.config.tracking)

    @property
    def client(self) -> mlflow.MlflowClient:
        return mlflow.MlflowClient(self.config.tracking.uri)

    @property
    def held_out(self):
        return self.corpus.splits["held_out"]

    def named(self, model: str) -> DistillConfig:
        return self.config.model_copy(update={"registry": RegistryConfig(model=model, first="any")})

    def candidate(self, name: str) -> Candidate:
        return next(c for c in self.findings.selection.candidates if c.name == name)

    def judgement(self, name: str) -> Judgement:
        """Return the judgement on a candidate's student, whichever of its variants led."""
        student = self.candidate(name).student.student
        judgements = self.findings.proof.judgements
        return next(
            j for n, j in judgements.items() if self.candidate(n).student.student == student
        )

    def register(self, model: str, name: str, verdict: Verdict | None = None) -> Registered:
        """Register a candidate, under another verdict than the one found if there is one."""
        self.open()
        findings, judgement = (
            replace(self.findings, run=replace(self.findings.run, config=self.named(model))),
            self.judgement(name),
        )
        judgement = replace(judgement, verdict=verdict or judgement.verdict)
        judgements = findings.proof.judgements | {name: judgement}
        findings = replace(findings, proof=replace(findings.proof, judgements=judgements))
        candidate, compare = self.candidate(name), self.report.runs.compare
        card = write_card(findings, candidate, CardLinks(self.distillation.link, compare, "front"))
        report = replace(self.report, card=card)
        return register_candidate(findings, candidate, report, self.distillation)

    def crown(self, model: str, student: str) -> Registered:
        """Register a student and make it champion, whoever was champion before."""
        registered = self.register(model, student)
        promote_version(self.client, registered, self.allow(registered))
        return registered

    def allow(self, registered: Registered) -> GateReport:
        champion = aliases_of(self.client, registered.model).get("champion")
        allowed = GateReport(registered.version, champion, "rows", True, "by hand")
        keep_gate(self.client, registered, allowed)
        return allowed

    def files(self, model: str, version: int) -> ArtifactRepository:
        """Return where the files of a version lie."""
        source = self.client.get_model_version(model, str(version)).source
        logged = self.client.get_logged_model(source.removeprefix("models:/"))
        return get_artifact_repository(logged.artifact_location)

    def register_copy(self, model: str, name: str) -> Registered:
        """Register a candidate from files of its own, which a test may harm."""
        with mlflow.start_run(experiment_id=self.distillation.experiment_id) as run:
            pass
        copy = log_student(run.info.run_id, name, self.candidate(name).student.folder, {})
        models = self.report.runs.model_ids | {name: copy}
        runs = replace(self.report.runs, model_ids=models)
        return replace(self, report=replace(self.report, runs=runs)).register(model, name)

    def crown_copy(self, model: str, name: str) -> Registered:
        """Register a candidate from files of its own and make it champion."""
        registered = self.register_copy(model, name)
        promote_version(self.client, registered, self.allow(registered))
        return registered

    def aliases(self, model: str) -> dict[str, int]:
        return aliases_of(self.client, model)


def build_house(findings: Findings, tracking: TrackingConfig) -> House:
    """Write a distillation to an MLflow."""
    config = findings.config.model_copy(update={"tracking": tracking})
    findings = replace(findings, run=replace(findings.run, config=config))
    with tracked(config, findings.rows) as distillation:
        report = write_report(findings, distillation)
        return House(config, findings.rows, findings, distillation, report)


def judge_all(found: Findings) -> Findings:
    """Return what a real run found, with every student judged as if it had been a finalist."""
    run, students, others = found.run.open(), found.grid.students, [STATIC, WORDS_STUDENT]
    leading = [str(found.selection.chosen), *others]
    return replace(
        found,
        held_out=score_all(run, students, "held_out"),
        proof=prove_all(run, students, leading),
        selection=replace(found.selection, finalists=[LAYERS, *others], leading=leading),
    )
