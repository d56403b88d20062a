from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from samples import CLASSES, WORDS

from distill_tasks.config import parse_config
from distill_tasks.corpus import NO_LABEL, Split, read_corpus
from distill_tasks.errors import PotstillError
from distill_tasks.evaluate import answer_sorted, score_all
from distill_tasks.label import label_rows, make_teacher
from distill_tasks.served_model import open_model
from distill_tasks.train import train_one

STUDENT = "bag-of-words-100"
GOLD_FIGURES = {
    "quality/accuracy",
    "quality/macro_f1",
    "fidelity/retention",
    "calibration/ece",
}
FIGURES = GOLD_FIGURES | {"fidelity/agreement", "fidelity/kl"}


class Lengths:
    """A model whose logits tell the length of a text and its first letter."""

    def __init__(self):
        self.asked = []

    def logits(self, texts):
        self.asked.append([len(text) for text in texts])
        return np.array([[len(text), ord(text[0])] for text in texts], np.float32)


@pytest.fixture
def config(written, data_folder):
    """A saved teacher that is wrong in one row of ten, and one light student."""
    texts = pd.concat([pd.read_parquet(path) for path in data_folder.glob("*.parquet")])["text"]
    true = [next(n for n, c in enumerate(CLASSES) if set(t.split()) & set(WORDS[c])) for t in texts]
    said = (np.array(true) + (np.arange(len(texts)) % 10 == 0)) % 3
    answers = pd.DataFrame(0.05 + 0.85 * np.eye(3)[said], columns=list(CLASSES))
    answers.assign(text=texts.to_numpy()).to_parquet(data_folder.parent / "answers.parquet")
    written["teacher"] = {"kind": "saved", "path": str(data_folder.parent / "answers.parquet")}
    written["students"] = [{"family": "bag_of_words", "max_features": 100}]
    return parse_config(written, "test")


@pytest.fixture
def corpus(config):
    return read_corpus(config.data, config.seed)


@pytest.fixture
def run(config):
    """Label, train and score a corpus; return the scores and the student."""

    def run(corpus):
        teacher = make_teacher(config, corpus)
        labels = label_rows(config, corpus, teacher).open()
        soft = labels.read(corpus.lesson.texts)
        student = train_one(config, config.students[0], corpus, soft, teacher)
        return lambda: score_all(config, corpus, labels, [student]), student

    return run


def test_teacher_control_and_student_are_scored_on_both_splits(run, corpus):
    cards = run(corpus)[0]().cards
    assert list(cards) == ["teacher", "words-on-gold", STUDENT]
    for name, rows in (("validation", 18), ("held_out", 100)):
        for card in cards.values():
            assert card[name].split == name
            assert set(card[name].figures) == FIGURES
            assert {figure.rows for figure in card[name].figures.values()} == {rows}


def test_every_figure_lies_in_its_own_interval(run, corpus):
    for cards in run(corpus)[0]().cards.values():
        for name, figure in cards["held_out"].figures.items():
            assert figure.low <= figure.value <= figure.high, name


def test_the_teacher_retains_and_agrees_with_itself_wholly(run, corpus):
    for card in run(corpus)[0]().cards["teacher"].values():
        assert card.values["fidelity/retention"] == 1
        assert card.values["fidelity/agreement"] == 1
        assert card.values["fidelity/kl"] == pytest.approx(0, abs=1e-9)
        assert 0.8 < card.values["quality/accuracy"] < 1


def test_figures_of_the_student_are_those_of_its_own_answers(run, corpus):
    scores, student = run(corpus)
    card, teacher = (scores().cards[name]["held_out"] for name in (STUDENT, "teacher"))
    held_out = corpus.splits["held_out"]
    right = open_model(student.folder).logits(held_out.texts).argmax(axis=1) == held_out.gold
    assert card.values["quality/accuracy"] == pytest.approx(right.mean())
    assert card.values["fidelity/retention"] == pytest.approx(
        right.mean() / teacher.values["quality/accuracy"]
    )
    assert card.values["fidelity/kl"] > 0
    assert [row["class"] for row in card.per_class] == list(CLASSES)
    assert sum(row["rows"] for row in card.per_class) == 100


def test_scorecards_come_back_equal_from_the_store(run, corpus):
    scores, _ = run(corpus)
    first, second = scores(), scores()
    assert (first.reused, second.reused) == (False, True)
    assert first.cards == second.cards


def test_other_rows_are_scored_again(run, corpus):
    run(corpus)[0]()
    fewer = corpus.splits["held_out"].take(np.arange(50))
    again = run(replace(corpus, splits={**corpus.splits, "held_out": fewer}))[0]()
    assert not again.reused
    assert again.cards[STUDENT]["held_out"].figures["quality/accuracy"].rows == 50


def test_without_gold_there_is_fidelity_but_neither_accuracy_nor_control(run, corpus):
    bare = {n: Split(s.texts, np.full(len(s), NO_LABEL)) for n, s in corpus.splits.items()}
    cards = run(replace(corpus, splits=bare))[0]().cards
    assert list(cards) == ["teacher", STUDENT]
    card = cards[STUDENT]["held_out"]
    assert set(card.figures) == FIGURES - GOLD_FIGURES
    assert card.per_class == []
    assert card.accuracy == card.figures["fidelity/agreement"]
    assert card.accuracy.value > 0.6


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_answers_that_are_no_numbers_are_refused_by_the_name_of_the_student(run, corpus, value):
    scores, student = run(corpus)
    weights = dict(np.load(student.folder / "weights.npz"))
    weights["output_bias"][0] = value
    np.savez(student.folder / "weights.npz", **weights)
    with pytest.raises(PotstillError, match=rf"{STUDENT} answered NaN or infinity in 18 of 18"):
        scores()


def test_sorted_asking_keeps_the_order_of_the_texts():
    texts = [chr(97 + n % 26) * (1 + (n * 37) % 101) for n in range(100)]
    model = Lengths()
    expected = Lengths().logits(texts)
    np.testing.assert_array_equal(answer_sorted(model, texts, "model"), expected)
    asked = [length for batch in model.asked for length in batch]
    assert asked == sorted(asked)
    assert [len(batch) for batch in model.asked] == [32, 32, 32, 4]
