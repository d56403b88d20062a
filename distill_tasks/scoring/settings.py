"""The sections `evaluate` and `select`: how sure a run must be, what it chooses and promises."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, NonNegativeInt, model_validator

from distill_tasks.core.errors import InputError, did_you_mean, shortlist
from distill_tasks.core.notes import Note, Rank
from distill_tasks.core.settings import Settings
from distill_tasks.data.corpus import Corpus
from distill_tasks.scoring.pareto import Choice, FrontAxis
from distill_tasks.scoring.promises import Certainty, Measure, Promise
from distill_tasks.scoring.statistics import Quality

Share = Annotated[float, Field(gt=0, le=1)]
OfClasses = Share | Annotated[dict[str, Share], Field(min_length=1)]
"""One least value for every class, or one for each class that is named."""
ClassMeasure = Literal["class_recall", "class_f1"]

SCORED_SHARE, MOST_SCORED, FEWEST_SCORED = 0.2, 1000, 100
"""Of the transfer rows, what `auto` holds back to score students by, at most and at least."""


class EvaluateConfig(Settings):
    """How sure the run must be of what it says."""

    finalists: int = Field(
        3,
        ge=1,
        le=100,
        description="Students that go on to more seeds, controls and held-out rows, at most.",
    )
    seeds: int = Field(
        3, ge=1, le=20, description="Times each finalist is trained; the first one is served."
    )
    controls: bool = Field(
        True, description="Train each finalist on gold alone too, for as many steps and seeds."
    )
    validation_folds: int = Field(
        1,
        ge=1,
        le=20,
        description="Ways in which validation is carved from train at random. With more than one, "
        "students are trained again on each and compared on all of its rows, for scarce gold.",
    )
    folds_for: Literal["cheap", "all"] = Field(
        "cheap",
        description="Which students `validation_folds` trains again: those that numpy serves, "
        "which train in seconds to minutes, or all.",
    )
    answer_precision: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Share of answers that must be right; the served model abstains below the "
        "confidence that reaches it on validation. It always answers when absent.",
    )
    weak_teacher: Literal["auto", "stop", "go_on"] = Field(
        "auto",
        description="Where the teacher is not surely better than words on gold: `stop` before any "
        "training, or `go_on`; `auto` stops where validation has rows enough to show it.",
    )
    min_teacher_accuracy: Share | None = Field(
        None,
        description="Least accuracy of the teacher on validation: below it the run stops before "
        "any student is trained.",
    )

    def check_rows(self, corpus: Corpus) -> None:
        """Raise InputError where the teacher's accuracy is asked for and cannot be known."""
        if self.min_teacher_accuracy is not None and not corpus.splits["validation"].has_gold:
            raise InputError(
                "evaluate.min_teacher_accuracy needs gold labels in data.validation. "
                "Label its rows, or take the setting out."
            )


