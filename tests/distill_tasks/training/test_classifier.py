import numpy as np
import pytest
from builders import answer_plainly, spread_weights
from samples import make_rows

from distill_tasks.training.classifier import SequenceClassifier


@pytest.fixture
def lively(copied_base):
    """A random transformer whose answers differ from text to text."""
    return spread_weights(copied_base, 0.2)


def answer_all(folder, texts):
    rows, logits = zip(*SequenceClassifier(folder, 16).answer(texts), strict=True)
    return np.concatenate(rows), np.concatenate(logits)


def test_sorted_batches_answer_every_row_once_like_a_plain_forward_pass(lively):
    rows = make_rows(100, seed=1)["text"]
    texts = [" ".join([text] * (1 + number % 3)) for number, text in enumerate(rows)]
    rows, logits = answer_all(lively, texts)
    plain = answer_plainly(lively, texts)
    assert sorted(rows) == list(range(len(texts)))
    assert rows.tolist() != sorted(rows)
    np.testing.assert_allclose(logits, plain[rows], atol=0.05 * np.abs(plain).max())
    np.testing.assert_array_equal(SequenceClassifier(lively, 16).logits(texts)[rows], logits)
    assert np.mean(logits.argmax(1) == plain[rows].argmax(1)) >= 0.95
