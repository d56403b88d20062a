from dataclasses import replace

import pytest
from builders import make_latency
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from distill_tasks.measuring.cost import Cost, CostConfig, find_cost

HOUR = 3600


def make_mean(milliseconds):
    """Return times with this mean, far from all their other figures."""
    return replace(make_latency(1e6), mean_ms=milliseconds)


prices = st.floats(1e-3, 1e4)
milliseconds = st.floats(1e-3, 1e5)
seconds = st.floats(0, 1e6)
answers = st.integers(0, 10**7)
latencies = milliseconds.map(make_mean)
configs = st.builds(
    CostConfig, machine_hour=prices, teacher_1000_calls=st.none() | st.floats(0, 1e4)
)


def test_known_costs_on_ones_own_machine():
    # 3.6 an hour is a thousandth a second: 1,000 answers of 20 ms take 20 s, of 500 ms 500 s.
    cost = find_cost(CostConfig(machine_hour=3.6), make_mean(20), make_mean(500), 2 * HOUR, 99)
    assert cost.student_per_1000 == pytest.approx(0.02)
    assert cost.teacher_per_1000 == pytest.approx(0.5)
    assert cost.distillation == pytest.approx(7.2)
    # Each answer saves .48 thousandths.
    assert cost.break_even_answers == 15_000


def test_known_costs_of_a_teacher_behind_an_api():
    config = CostConfig(machine_hour=3.6, teacher_1000_calls=4.02)
    cost = find_cost(config, make_mean(20), None, HOUR / 2, 5000)
    assert cost.student_per_1000 == pytest.approx(0.02)
    assert cost.teacher_per_1000 == 4.02
    assert cost.distillation == pytest.approx(1.8 + 5 * 4.02)
    assert cost.break_even_answers == 5_475


def test_without_price_or_weights_of_the_teacher_nothing_is_known():
    assert find_cost(CostConfig(machine_hour=3.6), make_mean(20), None, HOUR, 5000) is None


def test_a_teacher_that_is_free_is_never_worth_replacing():
    config = CostConfig(machine_hour=3.6, teacher_1000_calls=0)
    cost = find_cost(config, make_mean(20), make_mean(500), HOUR, 5000)
    assert cost.teacher_per_1000 == 0
    assert cost.break_even_answers is None


@given(configs, latencies, latencies, seconds, answers)
def test_at_break_even_what_was_saved_is_what_was_spent(config, student, teacher, taken, asked):
    cost = find_cost(config, student, teacher, taken, asked)
    saved = (cost.teacher_per_1000 - cost.student_per_1000) / 1000
    if saved <= 0:
        assert cost.break_even_answers is None
        return
    assert isinstance(cost.break_even_answers, int)
    # To one answer, which cannot be halved; and counts of answers beyond 2⁵³ are rounded.
    allowed = saved * (1 + 1e-9) + 1e-9 * cost.distillation
    assert abs(cost.break_even_answers * saved - cost.distillation) <= allowed


@given(configs, latencies, st.floats(1, 100), seconds, answers)
def test_a_student_as_dear_as_its_teacher_never_pays(config, teacher, times, taken, asked):
    own = config.model_copy(update={"teacher_1000_calls": None})
    student = make_mean(teacher.mean_ms * times)
    assert find_cost(own, student, teacher, taken, asked).break_even_answers is None


@given(configs, latencies, latencies, seconds, answers)
def test_a_price_stands_for_the_teachers_time_and_adds_the_answers_it_gave(
    config, student, teacher, taken, asked
):
    price = 7.0
    own = config.model_copy(update={"teacher_1000_calls": None})
    bought = config.model_copy(update={"teacher_1000_calls": price})
    without, with_price = (find_cost(c, student, teacher, taken, asked) for c in (own, bought))
    assert with_price.student_per_1000 == without.student_per_1000
    assert with_price.teacher_per_1000 == price
    assert with_price.distillation == pytest.approx(without.distillation + price * asked / 1000)
    assert find_cost(bought, student, None, taken, asked) == with_price


@given(configs, latencies, latencies, seconds, answers)
def test_in_another_currency_it_pays_after_as_many_answers(config, student, teacher, taken, asked):
    dearer = {
        key: None if value is None else 8 * value for key, value in config.model_dump().items()
    }
    cost = find_cost(config, student, teacher, taken, asked)
    other = find_cost(CostConfig(**dearer), student, teacher, taken, asked)
    assert other.student_per_1000 == pytest.approx(8 * cost.student_per_1000)
    assert other.distillation == pytest.approx(8 * cost.distillation)
    assert other.break_even_answers == pytest.approx(cost.break_even_answers)


def test_a_longer_run_pays_back_later_and_a_quicker_student_sooner():
    def pays_after(mean_ms, hours):
        prices = CostConfig(machine_hour=2)
        cost = find_cost(prices, make_mean(mean_ms), make_mean(100), hours * HOUR, 0)
        return cost.break_even_answers

    assert pays_after(10, 2) == pytest.approx(2 * pays_after(10, 1), abs=1)
    assert pays_after(1, 1) < pays_after(10, 1) < pays_after(90, 1)
    assert pays_after(10, 0) == 0


def test_costs_are_told_in_a_sentence():
    assert str(Cost(0.02, 0.5, 7.2)) == (
        "1,000 answers cost 0.02, the teacher's 0.5; the distillation cost 7.20 and is paid back "
        "by 15,000 answers"
    )
    assert "cost 1,234.50 and" in str(Cost(0.02, 0.5, 1234.5))
    assert str(Cost(0.5, 0.02, 7.2)) == (
        "1,000 answers cost 0.5, the teacher's 0.02; the distillation cost 7.20 and never pays for "
        "itself"
    )


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"machine_hour": 0},
        {"machine_hour": float("inf")},
        {"machine_hour": 1, "teacher_1000_calls": -1},
        {"machine_hour": -2},
    ],
)
def test_prices_out_of_bounds_are_refused(settings):
    with pytest.raises(ValidationError):
        CostConfig(**settings)
