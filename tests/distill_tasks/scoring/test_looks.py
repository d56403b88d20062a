import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from distill_tasks.scoring.looks import ALPHA, Look, alpha_left, smallest_gain, spend


@given(st.integers(1, 10_000))
def test_what_all_looks_spend_and_what_is_left_is_alpha(looks):
    spent = math.fsum(spend(number) for number in range(1, looks + 1))
    assert spent + alpha_left(looks) == pytest.approx(ALPHA)
    assert 0 < spend(looks + 1) < alpha_left(looks)


def test_early_looks_spend_more_and_late_ones_still_find_three_points():
    shares = [spend(number) for number in range(1, 301)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == pytest.approx(0.00233, abs=1e-5)
    assert smallest_gain(2_000, 50) == pytest.approx(0.0313, abs=1e-4)
    assert smallest_gain(2_000, 1) == pytest.approx(
        (norm.isf(shares[0]) + norm.ppf(0.8)) * math.sqrt(0.1 / 2_000)
    )


def test_worn_rows_say_how_many_fresh_ones_would_do_as_well():
    assert Look(29, 2_000).renewal == ""
    worn = Look(50, 2_000)
    assert worn.renewal.startswith("these rows have been looked at 50 times")
    assert "1,376 fresh held-out rows" in worn.renewal
    assert smallest_gain(1_376, 1) <= smallest_gain(2_000, 51) < smallest_gain(1_375, 1)
    assert str(worn) == "look 50 at these rows, alpha 0.00017, 0.02 left"
