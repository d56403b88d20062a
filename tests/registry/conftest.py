"""One distillation for all tests of the registry, written to one MLflow on sqlite."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import mlflow
import pytest
from samples import make_rows

from distill_tasks.config import DistillConfig, RegistryConfig, parse_config
from distill_tasks.corpus import Corpus, read_corpus
from distill_tasks.evaluate import score_all
from distill_tasks.label import label_rows, make_teacher
from distill_tasks.measure import measure_all
from distill_tasks.prepare import keep_corpus
from distill_tasks.report import Findings, Report, write_report
from distill_tasks.select import Candidate, select_candidate
from distill_tasks.tracking import Distillation, tracked
from distill_tasks.train import train_one
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

    def register(self, model: str, student: str) -> Registered:
        return register_candidate(
            self.named(model), self.candidate(student), self.report, self.distillation
        )

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
    """Write rows and return a configuration whose students differ in quality and speed."""
    rows = make_rows(300, seed=1)
    (folder / "data").mkdir()
    splits = {"train": rows[:90], "transfer": rows[90:200][["text"]], "held_out": rows[200:]}
    for name, split in splits.items():
        split.to_parquet(folder / "data" / f"{name}.parquet", index=False)
    teacher = {"kind": "finetune", "base": str(base), "max_length": 16, "epochs": 8}
    written = {
        "name": "animals",
        "seed": 7,
        "work_dir": str(folder / "work"),
        "data": {name: str(folder / "data" / f"{name}.parquet") for name in splits},
        "teacher": {**teacher, "learning_rate": 0.005},
        "students": [
            {"family": "layers", "layers": 2},
            {"family": "static", "dimensions": 8, "epochs": 1},  # barely trained: the worst
            {"family": "bag_of_words", "max_features": 200},
        ],
        "measure": {"calls": 20, "batch_rows": 4},
        "tracking": {"uri": f"sqlite:///{folder}/mlflow.db", "experiment": "test"},
        "registry": {"model": "animals"},
    }
    return parse_config(written, "test")


def distil(config: DistillConfig) -> House:
    corpus = read_corpus(config.data, config.seed)
    keep_corpus(config, corpus)
    with tracked(config, corpus) as distillation:
        teacher = make_teacher(config, corpus)
        labels = label_rows(config, corpus, teacher)
        answers = labels.open().read(corpus.lesson.texts)
        students = [train_one(config, s, corpus, answers, teacher) for s in config.students]
        scores = score_all(config, corpus, labels.open(), students)
        latencies = measure_all(config, corpus, teacher, students)
        candidates = [
            Candidate(
                name=s.name,
                digest=s.digest,
                folder=s.folder,
                parameters=s.parameters,
                disk_mb=s.disk_mb,
                seconds=s.seconds,
                validation=scores.cards[s.name]["validation"],
                held_out=scores.cards[s.name]["held_out"],
                latency=latencies.by_name[s.name],
            )
            for s in students
        ]
        selection = select_candidate(candidates, config.select)
        findings = Findings(config, corpus, teacher, labels, students, scores, latencies, selection)
        return House(config, corpus, findings, distillation, write_report(findings, distillation))


@pytest.fixture(scope="session")
def house(tiny_base, tmp_path_factory) -> House:
    """A small distillation, done for real, written to a fresh MLflow."""
    return distil(write_config(tmp_path_factory.mktemp("house"), tiny_base))
