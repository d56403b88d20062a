from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import make_latency

from distill_tasks.calibration import Calibration
from distill_tasks.config import SelectConfig
from distill_tasks.intervals import Figure
from distill_tasks.scorecard import Scorecard
from distill_tasks.select import Candidate, Field, find_finalists, select_candidate
from distill_tasks.train import StudentReference

NAMES = {
    "accuracy": "quality/accuracy",
    "agreement": "fidelity/agreement",
    "retention": "fidelity/retention",
}


def candidate(name, accuracy, p95_ms, disk_mb=1.0, reach=0.001, **figures):
    """A candidate whose figures are so sure that `reach` is half their interval."""
    figures = figures or {"accuracy": accuracy, "retention": accuracy / 0.96, "agreement": 0.9}
    student = StudentReference(
        name=name,
        candidate=name,
        seed=0,
        taught=True,
        digest=f"digest of {name}",
        folder=Path(name),
        calibration=Calibration(),
        parameters=1000,
        disk_mb=disk_mb,
        seconds=1.0,
        curve=[],
        reused=False,
    )
    card = Scorecard(
        split="validation",
        metric="accuracy",
        figures={NAMES[key]: Figure(v, v - reach, v + reach, 100) for key, v in figures.items()},
        per_class=[],
        classes_scored=3,
        spread={},
        temperature=1.0,
    )
    return Candidate(student, card, make_latency(p95_ms))


def make_field(candidates, unsure=0.0):
    """A field where every paired difference of quality is known but for `unsure`."""
    quality = np.array([c.validation.quality.value for c in candidates])
    return Field(candidates, quality[:, None] - quality - unsure)


def choose_from(candidates, finalists=None, unsure=0.0, **config):
    """Narrow, unless the finalists are given, and select."""
    field, wanted = make_field(candidates, unsure), SelectConfig(**config)
    names = find_finalists(field, wanted, 9) if finalists is None else finalists
    return select_candidate(field, names, wanted)


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
    selection = choose_from(candidates, choose=choice)
    assert selection.chosen == selection.choice.name == chosen
    assert selection.front == ["large", "middle", "small"]
    assert selection.reasons[chosen] == f"chosen: {choice} of 3 on the front"
    assert selection.why_none == ""


def test_every_loser_has_its_reason(candidates):
    reasons = choose_from(candidates, choose="most_accurate", max_disk_mb=50).reasons
    assert list(reasons) == ["large", "middle", "clumsy", "small"]
    assert reasons["large"] == "misses max_disk_mb 50: 90"
    assert reasons["clumsy"] == (
        "dominated by middle: validation accuracy 0.9400 against 0.9300 at p95 2 against 4 ms"
    )
    assert reasons["small"] == (
        "on the front, but most_accurate prefers middle: against it this one has "
        "-24.00 points of validation accuracy and 0.5× the p95 latency"
    )


def test_one_behind_the_front_is_dominated_only_where_the_paired_interval_says_so(candidates):
    sure, unsure = (choose_from(candidates, unsure=share) for share in (0.009, 0.0101))
    assert sure.undecided == []
    assert sure.reasons["clumsy"].startswith("dominated by middle")
    assert unsure.undecided == ["clumsy"]
    assert unsure.front == sure.front
    assert unsure.reasons["clumsy"] == (
        "behind middle: validation accuracy 0.9400 against 0.9300 at p95 2 against 4 ms; "
        "validation cannot rule out that this one is better, by up to 0.01 points"
    )


def test_the_slower_of_two_that_answer_alike_is_dominated():
    field = make_field([candidate("quick", 0.9, 1), candidate("slow", 0.9, 2)])
    assert (field.front, field.undecided, field.beaten_by(1)) == ([0], [], 0)


def test_finalists_are_the_front_as_it_would_be_chosen_then_the_undecided_ones(candidates):
    rest = [candidate("late", 0.935, 40, disk_mb=60), candidate("lost", 0.2, 50)]
    field = make_field([*candidates, *rest], unsure=0.03)
    for choice, front in (
        ("most_accurate", ["large", "middle", "small"]),
        ("fastest", ["small", "middle", "large"]),
        ("knee", ["middle", "small", "large"]),
    ):
        config = SelectConfig(choose=choice)
        ranked = find_finalists(field, config, 9)
        assert ranked == [*front, "late", "clumsy"]
        assert all(find_finalists(field, config, most) == ranked[:most] for most in range(1, 5))


def test_who_is_certain_to_lose_is_no_finalist(candidates):
    finalists = find_finalists(make_field(candidates), SelectConfig(), 9)
    assert finalists == ["middle", "small", "large"]


def test_a_finalist_meets_the_constraints(candidates):
    config = SelectConfig(choose="most_accurate", max_p95_latency_ms=3)
    assert find_finalists(make_field(candidates), config, 9) == ["middle", "small"]
    assert find_finalists(make_field(candidates), SelectConfig(max_disk_mb=0.1), 9) == []


def test_one_that_may_not_be_chosen_rules_nobody_out(candidates):
    selection = choose_from(candidates, choose="most_accurate", max_disk_mb=9)
    assert selection.finalists == ["clumsy", "small"]
    assert selection.chosen == "clumsy"
    assert selection.front == ["large", "middle", "small"]
    heavy = [candidate("best", 0.9, 1, disk_mb=50), candidate("only", 0.8, 2)]
    assert choose_from(heavy, max_disk_mb=9).chosen == "only"


