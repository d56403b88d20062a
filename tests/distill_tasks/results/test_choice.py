from dataclasses import replace

import numpy as np
import pytest
from builders import make_footprint, make_latency, make_student
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_tasks.results.choice import (
    Rule,
    choose_kept,
    find_finalists,
    measure_stability,
    select_candidate,
)
from distill_tasks.results.outcomes import Proof
from distill_tasks.results.selection import Candidate, Field, Redraws, Stability
from distill_tasks.scoring.intervals import Figure
from distill_tasks.scoring.parity import Parity
from distill_tasks.scoring.promises import Promise, PromiseTest
from distill_tasks.scoring.scorecard import Scorecard
from distill_tasks.scoring.settings import SelectConfig
from distill_tasks.scoring.verdicts import rows_needed

NAMES = {
    "accuracy": "quality/accuracy",
    "agreement": "fidelity/agreement",
    "retention": "fidelity/retention",
}


REJECTED = "rejected: loses more than the 0.5 points allowed"


def candidate(
    name,
    accuracy,
    p95_ms,
    disk_mb=1.0,
    reach=0.001,
    variant_of=None,
    rejected="",
    parameters=1000,
    resident_mb=60.0,
    **figures,
):
    """A candidate whose figures are so sure that `reach` is half their interval."""
    figures = figures or {"accuracy": accuracy, "retention": accuracy / 0.96, "agreement": 0.9}
    student = make_student(
        name,
        student=variant_of or name,
        variant="onnx_int8" if variant_of else "torch",
        trained=f"training of {variant_of or name}",
        parameters=parameters,
        disk_mb=disk_mb,
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
    parity = Parity("onnx_int8", 0.1, 1, 100, Figure(0.0, -0.01, 0.01, 100)) if variant_of else None
    footprint = make_footprint(resident_mb)
    return Candidate(student, card, make_latency(p95_ms), footprint, parity, rejected)


def promise(one, least):
    """The candidate, of whose promise validation is as sure as of its other figures."""
    figures = one.validation.figures
    kept = figures.get("fidelity/retention", one.validation.quality)
    agreement = "fidelity/retention" not in figures
    asked = Promise("retention", least)
    test = PromiseTest(asked, kept.value, kept.low, kept.high, kept.rows, agreement)
    return replace(one, promises=(test,))


def field_of(candidates, unsure=0.0, band=0.0, objectives=()):
    """A field where every paired difference of quality is known but for `unsure`."""
    quality = np.array([c.validation.quality.value for c in candidates])
    return Field(candidates, quality[:, None] - quality - unsure, band, objectives)


def choose_from(candidates, finalists=None, unsure=0.0, band=0.0, **config):
    """Narrow, unless the finalists are given, and select."""
    wanted = SelectConfig(**config)
    if wanted.min_retention:
        candidates = [promise(one, wanted.min_retention) for one in candidates]
    field = field_of(candidates, unsure, band, wanted.objectives)
    names = find_finalists(field, Rule(wanted), 9) if finalists is None else finalists
    return select_candidate(field, names, Rule(wanted))


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
        "on validation this one may still be better, by up to 0.01 points"
    )


def test_the_slower_of_two_that_answer_alike_is_dominated():
    field = field_of([candidate("quick", 0.9, 1), candidate("slow", 0.9, 2)])
    assert (field.front, field.undecided, field.beaten_by(1)) == ([0], [], 0)


def test_finalists_are_the_front_as_it_would_be_chosen_then_the_undecided_ones(candidates):
    rest = [candidate("late", 0.935, 40, disk_mb=60), candidate("lost", 0.2, 50)]
    field = field_of([*candidates, *rest], unsure=0.03)
    for choice, front in (
        ("most_accurate", ["large", "middle", "small"]),
        ("fastest", ["small", "middle", "large"]),
        ("knee", ["middle", "small", "large"]),
    ):
        config = SelectConfig(choose=choice)
        ranked = find_finalists(field, Rule(config), 9)
        assert ranked == [*front, "late", "clumsy"]
        assert all(
            find_finalists(field, Rule(config), most) == ranked[:most] for most in range(1, 5)
        )


