"""Records of a version: a tag says each in words, and a file of the version's run holds it all."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill_tasks.tracking.names import MOST_WORDS
from registry.history import History

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

    from registry.aliases import Registered

PREFIX = "potstill."
"""Begins the tags of records. Before there were files, the tag itself held the record as JSON."""


def keep_record(
    client: MlflowClient, registered: Registered, name: str, record: dict[str, Any], words: str
) -> None:
    """Write a record of a version, and what it says in words as a tag; the file comes first.

    The file of a version that a person registered from no run lies in the run of the history.
    """
    client.log_dict(find_run(client, registered), record, f"{place_record(registered, name)}.json")
    client.set_model_version_tag(
        registered.model, str(registered.version), PREFIX + name, words[:MOST_WORDS]
    )


def read_record(client: MlflowClient, registered: Registered, name: str) -> dict[str, Any] | None:
    """Return a record of a version; None if there is none."""
    version = client.get_model_version(registered.model, str(registered.version))
    words = version.tags.get(PREFIX + name)
    if words is not None and words.startswith("{"):
        return dict(json.loads(words))
    if words is None:
        return None
    run_id = _find_run(client, version)
    with tempfile.TemporaryDirectory() as scratch:
        path = client.download_artifacts(run_id, f"{place_record(registered, name)}.json", scratch)
        return dict(json.loads(Path(path).read_text(encoding="utf-8")))


def find_run(client: MlflowClient, registered: Registered) -> str:
    """Return the run that holds the files of a version: its own, or that of the history."""
    return _find_run(client, client.get_model_version(registered.model, str(registered.version)))


def _find_run(client: MlflowClient, version: ModelVersion) -> str:
    return str(version.run_id or History(client, version.name).run_id)


def place_record(registered: Registered, name: str) -> str:
    """Return where in its run the files of a version lie that have a name."""
    return f"versions/{registered.model}/{registered.version}/{name}"
