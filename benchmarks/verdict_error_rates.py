"""How often are verdicts wrong, and do the intervals cover what they say? A simulation.

Held-out sets are drawn from models whose true quality is known, and judged by the code that judges
real ones. Prints tables for people and, as its last line, one JSON object:

- ``false_beats``: share of sets in which any of three students that truly equal their controls is
  called BEATS; the worst of all settings.
- ``power_3_points``: share in which a student truly 3 points better is called BEATS at 2,000 rows,
  judged alone; the worst of all settings. The table also has it among equals, which costs power.
- ``coverage_*``: share of 95 % intervals that hold the true value; the one farthest from 95 %.

By macro F1, two models answer 1,000 rows of two classes, few of them of the rare one:

- ``false_beats_macro_f1``: share of sets in which one of two equal models is called BEATS, in the
  worst setting.
- ``power_macro_f1``: share in which a model that knows the rare class better, by 20 points of its
  recall and 7 of macro F1, is called BEATS with 150 rare rows.
- ``coverage_macro_f1``: share of intervals of a model's macro F1 that hold the true value; the
  least, since those of a class of one row have to be wide. ``coverage_macro_f1_difference`` is that
  of the difference between two models that truly differ; low where the only rare row is answered
  alike, as of two models that answer every row alike no interval holds what they differ by.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from distill_tasks.problems.classification import Decisions
from distill_tasks.reporting.tables import markdown_table
from distill_tasks.scoring.intervals import estimate
from distill_tasks.scoring.scorecard import widen_macro_f1
from distill_tasks.scoring.statistics import f1, f1_of_counts, mean, ratio
from distill_tasks.scoring.verdicts import (
    PairedComparison,
    Verdict,
    compare_answers,
    correct_holm,
    decide,
)

SETS = 400
COVERAGE_SETS = 2000
SETS_OF_A_SEED = 20
"""Neighbouring sets share the bootstrap's draws, which are then made once."""
ROWS = (500, 2000)
DISCORDANT = (0.05, 0.1, 0.2)
"""Share of rows that one of the two models alone gets right."""
STUDENT_RIGHT = 0.85
"""True accuracy of the student; its control's is lower by the lead."""
STUDENTS = 3
RARE_ROWS, ENOUGH_ROWS = (1, 2, 3, 5, 10), 150
"""Rows of the rare class, of 1,000, too few to tell models apart, and enough."""
COMMON_RIGHT, BETTER, WORSE = (0.99, 0.998), 0.9, 0.7
"""Share of the rows of the common class that are right, and of the rare one by either model."""

Hits = NDArray[np.bool_]


def draw_pair(
    generator: np.random.Generator, rows: int, discordant: float, lead: float
) -> tuple[Hits, Hits]:
    """Return which rows student and control get right; ``lead`` is their true difference."""
    won, lost = (discordant + lead) / 2, (discordant - lead) / 2
    kind = generator.choice(4, rows, p=[won, lost, STUDENT_RIGHT - won, 1 - STUDENT_RIGHT - lost])
    return (kind == 0) | (kind == 2), (kind == 1) | (kind == 2)


def draw_seeds(
    generator: np.random.Generator, rows: int, discordant: float, lead: float, seeds: int
) -> tuple[list[Hits], list[Hits]]:
    """Return the hits of several seeds of student and control on the same rows.

    Each seed answers every row afresh with the same chances.
    """
    pairs = [draw_pair(generator, rows, discordant, lead) for _ in range(seeds)]
    return [student for student, _ in pairs], [control for _, control in pairs]


def judge(students: list[tuple[list[Hits], list[Hits]]]) -> list[Verdict]:
    """Return the verdict on each student against its control, corrected for their number."""
    comparisons = []
    for ours, theirs in students:
        gold = np.ones((len(ours[0]), 1), bool)
        comparisons.append(
            compare_answers(gold, [h[:, None] for h in ours], [h[:, None] for h in theirs])
        )
    corrected = correct_holm([comparison.p_value for comparison in comparisons])
    return [
        decide(comparison.difference, p)
        for comparison, p in zip(comparisons, corrected, strict=True)
    ]


