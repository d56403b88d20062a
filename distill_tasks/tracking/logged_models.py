"""Students as MLflow LoggedModels: code, folder, signature and exact requirements."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import mlflow
from mlflow.entities import LoggedModel
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Map

from distill_tasks.measuring.footprint import pin, read_requirements
from distill_tasks.serving import served_model

logger = logging.getLogger("potstill")

CODE = Path(served_model.__file__).parent
"""The folder of the files that are logged with every model."""

# A named input would have MLflow refuse lists and arrays, one without a name would have it drop all
# columns but the first before the model sees them. So a parameter names the column, and the fields
# of a model that joins several stand in its example and its metadata.
SIGNATURE = ModelSignature(
    params=ParamSchema(
        [
            ParamSpec("text_column", DataType.string, "text"),
            ParamSpec("top_k", DataType.long, None),
            ParamSpec("threshold", DataType.double, None),
        ]
    ),
    outputs=Schema(
        [
            ColSpec(DataType.string, "label"),
            ColSpec(DataType.double, "confidence"),
            ColSpec(Map(DataType.double), "probabilities"),
            ColSpec(DataType.boolean, "abstain"),
        ]
    ),
)


def find_student(run_id: str, folder: Path) -> str | None:
    """Return the id of the LoggedModel of a run, if it has all files of a student's folder.

    A LoggedModel that is incomplete after a kill, or has lost files since, is removed.
    """
    client = mlflow.MlflowClient()
    found = _find(run_id)
    if found is None or _is_whole(client, found, folder):
        return None if found is None else str(found.model_id)
    logger.warning("%s: its logged model has lost files; it is logged again", found.name)
    client.delete_logged_model(found.model_id)
    return None


def log_student(run_id: str, name: str, folder: Path, tags: dict[str, str]) -> str:
    """Log a student's folder as a LoggedModel of a run and return its id."""
    with mlflow.start_run(run_id=run_id):
        info = mlflow.pyfunc.log_model(
            name=name.replace(".", "_"),  # MLflow allows no dots, as in a learning rate
            python_model=str(CODE / "served_pyfunc.py"),
            artifacts={
                "student": str(folder),
                "code": str(CODE / "served_model.py"),
                "text_code": str(CODE / "served_text.py"),
            },
            signature=SIGNATURE,
            input_example={name: ["some text"] for name in read_fields(folder) or ["text"]},
            metadata={"fields": read_fields(folder)} if read_fields(folder) else None,
            pip_requirements=pin(["mlflow", *read_requirements(folder)]),
            model_type="student",
            tags=tags,
        )
    return str(info.model_id)


def read_fields(folder: Path) -> list[str]:
    """Return the fields that a student joins into a text; none where it reads one text."""
    about = json.loads((folder / served_model.ABOUT).read_text(encoding="utf-8"))
    fields: list[str] = about.get("fields", [])
    return fields


def log_teacher(run_id: str, name: str, tags: dict[str, str]) -> str:
    """Log the teacher, or a variant of it, as a LoggedModel without files, for the charts."""
    found = _find(run_id)
    if found is not None:
        return found.model_id
    with mlflow.start_run(run_id=run_id):
        model = mlflow.create_external_model(name=name, model_type="teacher", tags=tags)
    return str(model.model_id)


def _find(run_id: str) -> LoggedModel | None:
    """Return the finished LoggedModel of a run; one that a kill left unfinished is removed."""
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


def _is_whole(client: mlflow.MlflowClient, model: LoggedModel, folder: Path) -> bool:
    """Return whether a LoggedModel has every file of a student's folder, compared by size."""
    inside = f"artifacts/{folder.name}"
    kept = client.list_logged_model_artifacts(model.model_id, inside)
    files = {f"{inside}/{path.name}": path.stat().st_size for path in folder.iterdir()}
    return {file.path: file.file_size for file in kept} == files
