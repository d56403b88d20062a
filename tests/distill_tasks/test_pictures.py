import re

import matplotlib.image
import numpy as np
import pytest

from distill_tasks.intervals import Figure
from distill_tasks.pictures import GOLD, GREY, INK, Point, write_html, write_png


def point(name, accuracy, latency_ms, role):
    low, high = max(0, accuracy - 0.02), min(1, accuracy + 0.01)
    return Point(name, Figure(accuracy, low, high, 500), latency_ms, role, f"note on {name}")


POINTS = [
    point("teacher", 0.97, 80, "teacher"),
    point("layers-2", 0.96, 20, "chosen"),
    point("static-64", 0.90, 0.3, "front"),
    point("layers-1-epochs-9", 0.85, 25, "other"),
]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_png_is_a_picture_of_sensible_size(tmp_path, count):
    path = tmp_path / "front.png"
    write_png(POINTS[:count], "animals: accuracy against latency", path)
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
    write_png(POINTS, "all", path)
    picture = matplotlib.image.imread(path)
    assert all(has_colour(picture, colour) for colour in (GOLD, INK, GREY))
    write_png([POINTS[0]], "teacher alone", path)
    assert not has_colour(matplotlib.image.imread(path), GOLD)


def test_the_page_opens_offline(tmp_path):
    path = tmp_path / "front.html"
    write_html(POINTS, "animals", path)
    page = path.read_text(encoding="utf-8")
    assert len(page) > 1_000_000  # plotly itself
    assert "Plotly.newPlot" in page
    assert not re.search(r"<script[^>]*\ssrc=", page)
    assert not re.search(r"<link[^>]*\shref=", page)


def test_the_page_names_every_model_and_carries_its_note(tmp_path):
    path = tmp_path / "front.html"
    write_html(POINTS, "animals against latency", path)
    page = path.read_text(encoding="utf-8")
    drawn = page[page.rindex("Plotly.newPlot") :]
    assert "animals against latency" in drawn
    for each in POINTS:
        assert f'"{each.name}"' in drawn
        assert each.note in drawn
    assert '"type":"log"' in drawn.replace(" ", "")


def test_a_perfect_model_can_be_drawn(tmp_path):
    perfect = Point("perfect", Figure(1.0, 1.0, 1.0, 30), 1.0, "chosen", "note")
    write_png([perfect], "perfect", tmp_path / "front.png")
    write_html([perfect], "perfect", tmp_path / "front.html")
    assert (tmp_path / "front.png").stat().st_size > 5000
    assert (tmp_path / "front.html").is_file()
