import numpy as np
import pandas as pd
import pytest

from distill_tasks.core.errors import InputError
from distill_tasks.plugins.answers import join_answers, read_answers

LABELS = ["a", "b"]
ROWS = [{"a": 0.8, "b": 0.2}, {"a": 0.1, "b": 0.9}]
SCORES = [[{"label": name, "score": score} for name, score in row.items()] for row in ROWS]


@pytest.mark.parametrize(
    "output",
    [
        pd.DataFrame(ROWS),
        ROWS,
        SCORES,
        pd.DataFrame(SCORES),
        np.array([[0.8, 0.2], [0.1, 0.9]]),
        [[0.8, 0.2], [0.1, 0.9]],
        pd.DataFrame([[0.8, 0.2], [0.1, 0.9]]),
        pd.DataFrame({"label": LABELS, "confidence": [0.8, 0.9], "probabilities": ROWS}),
        [{"label": name, "probabilities": row} for name, row in zip(LABELS, ROWS, strict=True)],
        pd.Series(ROWS),
    ],
)
def test_probabilities_are_read_in_every_usual_form(output):
    answers = read_answers(output, ["a", "b"])
    assert answers.labels.tolist() == LABELS
    assert answers.confidence.tolist() == [0.8, 0.9]
    assert answers.probabilities.to_dict("records") == ROWS


@pytest.mark.parametrize(
    ("output", "labels", "confidence"),
    [
        (["a", "b"], LABELS, None),
        (np.array(LABELS), LABELS, None),
        (pd.Series(LABELS, index=[5, 6]), LABELS, None),
        (pd.DataFrame({"prediction": LABELS}), LABELS, None),
        (pd.DataFrame({"label": LABELS, "score": [0.5, 0.25]}), LABELS, [0.5, 0.25]),
        ([1, 0], ["1", "0"], None),
        ([1.0, 0.0], ["1", "0"], None),
        (np.array([True, False]), ["True", "False"], None),
        ([{"a": 0.9, "b": 0.6}, {"a": 0.2, "b": 0.7}], LABELS, None),  # of several labels
    ],
)
def test_labels_are_read_where_probabilities_are_not_all_told(output, labels, confidence):
    answers = read_answers(output)
    assert answers.labels.tolist() == labels
    assert (None if answers.confidence is None else answers.confidence.tolist()) == confidence
    assert answers.probabilities is None


def test_a_class_that_some_batches_leave_out_has_no_probability_there():
    answers = join_answers([read_answers(ROWS), read_answers([{"a": 0.0, "c": 1.0}])])
    assert answers.labels.tolist() == ["a", "b", "c"]
    assert answers.probabilities.loc[2].to_dict() == {"a": 0, "b": 0, "c": 1}


@pytest.mark.parametrize(
    ("output", "asked", "complaint"),
    [
        (np.eye(2), {}, "2 columns without names. List the classes"),
        (np.eye(2), {"classes": ["a", "b", "c"]}, "2 columns, but `classes` lists 3"),
        (pd.DataFrame({"x": LABELS, "y": LABELS}), {}, "Which column of the model's output holds"),
        (pd.DataFrame({"x": LABELS}), {"column": "y"}, "no column 'y': x"),
    ],
)
def test_what_says_no_label_is_refused(output, asked, complaint):
    with pytest.raises(InputError, match=complaint):
        read_answers(output, **asked)
