from pathlib import Path

import pytest

from distill_tasks.config import SelectConfig
from distill_tasks.intervals import Figure
from distill_tasks.latency import Latency
from distill_tasks.scorecard import Scorecard
from distill_tasks.select import Candidate, select_candidate


def card(split, **figures):
    names = {"accuracy": "quality/accuracy", "agreement": "fidelity/agreement"}
    names["retention"] = "fidelity/retention"
    return Scorecard(split, {names[key]: Figure(v, v, v, 100) for key, v in figures.items()}, [])


def candidate(name, accuracy, p95_ms, disk_mb=1.0, held_out=0.5, **figures):
    figures = figures or {"accuracy": accuracy, "retention": accuracy / 0.96, "agreement": 0.9}
    return Candidate(
        name=name,
        digest=f"digest of {name}",
        folder=Path(name),
        parameters=1000,
        disk_mb=disk_mb,
        seconds=1.0,
        validation=card("validation", **figures),
        held_out=card("held_out", accuracy=held_out),
        latency=Latency(p95_ms / 2, p95_ms, p95_ms * 2, 100.0, 20, 4, 1, "cpu", 0.01),
    )


@pytest.fixture
def candidates():
    return [
        candidate("large", 0.96, 32, disk_mb=90),
        candidate("middle", 0.94, 2, disk_mb=30),
        candidate("clumsy", 0.93, 4, disk_mb=9),
        candidate("small", 0.70, 1),
    ]


@pytest.mark.parametrize(
    ("choice", "chosen"), [("most_accurate", "large"), ("fastest", "small"), ("knee", "middle")]
)
def test_the_choice_follows_the_settings(candidates, choice, chosen):
    selection = select_candidate(candidates, SelectConfig(choose=choice))
    assert selection.chosen == selection.choice.name == chosen
    assert selection.front == ["large", "middle", "small"]
    assert selection.reasons[chosen] == f"chosen: {choice} of 3 on the front"
    assert selection.why_none == ""


def test_every_loser_has_its_reason(candidates):
    reasons = select_candidate(
        candidates, SelectConfig(choose="most_accurate", max_disk_mb=50)
    ).reasons
    assert list(reasons) == ["large", "middle", "clumsy", "small"]
    assert reasons["large"] == "misses max_disk_mb 50: 90"
    assert reasons["clumsy"] == (
        "dominated by middle: validation accuracy 0.9400 ≥ 0.9300 at p95 2 ms ≤ 4 ms"
    )
    assert reasons["small"] == (
        "on the front, but most_accurate prefers middle: against it this one has "
        "-24.00 points of validation accuracy and 0.5× the p95 latency"
    )


@pytest.mark.parametrize(
    ("constraint", "left"),
    [
        ({"max_p95_latency_ms": 3}, ["middle", "small"]),
        ({"max_disk_mb": 9}, ["clumsy", "small"]),
        ({"min_retention": 0.98}, ["large"]),
        ({"max_p95_latency_ms": 4, "max_disk_mb": 9, "min_retention": 0.9}, ["clumsy"]),
    ],
)
def test_only_those_within_the_constraints_are_chosen(candidates, constraint, left):
    settings = SelectConfig(choose="most_accurate", **constraint)
    selection = select_candidate(candidates, settings)
    assert selection.chosen == left[0]
    kept = [name for name, reason in selection.reasons.items() if "misses" not in reason]
    assert set(left) <= set(kept)


def test_a_figure_at_its_limit_is_allowed(candidates):
    settings = SelectConfig(choose="fastest", max_p95_latency_ms=1, max_disk_mb=1)
    assert select_candidate(candidates, settings).chosen == "small"


def test_a_candidate_may_be_dominated_only_by_one_that_is_not_allowed(candidates):
    selection = select_candidate(candidates, SelectConfig(choose="most_accurate", max_disk_mb=9))
    assert selection.chosen == "clumsy"
    assert "clumsy" not in selection.front


def test_every_missed_constraint_is_named(candidates):
    settings = SelectConfig(max_p95_latency_ms=3, max_disk_mb=50)
    reason = select_candidate(candidates, settings).reasons["large"]
    assert reason == "misses max_p95_latency_ms 3: 32; misses max_disk_mb 50: 90"


def test_the_nearest_is_named_when_none_qualifies(candidates):
    settings = SelectConfig(min_retention=0.99, max_p95_latency_ms=1.5)
    selection = select_candidate(candidates, settings)
    assert selection.chosen is None
    assert selection.choice is None
    assert "small is nearest and misses min_retention 0.99: 0.7292" in selection.why_none
    assert "relax `select`" in selection.why_none
    assert all("misses" in reason for reason in selection.reasons.values())
    assert selection.front == ["large", "middle", "small"]


def test_held_out_plays_no_part():
    liars = [candidate("large", 0.96, 32, held_out=0.1), candidate("small", 0.7, 1, held_out=1.0)]
    assert select_candidate(liars, SelectConfig(choose="most_accurate")).chosen == "large"


def test_agreement_stands_in_where_there_is_no_gold():
    students = [candidate("a", 0, 2, agreement=0.9), candidate("b", 0, 1, agreement=0.8)]
    settings = SelectConfig(choose="fastest", min_retention=0.85)
    selection = select_candidate(students, settings)
    assert selection.chosen == "a"
    assert selection.reasons["b"] == "misses min_retention 0.85: 0.8"


def test_of_equal_candidates_one_is_chosen_and_the_other_has_a_reason():
    twins = [candidate("one", 0.9, 2), candidate("two", 0.9, 2)]
    selection = select_candidate(twins, SelectConfig())
    assert selection.front == ["one", "two"]
    assert selection.chosen == "one"
    assert "+0.00 points" in selection.reasons["two"]


def test_a_single_candidate_is_chosen():
    assert select_candidate([candidate("only", 0.5, 9)], SelectConfig()).chosen == "only"
