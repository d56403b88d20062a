"""One distillation for all tests of the registry, written to one MLflow on sqlite."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import mlflow
import pytest
from samples import make_rows
from small_distillation import distil

from distill_tasks.config import DistillConfig, RegistryConfig, parse_config
from distill_tasks.corpus import Corpus
from distill_tasks.findings import Findings
from distill_tasks.prove import Judgement
from distill_tasks.report import Report, write_report
from distill_tasks.rows import read_corpus
from distill_tasks.select import Candidate
from distill_tasks.tracking import Distillation, tracked
from distill_tasks.verdicts import Verdict
from registry.aliases import aliases_of
from registry.gate import GateReport
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

    @property
    def client(self) -> mlflow.MlflowClient:
        return mlflow.MlflowClient(self.config.tracking.uri)

    @property
    def held_out(self):
        return self.corpus.splits["held_out"]

    def named(self, model: str) -> DistillConfig:
        return self.config.model_copy(update={"registry": RegistryConfig(model=model)})

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
        findings, judgement = replace(self.findings, config=self.named(model)), self.judgement(name)
        judgement = replace(judgement, verdict=verdict or judgement.verdict)
        judgements = findings.proof.judgements | {name: judgement}
        findings = replace(findings, proof=replace(findings.proof, judgements=judgements))
        return register_candidate(findings, self.candidate(name), self.report, self.distillation)

    def crown(self, model: str, student: str) -> Registered:
        """Register a student and make it champion, whoever was champion before."""
        registered = self.register(model, student)
        promote_version(self.client, registered, self.allow(registered))
        return registered

    def allow(self, registered: Registered) -> GateReport:
        champion = aliases_of(self.client, registered.model).get("champion")
        return GateReport(registered.version, champion, "rows", True, "by hand")

    def aliases(self, model: str) -> dict[str, int]:
        return aliases_of(self.client, model)


def write_config(folder: Path, base: Path) -> DistillConfig:
    """Write rows and return a configuration whose candidates differ in quality and speed."""
    rows = make_rows(300, seed=1)
    (folder / "data").mkdir()
    splits = {"train": rows[:90], "transfer": rows[90:200][["text"]], "held_out": rows[200:]}
    for name, split in splits.items():
        split.to_parquet(folder / "data" / f"{name}.parquet", index=False)
    teacher = {"kind": "finetune", "base": str(base), "max_length": 16, "epochs": 12}
    written = {
        "name": "animals",
        "seed": 10,
        "work_dir": str(folder / "work"),
        "data": {name: str(folder / "data" / f"{name}.parquet") for name in splits},
        "teacher": {**teacher, "learning_rate": 0.005},
        "students": [
            {"family": "layers", "layers": 2},
            {"family": "static", "dimensions": 1, "epochs": 1},  # the worst
            {"family": "bag_of_words", "max_features": 200},
        ],
        "evaluate": {"seeds": 1, "controls": False},
        "export": {"variants": ["onnx"]},
        "measure": {"calls": 20, "batch_rows": [4]},
        "tracking": {"uri": f"sqlite:///{folder}/mlflow.db", "experiment": "test"},
        "registry": {"model": "animals"},
    }
    return parse_config(written, "test")


def build(config: DistillConfig) -> House:
    """Distil with every student a finalist, so that each can be registered, and write it down."""
    corpus = read_corpus(config.data, config.seed)
    with tracked(config, corpus) as distillation:
        names = [student.name for student in config.students]
        findings = distil(config, corpus, finalists=names)
        return House(config, corpus, findings, distillation, write_report(findings, distillation))


@pytest.fixture(scope="session")
def house(tiny_base, tmp_path_factory) -> House:
    """A small distillation, done for real, written to a fresh MLflow."""
    return build(write_config(tmp_path_factory.mktemp("house"), tiny_base))
