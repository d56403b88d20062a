"""What the evaluator leaves in the run: metrics, tables, figures, the verdict."""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.entities import Metric
from mlflow.models.evaluation.artifacts import ImageEvaluationArtifact, JsonEvaluationArtifact
from mlflow.models.evaluation.base import EvaluationResult

from distill_tasks.plugins.asking import STUDENT, TEACHER
from distill_tasks.plugins.comparison import LATENCIES
from distill_tasks.plugins.figures import draw_calibration, draw_disagreements

if TYPE_CHECKING:
    from mlflow.models.evaluation import EvaluationDataset

    from distill_tasks.plugins.asking import Asked
    from distill_tasks.plugins.comparison import Comparison
    from distill_tasks.scoring.intervals import Figure

SUMMARY = "distillation"
FIGURES_TABLE = "distillation_figures"
ROWS_TABLE = "distillation_disagreements"
MOST_ROWS = 1000
"""Rows of the table of disagreements."""
TABLES = "mlflow.loggedArtifacts"
"""MLflow's tag that names the artifacts that its UI shows as tables."""
VERDICT = "verdict"
"""The tag with the verdict in words."""


def log_comparison(run_id: str, comparison: Comparison, asked: Asked) -> EvaluationResult:
    """Write a comparison to a run, in place of an earlier one, and return it for MLflow."""
    client = mlflow.MlflowClient()
    client.set_tag(run_id, VERDICT, comparison.sentence)
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder), comparison, asked)
        client.log_artifacts(run_id, folder)
        home = client.get_run(run_id).info.artifact_uri
        artifacts = {path.stem: _read(path, home) for path in sorted(Path(folder).iterdir())}
    _show_tables(client, run_id)
    return EvaluationResult(comparison.metrics, artifacts, run_id)


def log_metrics(
    run_id: str, metrics: dict[str, float], model_id: str | None, dataset: EvaluationDataset
) -> None:
    """Write metrics to a run, linked to the rows and to the model if it is one of MLflow's."""
    now_ms = int(time.time() * 1000)
    on_rows = {"dataset_name": dataset.name, "dataset_digest": dataset.digest}
    linked = {"model_id": model_id, "run_id": run_id, **on_rows} if model_id else {}
    entities = [Metric(name, value, now_ms, 0, **linked) for name, value in metrics.items()]
    mlflow.MlflowClient().log_batch(run_id, metrics=entities)


def write_files(folder: Path, comparison: Comparison, asked: Asked) -> None:
    """Write tables, figures and the summary to a folder."""
    summary = {
        "verdict": None if comparison.paired is None else str(comparison.paired.verdict),
        "sentence": comparison.sentence,
        "metric": comparison.metric,
        "against": comparison.against,
        "comparison": None if comparison.paired is None else asdict(comparison.paired),
        "figures": {
            role: {name: asdict(figure) for name, figure in figures.items()}
            for role, figures in comparison.figures.items()
        },
        "latencies": {role: one.to_json() for role, one in comparison.latencies.items()},
    }
    (folder / f"{SUMMARY}.json").write_text(json.dumps(summary, indent=2), encoding="utf-8")
    tables = {FIGURES_TABLE: list_figures(comparison), ROWS_TABLE: list_disagreements(asked)}
    for name, table in tables.items():
        written = table.to_json(orient="split", index=False, force_ascii=False)
        (folder / f"{name}.json").write_text(written, encoding="utf-8")
    draw_disagreements(asked, folder / "distillation_confusion.png")
    if asked.gold is not None and asked.answers[STUDENT].confidence is not None:
        draw_calibration(asked, folder / "distillation_calibration.png")


def list_figures(comparison: Comparison) -> pd.DataFrame:
    """Return one row for each figure, one column for each model, intervals in brackets."""
    shown = {
        role: {name: _show(figure) for name, figure in figures.items()}
        for role, figures in comparison.figures.items()
    }
    for role, latency in comparison.latencies.items():
        shown[role] |= {name: f"{latency.values[name]:.4g}" for name in LATENCIES}
    names = dict.fromkeys(name for figures in shown.values() for name in figures)
    columns = {role: [figures.get(name, "") for name in names] for role, figures in shown.items()}
    return pd.DataFrame({"figure": list(names), **columns})


def list_disagreements(asked: Asked) -> pd.DataFrame:
    """Return the rows where student and teacher disagree, the student's surest first."""
    answers, student = asked.answers, asked.answers[STUDENT]
    places = np.flatnonzero(student.labels != answers[TEACHER].labels)
    columns: dict[str, Any] = {} if asked.gold is None else {"label": asked.gold[places]}
    columns |= {role: said.labels[places] for role, said in answers.items()}
    if student.confidence is not None:
        columns["confidence"] = student.confidence[places]
    inputs = pd.DataFrame(asked.rows).iloc[places].reset_index(drop=True)
    inputs.columns = [f"{name} (input)" if name in columns else str(name) for name in inputs]
    table = pd.concat([pd.DataFrame(columns), inputs], axis=1)
    if student.confidence is not None:
        table = table.sort_values("confidence", ascending=False, kind="stable")
    return table.head(MOST_ROWS)


def _show(figure: Figure) -> str:
    """Return a figure with its interval, short enough for the columns of MLflow's page."""
    return f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"


def _read(path: Path, home: str) -> JsonEvaluationArtifact | ImageEvaluationArtifact:
    """Return a file as MLflow hands it to the caller of `evaluate`."""
    kind = ImageEvaluationArtifact if path.suffix == ".png" else JsonEvaluationArtifact
    artifact = kind(uri=f"{home}/{path.name}")
    artifact._load(str(path))  # type: ignore[no-untyped-call]
    return artifact


def _show_tables(client: mlflow.MlflowClient, run_id: str) -> None:
    """Have the UI show the tables as such, beside those of other evaluators."""
    tags = client.get_run(run_id).data.tags
    shown = json.loads(tags.get(TABLES, "[]"))
    ours = [{"path": f"{name}.json", "type": "table"} for name in (FIGURES_TABLE, ROWS_TABLE)]
    wanted = shown + [table for table in ours if table not in shown]
    client.set_tag(run_id, TABLES, json.dumps(wanted))
