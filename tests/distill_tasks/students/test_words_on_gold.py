import numpy as np
import pytest
from builders import open_run
from samples import write_words

from distill_tasks.config import parse_config
from distill_tasks.data.corpus import Split
from distill_tasks.problems.classification import log_probabilities
from distill_tasks.results.grid import Trial
from distill_tasks.results.trained import train_one
from distill_tasks.serving.served_model import open_model
from distill_tasks.students.base import TrainingSet
from distill_tasks.students.controls import WORDS_ON_GOLD, WordsOnGold
from distill_tasks.students.words_on_gold import WordsOnGoldStudent
from distill_tasks.training.objective import Objective

TEXTS = ("good cat", "good dog", "bad cat", "bad dog", "cat cat", "dog here", "fish swim", "a fish")


def training_set(gold, classes, problem="single_label"):
    rows = Split(TEXTS[: len(gold)], np.array(gold))
    return TrainingSet(
        rows=rows,
        soft_labels=None,
        validation=rows,
        classes=classes,
        objective=Objective(1.0, 0.0),
        seed=0,
        teacher=None,
        problem=problem,
    )


@pytest.mark.parametrize(
    ("gold", "classes", "problem"),
    [
        ([0, 1, 0, 1, 0, 1, 2, 2], ("cat", "dog", "fish"), "single_label"),
        ([0, 1, 0, 1, 0, 1], ("cat", "dog"), "single_label"),
        ([0, 2, 0, 2, 0, 2], ("cat", "bird", "dog"), "single_label"),
        ([[1, 0], [1, 1], [0, 0], [0, 1]], ("good", "dog"), "multi_label"),
        ([[1, 1], [1, 1], [0, 1], [0, 1]], ("good", "always"), "multi_label"),
    ],
)
def test_it_is_served_with_the_probabilities_of_the_control(gold, classes, problem, tmp_path):
    given = training_set(gold, classes, problem)
    WordsOnGoldStudent().train(given, tmp_path)
    served = open_model(tmp_path).logits(given.rows.texts)
    control = WordsOnGold(given.rows, len(classes), problem).logits(given.rows.texts)
    ours, theirs = (np.exp(log_probabilities(one, problem)) for one in (served, control))
    assert ours == pytest.approx(theirs, abs=1e-4)


def test_it_is_kept_and_named_as_the_control(tmp_path):
    run = open_run(parse_config(write_words(tmp_path), "test"))
    trial = Trial(WordsOnGoldStudent(), 7, distilled=False)
    student = train_one(run, trial)
    assert (student.name, student.candidate, student.served) == (WORDS_ON_GOLD, WORDS_ON_GOLD, True)
    assert (student.distilled, student.variant) == (False, "numpy")
    assert train_one(run, trial).reused
    held_out = run.corpus.splits["held_out"]
    right = [a.label for a in open_model(student.folder).answer(held_out.texts)]
    assert (
        np.mean([run.corpus.classes.index(label) for label in right] == held_out.gold) > 0.45
    )  # chance is a third
