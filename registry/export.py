"""A registered version as a folder of its own: weights, code, requirements and its card."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill_tasks.core.errors import InputError, PotstillError, say_reason
from distill_tasks.core.markup import as_markdown
from distill_tasks.scoring.statistics import QUALITY_NAMES
from distill_tasks.serving.served_model import ABOUT
from distill_tasks.tracking.names import CALL, LICENCE
from registry.served import open_served, read_fields

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from huggingface_hub import EvalResult, ModelCardData
    from mlflow import MlflowClient
    from mlflow.entities import Metric
    from mlflow.entities.model_registry import ModelVersion

CARD = "README.md"
TOKEN = "HF_TOKEN"  # noqa: S105  # the name of a variable
"""The environment variable with the token of the hub."""
LINK = re.compile(r"\[([^\]]*)\]\((?:[a-z]+://|file:)[^)]*\)")
"""Links of the card, which lead to an MLflow that readers of the folder may not have."""
TASK, HELD_OUT = "text-classification", "held_out"
LIBRARIES = {"transformers": "transformers", "onnx": "onnx"}
"""What the hub calls the library of a runtime, where it knows it."""
USE = """
## How to use it

    pip install -r requirements.txt
    python served_model.py . "some text"

In Python:

```python
from served_model import open_model

open_model(".").answer(["some text"])  # label, confidence, probabilities, abstain
```
"""


@dataclass(frozen=True)
class Exported:
    """A version that was copied to a folder."""

    model: str
    version: int
    folder: Path


def export_version(client: MlflowClient, name: str, alias: str, folder: Path) -> Exported:
    """Copy a version to a folder that does not exist yet, or is empty.

    ``alias`` is an alias or a version's number. Raises InputError for a version that is not there
    or cannot be opened, and for a folder that holds something.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there already and not empty. Give another folder.")
    version = find_version(client, name, alias)
    model = open_served(f"models:/{name}/{version.version}")
    draft = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(draft, ignore_errors=True)
    draft.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(model.folder, draft)
    code = Path(str(sys.modules[type(model).__module__].__file__))
    for file in (code, code.with_name("served_text.py")):
        shutil.copy(file, draft)
    needed = code.parents[1] / "requirements.txt"
    (draft / "requirements.txt").write_text(_without_mlflow(needed.read_text(encoding="utf-8")))
    (draft / CARD).write_text(
        write_card(version, model, _read_metrics(client, version)), encoding="utf-8"
    )
    if folder.exists():
        folder.rmdir()
    draft.rename(folder)
    return Exported(name, int(version.version), folder)


def find_version(client: MlflowClient, name: str, alias: str) -> ModelVersion:
    """Return the version with an alias or a number; raise InputError if there is none."""
    from mlflow.exceptions import MlflowException

    try:
        if alias.isdecimal():
            return client.get_model_version(name, alias)
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        raise InputError(
            f"{name} has no {'version' if alias.isdecimal() else 'alias'} {alias}: "
            f"{say_reason(error)}. See its versions in MLflow."
        ) from None


def write_card(version: ModelVersion, model: Any, metrics: Iterable[Metric] = ()) -> str:
    """Return the card of a version as the README of its folder, with what the hub reads of it.

    ``metrics`` are those of its logged model; the ones measured on held-out rows are told the hub.
    """
    described, *_ = (version.description or f"# {as_markdown(version.name)}").partition(
        f"\n{CALL}\n"
    )
    lines = described.splitlines()
    card = "\n".join(LINK.sub(r"\1", line) for line in lines if not _is_links(line))
    header = _head_card(version, model, metrics)
    fields = as_markdown(", ".join(read_fields(model)))
    about = f"\nIt reads the fields {fields}, or a text that joins them.\n" if fields else ""
    return "\n".join(["---", header.to_yaml(), "---", "", card.strip(), about, USE.strip()]) + "\n"


def _head_card(version: ModelVersion, model: Any, metrics: Iterable[Metric]) -> ModelCardData:
    """Return what the hub reads of a card: task, library, licence, figures."""
    from huggingface_hub import ModelCardData

    about = json.loads((model.folder / ABOUT).read_text(encoding="utf-8"))
    return ModelCardData(
        pipeline_tag=TASK,
        library_name=LIBRARIES.get(about["runtime"], "potstill"),
        tags=["potstill", "distillation"],
        model_name=f"{version.name}, version {version.version}",
        eval_results=list(_list_results(metrics)) or None,
        **_name_licence(version.tags.get(LICENCE, "")),
    )


def _list_results(metrics: Iterable[Metric]) -> Iterator[EvalResult]:
    from huggingface_hub import EvalResult

    kinds = {name: "accuracy" if name == "accuracy" else "f1" for name in QUALITY_NAMES.values()}
    for metric in metrics:
        if metric.key in kinds and metric.dataset_name == HELD_OUT:
            yield EvalResult(
                task_type=TASK,
                dataset_type="private",
                dataset_name=f"held-out rows, digest {metric.dataset_digest}",
                metric_type=kinds[metric.key],
                metric_name=metric.key,
                metric_value=round(metric.value, 4),
            )


def _name_licence(terms: str) -> dict[str, Any]:
    """Return the fields of the teacher's terms, as `ApiTeacher.say_licence` words them."""
    found = re.fullmatch(r"(.+) \((https?://\S+)\), may train: \w+", terms)
    if found is None:
        return {}
    name = re.sub(r"[^a-z0-9.]+", "-", found[1].lower()).strip("-")
    return {"license": "other", "license_name": name or "terms", "license_link": found[2]}


def _read_metrics(client: MlflowClient, version: ModelVersion) -> list[Metric]:
    """Return the metrics of a version's logged model; none of a version from elsewhere."""
    logged = re.fullmatch(r"models:/(m-\w+)", version.source or "")
    return list(client.get_logged_model(logged[1]).metrics or []) if logged else []


def check_push(repository: str) -> str:
    """Return the token of the hub; raise InputError without one, or for no name of a repository."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    token = os.environ.get(TOKEN)
    if not token:
        raise InputError(f"The hub asks who pushes. Set {TOKEN} in the environment.")
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise InputError(
            f"--push {repository!r} names no repository: {say_reason(error)}."
        ) from None
    return token


def push_folder(folder: Path, repository: str, *, private: bool = True) -> str:
    """Push a folder to a repository of the hub, which is made if it is missing; return its address.

    The token is read from the environment alone. Raises what `check_push` does, and PotstillError
    for what the hub refuses.
    """
    from huggingface_hub import HfApi

    hub = HfApi(token=check_push(repository))
    try:
        hub.create_repo(repository, private=private, exist_ok=True)
        hub.upload_folder(
            repo_id=repository, folder_path=folder, commit_message="Exported by Potstill"
        )
    except Exception as error:  # noqa: BLE001  # whatever its HTTP library raises
        raise PotstillError(
            f"{folder} was exported, but not pushed to {repository}: {say_reason(error)}."
        ) from None
    return f"{hub.endpoint}/{repository}"


def _is_links(line: str) -> bool:
    """Return whether a line of the card holds links and nothing else."""
    return bool(LINK.search(line)) and not LINK.sub("", line).strip(" ·")


def _without_mlflow(requirements: str) -> str:
    kept = [line for line in requirements.splitlines() if not line.startswith("mlflow")]
    return "\n".join(kept) + "\n"
