import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_tasks.core.errors import PotstillError
from distill_tasks.core.store import Store
from distill_tasks.data.corpus import Split
from distill_tasks.scoring.predictions import AnswerStore, answer_sorted, ask_sorted


class Lengths:
    """A model whose logits tell the length of a text and its first letter."""

    def __init__(self):
        self.asked = []

    def logits(self, texts):
        self.asked.append([len(text) for text in texts])
        return np.array([[len(text), ord(text[0])] for text in texts], np.float32)


class Broken(Lengths):
    """A model with no number for texts of some length."""

    def __init__(self, length, value):
        super().__init__()
        self.length, self.value = length, value

    def logits(self, texts):
        logits = super().logits(texts)
        logits[logits[:, 0] == self.length, 1] = self.value
        return logits


def test_sorted_asking_keeps_the_order_of_the_texts():
    texts = [chr(97 + n % 26) * (1 + (n * 37) % 101) for n in range(100)]
    model = Lengths()
    np.testing.assert_array_equal(answer_sorted(model, texts, "model"), Lengths().logits(texts))
    asked = [length for batch in model.asked for length in batch]
    assert asked == sorted(asked)
    assert [len(batch) for batch in model.asked] == [32, 32, 32, 4]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.text(max_size=5), max_size=80))
def test_whatever_is_said_of_a_text_stands_in_its_place(texts):
    assert ask_sorted(lambda batch: [text * 2 for text in batch], texts, "model") == [
        text * 2 for text in texts
    ]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_answers_that_are_no_numbers_are_refused_by_name_and_rows(value):
    texts = ["x" * (1 + number % 10) for number in range(40)]
    message = r"static-8 answered NaN or infinity in 4 of 40 rows \(row 6, 16, 26, 36\)"
    with pytest.raises(PotstillError, match=message):
        answer_sorted(Broken(7, value), texts, "static-8")


@pytest.fixture
def kept(tmp_path):
    """Ask a model through the store; return whether it had to be opened."""

    def ask(model, texts):
        opened = []
        split = Split(tuple(texts), np.zeros(len(texts), np.int64))

        def open_it():
            opened.append(model)
            return Lengths()

        logits = AnswerStore(Store(tmp_path), split).read(model, "by name", open_it)
        np.testing.assert_array_equal(logits, Lengths().logits(texts))
        assert logits.dtype == np.float32
        return bool(opened)

    return ask


def test_answers_are_asked_once_for_each_model_and_split(kept):
    assert kept("model", ["one", "three"])
    assert not kept("model", ["one", "three"])
    assert kept("other", ["one", "three"])
    assert kept("model", ["three", "one"])
    assert not kept("model", ["one", "three"])


def test_answers_that_are_no_numbers_are_not_kept(tmp_path):
    answers = AnswerStore(Store(tmp_path), Split(("one",), np.zeros(1, np.int64)))
    with pytest.raises(PotstillError, match="in 1 of 1 rows"):
        answers.read("model", "by name", lambda: Broken(3, np.nan))
    assert answers.read("model", "by name", Lengths).tolist() == [[3, ord("o")]]
