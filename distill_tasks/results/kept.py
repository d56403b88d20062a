"""Models stored as they are served, each with the calibration fitted on validation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distill_tasks.core.digests import digest, digest_folder
from distill_tasks.scoring.calibration import Calibration, calibrate
from distill_tasks.scoring.predictions import AnswerStore
from distill_tasks.serving.served_model import open_model
from distill_tasks.students.folder import SERVED, describe_calibration, describe_fields

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from distill_tasks.data.corpus import Corpus
    from distill_tasks.problems.classification import Logits
    from distill_tasks.results.run import OpenRun


def identify(key: str, manifest: dict[str, Any]) -> str:
    """Return the digest under which the results about a model are stored.

    It depends on the recipe (``key``) and on the bytes of the model: a model that was lost and
    comes out differently when it is made again is a different one. A model stored before content
    digests existed is identified by its recipe alone.
    """
    content = manifest.get("content")
    return key if content is None else digest(key, content)


@dataclass(frozen=True)
class KeptModel:
    """A model as it is served, in the store."""

    digest: str
    folder: Path
    calibration: Calibration


def keep_served(run: OpenRun, key: str, name: str, fill: Callable[[Path], None]) -> KeptModel:
    """Store a model as it is served, with calibration and fields; ``fill`` writes its folder.

    Its answers to validation, on which it is calibrated, are stored under its digest.
    """
    store, validation = run.store, run.corpus.splits["validation"]
    manifest = store.manifest("served", key, *Calibration().to_json())
    if manifest is None:
        manifest = {"name": name}
        with store.build("served", key, manifest) as draft:
            folder = draft / SERVED
            folder.mkdir(exist_ok=True)
            fill(folder)
            manifest["content"] = digest_folder(folder)
            answers, made = AnswerStore(store, validation), identify(key, manifest)
            logits = answers.read(made, name, lambda: open_model(folder))
            fitted = fit_calibration(run.corpus, logits, run.config.evaluate.answer_precision)
            describe_calibration(folder, fitted)
            describe_fields(folder, run.config.data)
            manifest |= fitted.to_json()
    fields = {field: manifest[field] for field in Calibration().to_json()}
    served = store.folder("served", key) / SERVED
    return KeptModel(identify(key, manifest), served, Calibration(**fields))


def fit_calibration(corpus: Corpus, logits: Logits, answer_precision: float | None) -> Calibration:
    """Return the calibration fitted on answers to validation, logits (rows, classes)."""
    gold = corpus.splits["validation"].decisions(logits.shape[1])
    return calibrate(logits, gold, corpus.problem, answer_precision)