def false_beats(rows: int, discordant: float, seeds: int) -> float:
    """Return the share of sets in which a student that equals its control is called BEATS."""
    generator = np.random.default_rng(rows + seeds)
    wrong = 0
    for _ in range(SETS):
        family = [draw_seeds(generator, rows, discordant, 0.0, seeds) for _ in range(STUDENTS)]
        wrong += Verdict.BEATS in judge(family)
    return wrong / SETS


def power(rows: int, discordant: float, lead: float, equals: int) -> float:
    """Return the share of sets in which a truly better student is called BEATS.

    ``equals`` other students that equal their controls are judged with it.
    """
    generator = np.random.default_rng(rows)
    found = 0
    for _ in range(SETS):
        leads = [lead, *[0.0] * equals]
        family = [draw_seeds(generator, rows, discordant, each, 1) for each in leads]
        found += judge(family)[0] is Verdict.BEATS
    return found / SETS


def coverage(rows: int, right: float, agreed: float) -> dict[str, float]:
    """Return how often the intervals of accuracy, retention and agreement hold the truth.

    The teacher is right in 96 % of all rows, the student in ``right``; rows on which they agree
    are right or wrong together.
    """
    generator = np.random.default_rng(rows)
    teacher_right = 0.96
    apart = 1 - agreed
    only_student = (apart + right - teacher_right) / 2
    only_teacher = apart - only_student
    both = teacher_right - only_teacher
    truth = {"accuracy": right, "retention": right / teacher_right, "agreement": agreed}
    held = dict.fromkeys(truth, 0)
    for number in range(COVERAGE_SETS):
        chances = [both, only_student, only_teacher, 1 - both - only_student - only_teacher]
        kind = generator.choice(4, rows, p=chances)
        student, teacher = (kind == 0) | (kind == 1), (kind == 0) | (kind == 2)
        statistics = {
            "accuracy": mean(student),
            "retention": ratio(mean(student), mean(teacher)),
            "agreement": mean((kind == 0) | (kind == 3)),
        }
        for name, figure in estimate(statistics, rows, number // SETS_OF_A_SEED).items():
            held[name] += figure.low <= truth[name] <= figure.high
    return {name: count / COVERAGE_SETS for name, count in held.items()}


def simulate_verdicts() -> Iterator[dict[str, float]]:
    """Yield the error rates of every setting."""
    for rows in ROWS:
        for seeds, discordant in ((1, 0.1), (3, 0.1)):
            rate = false_beats(rows, discordant, seeds)
            setting = {"rows": rows, "discordant": discordant, "students": STUDENTS}
            yield {**setting, "seeds": seeds, "false_beats": rate}
    for discordant in DISCORDANT:
        for equals in (0, STUDENTS - 1):
            rate = power(2000, discordant, 0.03, equals)
            setting = {"rows": 2000, "discordant": discordant, "students": 1 + equals}
            yield {**setting, "seeds": 1, "power_3_points": rate}


def answer(
    generator: np.random.Generator, rare: int, common_right: float, rare_right: float
) -> tuple[Decisions, Decisions]:
    """Return gold and what a model says of 1,000 rows (rows, classes), the first ones rare."""
    is_rare = np.arange(1000) < rare
    hit = generator.random(1000) < np.where(is_rare, rare_right, common_right)
    gold = np.stack([~is_rare, is_rare], axis=1)
    return gold, np.where(hit[:, None], gold, ~gold)


def true_macro_f1(rare: int, common_right: float, rare_right: float) -> float:
    """Return the macro F1 that such a model has on endless rows."""
    true = np.array([[1000.0 - rare, rare]])
    both = true * [common_right, rare_right]
    return float(f1_of_counts(both, true, both + (true - both)[:, ::-1], "macro_f1")[0])


def compare_macro_f1(
    rare: int, common_right: float, ours: float, theirs: float
) -> list[PairedComparison]:
    """Return the comparison of two models in every set, by their recalls of the rare class."""
    generator, found = np.random.default_rng(rare), []
    for number in range(SETS):
        gold, first = answer(generator, rare, common_right, ours)
        _, second = answer(generator, rare, common_right, theirs)
        seed = number // SETS_OF_A_SEED
        found.append(compare_answers(gold, [first], [second], "macro_f1", seed))
    return found


def cover_macro_f1(rare: int, common_right: float) -> float:
    """Return how often intervals of macro F1 hold its true value, of the model with the fewest."""
    generator, models = np.random.default_rng(rare), {"better": BETTER, "worse": WORSE}
    truth = {name: true_macro_f1(rare, common_right, right) for name, right in models.items()}
    held = dict.fromkeys(models, 0)
    for number in range(SETS):
        answers = {n: answer(generator, rare, common_right, right) for n, right in models.items()}
        statistics = {name: f1(*each, "macro_f1") for name, each in answers.items()}
        for name, plain in estimate(statistics, 1000, number // SETS_OF_A_SEED).items():
            gold, said = answers[name]
            figure = widen_macro_f1(plain, gold, [said])
            held[name] += figure.low <= truth[name] <= figure.high
    return min(held.values()) / SETS


def simulate_macro_f1() -> Iterator[dict[str, float]]:
    """Yield the error rates and the coverage by rare rows, and the power with enough of them."""
    for rare in (*RARE_ROWS, ENOUGH_ROWS):
        for right in COMMON_RIGHT:
            equal = compare_macro_f1(rare, right, WORSE, WORSE)
            apart = compare_macro_f1(rare, right, BETTER, WORSE)
            gap = true_macro_f1(rare, right, BETTER) - true_macro_f1(rare, right, WORSE)
            held = [c.difference.low <= gap <= c.difference.high for c in apart]
            yield {
                "rare rows": rare,
                "common right": right,
                "true difference": round(gap, 3),
                "false_beats": np.mean([c.verdict is Verdict.BEATS for c in equal]),
                "beats": np.mean([c.verdict is Verdict.BEATS for c in apart]),
                "coverage": cover_macro_f1(rare, right),
                "coverage of difference": np.mean(held),
            }


def main() -> None:
    """Print the tables and the JSON line."""
    verdicts = list(simulate_verdicts())
    print(markdown_table(_show(verdicts)), end="\n\n")
    covered = [
        {"rows": rows, "right": right, **coverage(rows, right, agreed)}
        for rows in ROWS
        for right, agreed in ((0.95, 0.97), (0.85, 0.85))
    ]
    print(markdown_table(_show(covered)), end="\n\n")
    farthest = {
        f"coverage_{name}": max((row[name] for row in covered), key=lambda share: abs(share - 0.95))
        for name in ("accuracy", "retention", "agreement")
    }
    alone = [row["power_3_points"] for row in verdicts if row["students"] == 1]
    rates = {
        "false_beats": max(row["false_beats"] for row in verdicts if "false_beats" in row),
        "power_3_points": min(alone),
    }
    by_macro_f1 = list(simulate_macro_f1())
    print(markdown_table(_show(by_macro_f1)), end="\n\n")
    macro_f1 = {
        "false_beats_macro_f1": max(row["false_beats"] for row in by_macro_f1),
        "power_macro_f1": min(r["beats"] for r in by_macro_f1 if r["rare rows"] == ENOUGH_ROWS),
        "coverage_macro_f1": min(row["coverage"] for row in by_macro_f1),
        "coverage_macro_f1_difference": min(r["coverage of difference"] for r in by_macro_f1),
    }
    print(json.dumps(rates | farthest | macro_f1))


def _show(rows: list[dict[str, float]]) -> list[dict[str, str]]:
    """Return rows as text, with every column that any of them has."""
    columns = dict.fromkeys(name for row in rows for name in row)
    return [{name: f"{row[name]:g}" if name in row else "–" for name in columns} for row in rows]


if __name__ == "__main__":
    sys.exit(main())
