"""What nothing needs any more, in registry, tracking and store: listed first, removed on request.

Needed are: every version behind an alias, the last two champions, what waits for a review, whatever
any of them came from, the last distillation of each name, and everything that is not old.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from distill_tasks.core.store import Store
from distill_tasks.core.wording import say_count
from distill_tasks.tracking.store import find_experiment
from distill_tasks.tracking.tags import DISTILLATION
from registry.aliases import CHAMPION, STUDENT, aliases_of, list_versions
from registry.history import CHANGES, History
from registry.review import PENDING, REVIEW, read_word

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

    from distill_tasks.config import DistillConfig

DAY_S = 24 * 3600
MADE_AGAIN = ("students", "served", "answers")
"""Kinds of folders in the store that a run makes again if it needs them."""
MOST_AT_ONCE = 1_000
CHAMPIONS_KEPT = 2


@dataclass(frozen=True)
class Leftover:
    """Something that nothing needs, and how to remove it."""

    kind: Literal["version", "distillation", "student", "labels"]
    name: str
    days: float
    """Its age."""
    remove: Callable[[], None]
    megabytes: float | None = None
    """What it takes on this disk; None for what lies in MLflow."""


def find_leftovers(
    config: DistillConfig, client: MlflowClient, older_than_days: float, labels: bool
) -> list[Leftover]:
    """Return what nothing needs and is older than so many days.

    Answers of teachers, which were paid for, are listed with ``labels`` alone.
    """
    before = time.time() - DAY_S * older_than_days
    versions = list_versions(client, config.registry.model)
    kept = _find_kept(client, config.registry.model, versions, before)
    unneeded = [one for one in versions if int(one.version) not in kept]
    needed = [one for one in versions if int(one.version) in kept]
    return [
        *(_describe_version(client, version) for version in unneeded),
        *_find_distillations(config, client, needed, before),
        *_find_folders(Path(config.work_dir), needed, before),
        *(_find_labels(Path(Store(config.work_dir).labels), before) if labels else ()),
    ]


def _find_kept(
    client: MlflowClient, model: str, versions: list[ModelVersion], before: float
) -> set[int]:
    """Return the numbers of the versions that are needed."""
    aliases = aliases_of(client, model)
    changes = [event for event in History(client, model).read() if event.kind in CHANGES]
    champions = list(dict.fromkeys(event.version for event in reversed(changes)))
    kept = {*aliases.values(), *champions[:CHAMPIONS_KEPT]}
    if CHAMPION not in aliases:
        kept |= {int(version.version) for version in versions[-1:]}
    return kept | {
        int(version.version)
        for version in versions
        if version.creation_timestamp / 1_000 > before or _waits(version.tags)
    }


def _waits(tags: dict[str, str]) -> bool:
    return tags.get(REVIEW) == PENDING or read_word(tags) is not None


def _describe_version(client: MlflowClient, version: ModelVersion) -> Leftover:
    name, number = version.name, str(version.version)
    days = (time.time() - version.creation_timestamp / 1_000) / DAY_S
    remove = partial(client.delete_model_version, name, number)
    return Leftover("version", f"{name} {number}", days, remove)


def _find_distillations(
    config: DistillConfig, client: MlflowClient, needed: list[ModelVersion], before: float
) -> Iterator[Leftover]:
    """Yield each distillation that no needed version came from, with all its runs and models."""
    experiment = find_experiment(config.tracking)
    if experiment is None:
        return
    runs = _read_runs(client, experiment.experiment_id)
    kept = {version.tags.get("distillation") for version in needed}
    newest = {run.info.run_name: run.data.tags[DISTILLATION] for run in runs if _is_summary(run)}
    grouped: dict[str, list[Run]] = {}
    for run in runs:
        grouped.setdefault(run.data.tags[DISTILLATION], []).append(run)
    for distillation, members in grouped.items():
        latest = max(run.info.start_time / 1_000 for run in members)
        if latest > before or distillation in kept or distillation in newest.values():
            continue
        name = f"{distillation}, {say_count(len(members), 'run')}"
        days = (time.time() - latest) / DAY_S
        yield Leftover("distillation", name, days, partial(_delete_runs, client, members))


def _is_summary(run: Run) -> bool:
    return run.data.tags.get("potstill.role") == "summary"


def _read_runs(client: MlflowClient, experiment_id: str) -> list[Run]:
    """Return all runs of distillations, the oldest first."""
    runs: list[Run] = []
    token = None
    while True:
        page = client.search_runs(
            [experiment_id],
            f"tags.`{DISTILLATION}` LIKE '%'",
            max_results=MOST_AT_ONCE,
            order_by=["attributes.start_time ASC"],
            page_token=token,
        )
        runs.extend(page)
        token = page.token
        if not token:
            return runs


def _delete_runs(client: MlflowClient, runs: list[Run]) -> None:
    """Delete runs with their models; MLflow's `gc` then removes the files."""
    for run in runs:
        models = client.search_logged_models(
            [run.info.experiment_id], filter_string=f"source_run_id = '{run.info.run_id}'"
        )
        for model in models:
            client.delete_logged_model(model.model_id)
        client.delete_run(run.info.run_id)


def _find_folders(root: Path, needed: list[ModelVersion], before: float) -> Iterator[Leftover]:
    """Yield old folders of students, what they are served by, and their answers."""
    kept = {version.tags.get(STUDENT) for version in needed}
    for kind in MADE_AGAIN:
        for folder in sorted((root / kind).glob("*")):
            if folder.is_dir() and folder.stat().st_mtime < before and folder.name not in kept:
                yield _describe_folder("student", folder)


def _find_labels(root: Path, before: float) -> Iterator[Leftover]:
    """Yield the answers of each teacher that was not asked of late."""
    for folder in sorted(root.glob("*")):
        newest = max((path.stat().st_mtime for path in folder.rglob("*")), default=0.0)
        if folder.is_dir() and newest < before:
            yield _describe_folder("labels", folder)


def _describe_folder(kind: Literal["student", "labels"], folder: Path) -> Leftover:
    megabytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    days = (time.time() - folder.stat().st_mtime) / DAY_S
    name = f"{folder.parent.name}/{folder.name}"
    return Leftover(kind, name, days, partial(shutil.rmtree, folder), megabytes)
