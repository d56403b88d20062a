"""The comparison of a challenger with the champion, as files that a reviewer and programs read."""

from __future__ import annotations

from itertools import compress
from typing import TYPE_CHECKING

import numpy as np

from distill_tasks.core.wording import say_count
from distill_tasks.problems.classification import name_labels
from distill_tasks.reporting.comparison import write_files
from distill_tasks.reporting.review import say_looks
from distill_tasks.results.comparison import (
    ComparedClass,
    ComparedModel,
    Flip,
    ModelComparison,
)
from distill_tasks.scoring.intervals import estimate
from distill_tasks.scoring.scorecard import widen_macro_f1
from distill_tasks.scoring.statistics import per_class, quality
from registry.served import join_classes
from registry.side_by_side import read_gold

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from distill_tasks.data.corpus import Split
    from distill_tasks.problems.classification import Decisions
    from distill_tasks.results.review import GateReport
    from distill_tasks.scoring.intervals import Figure
    from distill_tasks.scoring.statistics import Quality
    from registry.side_by_side import SideBySide


def write_comparison(
    pair: SideBySide, rows: Split, classes: tuple[str, ...], report: GateReport, folder: Path
) -> None:
    """Write what a version and the champion were compared by into a folder.

    ``pair`` is the version, then the champion, on rows that have gold; ``report`` is what the gate
    says of them. `comparison.html` is for reviewers, with `front.png` in it; `flips.csv` has every
    row that one of the two alone gets right; `comparison.json` has the figures.
    """
    write_files(describe_comparison(pair, rows, classes, report), folder)


def describe_comparison(
    pair: SideBySide, rows: Split, classes: tuple[str, ...], report: GateReport
) -> ModelComparison:
    """Return all that is said of a version beside the champion, on rows that have gold."""
    known = join_classes(classes, *pair.asked)
    gold = read_gold(rows, classes, known)
    assert gold is not None  # nothing is compared without
    assert pair.comparison is not None
    assert report.compared_to is not None
    answers = [asked.decide(known) for asked in pair.asked]
    figures = _score(pair.metric, gold, answers)
    challenger, champion = (
        ComparedModel(
            uri=uri,
            version=version,
            quality=scored[pair.metric],
            macro_f1=scored["macro_f1"],
            p50_ms=latency.p50_ms,
            p95_ms=latency.p95_ms,
            p95_interval_ms=latency.intervals["p95_ms"],
        )
        for uri, version, scored, latency in zip(
            pair.names,
            (report.version, report.compared_to),
            figures,
            pair.latencies,
            strict=True,
        )
    )
    timed = pair.latencies[0]
    return ModelComparison(
        promote=report.promote,
        reason=report.reason,
        verdict=report.verdict,
        metric=pair.metric,
        difference=pair.comparison.difference,
        challenger=challenger,
        champion=champion,
        agreement=pair.agreement,
        rows=len(rows),
        timed_on=f"{timed.device}, {say_count(timed.threads, 'thread')}",
        classes=_compare_classes(gold, answers, known),
        flips=_find_flips(pair, rows, gold, known),
        look=say_looks(report),
    )


def _score(
    metric: Quality, gold: Decisions, answers: Sequence[Decisions]
) -> list[dict[str, Figure]]:
    """Return the metric and macro F1 of each model, on the same draws of the rows."""
    metrics: tuple[Quality, ...] = (metric, "macro_f1")
    found = []
    for predicted in answers:
        named = {str(name): quality(name, gold, predicted) for name in metrics}
        figures = estimate(named, len(gold), seed=0)
        figures["macro_f1"] = widen_macro_f1(figures["macro_f1"], gold, [predicted])
        found.append(figures)
    return found


def _compare_classes(
    gold: Decisions, answers: Sequence[Decisions], known: tuple[str, ...]
) -> list[ComparedClass]:
    """Return the classes with rows or answers, the largest loss of F1 first."""
    ours, theirs = (per_class(gold, predicted, known) for predicted in answers)
    used = np.any([gold, *answers], axis=(0, 1))
    compared = [
        ComparedClass(
            name=one["class"],
            rows=one["rows"],
            precision=(one["precision"], other["precision"]),
            recall=(one["recall"], other["recall"]),
            f1=(one["f1"], other["f1"]),
        )
        for one, other in compress(zip(ours, theirs, strict=True), used.tolist())
    ]
    return sorted(compared, key=lambda row: (row.change is None, row.change or 0.0))


def _find_flips(
    pair: SideBySide, rows: Split, gold: Decisions, known: tuple[str, ...]
) -> list[Flip]:
    """Return the rows that one model alone gets right: newly wrong first, the surest first."""
    answers = [asked.decide(known) for asked in pair.asked]
    right, champion_right = ((predicted == gold).all(axis=1) for predicted in answers)
    numbers = np.flatnonzero(right != champion_right)
    labels = [name_labels(decided[numbers], known) for decided in (gold, *answers)]
    sure, champion_sure = (asked.confidences for asked in pair.asked)
    flips = [
        Flip(
            row=row,
            text=rows.texts[row],
            gold=truth,
            answers=(answer, champion_answer),
            confidences=(sure[row], champion_sure[row]),
            newly_wrong=not right[row],
        )
        for row, truth, answer, champion_answer in zip(numbers.tolist(), *labels, strict=True)
    ]
    return sorted(flips, key=_rank)


def _rank(flip: Flip) -> tuple[bool, float]:
    """Return the place of a flip: newly wrong first, then how sure the wrong model is."""
    return not flip.newly_wrong, -flip.confidences[0 if flip.newly_wrong else 1]
