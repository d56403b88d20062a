from dataclasses import replace

import pytest
from builders import make_latency
from samples import GOOD, POOR

from distill_tasks.measuring.cost import CostConfig
from distill_tasks.measuring.latency import SpeedUp
from distill_tasks.reporting.rows import (
    list_calibration,
    list_classes,
    list_models,
    list_variants,
)
from distill_tasks.results.outcomes import Halving, Stop
from distill_tasks.results.references import TEACHER
from distill_tasks.scoring.verdicts import Verdict

SLOW = make_latency(10)


def rows_of(findings):
    return {row.name: row for row in list_models(findings)}


def time_teacher(findings, latency=SLOW):
    """Return the findings where the teacher has weights here, and takes so long."""
    timed = findings.latencies.by_name | {TEACHER: latency}
    return replace(findings, latencies=replace(findings.latencies, by_name=timed))


def test_the_table_has_teacher_finalists_their_controls_and_the_plain_controls(findings):
    controls = [f"{GOOD}-on-gold", f"{POOR}-on-gold", "words-on-gold", "majority-class"]
    assert list(rows_of(findings)) == [TEACHER, GOOD, POOR, *controls]


def test_a_row_has_the_figures_of_its_model(findings):
    row, choice = rows_of(findings)[GOOD], findings.selection.choice
    card = findings.held_out.candidates[GOOD]
    assert row.quality == card.quality
    assert row.validation_quality == choice.validation.quality
    assert row.latency == choice.latency
    assert row.footprint == choice.footprint
    assert (row.disk_mb, row.parameters) == (choice.student.disk_mb, choice.student.parameters)
    assert row.retention == card.values["fidelity/retention"]
    assert row.agreement == card.values["fidelity/agreement"]
    assert row.ece == card.values["calibration/ece"]
    assert row.verdict is Verdict.BEATS
    assert row.outcome == findings.selection.reasons[GOOD]
    assert row.speed_up is None  # a saved teacher has no weights to time


def test_a_finalist_is_compared_with_the_row_of_its_own_control(findings):
    rows = rows_of(findings)
    for name in (GOOD, POOR):
        gap = rows[name].quality.value - rows[f"{name}-on-gold"].quality.value
        assert rows[name].less_control.value == pytest.approx(gap)
    assert {row.less_control for row in rows.values() if row.verdict is None} == {None}


def test_speed_up_is_that_of_p50_and_of_p95(findings):
    rows = rows_of(time_teacher(findings, replace(SLOW, p50_ms=4)))
    assert rows[GOOD].speed_up == SpeedUp(p50=pytest.approx(20), p95=pytest.approx(25))
    assert rows[POOR].speed_up == SpeedUp(p50=pytest.approx(40), p95=pytest.approx(50))
    assert rows[TEACHER].speed_up == SpeedUp(1, 1)


def test_several_seeds_show_their_spread(findings):
    card = findings.held_out.candidates[GOOD]
    spread = replace(card, spread={"quality/accuracy": (0.8, 0.9)})
    held_out = replace(findings.held_out, candidates=findings.held_out.candidates | {GOOD: spread})
    rows = rows_of(replace(findings, held_out=held_out))
    assert (rows[GOOD].seeds, rows[POOR].seeds) == ((0.8, 0.9), None)


def test_who_was_left_out_or_stopped_is_a_row_with_the_reason_and_no_figures(findings):
    stop = Stop("layers-9", 0.25, GOOD, 3.0, 60.0)
    grid = replace(findings.grid, failed={"layers-8": "its training failed"})
    halving = Halving(3, [stop], 90.0, reused=False)
    rows = rows_of(replace(findings, grid=grid, halving=halving))
    assert rows["layers-8"].outcome == "left out: its training failed"
    assert rows["layers-9"].outcome == stop.reason
    for name in ("layers-8", "layers-9"):
        assert rows[name].quality is rows[name].validation_quality is rows[name].latency is None


def test_classes_are_those_of_student_and_teacher(findings):
    rows = list_classes(findings, findings.selection.choice)
    assert [row.name for row in rows] == list(findings.rows.classes)
    assert sum(row.rows for row in rows) == 200
    for row in rows:
        assert row.less_teacher == row.f1 - row.teacher_f1
    assert replace(rows[0], f1=None).less_teacher is None


