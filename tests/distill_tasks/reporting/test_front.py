import json
from dataclasses import replace

import matplotlib.image
import numpy as np
import pytest
from builders import make_latency
from samples import GOOD, POOR

from distill_tasks.reporting.front import (
    FRONT,
    GOLD,
    GREY,
    HELD_OUT,
    INK,
    LEGEND,
    draw_front,
    list_points,
    write_png,
)
from distill_tasks.reporting.points import Point
from distill_tasks.results.references import TEACHER
from distill_tasks.scoring.intervals import Figure


def point(name, quality, latency_ms, role, held_out=None):
    low, high = max(0, quality - 0.02), min(1, quality + 0.01)
    seen = None if held_out is None else Figure(held_out, held_out - 0.01, held_out, 900)
    figure = Figure(quality, low, high, 500)
    return Point(name, figure, seen, latency_ms, role, f"note on {name}")


POINTS = [
    point("teacher", 0.97, 80, "teacher", held_out=0.96),
    point("layers-2", 0.96, 20, "chosen", held_out=0.95),
    point("static-64", 0.90, 0.3, "front"),
    point("layers-1-epochs-9", 0.85, 25, "other"),
]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_png_is_a_picture_of_sensible_size(tmp_path, count):
    path = tmp_path / "front.png"
    write_png(POINTS[:count], "accuracy", "animals: accuracy against latency", path)
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    picture = matplotlib.image.imread(path)
    height, width, _ = picture.shape
    assert 900 <= width <= 2400
    assert 1.3 <= width / height <= 2.5
    assert picture[..., :3].std() > 0.02  # not an empty page


def has_colour(picture, colour):
    wanted = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    return np.isclose(picture[..., :3], wanted, atol=0.01).all(axis=-1).sum() > 50


def test_the_chosen_one_is_gold_and_losers_are_grey(tmp_path):
    path = tmp_path / "front.png"
    write_png(POINTS, "accuracy", "all", path)
    picture = matplotlib.image.imread(path)
    assert all(has_colour(picture, colour) for colour in (GOLD, INK, GREY))
    write_png([POINTS[0]], "accuracy", "teacher alone", path)
    assert not has_colour(matplotlib.image.imread(path), GOLD)


def traces(points):
    figure = draw_front(points, "macro F1").to_dict()
    return {trace["name"]: trace for trace in figure["data"]}, figure["layout"]


def test_every_model_stands_at_its_figures_with_its_interval_and_note():
    drawn, layout = traces(POINTS)
    for each in POINTS:
        trace = drawn[LEGEND[each.role]]
        assert list(trace["x"]) == [each.latency_ms]
        assert trace["y"][0] == pytest.approx(100 * each.quality.value)
        assert trace["error_y"]["array"][0] == pytest.approx(1)
        assert trace["error_y"]["arrayminus"][0] == pytest.approx(2)
        assert list(trace["hovertext"]) == [each.note]
    assert layout["xaxis"]["type"] == "log"
    assert layout["yaxis"]["title"]["text"] == "macro F1 on validation, % (95 % interval)"


def test_the_line_joins_the_students_that_none_beats_and_leaves_the_teacher_out():
    drawn, _ = traces(POINTS)
    assert list(drawn[FRONT]["x"]) == [0.3, 20]
    assert list(drawn[FRONT]["y"]) == pytest.approx([90, 96])


def test_those_that_held_out_scored_have_a_second_mark_at_the_same_latency():
    drawn, _ = traces(POINTS)
    assert list(drawn[HELD_OUT]["x"]) == [80, 20]
    assert list(drawn[HELD_OUT]["y"]) == pytest.approx([96, 95])


def test_the_latency_axis_holds_every_model():
    _, layout = traces(POINTS)
    left, right = layout["xaxis"]["range"]
    assert left < np.log10(0.3) < np.log10(80) < right


def test_a_perfect_model_that_held_out_never_saw_can_be_drawn(tmp_path):
    perfect = Point("perfect", Figure(1.0, 1.0, 1.0, 30), None, 1.0, "chosen", "note")
    write_png([perfect], "accuracy", "perfect", tmp_path / "front.png")
    assert (tmp_path / "front.png").stat().st_size > 5000
    drawn, _ = traces([perfect])
    assert list(drawn[LEGEND["chosen"]]["y"]) == [100]


def test_every_name_stands_beside_its_point_on_white():
    _, layout = traces(POINTS)
    names = {note["text"]: note for note in layout["annotations"]}
    assert names.keys() == {each.name for each in POINTS}
    for each in POINTS:
        assert names[each.name]["x"] == pytest.approx(np.log10(each.latency_ms))
        assert names[each.name]["y"] == pytest.approx(100 * each.quality.value)
        assert names[each.name]["bgcolor"].startswith("rgba(255, 255, 255")


# The points.


def test_teacher_chosen_and_others_are_points_of_their_own_kind(findings, nothing):
    timed = findings.latencies.by_name | {TEACHER: make_latency(10)}
    fast = replace(findings, latencies=replace(findings.latencies, by_name=timed))
    assert [point.role for point in list_points(fast)] == ["chosen", "front", "teacher"]
    assert [point.role for point in list_points(nothing)] == ["front", "front"]


def test_every_variant_is_a_point_of_the_picture(exported):
    points = {point.name: point for point in list_points(exported)}
    assert list(points) == [GOOD, POOR, f"{GOOD}-onnx", f"{GOOD}-onnx-int8"]
    assert points[f"{GOOD}-onnx"].role == "chosen"
    assert points[GOOD].role == "other"
    assert "rejected: loses more" in points[f"{GOOD}-onnx-int8"].note


def test_a_variant_that_a_later_seed_has_left_out_is_no_point_of_the_picture(findings):
    name = f"{GOOD}-onnx"  # the first seed was exported and timed, another one failed
    timed = findings.latencies.by_name | {name: make_latency(0.1)}
    latencies = replace(findings.latencies, by_name=timed)
    grid = replace(findings.grid, failed={name: "RuntimeError: no such operator"})
    left = replace(findings, latencies=latencies, grid=grid)
    assert [point.name for point in list_points(left)] == [GOOD, POOR]


def test_without_gold_on_held_out_the_picture_is_of_validation_alone(without_gold):
    assert without_gold.validation_metric == "accuracy"
    points = list_points(without_gold)
    assert [point.held_out for point in points] == [None, None]
    accuracy = without_gold.validation.candidates[GOOD].values["quality/accuracy"]
    assert points[0].quality.value == accuracy


def test_no_label_of_the_picture_is_markup(findings):
    left_out = replace(findings.selection, reasons={GOOD: "<a href='x'>y</a>", POOR: "b"})
    note = list_points(replace(findings, selection=left_out))[0].note
    assert note.endswith("<br>&lt;a href='x'&gt;y&lt;/a&gt;")
    drawn = draw_front([replace(list_points(findings)[0], name="<b>x")], "accuracy")
    notes = json.loads(drawn.to_json())["layout"]["annotations"]
    assert [note["text"] for note in notes] == ["&lt;b&gt;x"]


def test_exported_forms_of_the_teacher_are_drawn_like_it_and_stand_on_no_front(with_variants):
    points = {point.name: point for point in list_points(with_variants)}
    teachers = {name for name, point in points.items() if point.role == "teacher"}
    assert teachers == {TEACHER, "teacher-onnx", "teacher-onnx-int8"}
    assert points["teacher-onnx"].latency_ms == 2.0
