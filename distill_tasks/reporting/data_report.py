"""The data report: properties of the rows, before any training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from distill_tasks.core.errors import shortlist
from distill_tasks.core.notes import Note, Rank
from distill_tasks.data.corpus import LEARNT
from distill_tasks.data.near_repeats import Place, find_near_repeats
from distill_tasks.data.report import DataReport, Overlap, SplitReport
from distill_tasks.scoring.verdicts import FEWEST_ROWS, rows_for, smallest_difference
from distill_tasks.students.controls import WORDS_ON_GOLD, find_limit, has_words

if TYPE_CHECKING:
    from distill_tasks.data.corpus import Corpus

FEW_ROWS_OF_A_CLASS = 20
HIGH_IMBALANCE = 20
TRUNCATED_SHARE = 0.1
USUAL_TRANSFER_ROWS = (10_000, 50_000)
"""Transfer rows that published distillations of text classifiers used."""
CHOICE_DIFFERENCE = 0.02
"""The difference in accuracy that validation should detect, since it orders the students."""
USUAL_DIFFERENCE = 0.01
"""The difference in accuracy that most users want to detect."""
USUAL_CLASS_DIFFERENCE = 0.1
"""The difference in the F1 of one class that macro F1 should detect."""


def inspect_corpus(
    corpus: Corpus,
    tokens: dict[str, NDArray[np.int64]] | None,
    max_length: int | None,
    near: Sequence[tuple[Place, Place]] | None = None,
) -> DataReport:
    """Report on a corpus; ``tokens`` are the teacher's tokens of each row (rows,) by split.

    ``near`` are its near repeats, which are found where they are not given.
    """
    near = find_near_repeats(corpus) if near is None else near
    splits = []
    for name, split in corpus.splits.items():
        counts = split.rows_per_class(len(corpus.classes)).tolist()
        long = None if tokens is None else float((tokens[name] > (max_length or 0)).mean())
        splits.append(
            SplitReport(
                name=name,
                rows=len(split),
                classes=dict(zip(corpus.classes, counts, strict=True)) if split.has_gold else {},
                exact_repeats=len(split) - len(set(split.texts)),
                near_repeats=len({later for other, later in near if other[0] == later[0] == name}),
                truncated=long,
            )
        )
    overlaps = _find_overlaps(corpus, near)
    report = DataReport(splits, overlaps, max_length, [])
    return replace(report, warnings=_warn(corpus, report))


def _find_overlaps(corpus: Corpus, near: Sequence[tuple[Place, Place]]) -> list[Overlap]:
    """Return, for each learning and scoring split, the learning rows that nearly repeat one."""
    found: dict[tuple[str, str], dict[int, tuple[str, str]]] = {}
    for pair in near:
        for (split, row), (scoring, other) in (pair, pair[::-1]):
            learns = split in LEARNT
            if learns and scoring in ("validation", "held_out"):
                texts = corpus.splits[split].texts[row], corpus.splits[scoring].texts[other]
                found.setdefault((split, scoring), {}).setdefault(row, texts)
    return [
        Overlap(split, scoring, len(rows), _shorten(next(iter(rows.values()))))
        for (split, scoring), rows in sorted(found.items())
    ]


def _shorten(texts: tuple[str, str]) -> tuple[str, str]:
    return texts[0][:160], texts[1][:160]


def _warn(corpus: Corpus, report: DataReport) -> list[Note]:
    """Return one note for each kind of thing to worry about."""
    by_name = {split.name: split for split in report.splits}
    transfer = by_name["transfer"].rows if "transfer" in by_name else 0
    return [
        *_warn_of_repeats(report),
        *_warn_of_classes(by_name["train"].classes, by_name["held_out"].classes),
        *_warn_of_transfer(transfer),
        *_warn_of_validation(by_name["validation"].rows),
        *_warn_of_held_out(by_name["held_out"], len(corpus.classes)),
        *_warn_of_length(report),
        *_warn_of_words(corpus),
    ]


def _warn_of_repeats(report: DataReport) -> list[Note]:
    warnings: list[Note] = []
    exact = [f"{s.exact_repeats} of {s.name}" for s in report.splits if s.exact_repeats]
    if exact:
        repeats = f"rows that repeat an earlier one of their split: {', '.join(exact)}"
        warnings.append(Note(Rank.KNOW, repeats))
    near = [f"{o.rows} of {o.split} in {o.scoring}" for o in report.overlaps]
    if near:
        alike = f"rows with a near duplicate in a split that scores: {', '.join(near)}"
        good = "they stay, and figures may be a little too good"
        warnings.append(Note(Rank.KNOW, f"{alike}; {good}"))
    return warnings


def _warn_of_classes(classes: dict[str, int], held_out: dict[str, int]) -> list[Note]:
    warnings: list[Note] = []
    few = {name: rows for name, rows in classes.items() if rows < FEW_ROWS_OF_A_CLASS}
    if few:
        listed = shortlist(f"{name} ({rows})" for name, rows in few.items())
        fewer = f"train has fewer than {FEW_ROWS_OF_A_CLASS} gold rows of {listed}"
        warnings.append(Note(Rank.KNOW, f"{fewer}: too few to learn these classes from gold"))
    ordered = Counter({name: rows for name, rows in classes.items() if rows}).most_common()
    if ordered and ordered[0][1] >= HIGH_IMBALANCE * ordered[-1][1]:
        (large, most), (small, least) = ordered[0], ordered[-1]
        uneven = f"{large} has {most / least:.0f} times the rows of {small}"
        advice = "see loss.balance_classes and select.metric macro_f1"
        takes = _say_what_it_takes(held_out)
        warnings.append(Note(Rank.KNOW, f"train is imbalanced: {uneven}; {advice}{takes}"))
    return warnings


def _say_what_it_takes(held_out: dict[str, int]) -> str:
    """Return how many rows of each class a verdict by macro F1 takes, and what held-out has."""
    takes = (
        f". A verdict by macro F1 takes held_out rows of every class: under {FEWEST_ROWS} decide "
        f"nothing, to call {100 * USUAL_CLASS_DIFFERENCE:g} points in a class takes about "
        f"{rows_for(USUAL_CLASS_DIFFERENCE)}"
    )
    known = {name: rows for name, rows in held_out.items() if rows}
    if not known:
        return takes
    rarest = min(known, key=lambda name: known[name])
    return f"{takes}; of {rarest} there are {known[rarest]}"


def _warn_of_transfer(rows: int) -> list[Note]:
    lowest, highest = USUAL_TRANSFER_ROWS
    if rows >= lowest:
        return []
    usual = f"{lowest:,} to {highest:,}"
    used = f"published distillations of classifiers used {usual}"
    return [Note(Rank.KNOW, f"{rows:,} transfer rows; {used}")]


def _warn_of_validation(rows: int) -> list[Note]:
    smallest, needed = smallest_difference(rows), rows_for(CHOICE_DIFFERENCE)
    if smallest <= CHOICE_DIFFERENCE:
        return []
    warning = (
        f"validation has {rows:,} rows to choose students by: differences in accuracy below about "
        f"{100 * smallest:.1f} points are not told apart. For {100 * CHOICE_DIFFERENCE:g} points "
        f"about {needed:,} are needed: raise data.validation_share, set evaluate.validation_folds, "
        "or label more"
    )
    return [Note(Rank.KNOW, warning)]


def _warn_of_held_out(held_out: SplitReport, classes: int) -> list[Note]:
    warnings: list[Note] = []
    absent = [name for name, rows in held_out.classes.items() if not rows]
    if absent:
        unknown = f"held_out has no rows of {shortlist(absent)}: nothing is known of them"
        over = f"F1 is taken over {classes - len(absent)} of {classes} classes"
        warnings.append(Note(Rank.ACT, f"{unknown}, and {over}"))
    smallest = smallest_difference(held_out.rows)
    if smallest > USUAL_DIFFERENCE:
        few = (
            f"held_out has {held_out.rows:,} rows: a difference in accuracy below about "
            f"{100 * smallest:.1f} points may well be INCONCLUSIVE; to call 1 point, about "
            f"{rows_for(USUAL_DIFFERENCE):,} rows are needed"
        )
        warnings.append(Note(Rank.KNOW, few))
    return warnings


def _warn_of_length(report: DataReport) -> list[Note]:
    long = [
        f"{100 * split.truncated:.0f} % of {split.name}"
        for split in report.splits
        if split.truncated is not None and split.truncated > TRUNCATED_SHARE
    ]
    if not long:
        return []
    read = f"the {report.max_length} tokens that are read (teacher.max_length)"
    return [Note(Rank.KNOW, f"longer than {read}: {', '.join(long)}")]


def _warn_of_words(corpus: Corpus) -> list[Note]:
    train = corpus.splits["train"]
    if not train.has_gold:
        return []
    if not has_words(train):
        wordless = "train has no words of two characters or more"
        return [Note(Rank.KNOW, f"{wordless}: there is no {WORDS_ON_GOLD}")]
    limit = find_limit(train, len(corpus.classes), corpus.problem)
    return [] if limit is None else [Note(Rank.KNOW, str(limit))]
