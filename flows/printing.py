"""What the command line prints: a plan, the outcome of a run, a promotion, two models beside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from distill_tasks.core.notes import sort_notes
from distill_tasks.core.terminal import Terminal
from distill_tasks.scoring.statistics import QUALITY_NAMES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from distill_tasks.config import DistillConfig
    from distill_tasks.core.notes import Note
    from distill_tasks.measuring.latency import Latency
    from distill_tasks.results.review import Promotion
    from distill_tasks.stages.plan import Planned
    from flows.distill import Outcome
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
MOST_NOTES = 5
"""Notes on a run that are printed; the report has them all."""

out = Terminal(soft_wrap=True)


def print_named(name: str, text: str) -> None:
    """Print a text behind its name."""
    out.print(name, style="bold", end="")
    out.print(f": {text}")


def print_plan(config: DistillConfig, planned: list[Planned]) -> None:
    """Print each student of the grid, and what training them all takes at most."""
    from distill_tasks.stages.halve import will_halve
    from distill_tasks.stages.plan import bound_minutes

    table = _make_table(
        f"{config.name}: {count_candidates(config)}", "student", "parameters", "steps", "minutes"
    )
    for one in planned:
        steps = "–" if one.steps is None else f"{one.steps:,}"
        parameters = f"{'≥ ' * one.at_least}{one.parameters:,}"
        table.add_row(one.name, parameters, steps, f"{one.minutes:.1f}")
    Terminal(width=max(out.width, 100)).print(table)
    once, most = sum(one.minutes for one in planned), bound_minutes(config, planned)
    out.print(
        f"Training the grid takes about {once:.1f} minutes here; with the seeds and controls of "
        f"its finalists {most:.1f} at most. Teacher, labelling and measuring come on top.",
    )
    stops = "on: students that others surely beat stop early" if will_halve(config) else "off"
    out.print(f"Halving is {stops}.")


def print_outcome(outcome: Outcome) -> None:
    """Print the table of candidates, what was promoted, and where to look next."""
    from distill_tasks.reporting.notes import gather_notes
    from distill_tasks.reporting.promises import say_stability, say_ties
    from distill_tasks.reporting.rows import list_models
    from distill_tasks.reporting.sentences import explain_columns, headline, say_classes
    from distill_tasks.reporting.tables import name_quality_columns, show_model

    findings, choice = outcome.findings, outcome.selection.choice
    rows, quality = list_models(findings), name_quality_columns(findings)
    shown = ("model", *quality, *COLUMNS)
    out.print(headline(findings), style="bold")
    table = _make_table(f"{findings.config.name}: held-out figures", *shown)
    for row in rows:
        cells = show_model(row, findings)
        style = "bold yellow" if row.name == findings.selection.chosen else None
        table.add_row(*(cells[title] for title in shown), style=style)
    Terminal(width=max(out.width, 132)).print(table)
    for line in say_classes(findings, choice) if choice else []:
        out.print(f"{line}.")
    out.print(explain_columns(findings))
    for sentence in filter(None, [say_ties(findings), say_stability(findings)]):
        out.print(sentence)
    for row in rows:
        print_named(f"  {row.name}", row.outcome)
    print_notes(gather_notes(findings), most=MOST_NOTES)
    if outcome.promotion is not None:
        print_promotion(outcome.promotion)
    out.print(f"Review: {outcome.distillation.link}")


def print_notes(notes: Sequence[Note], most: int | None = None) -> None:
    """Print notes, a line each, the most urgent first; of those beyond ``most`` their number."""
    for note in sort_notes(notes)[:most]:
        out.print(f"  {note}")
    if most is not None and len(notes) > most:
        out.print(f"  {len(notes) - most} more in the report")


def print_promotion(promotion: Promotion) -> None:
    """Print who is champion and why."""
    if promotion.champion is None:
        out.print(f"{promotion.model} has no champion ({promotion.reason}).")
        return
    verb = "is now" if promotion.moved else "would become" if promotion.would_move else "stays"
    before = f"; previous: version {promotion.previous}" if promotion.previous else ""
    out.print(
        f"Champion of {promotion.model} {verb} version {promotion.champion}"
        f" ({promotion.reason}){before}.",
    )


def print_side_by_side(pair: SideBySide) -> None:
    """Print two models beside each other, and what the difference of their quality says."""
    table = _make_table(f"{pair.rows} rows", "", *pair.names)
    if pair.qualities is not None:
        table.add_row(QUALITY_NAMES[pair.metric], *(f"{value:.4f}" for value in pair.qualities))
    for title, read in LATENCIES.items():
        table.add_row(title, *(read(latency) for latency in pair.latencies))
    Terminal(width=max(out.width, 100)).print(table)
    out.print(f"They agree on {100 * pair.agreement:.2f} % of the rows.")
    if pair.comparison is not None:
        first, second = pair.names
        out.print(
            f"{pair.comparison.verdict}: {QUALITY_NAMES[pair.metric]} of {first} minus that of "
            f"{second} is {pair.comparison.difference.points}."
        )


def count_candidates(config: DistillConfig) -> str:
    """Return in words how many students compete."""
    drawn = config.search.optuna.trials if config.search.optuna else 0
    further = f" and {drawn} that search.optuna draws" if drawn else ""
    return f"{len(config.students)} candidates{further}"


def _make_table(title: str, named: str, *columns: str) -> Table:
    """Return a table whose first column names models; long names are told apart by their ends."""
    table = Table(title=title)
    table.add_column(named, overflow="fold")
    for column in columns:
        table.add_column(column, justify="right")
    return table