def test_who_is_certain_to_lose_is_no_finalist(candidates):
    finalists = find_finalists(field_of(candidates), Rule(SelectConfig()), 9)
    assert finalists == ["middle", "small", "large"]


def test_a_finalist_meets_the_constraints(candidates):
    config = SelectConfig(choose="most_accurate", max_p95_latency_ms=3)
    assert find_finalists(field_of(candidates), Rule(config), 9) == ["middle", "small"]
    assert find_finalists(field_of(candidates), Rule(SelectConfig(max_disk_mb=0.1)), 9) == []


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
        "No finalist meets the constraints; middle is nearest and surely misses min_retention "
        "0.99: 0.9792 [0.9782, 0.9802] on 100 rows, on validation. Nothing was promoted"
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
    assert "small is nearest and surely misses min_retention 0.99: 0.7292" in selection.why_none
    assert "relax `select`" in selection.why_none
    assert all("misses" in reason for reason in selection.reasons.values())
    assert selection.front == ["large", "middle", "small"]


def test_agreement_stands_in_where_there_is_no_gold():
    students = [candidate("a", 0, 2, agreement=0.9), candidate("b", 0, 1, agreement=0.8)]
    selection = choose_from(students, choose="fastest", min_retention=0.85)
    assert selection.chosen == "a"
    assert selection.reasons["b"] == (
        "surely misses min_retention 0.85: 0.8000 [0.7990, 0.8010] on 100 rows (agreement with the "
        "teacher: there is no gold), on validation"
    )
    assert "validation agreement" in choose_from(students, choose="fastest").reasons["a"]


def test_of_equal_candidates_one_is_chosen_and_the_other_has_a_reason():
    selection = choose_from([candidate("one", 0.9, 2), candidate("two", 0.9, 2)])
    assert selection.front == ["one", "two"]
    assert selection.chosen == "one"
    assert selection.reasons["two"].startswith("a tie with one in quality and latency")
    assert selection.ties == {"one": ["two"]}


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


# Ties.


def test_latencies_within_the_noise_of_the_run_are_ties_with_the_fastest_of_them():
    group = [candidate(str(p95_ms), 0.9, p95_ms) for p95_ms in (2.08, 2, 2.12, 2.11)]
    assert field_of(group).points[:, 1].tolist() == [2.08, 2, 2.12, 2.11]
    assert field_of(group, band=0.05).points[:, 1].tolist() == [2, 2, 2.11, 2.11]
    assert field_of(group).points[:, 0].tolist() == [0.9] * 4


def test_of_two_tied_candidates_the_better_one_alone_is_on_the_front():
    pair = [candidate("better", 0.92, 2.04), candidate("quicker", 0.9, 2)]
    apart, tied = (choose_from(pair, band=band, choose="fastest") for band in (0.01, 0.05))
    assert (apart.front, apart.chosen) == (["better", "quicker"], "quicker")
    assert (tied.front, tied.chosen, tied.finalists) == (["better"], "better", ["better"])
    assert tied.reasons["quicker"] == (
        "dominated by better: validation accuracy 0.9200 against 0.9000 at p95 2.04 against 2 ms "
        "(a tie)"
    )


def test_two_that_answer_alike_and_tie_are_both_on_the_front():
    pair = [candidate("one", 0.9, 2), candidate("two", 0.9, 2.04)]
    assert choose_from(pair).front == ["one"]
    assert "p95 2 against 2.04 ms" in choose_from(pair).reasons["two"]
    assert "(a tie)" not in choose_from(pair).reasons["two"]
    tied = choose_from(pair, band=0.05)
    assert tied.front == ["one", "two"]
    assert tied.reasons["two"].startswith("a tie with one in quality and latency")


def test_one_behind_a_tie_that_nobody_surely_beats_is_told_so():
    pair = [candidate("better", 0.92, 2.04), candidate("quicker", 0.9, 2)]
    selection = choose_from(pair, band=0.05, unsure=0.03)
    assert selection.undecided == ["quicker"]
    reason = selection.reasons["quicker"]
    assert "p95 2.04 against 2 ms (a tie); on validation this one may still be" in reason


