"""Does the choice hold? The rule as it was and as it is, on redraws of the rows that decide.

On Reuters R8 and R52 and two times eight groups of 20 Newsgroups a fine-tuned MiniLM and seven
students learn once, and answer all rows that they did not learn from. Each of 40 draws takes from
these 150 rows of validation, 1,000 that the teacher alone has labelled, and 1,200 held-out ones,
and either rule names a champion that shall keep 98 % of the teacher's accuracy; all the rows
together say whether it does. The rule as it was takes the estimate on validation for the truth, and
tests nothing on held-out. The one as it is has up to three finalists; `promise` says whether the
estimate on held-out or the lower end of its interval must reach the bar. Whether the champion
beats its control is left out, of both. What was trained and answered is kept in
.potstill/benchmarks/choice and not made again; the name of a data set runs it alone. Prints tables
for people and, as its last line, one JSON object. Needs `make demo` first, for the base model:

- ``missed_promises``: share of draws with a champion that truly misses the bar by more than 1
  point, by the rule as it is with its defaults; the worst data set. ``missed_promises_before``: by
  the rule as it was, likewise. ``below_promise`` counts every miss, however small.
- ``regret_points``: by how much the champion's true accuracy is behind that of the best candidate,
  mean of all draws that name a champion; ``regret_ratio`` is that over ``regret_points_before``.
- ``no_champion``: share of all draws in which nobody is promoted. ``no_champion_before``.
- ``same_champion``: share of the draws of R8 that name the most frequent champion or one that is as
  good and as fast, of those that name one. ``same_champion_before``. ``same_quality`` counts those
  that are as good, however fast, as the same.
- ``false_kept``: see `promise_error_rates`, which this runs too.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from choice_rules import ChampionRule, Seen, choose_as_before, choose_as_now
from numpy.typing import NDArray
from promise_error_rates import find_false_kept
from redraws import DATA_SETS, Answered, Sizes, answer, draw_all
from reuters import say_machine

from distill_tasks.reporting.tables import markdown_table
from distill_tasks.scoring.pareto import Choice
from distill_tasks.scoring.promises import Certainty
from distill_tasks.scoring.settings import SelectConfig

DRAWS = 40
SLACK = 0.01
"""A champion that misses what was promised by no more than this has not missed it."""
AS_GOOD = 0.005
"""Candidates whose true accuracies are no further apart, and whose times are ties, are equals."""
USUAL = SelectConfig()
CHOICES: tuple[Choice, ...] = ("knee", "most_accurate")
CERTAINTIES: tuple[Certainty, ...] = ("point", "surely")
STABLE = "r8"
"""The data set on which repeated runs should name the same champion."""


@dataclass(frozen=True)
class Record:
    """The champions that a rule named in all draws of a data set, None where it named none."""

    answered: Answered
    champions: Sequence[str | None]

    @property
    def named(self) -> list[int]:
        """The numbers of the champions, of the draws that have one."""
        names = self.answered.names
        return [names.index(champion) for champion in self.champions if champion is not None]

    @property
    def missed(self) -> float:
        """Share of all draws whose champion truly misses the promise by more than the slack."""
        return self._find_missing(SLACK)

    @property
    def below(self) -> float:
        """Share of all draws whose champion truly misses the promise, by however little."""
        return self._find_missing(0.0)

    @property
    def without(self) -> float:
        """Share of all draws without a champion."""
        return 1 - len(self.named) / len(self.champions)

    @property
    def regrets(self) -> NDArray[np.float64]:
        """True accuracy of the best candidate less that of each champion (champions,)."""
        accuracy = self.answered.hits.mean(axis=1)
        regrets: NDArray[np.float64] = accuracy.max() - accuracy[self.named]
        return regrets

    @property
    def same(self) -> float:
        """Share of the draws with a champion that name the most frequent one or its equal."""
        return self._agree(find_equals(self.answered))

    @property
    def as_good(self) -> float:
        """The same where whoever is truly as good counts as equal, however fast it is."""
        return self._agree(find_as_good(self.answered))

    def _find_missing(self, slack: float) -> float:
        missing = find_retention(self.answered) < self.answered.data.promise - slack
        return float(missing[self.named].sum()) / len(self.champions)

    def _agree(self, equals: NDArray[np.bool_]) -> float:
        """Return the share of champions that equal the one that most of them equal."""
        return max(float(row[self.named].mean()) for row in equals) if self.named else 0.0

    @property
    def most_frequent(self) -> str:
        """The most frequent champion."""
        counts = Counter(name for name in self.champions if name is not None)
        return counts.most_common(1)[0][0] if counts else "–"


def find_retention(answered: Answered) -> NDArray[np.float64]:
    """Return the true share of the teacher's accuracy that every candidate keeps."""
    retention: NDArray[np.float64] = answered.hits.mean(axis=1) / answered.teacher_hits.mean()
    return retention


def find_as_good(answered: Answered) -> NDArray[np.bool_]:
    """Return which candidates are truly as good as each other (by number)."""
    accuracy = answered.hits.mean(axis=1)
    close: NDArray[np.bool_] = np.abs(accuracy[:, None] - accuracy) <= AS_GOOD
    return close


