from itertools import combinations

import pytest

from distill_tasks.reporting.labels import Place, _Axes, place_names
from distill_tasks.reporting.points import Point
from distill_tasks.scoring.intervals import Figure

LEFT, RIGHT = 0.5, 700.0


def point(name, quality, latency_ms, held_out=None):
    figure = Figure(quality, quality - 0.03, quality + 0.025, 500)
    seen = None if held_out is None else Figure(held_out, held_out - 0.01, held_out, 900)
    return Point(name, figure, seen, latency_ms, "other", "")


CROWD = [
    point("bag-of-words-50000", 0.939, 1.07, 0.957),
    point("static-64", 0.955, 8.6, 0.950),
    point("static-256", 0.962, 9.3, 0.954),
    point("layers-1-onnx-int8", 0.95, 16),
    point("layers-1-onnx", 0.95, 28),
    point("layers-1", 0.95, 61),
    point("teacher", 0.95, 288, 0.963),
]
"""As the demo has them: eight names within a hundredth of accuracy."""


def boxes(points):
    axes = _Axes(points, LEFT, RIGHT)
    places = place_names(points, LEFT, RIGHT)
    return axes, {each.name: axes.box(each, places[each.name]) for each in points}


def test_a_name_alone_stands_right_of_its_point():
    assert place_names([point("alone", 0.9, 10)], LEFT, RIGHT) == {"alone": Place(1, 0)}


def test_names_of_a_crowd_are_printed_over_no_other_name_and_over_no_point():
    axes, found = boxes(CROWD)
    assert not [pair for pair in combinations(found.values(), 2) if pair[0].touches(pair[1])]
    assert not [name for name, box in found.items() if any(map(box.touches, axes.marks))]


@pytest.mark.parametrize("latency_ms", [0.6, 600.0])
def test_no_name_leaves_the_axes(latency_ms):
    _, found = boxes([*CROWD, point("a-name-of-some-length", 0.95, latency_ms)])
    assert all(box.left >= 0 and box.right <= 1 for box in found.values())
