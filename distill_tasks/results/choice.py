"""The choice: which candidates are tested on held-out, in which order, and which is chosen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from distill_tasks.measuring.latency import tie
from distill_tasks.results.outcomes import Proof
from distill_tasks.results.reasons import (
    explain,
    find_misses,
    name_nearest,
    name_nearest_tested,
    say_chosen,
)
from distill_tasks.results.selection import Field, Gaps, Selection, Stability, Values
from distill_tasks.scoring.intervals import Figure
from distill_tasks.scoring.pareto import Points, front_among, rank
from distill_tasks.scoring.settings import SelectConfig
from distill_tasks.scoring.verdicts import rows_needed

REDRAWS = 200
"""How often the choice is repeated with other validation rows."""


@dataclass(frozen=True)
class Rule:
    """How candidates are ranked."""

    select: SelectConfig
    allowed_drop: float = 0.0
    """Loss of quality that a clearly faster candidate may have."""

    def rank(self, points: Points, gaps: Gaps, front: Sequence[int]) -> list[int]:
        """Return the candidates of a front by their numbers, the one that is chosen first.

        Between two there is no knee: the better one is taken, unless the faster one is surely
        within the allowed drop of it.
        """
        ends, choice = points[list(front)], self.select.choose
        if choice == "knee" and len(front) == 2:
            better, faster = (front[rank(ends, by)[0]] for by in ("most_accurate", "fastest"))
            is_close = gaps[faster, better] >= -self.allowed_drop
            choice = "fastest" if is_close else "most_accurate"
        return [front[place] for place in rank(ends, choice)]


def find_finalists(field: Field, rule: Rule, most: int) -> list[str]:
    """Return the students that get all seeds and held-out tests, in the order of their tests.

    Students on the front come first, as the configuration would choose them, then those that may
    be on it for all that validation says, the better ones first; those that validation says keep
    the promises go before the others. Only candidates that meet the constraints count, and of
    several that are as good and as fast as each other one. Where something is promised, the last
    place goes to the student that most likely keeps it.
    """
    running = meet_constraints(field, rule.select)
    if not running.candidates:
        return []
    points = running.points
    ranked = rule.rank(points, running.gaps, running.front)
    ranked += sorted(running.undecided, key=lambda number: (-points[number][0], points[number][1]))
    ranked = _skip_ties(running, _put_keepers_first(running.margins, ranked))
    students = [running.candidates[number].student.student for number in ranked]
    finalists = list(dict.fromkeys(students))[:most]
    if any(candidate.promises for candidate in running.candidates) and len(finalists) == most > 1:
        safest = max(running.candidates, key=lambda candidate: candidate.margin).student.student
        if safest not in finalists:
            finalists[-1] = safest
    return finalists


def select_candidate(field: Field, finalists: Sequence[str], rule: Rule) -> Selection:
    """Draw the front on validation quality and p95 latency, and order the finalists for held-out.

    The first one is the chosen one as far as validation goes; `choose_kept` has the last word.
    """
    config, candidates = rule.select, field.candidates
    allowed = meet_constraints(field, config)
    running = [n for n, c in enumerate(allowed.candidates) if c.student.student in finalists]
    order = order_finalists(allowed, running, rule)
    chosen = order[0] if order else None
    reasons = {c.name: "; ".join(find_misses(c, config)) for c in candidates}
    reasons |= {
        c.name: explain(allowed, number, chosen, running=running, config=config)
        for number, c in enumerate(allowed.candidates)
    }
    shown = field.take([n for n, c in enumerate(candidates) if not c.rejected])
    ends = [(c.quality.low, c.quality.high) for c in shown.candidates]
    names, front = [candidate.name for candidate in shown.candidates], shown.front
    leading = [allowed.candidates[number] for number in order]
    tested = {candidate.student.student for candidate in leading}
    barred = [name for name in finalists if name not in tested]
    return Selection(
        candidates=candidates,
        finalists=list(finalists),
        leading=[c.name for c in leading] + barred,
        barred=barred,
        front=[names[n] for n in front],
        undecided=[names[n] for n in shown.undecided],
        chosen=leading[0].name if leading else None,
        reasons=reasons,
        leaving=[names[n] for n in front if not shown.front_if(n, ends[n][0])],
        joining=[
            name for n, name in enumerate(names) if n not in front and shown.front_if(n, ends[n][1])
        ],
        why_none="" if leading else name_nearest(candidates, finalists, config),
        ties=_name_ties(allowed, order),
        stability=measure_stability(allowed, running, rule),
    )


def choose_kept(selection: Selection, proof: Proof, config: SelectConfig) -> Selection:
    """Choose the first of the finalists, in their order, that keeps every promise on held-out."""
    if selection.chosen is None:
        return selection
    reasons, chosen = dict(selection.reasons), None
    for name in selection.leading:
        if name in selection.barred:
            continue
        tests = proof.promises[name]
        broken = [test for test in tests if not test.is_kept(config.promise)]
        if broken:
            reasons[name] = f"breaks on held-out {'; '.join(map(str, broken))}"
        elif chosen is None:
            chosen = name
            reasons[name] = say_chosen(selection, name, tests)
    why_none = "" if chosen else name_nearest_tested(selection, proof, config)
    return replace(selection, chosen=chosen, reasons=reasons, why_none=why_none)


def meet_constraints(field: Field, config: SelectConfig) -> Field:
    """Return the candidates that meet the limits and may keep the promises, by validation."""
    return field.take([n for n, c in enumerate(field.candidates) if not find_misses(c, config)])


def order_finalists(field: Field, running: Sequence[int], rule: Rule) -> list[int]:
    """Return the candidate of each finalist that would be served, in the order of their tests.

    Of those that are as good and as fast as the one in front of them the smallest comes first, by
    name where they are as large, so that the order is the same on every machine.
    """
    points, remaining, order = field.points, list(running), list[int]()
    while remaining:
        ranked = _rank_among(points, field.gaps, remaining, rule)
        leader = _take_smallest(field, _put_keepers_first(field.margins, ranked)[0], remaining)
        order.append(leader)
        student = field.candidates[leader].student.student
        remaining = [n for n in remaining if field.candidates[n].student.student != student]
    return _put_keepers_first(field.margins, order)


def measure_stability(field: Field, running: Sequence[int], rule: Rule) -> Stability | None:
    """Return in how many redraws each candidate would come first.

    Validation is redrawn, and every p95 latency within the noise of this run. Candidates that are
    ties of the chosen one count as it.
    """
    if field.redraws is None or not running:
        return None
    generator = np.random.default_rng(0)
    p95_ms = np.array([candidate.latency.p95_ms for candidate in field.candidates])
    counts: Counter[str] = Counter()
    for qualities, margins in zip(field.redraws.qualities, field.redraws.margins, strict=True):
        points = field.points.copy()
        noise = generator.uniform(-field.band, field.band, len(p95_ms)) / 2
        points[:, 0], points[:, 1] = qualities, tie(p95_ms * (1 + noise), field.band)
        ranked = _rank_among(points, field.gaps, running, rule)
        ranked += [number for number in running if number not in ranked]
        first = _put_keepers_first(margins, ranked)[0]
        counts[field.candidates[_take_smallest(field, first, running)].name] += 1
    shares = {name: count / counts.total() for name, count in counts.most_common()}
    return Stability(shares, _count_rows_to_settle(field, list(shares)))


def _count_rows_to_settle(field: Field, names: Sequence[str]) -> int | None:
    """Return about how many validation rows would tell the first two candidates apart."""
    if len(names) < 2:
        return None
    numbers = {candidate.name: number for number, candidate in enumerate(field.candidates)}
    one, other = sorted((numbers[name] for name in names[:2]), key=lambda n: -field.points[n, 0])
    better, worse = field.candidates[one].quality, field.candidates[other].quality
    ends = field.gaps[one, other], -field.gaps[other, one]
    gap = Figure(better.value - worse.value, float(ends[0]), float(ends[1]), better.rows)
    return rows_needed(gap)


def _rank_among(points: Points, gaps: Gaps, running: Sequence[int], rule: Rule) -> list[int]:
    """Return the candidates that no other one beats, in the order of preference.

    They are ranked on the front of all, whose ends the knee is measured from.
    """
    best = front_among(points, running)
    scope = sorted({*front_among(points, range(len(points))), *best})
    return [number for number in rule.rank(points, gaps, scope) if number in best]


def _put_keepers_first(margins: Sequence[float] | Values, ranked: Sequence[int]) -> list[int]:
    """Return candidates in the same order, but those that break a promise last.

    ``margins`` are those of all candidates, by number. Of those that break one the nearest comes
    first.
    """
    return sorted(ranked, key=lambda number: max(0.0, -margins[number]))


def _skip_ties(field: Field, ranked: Sequence[int]) -> list[int]:
    """Return candidates without those that are ties of another student's before them."""
    kept: list[int] = []
    for number in ranked:
        student = field.candidates[number].student.student
        others = [n for n in kept if field.candidates[n].student.student != student]
        if not any(field.are_ties(number, other) for other in others):
            kept.append(number)
    return kept


def _take_smallest(field: Field, leader: int, among: Sequence[int]) -> int:
    """Return the smallest of a candidate and its ties; by name where they are as large."""
    tied = [number for number in among if number == leader or field.are_ties(number, leader)]
    least = min(0.0, field.margins[leader])
    safe = [number for number in tied if field.margins[number] >= least]

    def place(number: int) -> tuple[float, str]:
        return field.candidates[number].student.disk_mb, field.candidates[number].name

    return min(safe, key=place)


def _name_ties(field: Field, order: Sequence[int]) -> dict[str, list[str]]:
    """Return the ties of each of those leading, by their names."""
    names = [candidate.name for candidate in field.candidates]
    ties = {
        names[leader]: [
            names[n] for n in range(len(names)) if n != leader and field.are_ties(n, leader)
        ]
        for leader in order
    }
    return {name: tied for name, tied in ties.items() if tied}