def find_equals(answered: Answered) -> NDArray[np.bool_]:
    """Return which candidates are truly as good and as fast as each other (by number)."""
    times_ms, band = answered.p95_ms, answered.latencies.band
    ratio = np.maximum(times_ms[:, None] / times_ms, times_ms / times_ms[:, None])
    equals: NDArray[np.bool_] = find_as_good(answered) & (ratio <= 1 + band)
    return equals


@dataclass(frozen=True)
class Setting:
    """A rule and what the configuration says."""

    rule: ChampionRule
    config: SelectConfig

    @property
    def is_before(self) -> bool:
        """Whether the rule is the one as it was, which knows no kinds of promises."""
        return self.rule is choose_as_before

    @property
    def name(self) -> str:
        """The rule, for people."""
        return "as it was" if self.is_before else "as it is"

    @property
    def is_usual(self) -> bool:
        """Whether the configuration is the default one, as far as the rule reads it."""
        config = self.config
        return config.choose == USUAL.choose and (self.is_before or config.promise == USUAL.promise)


def list_settings() -> Iterator[Setting]:
    """Yield either rule under every choice, that as it is with every kind of promise too."""
    for choose in CHOICES:
        yield Setting(choose_as_before, SelectConfig(choose=choose))
        for certainty in CERTAINTIES:
            yield Setting(choose_as_now, SelectConfig(choose=choose, promise=certainty))


def record_all(answered: Answered) -> list[tuple[Setting, Record]]:
    """Return the champions of all draws in every setting."""
    seen = [Seen(answered, draw) for draw in draw_all(answered, DRAWS, Sizes())]
    return [
        (setting, Record(answered, [setting.rule(one, setting.config) for one in seen]))
        for setting in list_settings()
    ]


def tabulate_candidates(answered: Answered) -> list[dict[str, str]]:
    """Return what is true of every candidate as rows of text, the best one first."""
    accuracy, retention = answered.hits.mean(axis=1), find_retention(answered)
    teacher = {
        "model": "teacher",
        "accuracy": f"{answered.teacher_hits.mean():.4f}",
        "retention": "–",
        "p95 ms": "–",
    }
    return [teacher] + [
        {
            "model": answered.names[number],
            "accuracy": f"{accuracy[number]:.4f}",
            "retention": f"{retention[number]:.4f}",
            "p95 ms": f"{answered.p95_ms[number]:.3g}",
        }
        for number in np.argsort(-accuracy)
    ]


def tabulate_rules(records: list[tuple[Setting, Record]]) -> list[dict[str, str]]:
    """Return what became of every rule as rows of text."""
    return [
        {
            "rule": setting.name,
            "choose": setting.config.choose,
            "promise": "–" if setting.is_before else setting.config.promise,
            "missed": _percent(record.missed),
            "at all": _percent(record.below),
            "no champion": _percent(record.without),
            "regret in points": f"{100 * record.regrets.mean():.2f}" if record.named else "–",
            "same champion": _percent(record.same) if record.named else "–",
            "one as good": _percent(record.as_good) if record.named else "–",
            "most frequent": record.most_frequent,
        }
        for setting, record in records
    ]


def sum_up(found: dict[str, list[tuple[Setting, Record]]]) -> dict[str, float]:
    """Return the figures of both rules as configured by default."""
    usual = [(data, s, r) for data, records in found.items() for s, r in records if s.is_usual]
    figures = {}
    for suffix, is_before in (("", False), ("_before", True)):
        mine = {data: record for data, s, record in usual if s.is_before == is_before}
        regrets = np.concatenate([record.regrets for record in mine.values()])
        figures[f"missed_promises{suffix}"] = max(record.missed for record in mine.values())
        figures[f"below_promise{suffix}"] = max(record.below for record in mine.values())
        figures[f"no_champion{suffix}"] = fmean(record.without for record in mine.values())
        figures[f"regret_points{suffix}"] = 100 * float(regrets.mean()) if regrets.size else 0.0
        if STABLE in mine:
            figures[f"same_champion{suffix}"] = mine[STABLE].same
            figures[f"same_quality{suffix}"] = mine[STABLE].as_good
    before = figures["regret_points_before"]
    return figures | {"regret_ratio": figures["regret_points"] / before if before else 1.0}


def main() -> None:
    """Print the tables and the JSON line."""
    found = {}
    for data in DATA_SETS:
        if data.name not in (sys.argv[1:] or [one.name for one in DATA_SETS]):
            continue
        answered = answer(data)
        found[data.name] = record_all(answered)
        print(f"{data.name}, {len(answered.rows.split):,} rows, {data.promise:.0%} promised:\n")
        print(markdown_table(tabulate_candidates(answered)), end="\n\n")
        print(markdown_table(tabulate_rules(found[data.name])), end="\n\n", flush=True)
    print(say_machine(), end="\n\n")
    figures = sum_up(found) | {"false_kept": find_false_kept()}
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


if __name__ == "__main__":
    main()
