"""What a command answers: how it ended, its exit code, and the object that `--json` prints."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from flows.printing import say_difference, say_promotion

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distill_tasks.config import DistillConfig
    from distill_tasks.core.notes import Note
    from distill_tasks.data.corpus import Corpus
    from distill_tasks.reporting.rows import ModelRow
    from distill_tasks.results.review import Promotion
    from distill_tasks.stages.plan import Plan
    from flows.distill import Outcome
    from registry.side_by_side import SideBySide


class Ending(StrEnum):
    """How a command ended."""

    DONE = "done"
    PROMOTED = "promoted"
    CHAMPION_ALREADY = "champion_already"
    KEPT = "kept_as_challenger"
    WAITING = "waiting_for_review"
    ROLLED_BACK = "rolled_back"
    WOULD_PROMOTE = "would_be_promoted"
    WOULD_KEEP = "would_stay_challenger"
    WOULD_ROLL_BACK = "would_be_rolled_back"
    NOTHING_TO_DO = "nothing_to_do"
    STARTED = "started"
    NOTHING_QUALIFIED = "nothing_qualified"
    WRONG_INPUT = "wrong_input"
    INTERRUPTED = "interrupted"
    TIMED_OUT = "timed_out"
    NO_WORKER = "no_worker"
    FAILED = "failed"


CODES = {
    Ending.FAILED: 1,
    Ending.NOTHING_QUALIFIED: 1,
    Ending.WRONG_INPUT: 2,
    Ending.TIMED_OUT: 6,
    Ending.NO_WORKER: 7,
    Ending.INTERRUPTED: 130,  # 128 + SIGINT, as shells have it
}
"""Exit codes by how a command ended; 0 for all others."""
DETAILED_CODES = CODES | {
    Ending.KEPT: 3,
    Ending.WOULD_KEEP: 3,
    Ending.NOTHING_QUALIFIED: 4,
    Ending.WAITING: 5,
}
"""Exit codes with `--detailed-exit-codes`, and of `trigger`."""
PROMOTE_CODES = CODES | {Ending.KEPT: 1, Ending.WAITING: 1}
"""Exit codes of `promote`, whose only task is the promotion that was refused."""
EXIT_CODES = (
    "Exit codes: 0 done, 1 failed, or no candidate qualified, or promote was refused, 2 wrong "
    "input, 130 interrupted. With --detailed-exit-codes, run and promote end with 3 where the "
    "challenger was not promoted, with 4 where no candidate qualified, and with 5 where a version "
    "waits for a person's review. So does trigger --wait, and with 6 where the run had not ended "
    "in time, with 7 where no worker was there."
)


class Answer(BaseModel):
    """The keys of every command's object, and all there are where it failed."""

    model_config = ConfigDict(frozen=True)

    command: str = Field(description="The command.")
    outcome: Ending = Field(description="How it ended.")
    exit_code: int = Field(description="The code with which the process ends.")
    message: str = Field(description="The outcome in a sentence, for people.")


class NoteAnswer(BaseModel):
    """Something the user should hear of."""

    rank: str = Field(description="`must be acted on`, `should be known` or `fine`.")
    text: str = Field(description="What there is to say.")


class CheckAnswer(Answer):
    """What `check` prints."""

    name: str = Field(description="Name of the distillation.")
    rows: dict[str, int] = Field(description="Number of rows by split.")
    classes: list[str] = Field(description="The classes.")
    students: list[str] = Field(description="Names of the students of the grid.")
    notes: list[NoteAnswer] = Field(description="What is odd about the data, most urgent first.")


class PlannedAnswer(BaseModel):
    """One student of a plan."""

    name: str = Field(description="Its name.")
    parameters: int = Field(description="Its parameters.")
    at_least: bool = Field(description="Whether it may have more, from words not yet seen.")
    steps: int | None = Field(description="Training steps; null where it does not learn in steps.")
    minutes: float = Field(description="Minutes to train it once.")


class PlanAnswer(Answer):
    """What `plan` prints."""

    name: str = Field(description="Name of the distillation.")
    students: list[PlannedAnswer] = Field(description="The students of the grid.")
    grid_minutes: float = Field(description="Minutes to train each of them once.")
    teacher_minutes: float = Field(description="Minutes to train the teacher, if it is to be.")
    labelling_minutes: float = Field(description="Minutes of the teacher's missing answers.")
    most_minutes: float = Field(description="Minutes of the whole run at most.")
    halving: bool = Field(description="Whether students that others surely beat stop early.")


