"""Students as MLflow LoggedModels: code, folder, signature and exact requirements."""

from __future__ import annotations

from pathlib import Path

import mlflow
from mlflow.entities import LoggedModel
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import Map

from distill_tasks.footprint import pin, read_requirements

HERE = Path(__file__).parent

EXAMPLE = ["some text"]

SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec(DataType.string)]),
    outputs=Schema(
        [
            ColSpec(DataType.string, "label"),
            ColSpec(DataType.double, "confidence"),
            ColSpec(Map(DataType.double), "probabilities"),
            ColSpec(DataType.boolean, "abstain"),
        ]
    ),
)


def log_student(run_id: str, name: str, folder: Path, tags: dict[str, str]) -> str:
    """Log a student's folder as a LoggedModel of a run, once, and return its id."""
    found = _find(run_id)
    if found is not None:
        return found.model_id
    with mlflow.start_run(run_id=run_id):
        info = mlflow.pyfunc.log_model(
            name=name.replace(".", "_"),  # MLflow allows no dots, as in a learning rate
            python_model=str(HERE / "served_pyfunc.py"),
            artifacts={"student": str(folder), "code": str(HERE / "served_model.py")},
            signature=SIGNATURE,
            input_example=EXAMPLE,
            pip_requirements=pin(["mlflow", *read_requirements(folder)]),
            model_type="student",
            tags=tags,
        )
    return str(info.model_id)


def log_teacher(run_id: str, tags: dict[str, str]) -> str:
    """Log the teacher as a LoggedModel without files, once, so that charts show it beside."""
    found = _find(run_id)
    if found is not None:
        return found.model_id
    with mlflow.start_run(run_id=run_id):
        model = mlflow.create_external_model(name="teacher", model_type="teacher", tags=tags)
    return str(model.model_id)


def _find(run_id: str) -> LoggedModel | None:
    """Return the finished LoggedModel of a run; one that a kill left half logged is removed."""
    client = mlflow.MlflowClient()
    experiment = client.get_run(run_id).info.experiment_id
    models = client.search_logged_models([experiment], filter_string=f"source_run_id = '{run_id}'")
    finished = None
    for model in models:
        if str(model.status) == "READY":
            finished = model
        else:
            client.delete_logged_model(model.model_id)
    return finished