# Further objectives.


@pytest.mark.parametrize("objective", ["parameters", "disk_mb", "resident_mb"])
def test_what_takes_less_of_a_further_objective_is_on_the_front(objective):
    takes = {"parameters": 2000, "disk_mb": 20.0, "resident_mb": 200.0}
    lean = {name: amount / 2 for name, amount in takes.items() if name == objective}
    field = [candidate("quick", 0.9, 1, **takes), candidate("lean", 0.8, 2, **takes | lean)]
    assert choose_from(field).front == ["quick"]
    others = tuple(name for name in takes if name != objective)
    assert choose_from(field, objectives=others).front == ["quick"]
    selection = choose_from(field, objectives=(objective,), choose="most_accurate")
    assert selection.front == selection.finalists == ["quick", "lean"]
    assert selection.chosen == "quick"
    assert selection.reasons["lean"].startswith("on the front, but most_accurate prefers quick")
    assert field_of(field, objectives=(objective,)).points[1, 2] == takes[objective] / 2


def test_one_that_takes_more_of_everything_is_dominated_whatever_the_objectives(candidates):
    objectives = ("parameters", "disk_mb", "resident_mb")
    heavy = candidate("heavy", 0.5, 50, disk_mb=99, parameters=9999, resident_mb=999)
    selection = choose_from([*candidates, heavy], objectives=objectives, choose="most_accurate")
    assert selection.front == ["large", "middle", "clumsy", "small"]
    assert selection.reasons["heavy"].startswith("dominated by large")


# Variants.


@pytest.fixture
def variants():
    """Two students with a variant each, and one without."""
    return [
        candidate("large", 0.96, 32),
        candidate("large-int8", 0.955, 8, variant_of="large"),
        candidate("middle", 0.94, 2.5),
        candidate("middle-int8", 0.94, 2, variant_of="middle"),
        candidate("small", 0.70, 1),
    ]


def test_finalists_are_students_however_many_variants_of_them_are_on_the_front(variants):
    field = field_of(variants)
    assert [variants[n].name for n in field.front] == [
        "large",
        "large-int8",
        "middle-int8",
        "small",
    ]
    config = SelectConfig(choose="most_accurate")
    assert find_finalists(field, Rule(config), 9) == ["large", "middle", "small"]
    assert find_finalists(field, Rule(config), 2) == ["large", "middle"]


def test_of_each_finalist_the_one_that_would_be_served_leads_and_the_chosen_one_is_first(variants):
    accurate = choose_from(variants, choose="most_accurate")
    assert (accurate.chosen, accurate.leading) == ("large", ["large", "middle-int8", "small"])
    fast = choose_from(variants, finalists=["large", "middle"], choose="fastest")
    assert (fast.chosen, fast.leading) == ("middle-int8", ["middle-int8", "large-int8"])


def test_a_finalist_leads_with_what_meets_the_constraints(variants):
    selection = choose_from(variants, choose="fastest", min_retention=0.998)
    assert selection.finalists == ["large"]  # its int8 keeps 99.5 % of the teacher alone
    assert selection.leading == ["large"]
    without = choose_from(variants, finalists=["large", "middle"], max_p95_latency_ms=0.1)
    assert without.chosen is None
    assert without.leading == ["large", "middle"]


def test_a_variant_is_chosen_by_its_own_name(variants):
    selection = choose_from(variants, choose="knee", finalists=["middle"])
    assert (selection.chosen, selection.choice.student.student) == ("middle-int8", "middle")
    assert selection.reasons["middle"].startswith("dominated by middle-int8: ")


def test_a_rejected_variant_neither_competes_nor_rules_anybody_out():
    torch = candidate("layers", 0.9, 8)
    broken = candidate("layers-int8", 0.95, 2, disk_mb=9, variant_of="layers", rejected=REJECTED)
    rest = [candidate("behind", 0.89, 4)]
    for choice in ("most_accurate", "fastest", "knee"):
        selection = choose_from([torch, broken, *rest], choose=choice)
        assert set(selection.finalists) == {"layers", "behind"}
        assert selection.chosen in ("layers", "behind")
        shown = selection.front + selection.undecided + selection.leaving + selection.joining
        assert "layers-int8" not in shown + selection.leading
        assert selection.reasons["layers-int8"] == REJECTED
        assert "layers-int8" not in selection.reasons["layers"] + selection.reasons["behind"]
    both = choose_from([torch, broken, *rest], max_disk_mb=5).reasons["layers-int8"]
    assert both == f"{REJECTED}; misses max_disk_mb 5: 9"


