"""Logging to a run: the rows it used, metrics, settings, curves and text files."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from distill_tasks.problems.classification import name_labels, to_decisions
from distill_tasks.tracking.names import CURVES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from distill_tasks.data.corpus import Corpus

METRICS_AT_ONCE, PARAMS_AT_ONCE = 1000, 100
"""MLflow's limits for one batch: fewer calls are faster, as some servers hash a password each."""


def describe_datasets(corpus: Corpus) -> dict[str, Any]:
    """Return the splits as MLflow datasets by name."""
    import pandas as pd
    from mlflow.data.pandas_dataset import from_pandas

    datasets = {}
    for name, split in corpus.splits.items():
        frame = pd.DataFrame({"text": split.texts})
        if split.has_gold:
            gold = to_decisions(split.gold, len(corpus.classes))
            frame["label"] = name_labels(gold, corpus.classes)
        targets = "label" if split.has_gold else None
        datasets[name] = from_pandas(frame, name=name, targets=targets)
    return datasets


def log_datasets(run_id: str, datasets: Mapping[str, Any]) -> None:
    """Link a run to the splits it used."""
    from mlflow import MlflowClient
    from mlflow.entities import Dataset, DatasetInput, InputTag
    from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

    inputs = [
        DatasetInput(Dataset(**found.to_dict()), [InputTag(MLFLOW_DATASET_CONTEXT, name)])
        for name, found in datasets.items()
    ]
    MlflowClient().log_inputs(run_id, inputs)


def log_metrics(
    run_id: str, metrics: Mapping[str, float], model_id: str | None = None, dataset: Any = None
) -> None:
    """Log metrics, tied to the model and the dataset that they were measured on."""
    import mlflow

    mlflow.log_metrics(dict(metrics), run_id=run_id, model_id=model_id, dataset=dataset)


def log_params(run_id: str, params: Mapping[str, Any]) -> None:
    """Log the settings of a run; those that are logged already stay."""
    from mlflow import MlflowClient
    from mlflow.entities import Param

    entities = [Param(name, str(value)) for name, value in params.items()]
    for start in range(0, len(entities), PARAMS_AT_ONCE):
        batch = entities[start : start + PARAMS_AT_ONCE]
        MlflowClient().log_batch(run_id, params=batch)


def log_curve(run_id: str, curve: list[dict[str, float]]) -> None:
    """Log a whole training curve by step."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    now_ms = int(time.time() * 1000)
    metrics = [
        Metric(CURVES[name], value, now_ms, int(point["step"]))
        for point in curve
        for name, value in point.items()
        if name in CURVES
    ]
    for start in range(0, len(metrics), METRICS_AT_ONCE):
        MlflowClient().log_batch(run_id, metrics[start : start + METRICS_AT_ONCE])


def log_texts(run_id: str, files: Mapping[str, str]) -> None:
    """Log texts as files of a run, given by path."""
    from mlflow import MlflowClient

    for path, text in files.items():
        MlflowClient().log_text(run_id, text, path)
