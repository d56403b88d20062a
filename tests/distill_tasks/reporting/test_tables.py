from dataclasses import replace

from samples import GOOD

from distill_tasks.measuring.cost import CostConfig
from distill_tasks.measuring.latency import SpeedUp
from distill_tasks.reporting.rows import list_models
from distill_tasks.reporting.tables import (
    markdown_table,
    name_quality_columns,
    show_model,
    tabulate_calibration,
    tabulate_classes,
    tabulate_models,
    tabulate_variants,
)
from distill_tasks.results.references import TEACHER


def test_every_row_has_every_column_and_the_metric_names_one(findings):
    table = tabulate_models(findings)
    assert len({tuple(cells) for cells in table}) == 1
    assert list(table[0])[:3] == ["model", "accuracy", "interval"]
    assert {"seeds", "verdict", "against control", "retention", "agreement", "MB"} <= set(table[0])
    assert {"parameters", "resident MB", "installed MB", "cold start s"} <= set(table[0])
    assert all(isinstance(cell, str) and cell for cells in table for cell in cells.values())


def test_the_cells_of_a_model_are_its_figures(findings):
    row = next(row for row in list_models(findings) if row.name == GOOD)
    row = replace(row, seeds=(0.8, 0.9), speed_up=SpeedUp(25.0, 8.125))
    cells, gap = show_model(row, findings), row.less_control
    assert cells["accuracy"] == f"{row.quality.value:.4f}"
    assert cells["interval"] == f"{row.quality.low:.3f}–{row.quality.high:.3f}"
    assert cells["on validation"] == f"{row.validation_quality.value:.4f}"
    assert cells["seeds"] == "0.8000–0.9000"
    assert (cells["p50 ms"], cells["p95 ms"]) == ("0.2", "0.4")
    assert (cells["speed-up p50"], cells["speed-up p95"]) == ("25×", "8.12×")
    assert (cells["verdict"], cells["outcome"]) == ("BEATS", row.outcome)
    low, high = 100 * gap.low, 100 * gap.high
    assert cells["against control"] == f"{100 * gap.value:+.2f} [{low:+.2f}, {high:+.2f}]"


def test_macro_f1_stands_beside_the_metric_where_classes_are_imbalanced(findings, uneven):
    assert name_quality_columns(findings) == ("accuracy", "interval")
    assert name_quality_columns(uneven) == ("accuracy", "interval", "macro F1")


def test_a_price_is_shown_where_prices_are_given(findings):
    row = replace(list_models(findings)[0], price_per_1000=0.0002)
    assert "per 1,000" not in show_model(row, findings)
    priced = findings.config.model_copy(update={"cost": CostConfig(machine_hour=1)})
    paid = replace(findings, run=replace(findings.run, config=priced))
    assert show_model(row, paid)["per 1,000"] == "0.0002"
    assert show_model(replace(row, price_per_1000=None), paid)["per 1,000"] == "–"


def test_the_cells_of_variants_say_what_they_gain_and_lose(exported):
    torch, onnx, int8 = tabulate_variants(exported)
    assert (torch["model"], torch["against torch p50"], torch["other labels"]) == (
        GOOD,
        "1.00×",
        "–",
    )
    assert (onnx["against torch p50"], onnx["against torch p95"]) == ("5.00×", "5.00×")
    assert onnx["other labels"] == "0 of 90"
    assert onnx["largest logit difference"] == "2e-07"
    assert int8["validation accuracy"] == "-10.00 points [-20.00, -2.00]"
    assert int8["held-out accuracy"] == int8["validation accuracy"]


def test_the_cells_of_classes_and_calibration_have_signs_and_intervals(findings):
    choice = findings.selection.choice
    first = tabulate_classes(findings, choice)[0]
    assert first["less the teacher's"][0] in "+-"
    teacher, student = tabulate_calibration(findings, choice)
    assert (teacher["model"], student["model"]) == (TEACHER, GOOD)
    figure = findings.held_out.models[GOOD].figures["calibration/ece"]
    assert student["ECE"] == f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"


def test_a_markdown_table_keeps_its_columns_whatever_the_cells_hold():
    lines = markdown_table([{"a": "x|y", "b": "<b>"}, {"a": "1", "b": "[2, 3]"}]).splitlines()
    assert lines == ["| a | b |", "| --- | --- |", r"| x\|y | &lt;b> |", r"| 1 | \[2, 3] |"]


def test_a_student_is_timed_against_the_teachers_best_exported_form_too(with_variants):
    assert with_variants.best_teacher_variant.name == "teacher-onnx"  # int8 is worse
    cells = {row["model"]: row for row in tabulate_models(with_variants)}
    column = "p50 against teacher-onnx"
    assert (cells[GOOD]["speed-up p50"], cells[GOOD][column]) == ("10×", "5×")
    assert (cells[TEACHER][column], cells["teacher-onnx-int8"][column]) == ("0.5×", "20×")
    outcome = "control: the teacher exported and quantised to int8"
    assert cells["teacher-onnx-int8"]["outcome"] == outcome


def test_a_teacher_without_exported_forms_has_no_column_for_them(findings):
    assert findings.best_teacher_variant is None
    assert not [title for title in tabulate_models(findings)[0] if "against teacher" in title]
