from dataclasses import replace

import pytest
from builders import make_footprint, make_latency
from samples import GOOD, POOR

from distill_tasks.measuring.cost import CostConfig
from distill_tasks.reporting.sentences import (
    explain_columns,
    explain_report_columns,
    headline,
    say_classes,
    say_cost,
    say_errors,
    say_footprint,
    say_front,
    say_halving,
    say_objective,
    say_times,
    say_verdict,
)
from distill_tasks.results.outcomes import Halving, Stop
from distill_tasks.results.references import TEACHER
from distill_tasks.scoring.intervals import Figure

SLOW = make_latency(10)


def test_the_headline_names_the_student_and_what_it_keeps(findings):
    kept = findings.held_out.candidates[GOOD].values["fidelity/retention"]
    assert headline(findings) == (
        f"{GOOD} keeps {100 * kept:.1f} % of the teacher's held-out accuracy."
    )


def test_the_headline_says_how_much_faster_than_a_teacher_that_was_timed(findings):
    timed = findings.latencies.by_name | {TEACHER: SLOW}
    fast = replace(findings, latencies=replace(findings.latencies, by_name=timed))
    assert headline(fast).endswith("and is 25× faster at p50, 25× at p95 (text in, label out).")


def test_the_headline_says_what_is_kept_of_macro_f1_where_classes_are_imbalanced(uneven):
    student, teacher = (
        card.values["quality/macro_f1"]
        for card in (uneven.held_out.candidates[GOOD], uneven.held_out.models[TEACHER])
    )
    assert f"held-out accuracy ({100 * student / teacher:.1f} % of its macro F1)" in headline(
        uneven
    )


def test_the_class_that_suffers_most_is_named_with_its_rows_however_few(uneven):
    assert say_classes(uneven, uneven.selection.choice) == [
        "It never predicts fish (7 rows)",
        "Class that suffers most: fish (7 rows), F1 0.000, the teacher's 0.900, -0.900",
    ]


def test_it_is_said_where_no_class_suffers_and_nothing_is_without_gold(findings, without_gold):
    same = {TEACHER: findings.held_out.models[GOOD]}
    equal = replace(findings.held_out, models=findings.held_out.models | same)
    choice = findings.selection.choice
    assert say_classes(replace(findings, held_out=equal), choice) == [
        "No class suffers: its F1 of each is the teacher's or higher"
    ]
    assert say_classes(without_gold, without_gold.selection.choice) == []


def test_the_headline_speaks_of_agreement_where_there_is_no_gold(without_gold):
    assert headline(without_gold).startswith(f"{GOOD} agrees with the teacher on ")


def test_the_headline_says_why_nothing_was_chosen(nothing):
    assert headline(nothing) == nothing.selection.why_none


def test_the_columns_of_the_table_say_whose_figures_are_compared(findings):
    said = explain_columns(findings)
    assert "accuracy of a finalist minus accuracy of its control" in said
    assert "its row ends in -on-gold" in said
    assert "latency of the teacher divided by that of the model, p50 by p50 and p95 by p95" in said


def test_only_the_report_speaks_of_the_column_that_it_alone_has(findings, with_variants):
    assert "p50 against" not in explain_columns(with_variants)
    said = explain_report_columns(with_variants).removeprefix(explain_columns(with_variants))
    assert said.startswith(" p50 against teacher-onnx: the same over the fastest exported form")
    assert explain_report_columns(findings) == explain_columns(findings)


def test_a_verdict_is_said_with_its_reason_ratio_and_flags(findings):
    judgement = replace(findings.proof.judgements[GOOD], flags=["it rains"])
    said, ratio = say_verdict(judgement), judgement.distillation_ratio
    assert said.startswith(f"BEATS: {judgement.reason}. It covers {100 * ratio.value:.0f} % [")
    assert said.endswith("of the way from the control to the teacher. Mind: it rains.")


def test_the_front_is_said_with_who_may_leave_or_join_it(findings):
    said = say_front(findings)
    assert said.startswith(f"On the front: {GOOD}, {POOR}.")
    assert "No candidate would join or leave it at either end of its interval." in said
    shaky = replace(findings.selection, leaving=["a"], joining=["b"], undecided=["c", "d"])
    said = say_front(replace(findings, selection=shaky))
    assert "they may belong on it: c, d." in said
    assert "Would leave it if their quality were at the low end of its interval: a." in said
    assert "Would join it if their quality were at the high end of its interval: b." in said


@pytest.mark.parametrize(("noise", "said"), [(0.0, "0.0"), (0.043, "4.3")])
def test_the_front_is_said_with_the_noise_within_which_latencies_tie(findings, noise, said):
    timed = findings.latencies.by_name | {POOR: make_latency(0.2, noise=noise)}
    loud = replace(findings, latencies=replace(findings.latencies, by_name=timed))
    assert f"p95 latencies within {said} % of each other count as ties" in say_front(loud)


def test_halving_is_said_with_what_it_saved(findings):
    def said(students, stops):
        return say_halving(replace(findings, halving=Halving(students, stops, 80.0, reused=False)))

    assert said(0, []) == ""
    assert said(3, []) == "Halving compared 3 students on the way and stopped none."
    assert said(3, [Stop("a", 0.25, "b", 3.0, 60.0)]) == (
        "Halving stopped 1 of 3 students on the way, which saved about 75 % of their training time "
        "(60 s)."
    )


def test_the_objective_is_said_with_its_reason(findings):
    tuning = findings.tuning
    assert say_objective(findings) == (
        f"Temperature {tuning.objective.temperature:g}, α {tuning.objective.alpha:g}: "
        f"{tuning.reason}."
    )


def test_the_cost_of_the_chosen_student_is_said_where_it_is_known(findings):
    prices = CostConfig(machine_hour=3.6, teacher_1000_calls=2.0)
    config = findings.config.model_copy(update={"cost": prices})
    paid = replace(findings, run=replace(findings.run, config=config))
    assert say_cost(findings) == ""
    assert say_cost(paid) == f"Of {GOOD}, {paid.costs[GOOD]}."


def test_the_time_of_a_training_is_told_once_however_many_variants_it_has(exported):
    said = say_times(exported)
    assert said.startswith("Time: teacher ")
    assert f"{GOOD} " in said
    assert "onnx" not in said


def test_what_serving_takes_is_said_with_units():
    assert say_footprint(make_footprint(40)) == (
        "first answer after 0.25 s, 40 MB of memory, 90 MB of packages"
    )


def test_errors_are_said_by_kind_and_the_worst_slice_with_whose_figure_is_whose(findings):
    panel = findings.proof.panels[GOOD]
    worst = replace(panel.slices[0], kind="class", name="x", rows=50, student=0.5, teacher=0.75)
    gap = Figure(-0.25, -0.5, -0.125, 50)
    *kinds, slice_said = say_errors(replace(panel, worst=worst, worst_difference=gap))
    assert [said.split(":")[0] for said in kinds] == ["New", "Inherited", "Fixed"]
    assert slice_said == (
        "Worst slice: class x, 50 rows: student 50.0 %, teacher 75.0 %, the student's less the "
        "teacher's -25.0 points [-50.0, -12.5]"
    )
