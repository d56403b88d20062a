import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from distill_tasks.core.errors import InputError
from distill_tasks.problems.classification import probabilities
from distill_tasks.teachers.values import one_hot, refuse_bad_values, to_logits

SHARES = arrays(np.float64, (4, 3), elements=st.floats(1e-4, 1))


@given(SHARES)
def test_probabilities_come_back_from_their_logits(shares):
    whole = shares / shares.sum(axis=1, keepdims=True)
    single = probabilities(to_logits(whole, "single_label"), "single_label")
    np.testing.assert_allclose(single, whole, rtol=1e-9)
    inside = shares.clip(max=0.999)
    several = probabilities(to_logits(inside, "multi_label"), "multi_label")
    np.testing.assert_allclose(several, inside, rtol=1e-9)


@pytest.mark.parametrize("problem", ["single_label", "multi_label"])
def test_probabilities_of_zero_and_one_have_finite_logits(problem):
    values = one_hot([("b",), ("a",)], ("a", "b"), "Answers")
    np.testing.assert_array_equal(values, [[0, 1], [1, 0]])
    logits = to_logits(values, problem)
    assert np.isfinite(logits).all()
    np.testing.assert_allclose(probabilities(logits, problem), values, atol=1e-5)


def test_rows_of_no_use_are_named_as_they_are_given():
    values = np.array([[0.5, 0.5], [np.nan, 1.0], [0.2, 0.2]])
    with pytest.raises(InputError, match=r"^Answers have NaN .* 1 rows \(row two\)"):
        refuse_bad_values(
            values, "logits", "single_label", source="Answers", rows=["one", "two", "three"]
        )
    with pytest.raises(InputError, match=r"^Answers do not sum to one in 1 rows \(row 1\)"):
        refuse_bad_values(values[::2], "probabilities", "single_label", source="Answers")