def test_a_rejected_variant_is_never_the_nearest():
    field = [
        candidate("layers", 0.9, 8),
        candidate("layers-int8", 0.9, 3, variant_of="layers", rejected=REJECTED),
    ]
    selection = choose_from(field, max_p95_latency_ms=4)
    assert (selection.chosen, selection.finalists) == (None, [])
    assert "layers is nearest and misses max_p95_latency_ms 4: 8" in selection.why_none


qualities = st.sampled_from([0.5, 0.8, 0.9, 0.95])
latencies = st.sampled_from([0.5, 1.0, 1.03, 4.0, 9.0])
kinds = st.sampled_from(["student", "variant", "rejected"])


@given(
    st.lists(st.tuples(qualities, latencies, kinds), min_size=1, max_size=8),
    st.sampled_from([0.0, 0.05, 0.2]),
    st.sampled_from([0.0, 0.05]),
    st.sampled_from([None, 1.0, 4.0]),
    st.integers(1, 8),
    st.sampled_from(["most_accurate", "fastest", "knee"]),
)
@settings(deadline=None, max_examples=80)
def test_every_field_is_explained_without_contradiction(
    points, unsure, band, slowest, most, choice
):
    students, parent = [], "s0"  # what is no student is a variant of the last one
    for number, (quality, p95_ms, kind) in enumerate(points):
        name, variant_of = f"s{number}", parent
        if kind == "student" or number == 0:
            parent, variant_of = name, None
        rejected = REJECTED if kind == "rejected" and variant_of else ""
        given = {"reach": unsure, "variant_of": variant_of, "rejected": rejected}
        students.append(candidate(name, quality, p95_ms, **given))
    field = field_of(students, unsure, band)
    config = SelectConfig(choose=choice, max_p95_latency_ms=slowest)
    finalists = find_finalists(field, Rule(config), most)
    found = select_candidate(field, finalists, Rule(config))
    by_name = {student.name: student for student in students}
    allowed = [
        c for c in students if not c.rejected and (slowest is None or c.latency.p95_ms <= slowest)
    ]

    assert list(found.reasons) == list(by_name)
    assert all(found.reasons.values())
    assert len(finalists) == len(set(finalists)) <= most
    assert set(finalists) <= {c.student.student for c in allowed}
    assert bool(finalists) == bool(allowed) == (found.chosen is not None) == (not found.why_none)
    chosen = [name for name, reason in found.reasons.items() if reason.startswith("chosen")]
    assert chosen == [found.chosen][: len(allowed)]
    assert found.leading[:1] == chosen
    assert sorted(by_name[name].student.student for name in found.leading) == sorted(finalists)
    if choice != "knee":
        assert [by_name[name].student.student for name in chosen] == finalists[:1]
    assert not set(found.undecided + found.joining) & set(found.front)
    assert set(found.leaving) <= set(found.front)
    for name, reason in found.reasons.items():
        assert reason.startswith("rejected") == bool(by_name[name].rejected)
        if reason.startswith("dominated by "):
            other = by_name[reason.removeprefix("dominated by ").split(":")[0]]
            mine = by_name[name]
            assert other in allowed
            assert other.latency.p95_ms <= mine.latency.p95_ms * (1 + band)
            gap = other.validation.quality.value - mine.validation.quality.value
            assert gap >= unsure


# Between two, and ties.


