"""Teacher kind ``transformers``: a sequence classifier that is ready to answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from distill_tasks.core.digests import digest
from distill_tasks.core.errors import InputError, shortlist
from distill_tasks.teachers.base import LocalTeacher
from distill_tasks.training.checkpoint import Checkpoint, read_classes
from distill_tasks.training.classifier import PROBLEM_TYPES

if TYPE_CHECKING:
    from distill_tasks.core.notes import Note
    from distill_tasks.data.corpus import Corpus
    from distill_tasks.data.settings import RowFormat
    from distill_tasks.problems.classification import Problem


class TransformersTeacher(LocalTeacher):
    """A ready sequence classifier: a local folder, or a hub id with its revision."""

    kind: Literal["transformers"] = Field("transformers", description="The kind of teacher.")
    model: str = Field(description="Local folder or hub id of a sequence classifier.")
    revision: str | None = Field(
        None, description="Commit of the hub model; required for hub ids, absent for folders."
    )
    max_length: int = Field(
        256, ge=8, le=8192, description="Tokens read of each text; the rest is cut off."
    )

    @property
    def start(self) -> Checkpoint:
        """The classifier itself."""
        return Checkpoint(self.model, self.revision, self.max_length)

    def check(self, columns: RowFormat, problem: Problem) -> tuple[str, ...]:
        """Return the class names in the order of its logits.

        Raises InputError for a model that gives one number, as a regression does.
        """
        found = self.start.read_config()
        classes = read_classes(found)
        if len(classes) < 2 or found.problem_type == "regression":
            raise InputError(
                f"Teacher {self.model} is a regression: its answer is a number, not one of several "
                "classes. Give a classifier of two classes or more."
            )
        return classes

    def check_rows(self, corpus: Corpus, columns: RowFormat) -> list[Note]:
        """Raise InputError unless it answers this problem with the classes of the data."""
        found = self.start.read_config()
        own_problem, problem = found.problem_type, corpus.problem
        if own_problem in PROBLEM_TYPES.values() and own_problem != PROBLEM_TYPES[problem]:
            raise InputError(
                f"Teacher {self.model} is of {own_problem}; the configuration says `problem: "
                f"{problem}`. Correct one of them."
            )
        theirs = read_classes(found)
        if set(theirs) != set(corpus.classes):
            raise InputError(
                f"Teacher {self.model} answers {shortlist(sorted(theirs))}; the data has "
                f"{shortlist(sorted(corpus.classes))}. Rename the data's labels or the model's "
                "id2label."
            )
        return []

    def digest(self, corpus: Corpus, seed: int, balanced: bool) -> str:
        """Return the digest of its weights and of the number of tokens it reads."""
        return digest(self.kind, self.start.digest(), self.max_length)
