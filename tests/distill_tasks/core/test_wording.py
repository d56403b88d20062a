import pytest

from distill_tasks.core.wording import say_count, say_speed, say_value


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "–"), (0.12345, "0.123"), (999.4, "999"), (999.7, "1,000"), (1071.2, "1,071")],
)
def test_a_large_value_has_no_exponent(value, said):
    assert say_value(value) == said


@pytest.mark.parametrize(
    ("times", "said"), [(1, "1×"), (4.931, "4.93×"), (122.4, "122×"), (1071.2, "1,070×")]
)
def test_a_speed_has_three_figures_and_no_exponent(times, said):
    assert say_speed(times) == said


def test_one_of_a_kind_is_singular():
    assert say_count(1, "candidate") == "1 candidate"
    assert say_count(2000, "candidate") == "2,000 candidates"
    assert say_count(1, "class", "classes") == "1 class"
    assert say_count(3, "class", "classes") == "3 classes"