@pytest.mark.parametrize(
    ("accuracy", "unsure", "chosen"),
    [(0.90, 0.0, "slow"), (0.957, 0.0, "quick"), (0.957, 0.01, "slow")],
)
def test_between_two_the_better_one_is_taken_unless_the_faster_one_surely_loses_little(
    accuracy, unsure, chosen
):
    pair = [candidate("slow", 0.96, 9), candidate("quick", accuracy, 1)]
    field, rule = field_of(pair, unsure), Rule(SelectConfig(choose="knee"), allowed_drop=0.005)
    assert select_candidate(field, ["slow", "quick"], rule).chosen == chosen


def test_the_budget_is_spent_on_accuracy():
    with pytest.raises(ValueError, match="budget needs max_p95_latency_ms"):
        SelectConfig(choose="budget")
    field = [candidate("best", 0.96, 9), candidate("within", 0.94, 4), candidate("fast", 0.93, 1)]
    assert choose_from(field, choose="budget", max_p95_latency_ms=5).chosen == "within"


def test_of_ties_the_smallest_takes_the_one_place_of_a_finalist():
    twins = [
        candidate("heavy", 0.96, 9, disk_mb=30),
        candidate("light", 0.96, 9, disk_mb=3),
        candidate("quick", 0.7, 1),
    ]
    selection = choose_from(twins, choose="most_accurate")
    assert selection.finalists == ["heavy", "quick"]
    both = choose_from(twins, finalists=["heavy", "light", "quick"], choose="most_accurate")
    assert both.leading == ["light", "heavy", "quick"]
    assert both.ties == {"light": ["heavy"], "heavy": ["light"]}
    wide = choose_from(twins, choose="most_accurate", unsure=0.02)
    assert wide.finalists == ["heavy", "light", "quick"]  # so unsure a difference is no tie
    assert wide.ties == {}


# Promises.


def kept(one, value, reach=0.02, least=0.9):
    """The candidate, whose promise validation estimates at some value."""
    test = PromiseTest(Promise("retention", least), value, value - reach, value + reach, 100, False)
    return replace(one, promises=(test,))


def test_those_that_keep_the_promise_on_validation_go_first_and_the_safest_is_tested_too():
    field = [
        kept(candidate("a", 0.85, 1), 0.895),
        kept(candidate("b", 0.86, 2), 0.91),
        kept(candidate("c", 0.87, 3), 0.89),
        kept(candidate("d", 0.88, 4), 0.93),
        kept(candidate("e", 0.80, 5), 0.5),
    ]
    finalists = find_finalists(field_of(field), Rule(SelectConfig(choose="fastest")), 9)
    assert finalists == ["b", "d", "a", "c"]
    two = find_finalists(field_of(field), Rule(SelectConfig(choose="fastest")), 2)
    assert two == ["b", "d"]
    safest = [kept(candidate("f", 0.84, 6), 0.94), *field]
    assert find_finalists(field_of(safest), Rule(SelectConfig(choose="fastest")), 2) == ["b", "f"]
    selection = choose_from(field, finalists=["a", "b"], choose="fastest")
    assert selection.leading == ["b", "a"]
    assert selection.reasons["a"].startswith("on the front, but comes after b, as on validation")
    assert selection.reasons["e"].startswith("surely misses min_retention 0.9: 0.5")


def prove(**values):
    """What held-out says of a promise of 0.9, by candidate: estimates with 0.02 to either side."""
    asked = Promise("retention", 0.9)
    tests = {
        name: [PromiseTest(asked, value, value - 0.02, value + 0.02, 500, False)]
        for name, value in values.items()
    }
    return Proof({}, {}, {}, {}, promises=tests, against_words={}, reused=False)