class ModelAnswer(BaseModel):
    """Held-out figures of one model of a run; null where there is none."""

    name: str = Field(description="Its name.")
    outcome: str = Field(description="Why it was chosen or not, or what it is.")
    quality: float | None = Field(description="The metric on held-out.")
    quality_low: float | None = Field(description="Low end of its 95 % interval.")
    quality_high: float | None = Field(description="High end of its 95 % interval.")
    macro_f1: float | None = Field(description="Macro F1 on held-out.")
    verdict: str | None = Field(description="BEATS, NO BEATS or INCONCLUSIVE.")
    against_control: float | None = Field(description="Quality less that without the teacher.")
    retention: float | None = Field(description="Quality as a share of the teacher's.")
    p50_ms: float | None = Field(description="Median latency in milliseconds.")
    p95_ms: float | None = Field(description="95th percentile of latency in milliseconds.")
    speed_up_p50: float | None = Field(description="The teacher's p50 divided by its own.")
    speed_up_p95: float | None = Field(description="The teacher's p95 divided by its own.")
    speed_up_p50_over_variant: float | None = Field(
        description="p50 of the teacher's fastest variant that is as good, divided by its own."
    )
    speed_up_p95_over_variant: float | None = Field(description="The same of p95.")
    disk_mb: float | None = Field(description="Size of the served folder in MB.")
    parameters: int | None = Field(description="Its parameters.")


class RunAnswer(Answer):
    """What `run` prints."""

    name: str = Field(description="Name of the distillation.")
    metric: str = Field(description="The metric of `quality`.")
    chosen: str | None = Field(description="The chosen student; null where none qualified.")
    model: str = Field(description="Name of the registered model.")
    version: int | None = Field(description="Version of the chosen student.")
    champion: int | None = Field(description="Version that is champion now.")
    previous: int | None = Field(description="Version to which `rollback` returns.")
    models: list[ModelAnswer] = Field(description="Teacher, students and controls.")
    notes: list[NoteAnswer] = Field(description="What should be known, most urgent first.")
    link: str = Field(description="Address of the summary run in MLflow.")


class LatencyAnswer(BaseModel):
    """One of two models that were compared."""

    name: str = Field(description="Its address.")
    quality: float | None = Field(description="The metric; null where the rows have no gold.")
    p50_ms: float = Field(description="Median latency in milliseconds.")
    p95_ms: float = Field(description="95th percentile of latency in milliseconds.")
    p99_ms: float = Field(description="99th percentile of latency in milliseconds.")
    rows_per_s: float = Field(description="Rows per second at the best of the batches.")


class CompareAnswer(Answer):
    """What `compare` prints."""

    rows: int = Field(description="Rows that both were asked.")
    metric: str = Field(description="The metric of `quality`.")
    models: list[LatencyAnswer] = Field(description="The first model, then the second.")
    agreement: float = Field(description="Share of the rows that get the same labels.")
    verdict: str | None = Field(description="Of the first against the second; null without gold.")
    difference: float | None = Field(description="Quality of the first less that of the second.")
    difference_low: float | None = Field(description="Low end of its 95 % interval.")
    difference_high: float | None = Field(description="High end of its 95 % interval.")


def answer_check(config: DistillConfig, corpus: Corpus, notes: Sequence[Note]) -> CheckAnswer:
    """Return what `check` found."""
    return CheckAnswer(
        command="check",
        outcome=Ending.DONE,
        exit_code=0,
        message="The configuration can be run.",
        name=config.name,
        rows={name: len(split) for name, split in corpus.splits.items()},
        classes=list(corpus.classes),
        students=[student.name for student in config.students],
        notes=_list_notes(notes),
    )


def answer_plan(config: DistillConfig, planned: Plan) -> PlanAnswer:
    """Return what `plan` estimates."""
    from distill_tasks.stages.halve import will_halve

    most = planned.sum_minutes()
    return PlanAnswer(
        command="plan",
        outcome=Ending.DONE,
        exit_code=0,
        message=f"The whole run takes about {most:.1f} minutes at most.",
        name=config.name,
        students=[PlannedAnswer(**vars(one)) for one in planned.students],
        grid_minutes=planned.grid,
        teacher_minutes=planned.teacher,
        labelling_minutes=planned.labelling,
        most_minutes=most,
        halving=will_halve(config),
    )


