"""What the command line prints: a plan, the outcome of a run, a promotion, two models beside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill_tasks.core.errors import shortlist
from distill_tasks.core.notes import sort_notes
from distill_tasks.core.terminal import Terminal
from distill_tasks.core.wording import say_count, say_time
from distill_tasks.data.corpus import SYNTHETIC
from distill_tasks.scoring.statistics import QUALITY_NAMES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from distill_tasks.config import DistillConfig
    from distill_tasks.core.notes import Note
    from distill_tasks.data.corpus import Corpus
    from distill_tasks.llm.estimate import Estimate
    from distill_tasks.measuring.latency import Latency
    from distill_tasks.results.review import Promotion
    from distill_tasks.stages.plan import Plan
    from distill_tasks.stages.preview import Smoke
    from distill_tasks.stages.synthesize import Synthesis
    from flows.distill import Outcome
    from registry.history import Event
    from registry.prune import Leftover
    from registry.side_by_side import SideBySide

LATENCIES: dict[str, Callable[[Latency], str]] = {
    "p50 ms": lambda latency: f"{latency.p50_ms:.3g}",
    "p95 ms": lambda latency: f"{latency.p95_ms:.3g}",
    "p99 ms": lambda latency: f"{latency.p99_ms:.3g}",
    "rows/s": lambda latency: f"{latency.throughput:,.0f}",
}
"""What two models are compared by beside their quality."""

COLUMNS = ("verdict", "against control", "p95 ms", "speed-up p50", "speed-up p95", "MB")
"""Of the table of a run, those beside the model and its quality."""
LAST = (
    *("speed-up p50", "against control", "interval", "macro F1", "MB", "speed-up p95"),
    *("agreement", "verdict"),
)
"""Those that a narrow terminal leaves out, in this order."""
MOST_NOTES = 5
"""Notes on a run that are printed; the report has them all."""

out = Terminal()


def print_check(config: DistillConfig, corpus: Corpus, notes: Sequence[Note]) -> None:
    """Print how many rows there are, what is odd about them, and the grid."""
    rows = ", ".join(f"{name} {len(split):,}" for name, split in corpus.splits.items())
    out.say(f"{rows} rows; {say_count(len(corpus.classes), 'class', 'classes')}", name=config.name)
    print_notes(notes)
    out.say(f"  grid: {', '.join(student.name for student in config.students)}")


def print_plan(config: DistillConfig, plan: Plan) -> None:
    """Print each student of the grid, and what a whole run takes at most."""
    from distill_tasks.stages.halve import will_halve

    rows = [
        {
            "student": one.name,
            "parameters": f"{'≥ ' * one.at_least}{one.parameters:,}",
            "steps": "–" if one.steps is None else f"{one.steps:,}",
            "minutes": f"{one.minutes:.1f}",
        }
        for one in plan.students
    ]
    out.show_table(f"{config.name}: {count_candidates(config)}", rows, last=("steps",))
    parts = {
        "teacher": plan.teacher,
        "its answers": plan.labelling,
        "grid": plan.grid,
        "seeds and controls of finalists": plan.bound_further(),
        "export, measuring, further carvings": sum(plan.beside.values()),
        "tuning, MLflow, report": plan.around,
    }
    listed = ", ".join(f"{name} {minutes:.1f}" for name, minutes in parts.items())
    out.say(f"A whole run takes about {plan.sum_minutes():.1f} minutes here at most: {listed}.")
    stops = "on: students that others surely beat stop early" if will_halve(config) else "off"
    out.say(f"Halving is {stops}.")


def print_smoke(config: DistillConfig, smoke: Smoke) -> None:
    """Print what a teacher was asked about one row, and how it answered a few."""
    out.say(smoke.shown)
    out.show_table(
        f"{config.name}: {say_count(len(smoke.rows), 'row')}",
        [{"answer": row.said, "text": " ".join(row.text.split())[:80]} for row in smoke.rows],
        last=("text",),
    )
    rejected = sum(not row.answered for row in smoke.rows)
    out.say(f"{rejected} of {len(smoke.rows)} have no answer.")


def print_synthesis(found: Synthesis, output: Path) -> None:
    """Print how many texts were written, what was left out, and which classes have few."""
    out.say(f"Wrote {output}: {len(found.texts):,} of {found.written:,} texts that were written.")
    for split, rows in found.removed.most_common():
        what = "another one of them" if split == SYNTHETIC else f"a row of {split}"
        out.say(f"  left out: {rows:,} that repeat {what}, exactly or nearly")
    few = {name: n for name, n in found.per_class.items() if n < max(found.per_class.values())}
    if few:
        out.say(f"  fewer of {shortlist(f'{name} ({rows})' for name, rows in few.items())}")


def print_estimate(
    config: DistillConfig, estimate: Estimate | None, what: str = "rows are not answered"
) -> None:
    """Print what the missing answers of a teacher, or texts by it, take and cost."""
    if estimate is None:
        out.say(
            f"A {config.teacher.kind} teacher costs no requests; `potstill plan` says its time."
        )
        return
    again = f", and {estimate.again:,} are asked again" if estimate.again else ""
    basis = "as earlier requests did" if estimate.measured else "a token taken as four bytes"
    out.say(
        f"{estimate.rows:,} {what}{again}: {estimate.requests:,} requests, about "
        f"{estimate.prompt_tokens:,} tokens in and {estimate.completion_tokens:,} out ({basis}).",
        name=config.name,
    )
    out.say(
        f"  price about {estimate.price:.4g}, at most {estimate.highest:.4g}; spent so far "
        f"{estimate.spent:.4g}"
    )
    if estimate.in_batches:
        out.say("  time as the endpoint's batches take, each of them a day at most")
        return
    seconds = estimate.seconds
    time = "known after the first requests" if seconds is None else f"about {say_time(seconds)}"
    out.say(f"  time {time}")


def print_outcome(outcome: Outcome) -> None:
    """Print the table of candidates, what was promoted, and where to look next."""
    from distill_tasks.reporting.notes import gather_notes
    from distill_tasks.reporting.promises import say_stability, say_ties
    from distill_tasks.reporting.rows import list_models
    from distill_tasks.reporting.sentences import explain_columns, headline, say_classes
    from distill_tasks.reporting.tables import name_quality_columns, show_model

    findings, choice = outcome.findings, outcome.selection.choice
    rows, quality = list_models(findings), name_quality_columns(findings)
    ceiling = ["agreement"] if findings.audit.self_agreement else []
    shown = ("model", *quality, *COLUMNS, *ceiling)
    out.say(headline(findings), style="bold")
    cells = [show_model(row, findings) for row in rows]
    missing = out.show_table(
        f"{findings.config.name}: held-out figures",
        [{title: row[title] for title in shown} for row in cells],
        last=[title for title in LAST if title in shown],
        chosen=findings.selection.chosen or "",
    )
    if missing:
        out.say(f"Not shown for want of room: {', '.join(missing)}; the report has them.")
    for line in say_classes(findings, choice) if choice else []:
        out.say(f"{line}.")
    out.say(explain_columns(findings))
    for sentence in filter(None, [say_ties(findings), say_stability(findings)]):
        out.say(sentence)
    for row in rows:
        out.say(row.outcome, name=f"  {row.name}")
    print_notes(gather_notes(findings), most=MOST_NOTES)
    if outcome.promotion is not None:
        print_promotion(outcome.promotion)
    out.say(f"Review: {outcome.distillation.link}")


def print_notes(notes: Sequence[Note], most: int | None = None) -> None:
    """Print notes, a line each, the most urgent first; of those beyond ``most`` their number."""
    for note in sort_notes(notes)[:most]:
        out.say(f"  {note}")
    if most is not None and len(notes) > most:
        out.say(f"  {len(notes) - most} more in the report")


def print_promotion(promotion: Promotion) -> None:
    """Print who is champion and why."""
    out.say(say_promotion(promotion))


def print_history(model: str, events: Sequence[Event], looks: Mapping[str, int]) -> None:
    """Print every decision about a model's versions, and what is left of each alpha."""
    from distill_tasks.scoring.looks import alpha_left

    rows = [
        {
            "when (UTC)": event.at[:16].replace("T", " "),
            "what": event.kind,
            "version": f"{event.before} → {event.version}" if event.before else str(event.version),
            "by": event.by,
            "look": "–" if event.look is None else str(event.look),
            "why": event.why,
        }
        for event in events
    ]
    if not rows:
        out.say(f"{model} has no history yet.")
        return
    out.show_table(f"{model}: {say_count(len(rows), 'event')}", rows)
    for digest, number in looks.items():
        left = f"{alpha_left(number):.2g} of alpha left"
        out.say(f"  held-out rows {digest}: looked at {say_count(number, 'time')}, {left}")