@pytest.mark.parametrize(
    ("certainty", "found", "chosen"),
    [
        ("point", {"middle": 0.91, "small": 0.95, "large": 0.95}, "middle"),
        ("surely", {"middle": 0.91, "small": 0.93, "large": 0.95}, "small"),
        ("point", {"middle": 0.89, "small": 0.8, "large": 0.9}, "large"),
        ("surely", {"middle": 0.91, "small": 0.91, "large": 0.919}, None),
    ],
)
def test_the_first_that_keeps_every_promise_on_held_out_is_chosen(
    candidates, certainty, found, chosen
):
    config = SelectConfig(promise=certainty)
    selection = select_candidate(field_of(candidates), ["middle", "small", "large"], Rule(config))
    assert selection.leading == ["middle", "small", "large"]
    final = choose_kept(selection, prove(**found), config)
    assert final.chosen == chosen
    before = selection.leading[: selection.leading.index(chosen)] if chosen else selection.leading
    for name in before:
        assert final.reasons[name].startswith("breaks on held-out min_retention 0.9: 0.")
    if chosen is None:
        assert final.why_none.startswith("Nothing was promoted: no finalist keeps every promise")
        assert "large is nearest and misses min_retention 0.9: 0.9190 [0.8990" in final.why_none
    elif before:
        assert "the first that keeps every promise" in final.reasons[chosen]
    else:
        assert final.reasons[chosen].startswith("chosen: knee of 3 on the front; kept: min_ret")


def test_what_validation_rules_out_is_never_chosen_however_it_does_on_held_out(candidates):
    config = SelectConfig(max_disk_mb=50)
    field = field_of(candidates)
    selection = select_candidate(field, ["large", "middle"], Rule(config))
    assert (selection.leading, selection.barred) == (["middle", "large"], ["large"])
    final = choose_kept(selection, prove(middle=0.5, large=0.99), config)
    assert final.chosen is None
    assert "middle is nearest" in final.why_none


# Stability.


def test_stability_is_the_share_of_redraws_in_which_a_candidate_comes_first():
    pair = [candidate("slow", 0.9, 9), candidate("quick", 0.8, 1)]
    often = np.where(np.arange(200) < 150, 0.9, 0.7)
    redraws = Redraws(np.stack([often, np.full(200, 0.8)], axis=1), np.zeros((200, 2)))
    field = replace(field_of(pair), redraws=redraws)
    found = measure_stability(field, [0, 1], Rule(SelectConfig(choose="most_accurate")))
    assert found.shares == {"slow": 0.75, "quick": 0.25}
    assert found.toss_up is None


def test_a_choice_that_comes_out_alike_in_too_few_redraws_is_a_toss_up():
    found = Stability({"slow": 0.55, "quick": 0.45}, rows_to_settle=400)
    assert found.toss_up == ("slow", "quick")
    assert Stability({"slow": 1.0}, rows_to_settle=None).toss_up is None


def test_the_rows_that_would_settle_a_choice_follow_from_the_interval_of_the_difference():
    pair = [candidate("quick", 0.8, 1), candidate("slow", 0.9, 9)]
    redraws = Redraws(np.tile([0.8, 0.9], (200, 1)), np.zeros((200, 2)))
    redraws.qualities[::2] = [0.9, 0.8]
    field = replace(field_of(pair, unsure=0.2), redraws=redraws)
    found = measure_stability(field, [0, 1], Rule(SelectConfig(choose="most_accurate")))
    assert set(found.shares) == {"slow", "quick"}
    assert found.rows_to_settle == rows_needed(Figure(0.1, -0.1, 0.3, 100))


def test_a_redraw_in_which_the_first_breaks_its_promise_goes_to_one_that_keeps_it():
    pair = [candidate("slow", 0.9, 9), candidate("quick", 0.8, 1)]
    margins = np.stack([np.where(np.arange(200) < 50, -0.1, 0.1), np.full(200, 0.1)], axis=1)
    redraws = Redraws(np.tile([0.9, 0.8], (200, 1)), margins)
    field = replace(field_of(pair), redraws=redraws)
    found = measure_stability(field, [0, 1], Rule(SelectConfig(choose="most_accurate")))
    assert found.shares == {"slow": 0.75, "quick": 0.25}


def test_a_redraw_is_ranked_as_the_choice_is_on_the_front_of_all():
    field = [candidate("slow", 0.9, 9), candidate("middle", 0.88, 2), candidate("quick", 0.8, 1)]
    redraws = Redraws(np.tile([0.9, 0.88, 0.8], (200, 1)), np.zeros((200, 3)))
    found = select_candidate(
        replace(field_of(field), redraws=redraws), ["middle", "quick"], Rule(SelectConfig())
    )
    assert found.chosen == "middle"
    assert found.stability.shares == {"middle": 1.0}
