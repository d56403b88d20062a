"""Teacher kind ``transformers``: a sequence classifier that is ready to answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from distill_tasks.core.digests import digest
from distill_tasks.core.errors import InputError, shortlist
from distill_tasks.core.settings import Settings
from distill_tasks.problems.classification import Problem
from distill_tasks.training.checkpoint import digest_model, name_classes, read_config
from distill_tasks.training.classifier import PROBLEM_TYPES


class TransformersTeacher(Settings):
    """A ready sequence classifier: a local folder, or a hub id with its revision."""

    kind: Literal["transformers"] = Field("transformers", description="The kind of teacher.")
    model: str = Field(description="Local folder or hub id of a sequence classifier.")
    revision: str | None = Field(
        None, description="Commit of the hub model; required for hub ids, absent for folders."
    )
    max_length: int = Field(
        256, ge=8, le=8192, description="Tokens read of each text; the rest is cut off."
    )


def digest_teacher(config: TransformersTeacher) -> str:
    """Return the digest of a ready teacher: its weights and how much text it reads."""
    return digest(config.kind, digest_model(config.model, config.revision), config.max_length)


def read_classes(config: TransformersTeacher) -> tuple[str, ...]:
    """Return the class names of a ready teacher in the order of its logits.

    Raises InputError for a model that gives one number, as a regression does.
    """
    found = read_config(config.model, config.revision)
    classes = name_classes(found)
    if len(classes) < 2 or found.problem_type == "regression":
        raise InputError(
            f"Teacher {config.model} is a regression: its answer is a number, not one of several "
            "classes. Give a classifier of two classes or more."
        )
    return classes


def check_classes(
    config: TransformersTeacher, classes: Sequence[str] | None, problem: Problem
) -> None:
    """Raise InputError unless the teacher answers this problem with the classes of the data."""
    said = read_config(config.model, config.revision).problem_type
    if said in PROBLEM_TYPES.values() and said != PROBLEM_TYPES[problem]:
        raise InputError(
            f"Teacher {config.model} is of {said}; the configuration says `problem: {problem}`. "
            "Correct one of them."
        )
    theirs = read_classes(config)
    if classes is not None and set(theirs) != set(classes):
        raise InputError(
            f"Teacher {config.model} answers {shortlist(sorted(theirs))}; the data has "
            f"{shortlist(sorted(classes))}. Rename the data's labels or the model's id2label."
        )