def test_only_a_finalist_is_chosen(candidates):
    selection = choose_from(candidates, finalists=["clumsy", "small"], choose="most_accurate")
    assert selection.chosen == "clumsy"
    assert selection.finalists == ["clumsy", "small"]
    assert selection.reasons["clumsy"] == "chosen: most_accurate of 2 on the front"
    assert selection.reasons["large"].startswith("on the front, but most_accurate prefers clumsy")


def test_a_finalist_that_more_seeds_brought_below_its_constraint_is_named(candidates):
    selection = choose_from(candidates, finalists=["middle", "small"], min_retention=0.99)
    assert selection.chosen is None
    assert selection.why_none.startswith(
        "No finalist meets the constraints; middle is nearest and misses min_retention 0.99: 0.979"
    )
    assert selection.reasons["large"] == "was no finalist, and only a finalist may be chosen"


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
    selection = choose_from(candidates, choose="most_accurate", **constraint)
    assert selection.chosen == left[0]
    kept = [name for name, reason in selection.reasons.items() if "misses" not in reason]
    assert set(left) <= set(kept)


def test_a_figure_at_its_limit_is_allowed(candidates):
    settings = {"choose": "fastest", "max_p95_latency_ms": 1, "max_disk_mb": 1}
    assert choose_from(candidates, **settings).chosen == "small"


def test_every_missed_constraint_is_named(candidates):
    reason = choose_from(candidates, max_p95_latency_ms=3, max_disk_mb=50).reasons["large"]
    assert reason == "misses max_p95_latency_ms 3: 32; misses max_disk_mb 50: 90"


def test_the_nearest_is_named_when_none_qualifies(candidates):
    selection = choose_from(candidates, min_retention=0.99, max_p95_latency_ms=1.5)
    assert selection.chosen is None
    assert selection.choice is None
    assert selection.finalists == []
    assert selection.why_none.startswith("No candidate meets the constraints; small is nearest")
    assert "small is nearest and misses min_retention 0.99: 0.7292" in selection.why_none
    assert "relax `select`" in selection.why_none
    assert all("misses" in reason for reason in selection.reasons.values())
    assert selection.front == ["large", "middle", "small"]


def test_agreement_stands_in_where_there_is_no_gold():
    students = [candidate("a", 0, 2, agreement=0.9), candidate("b", 0, 1, agreement=0.8)]
    selection = choose_from(students, choose="fastest", min_retention=0.85)
    assert selection.chosen == "a"
    assert selection.reasons["b"] == "misses min_retention 0.85: 0.8"
    assert "validation agreement" in choose_from(students, choose="fastest").reasons["a"]


def test_of_equal_candidates_one_is_chosen_and_the_other_has_a_reason():
    selection = choose_from([candidate("one", 0.9, 2), candidate("two", 0.9, 2)])
    assert selection.front == ["one", "two"]
    assert selection.chosen == "one"
    assert "+0.00 points" in selection.reasons["two"]


def test_a_single_candidate_is_chosen():
    assert choose_from([candidate("only", 0.5, 9)]).chosen == "only"


def test_who_would_leave_or_join_the_front_at_an_end_of_its_interval_is_named():
    near = [
        candidate("best", 0.95, 8, reach=0.005),
        candidate("shaky", 0.92, 4, reach=0.03),  # at 0.89 it is behind `quick`
        candidate("quick", 0.90, 2, reach=0.01),
        candidate("hopeful", 0.89, 3, reach=0.02),  # at 0.91 it is ahead of `quick`
        candidate("hopeless", 0.60, 9, reach=0.1),
    ]
    selection = choose_from(near, unsure=0.05)
    assert selection.front == ["best", "shaky", "quick"]
    assert selection.leaving == ["shaky"]
    assert selection.joining == ["hopeful"]


qualities = st.sampled_from([0.5, 0.8, 0.9, 0.95])
latencies = st.sampled_from([0.5, 1.0, 4.0, 9.0])


@given(
    st.lists(st.tuples(qualities, latencies), min_size=1, max_size=8),
    st.sampled_from([0.0, 0.05, 0.2]),
    st.sampled_from([None, 1.0, 4.0]),
    st.integers(1, 8),
    st.sampled_from(["most_accurate", "fastest", "knee"]),
)
@settings(deadline=None, max_examples=60)
def test_every_field_is_explained_without_contradiction(points, unsure, slowest, most, choice):
    students = [candidate(f"s{n}", *point, reach=unsure) for n, point in enumerate(points)]
    field = make_field(students, unsure)
    config = SelectConfig(choose=choice, max_p95_latency_ms=slowest)
    finalists = find_finalists(field, config, most)
    found = select_candidate(field, finalists, config)
    names = [student.name for student in students]
    allowed = [n for n, p in zip(names, points, strict=True) if slowest is None or p[1] <= slowest]

    assert list(found.reasons) == names
    assert all(found.reasons.values())
    assert len(finalists) == len(set(finalists)) <= most
    assert set(finalists) <= set(allowed)
    assert bool(finalists) == bool(allowed) == (found.chosen is not None) == (not found.why_none)
    assert [n for n in names if found.reasons[n].startswith("chosen")] == [found.chosen][
        : len(allowed)
    ]
    assert found.chosen in (finalists if choice == "knee" else finalists[:1]) or not finalists
    assert not set(found.undecided + found.joining) & set(found.front)
    assert set(found.leaving) <= set(found.front)
    by_name = dict(zip(names, points, strict=True))
    for name, reason in found.reasons.items():
        if reason.startswith("dominated by "):
            other = by_name[reason.removeprefix("dominated by ").split(":")[0]]
            mine = by_name[name]
            assert other[1] <= mine[1]
            assert other[0] - mine[0] >= unsure