def answer_run(outcome: Outcome, detailed: bool) -> RunAnswer:
    """Return what a run came to."""
    from distill_tasks.reporting.notes import gather_notes
    from distill_tasks.reporting.rows import list_models

    findings, promotion = outcome.findings, outcome.promotion
    ending = Ending.NOTHING_QUALIFIED if promotion is None else name_ending(promotion)
    return RunAnswer(
        command="run",
        outcome=ending,
        exit_code=(DETAILED_CODES if detailed else CODES).get(ending, 0),
        message=say_promotion(promotion) if promotion else findings.why_nothing_is_registered,
        name=findings.config.name,
        metric=findings.metric,
        chosen=findings.selection.chosen,
        model=findings.config.registry.model,
        version=outcome.registered.version if outcome.registered else None,
        champion=promotion.champion if promotion else None,
        previous=promotion.previous if promotion else None,
        models=[_answer_model(row) for row in list_models(findings)],
        notes=_list_notes(gather_notes(findings)),
        link=outcome.distillation.link,
    )


def answer_comparison(pair: SideBySide) -> CompareAnswer:
    """Return how two models compare."""
    comparison, qualities = pair.comparison, pair.qualities or (None, None)
    difference = comparison.difference if comparison else None
    return CompareAnswer(
        command="compare",
        outcome=Ending.DONE,
        exit_code=0,
        message=say_difference(pair),
        rows=pair.rows,
        metric=pair.metric,
        models=[
            LatencyAnswer(
                name=name,
                quality=quality,
                p50_ms=latency.p50_ms,
                p95_ms=latency.p95_ms,
                p99_ms=latency.p99_ms,
                rows_per_s=latency.throughput,
            )
            for name, quality, latency in zip(pair.names, qualities, pair.latencies, strict=True)
        ],
        agreement=pair.agreement,
        verdict=comparison.verdict if comparison else None,
        difference=difference.value if difference else None,
        difference_low=difference.low if difference else None,
        difference_high=difference.high if difference else None,
    )


def answer_nothing_to_do(command: str, message: str) -> Answer:
    """Return that there is nothing to do yet, and why."""
    return Answer(command=command, outcome=Ending.NOTHING_TO_DO, exit_code=0, message=message)


def name_ending(promotion: Promotion, dry_run: bool = False) -> Ending:
    """Return how an attempt at a promotion ended."""
    if promotion.idle:
        return Ending.NOTHING_TO_DO
    if promotion.moved:
        return Ending.PROMOTED
    if promotion.would_move:
        return Ending.WOULD_PROMOTE
    if promotion.reused:
        return Ending.CHAMPION_ALREADY
    if promotion.waits:
        return Ending.WAITING
    return Ending.WOULD_KEEP if dry_run else Ending.KEPT


def _list_notes(notes: Sequence[Note]) -> list[NoteAnswer]:
    from distill_tasks.core.notes import sort_notes

    return [NoteAnswer(rank=note.rank, text=note.text) for note in sort_notes(notes)]


def _answer_model(row: ModelRow) -> ModelAnswer:
    quality, latency, faster = row.quality, row.latency, row.speed_up
    over_variant = row.speed_up_over_variant
    return ModelAnswer(
        name=row.name,
        outcome=row.outcome,
        quality=quality.value if quality else None,
        quality_low=quality.low if quality else None,
        quality_high=quality.high if quality else None,
        macro_f1=row.macro_f1,
        verdict=row.verdict,
        against_control=row.less_control.value if row.less_control else None,
        retention=row.retention,
        p50_ms=latency.p50_ms if latency else None,
        p95_ms=latency.p95_ms if latency else None,
        speed_up_p50=faster.p50 if faster else None,
        speed_up_p95=faster.p95 if faster else None,
        speed_up_p50_over_variant=over_variant.p50 if over_variant else None,
        speed_up_p95_over_variant=over_variant.p95 if over_variant else None,
        disk_mb=row.disk_mb,
        parameters=row.parameters,
    )
