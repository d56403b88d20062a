"""The model card: what a registered version is, how good, how fast, where it came from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from distill_tasks.core.errors import shortlist
from distill_tasks.core.markup import as_markdown
from distill_tasks.core.terminal import Cells
from distill_tasks.core.wording import say_count
from distill_tasks.reporting.promises import say_promise, say_words
from distill_tasks.reporting.review import list_standing, name_champion, say_looks, say_review
from distill_tasks.reporting.sentences import (
    say_classes,
    say_footprint,
    say_verdict,
    say_worst_slice,
)
from distill_tasks.reporting.tables import NOTHING, markdown_table
from distill_tasks.results.references import TEACHER
from distill_tasks.scoring.statistics import QUALITY_NAMES
from distill_tasks.scoring.verdicts import FEWEST_ROWS
from distill_tasks.students.controls import CONTROLS
from distill_tasks.tracking.names import CALL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distill_tasks.results.findings import Findings
    from distill_tasks.results.review import Review
    from distill_tasks.results.selection import Candidate

TIMES = {"p50 ms": "p50_ms", "p95 ms": "p95_ms"}
"""Latencies of the card, by their name there."""
FIGURES = {
    "quality/accuracy": QUALITY_NAMES["accuracy"],
    "quality/macro_f1": QUALITY_NAMES["macro_f1"],
    "fidelity/retention": "retention",
    "fidelity/agreement": "agreement with the teacher",
    "calibration/ece": "calibration error (ECE)",
    "answering/coverage": "share of rows answered",
    "answering/precision": "right of those",
}
"""The figures of a card; the file `figures.json` of its run has all."""
MOST_CHARACTERS = 4_900
"""MLflow's databases keep 5,000 characters of a description."""
MOST_OF_A_PART = (600, 400, 250)
"""Of a long part, tried in this order until the card is short enough."""


@dataclass(frozen=True)
class CardLinks:
    """Addresses that a card shows."""

    summary: str
    """The summary run."""
    compare: str
    """All models of the run side by side."""
    front: str
    """The picture of quality against latency."""


def write_card(
    findings: Findings, candidate: Candidate, links: CardLinks, review: Review | None = None
) -> str:
    """Return the card of a candidate in markdown, at most `MOST_CHARACTERS` long.

    ``review`` is what the gate said of its version, once it has.
    """
    judgement = findings.proof.judgements.get(candidate.name)
    verdict = as_markdown(say_verdict(judgement)) if judgement else "It had none."
    loses = ". ".join(as_markdown(line) for line in _say_losses(findings, candidate))
    looks = say_looks(review.gate) if review and review.gate else ""
    parts = [
        f"# {as_markdown(candidate.name)} of {as_markdown(findings.config.name)}",
        _introduce(findings, candidate),
        f"**Champion?** {as_markdown(say_review(review))}" if review else "",
        _place_comparison(review) if review and looks else "",
        f"**Looks at the held-out rows:** {as_markdown(looks)}" if looks else "",
        f"**Promises on held-out:** {_list_promises(findings, candidate)}",
        as_markdown(say_words(findings)) if judgement else "",
        f"**Did the teacher help?** {verdict}",
        f"**What is lost?** {loses}.",
        _space(tabulate_card(findings, candidate, review)),
        f"![Quality against latency of all candidates]({links.front})",
        _say_speed(findings, candidate),
        f"**Data:** {as_markdown(_say_data(findings))}",
        f"**Licence:** {as_markdown(_say_licence(findings, candidate))}",
        f"**Limits:** {as_markdown(_say_limits(findings, candidate))}",
        f"[Summary run]({links.summary}) · [all candidates side by side]({links.compare})",
        f"{CALL}\n\n{_show_call(findings)}",
    ]
    return _shorten([part for part in parts if part])


def _place_comparison(review: Review) -> str:
    """Return where a reviewer finds the version beside the champion, text by text."""
    assert review.gate is not None  # or there were no looks
    place = f"versions/{review.promotion.model}/{review.gate.version}/comparison"
    return (
        f"**Beside the champion:** {as_markdown(f'{place}/comparison.html')} of the source run, "
        "with every text that one of the two alone gets right."
    )


def _space(table: list[Cells]) -> str:
    """Return a table as markdown with room between its columns, which MLflow gives none."""
    first, *others = table[0]
    titles = {first: first} | {title: f"&emsp;{title}&emsp;" for title in others}
    return markdown_table([{titles[key]: cell for key, cell in row.items()} for row in table])


def _introduce(findings: Findings, candidate: Candidate) -> str:
    student, teacher = candidate.student, findings.config.teacher.kind
    taught = f"distilled from a teacher of kind `{teacher}`"
    origin = taught if student.distilled else CONTROLS[candidate.name].about
    return (
        f"A student of {student.parameters:,} parameters and {student.disk_mb:.1f} MB, {origin} "
        f"with seed {student.seed}. Text in; label, confidence, class probabilities and whether to "
        "abstain out."
    )


def _say_data(findings: Findings) -> str:
    """Return the rows of each split, and the classes."""
    rows, classes = findings.rows.splits, findings.rows.classes
    counts = ", ".join(f"{name} {len(split):,}" for name, split in rows.items())
    named = f"{say_count(len(classes), 'class', 'classes')}: {shortlist(classes)}"
    return f"rows of {counts}; {named}. Digest of held-out: {rows['held_out'].digest}."


def _say_licence(findings: Findings, candidate: Candidate) -> str:
    terms = findings.config.teacher.say_licence() if candidate.student.distilled else ""
    if not terms:
        return "none was stated, neither of the data nor of the teacher."
    return f"Licence of the teacher: {terms}. None was stated of the data."


