import numpy as np
import pytest

from distill_tasks.core.errors import InputError
from distill_tasks.data.corpus import Corpus, Split
from distill_tasks.scoring.promises import Promise
from distill_tasks.scoring.settings import SelectConfig

ROWS = {"earn": 100, "grain": 3, "trade": 20}


def make_corpus(gold=True):
    numbers = np.repeat(np.arange(3), list(ROWS.values())) if gold else np.full(123, -1)
    texts = tuple(f"row {number}" for number in range(123))
    return Corpus({"held_out": Split(texts, numbers)}, tuple(ROWS))


def test_every_promise_is_listed_and_of_classes_those_with_rows_enough():
    config = SelectConfig(min_retention=0.98, min_macro_f1=0.7, min_class_recall=0.5)
    assert config.list_promises(ROWS) == [
        Promise("retention", 0.98),
        Promise("macro_f1", 0.7),
        Promise("class_recall", 0.5, "earn"),
        Promise("class_recall", 0.5, "trade"),
    ]
    assert config.list_unjudged(ROWS) == {"class_recall": ["grain"]}
    assert SelectConfig().list_promises(ROWS) == []
    assert str(Promise("class_recall", 0.5, "earn")) == "min_class_recall of earn 0.5"


def test_a_class_that_is_named_is_judged_however_few_its_rows():
    config = SelectConfig(min_class_f1={"grain": 0.6})
    assert config.list_promises(ROWS) == [Promise("class_f1", 0.6, "grain")]
    assert config.list_unjudged(ROWS) == {}


def test_classes_too_small_to_judge_are_named():
    found = SelectConfig(min_class_recall=0.5).check_rows(make_corpus())
    assert [note.text for note in found] == [
        "min_class_recall is not asked of classes with too few held-out rows: grain (3)"
    ]


def test_a_promise_about_a_class_that_does_not_exist_is_refused():
    config = SelectConfig(min_class_recall={"grian": 0.5})
    with pytest.raises(InputError, match=r"class 'grian', .* \(did you mean 'grain'\?\)"):
        config.check_rows(make_corpus())


def test_a_promise_that_so_few_rows_can_hardly_show_is_told_with_the_rows_needed():
    config = SelectConfig(min_accuracy=0.99, min_class_recall={"grain": 0.8}, promise="surely")
    overall, of_class = (note.text for note in config.check_rows(make_corpus()))
    assert overall == (
        "min_accuracy 0.99 can hardly be shown surely by 123 held-out rows: even a student that is "
        "right in all of them would need 299"
    )
    assert of_class.startswith("min_class_recall of grain 0.8 can hardly be shown surely by 3 ")
    assert of_class.endswith("would need 14")
    point = SelectConfig(min_accuracy=0.99, min_class_recall={"grain": 0.8})
    assert point.check_rows(make_corpus()) == []


def test_without_gold_promises_are_about_agreement_and_none_is_about_classes():
    (note,) = SelectConfig(min_retention=0.9).check_rows(make_corpus(gold=False))
    assert note.text == (
        "min_retention 0.9: held_out has no gold, so it is about agreement with the teacher"
    )
    with pytest.raises(InputError, match="need gold labels in "):
        SelectConfig(min_class_f1=0.5).check_rows(make_corpus(gold=False))


@pytest.mark.parametrize(
    ("written", "transfer", "rows"),
    [("auto", 0, 0), ("auto", 400, 0), ("auto", 1000, 200), ("auto", 90_000, 1000), (7, 9, 7)],
)
def test_by_default_a_fifth_of_the_transfer_rows_scores_students(written, transfer, rows):
    assert SelectConfig(scored_transfer=written).count_scored(transfer) == rows
