import json
from dataclasses import replace

import pytest
from samples import GOOD

from distill_tasks.core.markup import as_label
from distill_tasks.reporting.charts import (
    draw_confusion,
    draw_learning_curve,
    draw_production,
    draw_reliability,
)


def data_of(figure):
    return json.loads(figure.to_json())["data"]


def test_no_label_of_a_chart_is_markup(findings):
    panel, classes = findings.proof.panels[GOOD], findings.rows.classes
    (drawn,) = data_of(draw_confusion(panel, classes, several=False))
    assert drawn["x"] == drawn["y"] == [as_label(name) for name in classes]
    assert "<" not in "".join(drawn["x"])


def test_classes_named_as_numbers_or_dates_are_names(findings):
    panel = replace(findings.proof.panels[GOOD], confusion=[[0, 1], [2, 0]])
    layout = draw_confusion(panel, ("10", "2026-01-01"), several=False).layout
    assert (layout.xaxis.type, layout.yaxis.type) == ("category", "category")


def test_confusion_leaves_out_where_both_agree(findings):
    panel = findings.proof.panels[GOOD]
    (drawn,) = data_of(draw_confusion(panel, findings.rows.classes, several=False))
    for row, counts in enumerate(panel.confusion):
        expected = [None if row == column else count for column, count in enumerate(counts)]
        assert drawn["z"][row] == expected
    (several,) = data_of(draw_confusion(panel, findings.rows.classes, several=True))
    assert several["z"] == panel.confusion
    assert several["x"][0] == "both"


def test_reliability_has_a_line_for_teacher_and_student(findings):
    panel = findings.proof.panels[GOOD]
    calibrated, *lines = data_of(draw_reliability(panel))
    assert calibrated["x"] == calibrated["y"] == [0, 1]
    assert [line["name"] for line in lines] == ["teacher", "student"]
    assert lines[1]["y"] == pytest.approx([one.right for one in panel.reliability["student"]])


def test_the_learning_curve_stands_in_its_intervals(findings):
    (drawn,) = data_of(draw_learning_curve(findings.curve, "accuracy"))
    assert drawn["x"] == [30, 60, 120, 240]
    for number, point in enumerate(findings.curve.points):
        top = drawn["y"][number] + drawn["error_y"]["array"][number]
        bottom = drawn["y"][number] - drawn["error_y"]["arrayminus"][number]
        assert (bottom, top) == pytest.approx((100 * point.quality.low, 100 * point.quality.high))


def test_confidence_on_production_and_held_out_are_shares_of_their_rows(findings):
    production, held_out = data_of(draw_production(findings.proof.production[GOOD]))
    assert [production["name"], held_out["name"]] == ["production", "held-out"]
    assert sum(production["y"]) == pytest.approx(1)
    assert production["y"] == held_out["y"]  # the same rows here
    assert production["x"][0] == pytest.approx(0.025)
