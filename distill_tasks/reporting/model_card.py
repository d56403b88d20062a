"""The model card: what a registered version is, how good, how fast, where it came from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distill_tasks.core.markup import as_markdown
from distill_tasks.reporting.promises import say_promise, say_words
from distill_tasks.reporting.sentences import say_classes, say_footprint, say_verdict
from distill_tasks.results.outcomes import TEACHER
from distill_tasks.students.controls import CONTROLS

if TYPE_CHECKING:
    from distill_tasks.results.findings import Findings
    from distill_tasks.results.selection import Candidate


def write_card(findings: Findings, candidate: Candidate, summary: str, compare: str) -> str:
    """Return the card of a candidate in markdown.

    ``summary`` links to the summary run in MLflow, ``compare`` to all candidates side by side.
    """
    config, student = findings.config, candidate.student
    card = findings.held_out.models[student.name]
    figures = "\n".join(
        f"| {name} | {figure.value:.4f} | {figure.low:.4f} – {figure.high:.4f} | {figure.rows} |"
        for name, figure in card.figures.items()
    )
    latency, takes = candidate.latency, say_footprint(candidate.footprint)
    judgement = findings.proof.judgements.get(candidate.name)
    verdict = as_markdown(say_verdict(judgement)) if judgement else "It had none."
    tests = findings.proof.promises.get(candidate.name, [])
    kept = "; ".join(map(say_promise, tests)) or "none were made"
    words = say_words(findings) if judgement else ""
    promises = as_markdown(f"{kept}.{f' {words}' if words else ''}")
    faster = findings.speed_up(latency)
    beside = f", {faster.faster} than the teacher" if faster else ""
    origin = (
        f"distilled from a teacher of kind `{config.teacher.kind}`"
        if student.distilled
        else CONTROLS[candidate.name].about
    )
    loses = ". ".join(as_markdown(line) for line in _say_losses(findings, candidate))
    variant = f"\n\nRuns as {student.variant}: {candidate.parity}." if candidate.parity else ""
    return f"""# {as_markdown(candidate.name)} of {as_markdown(config.name)}

A student of {student.parameters:,} parameters and {student.disk_mb:.1f} MB, {origin} with seed
{student.seed}. Text in; label, confidence, class probabilities and whether to abstain out.

**Promises on held-out:** {promises}

**Did the teacher help?** {verdict}

**What is lost?** {loses}.

| held-out figure of this seed | value | 95 % interval | rows |
| --- | --- | --- | --- |
{figures}

One answer takes {latency.p50_ms:.3g} ms (p50), {latency.p95_ms:.3g} ms (p95) on {latency.device},
{latency.threads} thread(s){beside}; {latency.throughput:,.0f} rows/s.
Without mlflow: {takes}.{variant}

[Summary run]({summary}) · [all candidates side by side]({compare})
"""


def _say_losses(findings: Findings, candidate: Candidate) -> list[str]:
    """Return losses against the teacher that the headline figure may hide."""
    lines = say_classes(findings, candidate)
    if findings.needs_macro_f1:
        ours, teacher = (
            findings.held_out.models[name].figures["quality/macro_f1"]
            for name in (candidate.student.name, TEACHER)
        )
        lines.insert(0, f"Macro F1 {ours}, the teacher's {teacher}")
    return lines or ["Without gold on held-out nothing is known of its classes"]
