import pytest

from distill_tasks.scoring.intervals import Figure
from distill_tasks.scoring.learning_curve import LearningCurve, LearningPoint


def make_curve(value, low, high):
    points = [LearningPoint(rows, Figure(0.8, 0.7, 0.9, 500)) for rows in (1000, 2000, 4000, 8000)]
    return LearningCurve("bag-of-words-200", points, Figure(value, low, high, 500), reused=False)


@pytest.mark.parametrize(
    ("gain", "advice"),
    [
        ((0.02, 0.01, 0.03), "twice as much text would buy up to about as much again"),
        ((0.005, -0.01, 0.02), "no clear gain"),
        ((0.005, 0.0, 0.02), "no clear gain"),
        ((-0.02, -0.03, -0.01), "more text of this kind buys nothing"),
        ((0.0, 0.0, 0.0), "more text of this kind buys nothing"),
    ],
)
def test_the_meaning_follows_from_the_interval_of_the_last_doubling(gain, advice):
    assert advice in make_curve(*gain).meaning


def test_the_meaning_names_the_student_the_rows_and_the_gain_in_points():
    meaning = make_curve(0.0213, 0.011, 0.0316).meaning
    assert meaning.startswith(
        "Going from 4,000 to 8,000 transfer rows bought bag-of-words-200 +2.13 points "
        "[+1.10, +3.16]: "
    )


def test_too_little_text_draws_no_curve_and_says_so():
    assert "too few" in LearningCurve("bag-of-words-200", [], None, reused=False).meaning