def _say_limits(findings: Findings, candidate: Candidate) -> str:
    """Return where the figures say little or nothing."""
    split, classes = findings.rows.splits["held_out"], findings.rows.classes
    lines = ["It knows these classes alone, and the figures hold for rows like those of held-out."]
    counts = split.rows_per_class(len(classes)).tolist()
    few = [f"{name} ({n})" for name, n in zip(classes, counts, strict=True) if n < FEWEST_ROWS]
    if split.has_gold and few:
        lines.append(f"Too few held-out rows to know how good it is at: {shortlist(few)}.")
    panel = findings.proof.panels.get(candidate.name)
    if panel and (worst := say_worst_slice(panel)):
        lines.append(f"{worst}.")
    production = findings.proof.production.get(candidate.name)
    if production:
        odd = 100 * production.out_of_distribution.value
        lines.append(f"{odd:.1f} % of production is less familiar to it than 95 % of held-out is.")
    return " ".join(lines)


def _show_call(findings: Findings) -> str:
    """Return the code that asks the champion; names stand in it as JSON, which is Python too."""
    address = json.dumps(f"models:/{findings.config.registry.model}@champion", ensure_ascii=False)
    fields = findings.config.data.fields
    row = json.dumps(dict.fromkeys(fields, "some text") if fields else "some text")
    return f"""```python
import mlflow

model = mlflow.pyfunc.load_model({address})  # or models:/NAME/VERSION
model.predict([{row}])
```"""


def _say_speed(findings: Findings, candidate: Candidate) -> str:
    latency, faster = candidate.latency, findings.speed_up(candidate.latency)
    beside = f", {faster.faster} than the teacher" if faster else ""
    quicker, best = findings.speed_up_over_variant(latency), findings.best_teacher_variant
    if quicker and best:
        beside += f" and {quicker.faster} than its best exported form, {best.name}"
    variant = f" Runs as {candidate.student.variant}: {candidate.parity}." * bool(candidate.parity)
    return (
        f"One answer takes {latency.p50_ms:.3g} ms (p50), {latency.p95_ms:.3g} ms (p95) on "
        f"{latency.device}, {latency.threads} thread(s){beside}; {latency.throughput:,.0f} rows/s. "
        f"Without mlflow: {say_footprint(candidate.footprint)}.{variant}"
    )


def _shorten(parts: list[str]) -> str:
    """Return the parts as one text; where it is too long, the long ones end with an ellipsis."""
    text = "\n\n".join(parts) + "\n"
    for most in MOST_OF_A_PART:
        if len(text) <= MOST_CHARACTERS:
            break
        text = "\n\n".join(part if _is_whole(part) else _cut(part, most) for part in parts)
    return text[:MOST_CHARACTERS]


def _is_whole(part: str) -> bool:
    """Return whether a part is a table, a picture, links or code, which are useless when cut."""
    return part.startswith(("|", "!", "[", CALL))


def _cut(part: str, most: int) -> str:
    return part if len(part) <= most else f"{part[:most]}…"


def _list_promises(findings: Findings, candidate: Candidate) -> str:
    """Return each promise with a mark whether held-out keeps it."""
    tests = findings.proof.promises.get(candidate.name, [])
    if not tests:
        return "none were made."
    marks = {True: "✓ kept", False: "✗ broken"}
    lines = [
        f"- {marks[test.is_kept('point')]}: {as_markdown(say_promise(test))}" for test in tests
    ]
    return "\n\n" + "\n".join(lines)


def tabulate_card(
    findings: Findings, candidate: Candidate, review: Review | None = None
) -> list[Cells]:
    """Return the card's figures: the teacher, this seed with its interval, the champion.

    The champion's are those that the gate measured beside this version.
    """
    gate = review.gate if review else None
    rows = [*_list_figures(findings, candidate), *_list_times(findings, candidate)]
    if gate is None or gate.champion is None or gate.challenger is None:
        return rows
    champion, ours = (list_standing(one, gate) for one in (gate.champion, gate.challenger))
    cells = dict.fromkeys((row["held-out"] for row in rows), NOTHING) | champion
    for name in TIMES:  # of another run than this version's own
        cells[name] += f" (this version then {ours[name]})"
    return [row | {name_champion(gate): cells[row["held-out"]]} for row in rows]


def _list_figures(findings: Findings, candidate: Candidate) -> Iterator[Cells]:
    ours, teacher = (findings.held_out.models[name] for name in (candidate.name, TEACHER))
    metric = findings.config.select.metric
    shown = {f"quality/{metric}": QUALITY_NAMES[metric]} | FIGURES
    for key, name in shown.items():
        if key in ours.figures:
            figure, theirs = ours.figures[key], teacher.figures.get(key)
            yield {
                "held-out": name,
                "teacher": f"{theirs.value:.4f}" if theirs else NOTHING,
                "this version": f"{figure.value:.4f}",
                "95 % interval": f"{figure.low:.4f} – {figure.high:.4f}",
            }


def _list_times(findings: Findings, candidate: Candidate) -> Iterator[Cells]:
    ours, teacher = candidate.latency, findings.latencies.by_name.get(TEACHER)
    for name, key in TIMES.items():
        low, high = ours.intervals[key]
        yield {
            "held-out": name,
            "teacher": f"{getattr(teacher, key):.3g}" if teacher else NOTHING,
            "this version": f"{getattr(ours, key):.3g}",
            "95 % interval": f"{low:.3g} – {high:.3g}",
        }


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
