import numpy as np
import pandas as pd
import pytest
from builders import open_run
from samples import CLASSES, make_rows, make_wordy_rows, write_words

from distill_tasks.config import parse_config
from distill_tasks.core.errors import InputError, WeakTeacherError
from distill_tasks.data.corpus import Corpus, Split
from distill_tasks.data.rows import read_corpus
from distill_tasks.scoring.settings import EvaluateConfig
from distill_tasks.scoring.verdicts import Verdict
from distill_tasks.stages.vet import vet_teacher

FEW, MORE, MANY = 90, 320, 900
"""Rows of validation: too few to show a lead of 5 points, too few for models that differ in nearly
half of them, and enough."""
WEAK = 0.53
"""The share of rows that words on gold are right about too."""


@pytest.fixture
def vet(tmp_path):
    """Vets a teacher that is right about a share of the rows, on so many rows of validation."""

    def vet_one(
        right,
        rows,
        weak_teacher="auto",
        *,
        label_column="label",
        make=make_wordy_rows,
        min_accuracy=None,
        **changes,
    ):
        written = write_words(tmp_path)
        make(60, seed=1).to_parquet(tmp_path / "train.parquet", index=False)
        make(rows, seed=2).to_parquet(tmp_path / "validation.parquet", index=False)
        splits = [pd.read_parquet(path) for path in written["data"].values()]
        answer(pd.concat(splits), right).to_parquet(tmp_path / "answers.parquet", index=False)
        written["data"]["label_column"] = label_column
        evaluate = written["evaluate"] | {"weak_teacher": weak_teacher}
        evaluate |= {"min_teacher_accuracy": min_accuracy}
        config = parse_config(written | {"evaluate": evaluate} | changes, "test")
        corpus = read_corpus(config.data, config.seed, CLASSES)
        return vet_teacher(open_run(config, corpus))

    return vet_one


def answer(rows, right):
    """Return saved answers that are right about a share of the rows."""
    gold = rows["label"].map(CLASSES.index).to_numpy()
    wrong = np.random.default_rng(0).random(len(rows)) >= right
    frame = pd.DataFrame(0.05 + 0.85 * np.eye(3)[(gold + wrong) % 3], columns=list(CLASSES))
    return frame.assign(text=rows["text"].to_numpy()).drop_duplicates("text")


@pytest.mark.parametrize("weak_teacher", ["auto", "stop", "go_on"])
def test_a_teacher_surely_better_than_words_on_gold_is_let_through(vet, weak_teacher):
    comparison = vet(0.95, FEW, weak_teacher)
    assert comparison.verdict is Verdict.BEATS
    assert comparison.difference.low > 0
    assert comparison.difference.rows == FEW


def test_a_teacher_that_is_not_stops_the_run_where_the_rows_could_have_shown_it(vet):
    with pytest.raises(WeakTeacherError) as stopped:
        vet(WEAK, MANY)
    said = str(stopped.value)
    assert "is not surely better than words-on-gold (TF-IDF and logistic regression" in said
    assert "accuracy " in said
    assert "on 900 rows of validation" in said
    assert said.endswith("`evaluate.weak_teacher: go_on` distils all the same.")


@pytest.mark.parametrize("rows", [FEW, MORE])
def test_with_few_rows_the_run_goes_on_and_says_why(vet, caplog, rows):
    assert vet(WEAK, rows).verdict is Verdict.INCONCLUSIVE
    assert "so few rows would often not show a lead of 5 points" in caplog.messages[-1]
    with pytest.raises(WeakTeacherError):
        vet(WEAK, rows, "stop")


def test_equal_answers_to_few_rows_say_nothing_against_a_teacher(vet):
    gap = vet(1.0, 30, make=make_rows).difference  # rows that both know
    assert (gap.value, gap.low, gap.high) == (0, 0, 0)


def test_a_teacher_surely_worse_stops_the_run_whatever_the_rows(vet):
    with pytest.raises(WeakTeacherError, match="accuracy -"):
        vet(0.1, FEW)


def test_a_user_who_wants_a_weak_teacher_gets_it(vet, caplog):
    assert vet(0.1, FEW, "go_on").verdict is Verdict.NO_BEATS
    assert caplog.messages[-1].endswith("Going on: evaluate.weak_teacher says so.")


def test_it_is_the_metric_of_the_user_that_is_compared(vet):
    with pytest.raises(WeakTeacherError, match="macro F1 -"):
        vet(0.1, FEW, select={"metric": "macro_f1"})


def test_without_gold_there_is_nothing_to_compare_with(vet):
    assert vet(0.1, MANY, "stop", label_column=None) is None


def test_a_teacher_less_accurate_than_asked_for_stops_the_run_with_the_figures(vet):
    with pytest.raises(WeakTeacherError) as stopped:
        vet(0.8, FEW, "go_on", min_accuracy=0.95)
    said = str(stopped.value)
    assert said.startswith("The teacher's accuracy on 90 rows of validation is 0.")
    assert "below evaluate.min_teacher_accuracy 0.95." in said
    assert vet(0.95, FEW, "go_on", min_accuracy=0.8) is not None


def test_accuracy_that_cannot_be_known_is_not_asked_for():
    evaluate = EvaluateConfig(min_teacher_accuracy=0.5)
    gold = np.full(2, -1)
    with pytest.raises(InputError, match="min_teacher_accuracy needs gold labels"):
        evaluate.check_rows(Corpus({"validation": Split(("a", "b"), gold)}, CLASSES))
