import pytest
from pydantic import ValidationError

from distill_tasks.scoring.thresholds import Threshold, Thresholds, find_missed

CHAMPION = {"quality": 0.90, "macro_f1": 0.80, "p50_ms": 2.0, "p95_ms": 4.0}
CHALLENGER = {"quality": 0.92, "macro_f1": 0.78, "p50_ms": 1.0, "p95_ms": 4.0}


@pytest.mark.parametrize(
    ("metric", "asked", "missed"),
    [
        ("quality", {"threshold": 0.92}, ""),
        ("quality", {"threshold": 0.93}, "quality 0.92 is worse than the threshold 0.93"),
        ("quality", {"min_absolute_change": 0.01}, ""),
        ("quality", {"min_absolute_change": 0.03}, "quality is better by 0.02, not by 0.03"),
        ("quality", {"min_relative_change": 0.05}, "quality is better by 2.22%, not by 5.00%"),
        ("macro_f1", {"min_absolute_change": 0.01}, "macro_f1 is better by -0.02, not by 0.01"),
        ("p50_ms", {"min_relative_change": 0.5}, ""),
        ("p50_ms", {"threshold": 0.5}, "p50_ms 1 is worse than the threshold 0.5"),
        ("p95_ms", {"min_absolute_change": 0.1}, "p95_ms is better by 0, not by 0.1"),
    ],
)
def test_a_condition_is_met_or_says_by_how_much_it_is_not(metric, asked, missed):
    found = find_missed(Thresholds(**{metric: asked}), CHALLENGER, CHAMPION)
    assert found == ([missed] if missed else [])


def test_a_condition_asks_for_something():
    with pytest.raises(ValidationError, match="give threshold, min_absolute_change or"):
        Threshold()
