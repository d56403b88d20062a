import numpy as np
import pandas as pd
import pytest
from scipy import special

from distill_tasks.core.errors import InputError
from distill_tasks.teachers.replies import ReplyReader

CLASSES = ("cats", "dogs", "fish")
TEXTS = ["purr", "bark"]
NUMBERS = np.array([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0]])
MAPPINGS = [dict(zip(CLASSES, NUMBERS[0], strict=True)), {"dogs": 1}]
TABLE = pd.DataFrame(NUMBERS[:, ::-1], columns=list(CLASSES[::-1]))
LABELS = ["cats", "dogs"]


def make_reader(**changes):
    usual = {"values": "probabilities", "problem": "single_label", "classes": CLASSES}
    return ReplyReader("Answers of it", **usual | changes)


@pytest.mark.parametrize(
    "reply",
    [
        NUMBERS,
        NUMBERS.tolist(),
        tuple(NUMBERS),
        MAPPINGS,
        pd.Series(MAPPINGS),
        TABLE,
        pd.DataFrame({"label": LABELS, "confidence": [0.7, 1.0], "probabilities": MAPPINGS}),
    ],
    ids=["array", "lists", "arrays", "mappings", "series", "columns", "served"],
)
def test_numbers_are_the_same_in_whatever_form_they_come(reply):
    rows, logits = make_reader().read(reply, TEXTS)
    assert rows.tolist() == [0, 1]
    assert logits.dtype == np.float32
    np.testing.assert_allclose(special.softmax(logits, axis=1), NUMBERS, atol=1e-5)


@pytest.mark.parametrize(
    "reply",
    [LABELS, np.array(LABELS), pd.Series(LABELS), pd.DataFrame({"label": LABELS, "score": [1, 1]})],
    ids=["list", "array", "series", "table"],
)
def test_a_label_has_all_probability(reply):
    _, logits = make_reader().read(reply, TEXTS)
    said = special.softmax(logits, axis=1)
    np.testing.assert_allclose(said, [[1, 0, 0], [0, 1, 0]], atol=1e-5)


def test_numbers_without_names_follow_the_order_that_is_given():
    order = ("fish", "cats", "dogs")
    given = NUMBERS[:, [CLASSES.index(name) for name in order]]
    for reply in (given, MAPPINGS):
        _, logits = make_reader(order=order).read(reply, TEXTS)
        np.testing.assert_allclose(special.softmax(logits, axis=1), NUMBERS, atol=1e-5)


def test_logits_stay_as_they_are():
    _, logits = make_reader(values="logits").read([[3, -1, 0.5], [0, 0, 2]], TEXTS)
    np.testing.assert_array_equal(logits, np.float32([[3, -1, 0.5], [0, 0, 2]]))


def test_whole_numbers_can_be_labels():
    _, logits = make_reader(classes=("1", "2")).read(np.array([2, 1]), TEXTS)
    np.testing.assert_array_equal(logits.argmax(axis=1), [1, 0])


@pytest.mark.parametrize(
    "reply",
    [["cats|fish", ""], [["cats", "fish"], []], [{"cats", "fish"}, set()], [[1, 0, 1], [0] * 3]],
)
def test_several_labels_are_read_from_text_lists_sets_and_numbers(reply):
    _, logits = make_reader(problem="multi_label").read(reply, TEXTS)
    np.testing.assert_array_equal(logits > 0, [[True, False, True], [False] * 3])


def test_nothing_is_said_of_a_text_whose_answer_is_none():
    rows, logits = make_reader().read([None, "dogs"], TEXTS)
    assert (rows.tolist(), logits.shape) == ([1], (1, 3))
    assert make_reader().read([None, None], TEXTS)[1].shape == (0, 3)


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (NUMBERS[:1], "are 1 for 2 texts"),
        (NUMBERS[:, :2], "have 2 numbers for a text; the data has 3 classes"),
        (np.c_[NUMBERS, NUMBERS], "have 6 numbers for a text"),
        ([["much"] * 3, ["little"] * 3], "hold .*'much'"),
        ([object(), object()], "hold '<object .*, a object"),
        (["cat", "dogs"], r"have the label 'cat' \(did you mean 'cats'\?\)"),
        (["cats", [0, 1, 0]], "are labels for some texts and numbers for others"),
        ([{"cats": 0.5, "dog": 0.5}] * 2, r"'dog' \(did you mean 'dogs'\?\)"),
        (NUMBERS * np.nan, r"NaN .* in 2 rows \(row 'purr', 'bark'\)"),
        (NUMBERS * 2, r"do not sum to one in 2 rows \(row 'purr', 'bark'\)"),
        ("cats", "are one str"),
        (3, "are one int"),
        ({"cats": [1, 0]}, "are one dict"),
        (TABLE.drop(columns="cats"), "have the columns fish, dogs; the data has the classes"),
    ],
)
def test_what_is_no_answer_is_refused_in_one_line(reply, said):
    with pytest.raises(InputError, match=said) as caught:
        make_reader().read(reply, TEXTS)
    assert str(caught.value).startswith("Answers of it ")
    assert "\n" not in str(caught.value)


def test_a_mapping_of_logits_names_every_class():
    with pytest.raises(InputError, match="lack the logit of 'cats'"):
        make_reader(values="logits").read([{"dogs": 1.0, "fish": 0.0}] * 2, TEXTS)
