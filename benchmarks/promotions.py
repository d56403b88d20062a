"""Does a year of nightly gates on the same held-out rows promote luck? A simulation.

A history is 300 nights on which a new challenger is compared with the champion on the same rows, by
the gate's own comparison and share of alpha. Prints a table for people and, as its last line, one
JSON object, of models that disagree about 8 % of the rows:

- ``false_histories``: share of 100 histories, of challengers truly equal to the champion, in which
  at least one is promoted for its accuracy. ``false_histories_at_5_percent`` is the same if every
  night were tested at 5 %, as if it were the only one.
- ``power_first``, ``power_fifth``, ``power_fiftieth``: share of 400 challengers truly 3 points
  better that are promoted at 2,000 rows, when they come as that look.

The table has the same for models that disagree about more rows and fewer.
"""

from __future__ import annotations

from distill_tasks.core.process import set_up_process

set_up_process()

import json
import sys
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from distill_tasks.problems.classification import Decisions
from distill_tasks.reporting.tables import markdown_table
from distill_tasks.scoring.looks import spend
from distill_tasks.scoring.verdicts import SIGNIFICANCE, Verdict, compare_answers, flip_signs

HISTORIES, NIGHTS, CHALLENGERS = 100, 300, 400
ROWS = 2_000
ACCURACY, GAIN = 0.9, 0.03
DISAGREE = (0.05, 0.08, 0.1, 0.15)
"""Share of rows that one of two equal models alone gets right."""
NAMED = 0.08
LOOKS = {"first": 1, "fifth": 5, "fiftieth": 50}

Hits = NDArray[np.bool_]


def main() -> None:
    """Simulate and print."""
    table, figures = [], {}
    for disagree in DISAGREE:
        found = {
            "false_histories": share(simulate_histories(disagree, spent=True)),
            "false_histories_at_5_percent": share(simulate_histories(disagree, spent=False)),
            **{f"power_{name}": find_power(disagree, look) for name, look in LOOKS.items()},
        }
        table.append({"disagree": f"{disagree:.0%}"} | {k: f"{v:.3f}" for k, v in found.items()})
        figures = found if disagree == NAMED else figures
        print(table[-1], file=sys.stderr, flush=True)
    print(markdown_table(table))
    print(json.dumps(figures))


def simulate_histories(disagree: float, spent: bool) -> Iterator[bool]:
    """Yield for each history whether a challenger no better than the champion was promoted."""
    for seed in range(HISTORIES):
        generator = np.random.default_rng([seed, round(1000 * disagree)])
        chances = draw_chances(generator, disagree)
        champion = draw_hits(generator, chances)
        yield any(
            wins(draw_hits(generator, chances), champion, significance(night, spent))
            for night in range(1, NIGHTS + 1)
        )


def find_power(disagree: float, look: int) -> float:
    """Return the share of challengers truly better that are promoted at a look."""
    generator = np.random.default_rng([look, round(1000 * disagree)])
    return share(wins_truly(generator, disagree, look) for _ in range(CHALLENGERS))


def wins_truly(generator: np.random.Generator, disagree: float, look: int) -> bool:
    """Return whether a challenger that is truly better wins on rows drawn afresh."""
    chances = draw_chances(generator, disagree)
    better = chances + (1 - chances) * GAIN / (1 - ACCURACY)
    champion, challenger = draw_hits(generator, chances), draw_hits(generator, better)
    return wins(challenger, champion, significance(look, spent=True))


def wins(challenger: Hits, champion: Hits, level: float) -> bool:
    """Return whether the gate finds that a challenger BEATS the champion at a two-sided level.

    The interval, which takes most of the time, is asked for only where the test agrees.
    """
    if challenger.sum() <= champion.sum():
        return False
    if flip_signs(challenger[None], champion[None]) >= level:
        return False
    gold = answer(np.ones(ROWS, bool))
    pair = compare_answers(gold, [answer(challenger)], [answer(champion)], significance=level)
    return pair.verdict is Verdict.BEATS


def significance(look: int, spent: bool) -> float:
    """Return the two-sided level of a look: its share of alpha, or 5 % as if it were alone."""
    return 2 * spend(look) if spent else SIGNIFICANCE


def draw_chances(generator: np.random.Generator, disagree: float) -> NDArray[np.float64]:
    """Return for each row (rows,) the chance that a model of this accuracy gets it right.

    They follow a Beta distribution, so narrow that two equal models disagree about this share.
    """
    ratio = disagree / (2 * ACCURACY * (1 - ACCURACY))
    size = ratio / (1 - ratio)
    return generator.beta(size * ACCURACY, size * (1 - ACCURACY), ROWS)


def draw_hits(generator: np.random.Generator, chances: NDArray[np.float64]) -> Hits:
    """Return which rows (rows,) a model gets right."""
    return generator.random(ROWS) < chances


def answer(hits: Hits) -> Decisions:
    """Return decisions (rows, 2) of which the first class is right."""
    return np.stack([hits, ~hits], axis=1)


def share(found: Iterator[bool]) -> float:
    """Return the share that is true."""
    return float(np.mean(list(found)))


if __name__ == "__main__":
    main()