class SelectConfig(Settings):
    """Which candidate on the front is chosen, and what it must keep to."""

    metric: Quality = Field(
        "accuracy",
        description="What students are compared, chosen and judged by. Of several labels, "
        "accuracy counts the rows with all of them right.",
    )
    objectives: tuple[FrontAxis, ...] = Field(
        (),
        description="What the front weighs beside quality and p95 latency: less of these is "
        "better.",
    )
    choose: Choice = Field(
        "knee",
        description="Point of the front that is taken among those that meet the constraints; "
        "`budget` is the most accurate within max_p95_latency_ms.",
    )
    min_retention: float | None = Field(
        None, gt=0, le=2, description="Promise: least quality as a share of the teacher's."
    )
    min_accuracy: Share | None = Field(None, description="Promise: least accuracy.")
    min_macro_f1: Share | None = Field(None, description="Promise: least macro F1.")
    min_weighted_f1: Share | None = Field(None, description="Promise: least weighted F1.")
    min_micro_f1: Share | None = Field(None, description="Promise: least micro F1.")
    min_class_recall: OfClasses | None = Field(
        None,
        description="Promise: least recall of every class with enough held-out rows to judge it, "
        "or of the classes named, as {refund: 0.8}.",
    )
    min_class_f1: OfClasses | None = Field(
        None, description="Promise: least F1 of classes, written as min_class_recall."
    )
    promise: Certainty = Field(
        "point",
        description="What must reach a promise on held-out: the estimate (`point`), or the lower "
        "end of its interval (`surely`).",
    )
    max_p95_latency_ms: float | None = Field(
        None, gt=0, description="Highest p95 latency of one answer, in milliseconds."
    )
    max_disk_mb: float | None = Field(
        None, gt=0, description="Largest served folder, in megabytes."
    )
    scored_transfer: NonNegativeInt | Literal["auto"] = Field(
        "auto",
        description="Transfer rows that no student trains on: by the teacher's labels of them, "
        "students are compared more surely than on gold alone. `auto` takes one in five, 1,000 at "
        "most.",
    )

    @model_validator(mode="after")
    def _check_budget(self) -> Self:
        if self.choose == "budget" and self.max_p95_latency_ms is None:
            raise ValueError("choose: budget needs max_p95_latency_ms, the budget itself")
        return self

    def list_promises(self, held_out_rows: Mapping[str, int]) -> list[Promise]:
        """Return what is promised, from the number of held-out rows of each class.

        Where every class is meant, those with too few rows to judge them are left out; see
        `list_unjudged`.
        """
        promises = []
        for measure in get_args(Measure):
            least = getattr(self, f"min_{measure}")
            if isinstance(least, dict):
                promises += [Promise(measure, value, name) for name, value in least.items()]
            elif least is not None and measure in get_args(ClassMeasure):
                of_each = [Promise(measure, least, name) for name in held_out_rows]
                promises += [p for p in of_each if p.can_judge(held_out_rows[p.of_class])]
            elif least is not None:
                promises.append(Promise(measure, least))
        return promises

    def list_unjudged(self, held_out_rows: Mapping[str, int]) -> dict[ClassMeasure, list[str]]:
        """Return the classes with too few held-out rows for a promise that is about every class."""
        unjudged: dict[ClassMeasure, list[str]] = {}
        for measure in get_args(ClassMeasure):
            least = getattr(self, f"min_{measure}")
            if isinstance(least, float):
                can_judge = Promise(measure, least).can_judge
                unjudged[measure] = [n for n, rows in held_out_rows.items() if not can_judge(rows)]
        return {measure: names for measure, names in unjudged.items() if names}

    def check_rows(self, corpus: Corpus) -> list[Note]:
        """Return notes on promises that these rows can hardly show, or do not test.

        Raises InputError for a promise about a class that there is none of, or about classes of
        rows that have no gold.
        """
        held_out, classes = corpus.splits["held_out"], corpus.classes
        rows = dict(zip(classes, held_out.rows_per_class(len(classes)).tolist(), strict=True))
        for name in self.named_classes:
            if name not in rows:
                raise InputError(
                    f"select promises something of class {name!r}, which the data has not"
                    f"{did_you_mean(name, classes)}. Classes: {shortlist(classes)}."
                )
        promises = self.list_promises(rows)
        if not held_out.has_gold:
            if self.min_class_recall or self.min_class_f1:
                raise InputError(
                    "select.min_class_recall and min_class_f1 need gold labels in data.held_out. "
                    "Label its rows, or take the promises out."
                )
            about = "held_out has no gold, so it is about agreement with the teacher"
            return [Note(Rank.KNOW, f"{promise}: {about}") for promise in promises]
        return [*self._find_hard(promises, rows, len(held_out)), *self._find_unjudged(rows)]

    def _find_hard(
        self, promises: list[Promise], rows: Mapping[str, int], held_out_rows: int
    ) -> list[Note]:
        """Return the promises that so few rows can hardly show surely."""
        found = []
        for promise in promises if self.promise == "surely" else []:
            needed, there = promise.rows_needed, rows.get(promise.of_class, held_out_rows)
            if needed is not None and there < needed:
                hard = (
                    f"{promise} can hardly be shown surely by {there:,} held-out rows: even a "
                    f"student that is right in all of them would need {needed:,}"
                )
                found.append(Note(Rank.ACT, hard))
        return found

    def _find_unjudged(self, rows: Mapping[str, int]) -> list[Note]:
        """Return which classes have too few held-out rows to be judged."""
        found = []
        for measure, names in self.list_unjudged(rows).items():
            listed = shortlist(f"{name} ({rows[name]})" for name in names)
            about = f"min_{measure} is not asked of classes with too few held-out rows: {listed}"
            found.append(Note(Rank.KNOW, about))
        return found

    @property
    def named_classes(self) -> list[str]:
        """The classes that promises name."""
        named = [one for one in (self.min_class_recall, self.min_class_f1) if isinstance(one, dict)]
        return list(dict.fromkeys(name for classes in named for name in classes))

    def count_scored(self, transfer_rows: int) -> int:
        """Return how many of the transfer rows are held back to score students by."""
        if self.scored_transfer != "auto":
            return self.scored_transfer
        rows = min(int(SCORED_SHARE * transfer_rows), MOST_SCORED)
        return rows if rows >= FEWEST_SCORED else 0