def test_a_class_is_never_predicted_where_it_has_rows_and_nobody_is_said_to_be_of_it(findings):
    row = list_classes(findings, findings.selection.choice)[0]
    assert not row.never_predicted
    assert replace(row, precision=None).never_predicted
    assert not replace(row, precision=None, rows=0).never_predicted


def test_calibration_is_that_of_student_and_teacher(findings):
    choice = findings.selection.choice
    teacher, student = list_calibration(findings, choice)
    assert (teacher.name, student.name) == (TEACHER, GOOD)
    assert student.temperature == choice.student.calibration.temperature
    assert student.ece == findings.held_out.models[GOOD].figures["calibration/ece"]


# Variants.


def test_every_variant_is_a_row_of_the_table_with_its_own_figures(exported):
    assert exported.selection.chosen == f"{GOOD}-onnx"
    rows = rows_of(exported)
    onnx, torch, int8 = (rows[f"{GOOD}{end}"] for end in ("-onnx", "", "-onnx-int8"))
    assert [row.latency.p95_ms for row in (onnx, torch, int8)] == [0.08, 0.4, 0.1]
    assert onnx.verdict is Verdict.BEATS
    assert torch.verdict is int8.verdict is None  # one verdict for each finalist
    assert torch.outcome == exported.selection.reasons[GOOD]
    takes = onnx.footprint
    assert (takes.resident_mb, takes.installed_mb, takes.cold_start_s) == (40, 90, 0.25)


def test_variants_are_listed_beside_their_student_with_what_they_gain_and_lose(exported):
    torch, onnx, int8 = list_variants(exported)
    assert (torch.name, torch.speed_up, torch.validation) == (GOOD, SpeedUp(1, 1), None)
    assert (onnx.speed_up.p50, onnx.speed_up.p95) == (pytest.approx(5), pytest.approx(5))
    assert (int8.speed_up.p50, int8.speed_up.p95) == (pytest.approx(4), pytest.approx(4))
    assert (onnx.validation.flips, int8.validation.flips) == (0, 9)
    assert int8.held_out == int8.validation


def test_a_student_without_variants_is_not_listed_among_them(findings):
    assert list_variants(findings) == []


def test_a_variant_that_held_out_never_saw_has_no_held_out_figure(exported):
    unseen = replace(exported, proof=replace(exported.proof, parities={}))
    assert {row.held_out for row in list_variants(unseen)} == {None}


# Cost.


def priced(findings, **prices):
    config = findings.config.model_copy(update={"cost": CostConfig(**prices)})
    return replace(findings, run=replace(findings.run, config=config))


def test_without_prices_no_cost_is_known(findings):
    assert findings.costs == {}
    assert {row.price_per_1000 for row in list_models(findings)} == {None}


def test_with_prices_every_candidate_has_its_cost(findings):
    paid = priced(findings, machine_hour=3.6, teacher_1000_calls=2.0)
    costs, rows = paid.costs, rows_of(paid)
    assert set(costs) == {GOOD, POOR}
    # A mean of 0.2 ms at 3.6 an hour; of 590 rows 2 are paid for every 1,000.
    assert costs[GOOD].student_per_1000 == pytest.approx(0.0002)
    assert rows[GOOD].price_per_1000 == costs[GOOD].student_per_1000
    assert rows[POOR].price_per_1000 == pytest.approx(0.0001)
    assert rows[TEACHER].price_per_1000 == 2
    assert rows["majority-class"].price_per_1000 is None
    seconds = sum(student.seconds for student in findings.students) + findings.labels.seconds
    asked = len(set(findings.rows.texts))
    assert costs[GOOD].distillation == pytest.approx(seconds / 1000 + 2 * asked / 1000)


def test_seeds_variants_and_calibrations_of_one_training_are_paid_for_once(findings):
    paid = priced(findings, machine_hour=3.6, teacher_1000_calls=0.0)
    again = [replace(student, name=f"{student.name}-again") for student in findings.students]
    grid = replace(findings.grid, students=[*findings.students, *again])
    assert replace(paid, grid=grid).costs == paid.costs


def test_of_a_teacher_without_price_or_weights_no_cost_is_known(findings):
    unknown = priced(findings, machine_hour=3.6)
    assert unknown.costs == {}
    timed = time_teacher(unknown).costs
    assert timed[GOOD].teacher_per_1000 == pytest.approx(0.005)