def print_leftovers(leftovers: Sequence[Leftover]) -> None:
    """Print what nothing needs, and what it takes."""
    rows = [
        {
            "kind": one.kind,
            "name": one.name,
            "days": f"{one.days:.0f}",
            "MB": "–" if one.megabytes is None else f"{one.megabytes:,.1f}",
        }
        for one in leftovers
    ]
    if rows:
        out.show_table(say_count(len(rows), "leftover"), rows, last=("MB",))


def say_promotion(promotion: Promotion) -> str:
    """Return who is champion and why, in one sentence."""
    if promotion.champion is None:
        return f"{promotion.model} has no champion ({promotion.reason})."
    verb = "is now" if promotion.moved else "would become" if promotion.would_move else "stays"
    before = f"; previous: version {promotion.previous}" if promotion.previous else ""
    return (
        f"Champion of {promotion.model} {verb} version {promotion.champion}"
        f" ({promotion.reason}){before}."
    )


def print_side_by_side(pair: SideBySide) -> None:
    """Print two models one below the other, and what the difference of their quality says."""
    figures = {
        title: tuple(read(latency) for latency in pair.latencies)
        for title, read in LATENCIES.items()
    }
    if pair.qualities is not None:
        quality = tuple(f"{value:.4f}" for value in pair.qualities)
        figures = {QUALITY_NAMES[pair.metric]: quality} | figures
    rows = [
        {"model": name} | {title: both[number] for title, both in figures.items()}
        for number, name in enumerate(pair.names)
    ]
    out.show_table(say_count(pair.rows, "row"), rows, last=("p99 ms", "rows/s"))
    out.say(f"They agree on {100 * pair.agreement:.2f} % of the rows.")
    out.say(say_difference(pair))


def say_difference(pair: SideBySide) -> str:
    """Return the verdict on two models in one sentence."""
    if pair.comparison is None:
        return "The rows have no gold labels, so their quality is not compared."
    first, second = pair.names
    return (
        f"{pair.comparison.verdict}: {QUALITY_NAMES[pair.metric]} of {first} minus that of "
        f"{second} is {pair.comparison.difference.points}."
    )


def count_candidates(config: DistillConfig) -> str:
    """Return in words how many students compete."""
    drawn = config.search.optuna.trials if config.search.optuna else 0
    further = f" and {drawn} that search.optuna draws" if drawn else ""
    return f"{say_count(len(config.students), 'candidate')}{further}"
