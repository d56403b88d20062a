import matplotlib.image
import numpy as np
import pytest

from distill_tasks.reporting.front import (
    FRONT,
    GOLD,
    GREY,
    HELD_OUT,
    INK,
    LEGEND,
    Point,
    draw_front,
    write_png,
)
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
        assert list(trace["text"]) == [each.name]
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


def test_names_of_variants_side_by_side_do_not_run_into_each_other():
    points = [
        point("layers-1-onnx-int8", 0.95, 2.4, "other"),
        point("layers-1-onnx", 0.95, 4.4, "other"),
        point("layers-1", 0.95, 5.6, "other"),
        point("static-64", 0.95, 0.1, "front"),
        point("teacher", 0.97, 25, "teacher"),
    ]
    drawn, _ = traces(points)
    others = drawn[LEGEND["other"]]
    beside = dict(zip(others["text"], others["textposition"], strict=True))
    assert len(set(beside.values())) == 3
    assert beside["layers-1-onnx-int8"] == "middle right"
    assert list(drawn[LEGEND["front"]]["textposition"]) == ["middle right"]
