import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_tasks.core.errors import (
    InputError,
    NothingQualifiesError,
    PotstillError,
    did_you_mean,
    say_reason,
    shortlist,
)


def test_wrong_input_exits_with_2_and_a_failed_run_with_1():
    assert InputError.exit_code == 2
    assert PotstillError.exit_code == NothingQualifiesError.exit_code == 1


@pytest.mark.parametrize("kind", [InputError, NothingQualifiesError])
def test_every_user_error_is_a_potstill_error(kind):
    with pytest.raises(PotstillError, match="what to do"):
        raise kind("what to do")


def test_the_closest_word_is_offered():
    assert did_you_mean("txet", ["label", "text", "test_id"]) == " (did you mean 'text'?)"


@pytest.mark.parametrize("allowed", [[], ["text", "gold"]])
def test_nothing_is_offered_where_nothing_is_close(allowed):
    assert did_you_mean("lable", allowed) == ""


def test_words_may_come_from_any_iterable():
    assert did_you_mean("lable", iter(["label"])) == " (did you mean 'label'?)"


def test_a_short_list_is_shown_whole():
    assert shortlist([1, "b"]) == "1, b"
    assert shortlist([]) == ""
    assert shortlist(range(5)) == "0, 1, 2, 3, 4"


def test_a_long_list_says_how_many_it_left_out():
    assert shortlist(range(7)) == "0, 1, 2, 3, 4 and 2 more"
    assert shortlist("abc", most=1) == "a and 2 more"


@given(st.lists(st.integers()), st.integers(1, 9))
def test_shown_and_left_out_add_up(items, most):
    shown, _, rest = shortlist(items, most).partition(" and ")
    left_out = int(rest.removesuffix(" more") or 0)
    assert len(shown.split(", ") if shown else []) + left_out == len(items)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("cannot be\nread: because"), "cannot be"),
        (OSError("  no such file.  "), "no such file"),
        (KeyError(), "KeyError"),
        (RuntimeError("x" * 500), "x" * 200),
    ],
)
def test_a_reason_is_the_first_line_of_an_error(error, said):
    assert say_reason(error) == said
