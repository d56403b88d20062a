from dataclasses import replace

import pytest
from builders import make_footprint, make_latency
from samples import GOOD, POOR

from distill_tasks.measuring.cost import CostConfig
from distill_tasks.reporting.sentences import (
    explain_columns,
    headline,
    say_cost,
    say_errors,
    say_footprint,
    say_front,
    say_halving,
    say_objective,
    say_times,
    say_verdict,
    warn,
)
from distill_tasks.results.outcomes import TEACHER, Halving, Stop
from distill_tasks.scoring.intervals import Figure
from distill_tasks.students import formats as variants

SLOW = make_latency(10)


def test_the_headline_names_the_student_and_what_it_keeps(findings):
    kept = findings.held_out.candidates[GOOD].values["fidelity/retention"]
    assert headline(findings) == (
        f"{GOOD} keeps {100 * kept:.1f} % of the teacher's held-out accuracy."
    )


def test_the_headline_says_how_much_faster_than_a_teacher_that_was_timed(findings):
    timed = findings.latencies.by_name | {TEACHER: SLOW}
    fast = replace(findings, latencies=replace(findings.latencies, by_name=timed))
    assert headline(fast).endswith("and is 25× faster (p50, text in, label out).")


def test_the_headline_speaks_of_agreement_where_there_is_no_gold(without_gold):
    assert headline(without_gold).startswith(f"{GOOD} agrees with the teacher on ")


def test_the_headline_says_why_nothing_was_chosen(nothing):
    assert headline(nothing) == nothing.selection.why_none


def test_the_columns_of_the_table_say_whose_figures_are_compared(findings):
    said = explain_columns(findings)
    assert "accuracy of a finalist minus accuracy of its control" in said
    assert "its row ends in -on-gold" in said
    assert "p50 latency of the teacher divided by that of the model" in said


def test_a_verdict_is_said_with_its_reason_ratio_and_flags(findings):
    judgement = replace(findings.proof.judgements[GOOD], flags=["it rains"])
    said, ratio = say_verdict(judgement), judgement.distillation_ratio
    assert said.startswith(f"BEATS: {judgement.reason}. It covers {100 * ratio.value:.0f} % [")
    assert said.endswith("of the way from the control to the teacher. Mind: it rains.")


def test_the_front_is_said_with_who_may_leave_or_join_it(findings):
    said = say_front(findings)
    assert said.startswith(f"On the front: {GOOD}, {POOR}.")
    assert said.endswith("No candidate would join or leave it at either end of its interval.")
    shaky = replace(findings.selection, leaving=["a"], joining=["b"], undecided=["c", "d"])
    said = say_front(replace(findings, selection=shaky))
    assert "cannot rule out that they belong on it: c, d." in said
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


# Warnings.


def added(findings, **changes):
    """Return the warnings that some changes of the findings add."""
    before = warn(findings)
    return [said for said in warn(replace(findings, **changes)) if said not in before]


def test_warnings_hold_those_of_the_data_report(findings):
    assert set(findings.corpus.report.warnings) <= set(warn(findings))


def test_the_flags_of_finalists_are_warnings(findings):
    flagged = replace(findings.proof.judgements[GOOD], flags=["it rains"])
    judgements = findings.proof.judgements | {GOOD: flagged}
    proof = replace(findings.proof, judgements=judgements)
    assert added(findings, proof=proof) == [f"{GOOD}: it rains"]


def test_a_teacher_no_better_than_words_on_gold_is_a_warning(findings):
    models = findings.held_out.models
    weak = replace(findings.held_out, models=models | {TEACHER: models["words-on-gold"]})
    (said,) = added(findings, held_out=weak)
    assert "does not clearly beat words on gold" in said
    assert said.endswith("distillation has little to give here")


def test_a_variant_whose_export_failed_is_a_warning_with_the_reason(findings):
    failed = {"layers-2-onnx": "its export failed: TypeError: no such operator"}
    (said,) = added(findings, grid=replace(findings.grid, failed=failed))
    assert said == "layers-2-onnx was left out: its export failed: TypeError: no such operator"


def test_transformers_that_lack_their_variants_for_want_of_a_package_are_a_warning(
    findings, monkeypatch
):
    students = [replace(student, variant="torch") for student in findings.students]
    torch = replace(findings.grid, students=students)
    assert added(findings, grid=torch) == []
    monkeypatch.setattr(variants, "find_spec", lambda _: None)
    (said,) = added(findings, grid=torch)
    assert "pip install 'potstill[onnx]'" in said
    declined = variants.ExportConfig(variants=())
    config = findings.config.model_copy(update={"export": declined})
    assert added(findings, grid=torch, run=replace(findings.run, config=config)) == []
