import logging
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from language_models import find_smollm2, make_word_tokenizer
from samples import CLASSES, make_rows
from scipy.special import log_softmax

from distill_tasks.core.errors import InputError
from distill_tasks.data.corpus import Corpus, Split
from distill_tasks.llm.local_model import LocalModel
from distill_tasks.llm.orders import list_rotations
from distill_tasks.llm.scoring import LabelScorer
from distill_tasks.teachers.causal_lm import CausalLmTeacher, average

FORWARD, BACKWARD = (0, 1, 2), (2, 1, 0)


@pytest.fixture
def copied(tiny_causal, tmp_path):
    """A copy of the tiny model that a test may change."""
    return shutil.copytree(tiny_causal, tmp_path / "causal")


def make_corpus(texts=None):
    rows = make_rows(12, seed=1)
    texts = tuple(rows["text"]) if texts is None else tuple(texts)
    gold = np.array([CLASSES.index(name) for name in rows["label"]])[: len(texts)]
    return Corpus({"train": Split(texts, gold)}, CLASSES)


def make_teacher(model, **settings):
    return CausalLmTeacher(model=str(model), **{"max_length": 128} | settings)


def answer(teacher, corpus):
    """Return its log-probabilities (rows, classes) in the order of the rows."""
    batches = teacher.answers(corpus.texts, SimpleNamespace(corpus=corpus))
    rows, logits = zip(*batches, strict=True)
    return np.concatenate(logits)[np.argsort(np.concatenate(rows))]


def score(teacher, corpus, order):
    """Return log-probabilities (rows, classes) with the classes listed in one order."""
    questions, model = teacher._make_questions(corpus), teacher.local.open()
    scorer = LabelScorer(model, questions.encode_labels(order), questions.end)
    return scorer.score(questions.encode(corpus.texts, order)).log_probabilities


def test_one_order_is_that_of_the_data(tiny_causal):
    teacher, corpus = make_teacher(tiny_causal, order="one"), make_corpus()
    found = answer(teacher, corpus)
    np.testing.assert_allclose(found, score(teacher, corpus, FORWARD), atol=0.02)
    np.testing.assert_allclose(np.exp(found).sum(1), 1, rtol=1e-5)
    assert np.ptp(found, axis=0).min() > 0.05


def test_both_orders_are_averaged_as_probabilities(tiny_causal):
    teacher, corpus = make_teacher(tiny_causal, order="both"), make_corpus()
    each = [np.exp(score(teacher, corpus, order)) for order in (FORWARD, BACKWARD)]
    np.testing.assert_allclose(np.exp(answer(teacher, corpus)), np.mean(each, axis=0), atol=0.02)


def test_all_rotations_are_asked_only_where_the_two_orders_disagree(tiny_causal):
    corpus = make_corpus()
    both, rotated = (
        np.exp(answer(make_teacher(tiny_causal, order=order), corpus))
        for order in ("both", "rotate")
    )
    teacher = make_teacher(tiny_causal)
    orders = [FORWARD, BACKWARD, (1, 2, 0), (2, 0, 1)]
    forward, backward, *others = (np.exp(score(teacher, corpus, order)) for order in orders)
    split = forward.argmax(1) != backward.argmax(1)
    assert 0 < split.sum() < len(split)
    np.testing.assert_allclose(rotated[~split], both[~split], atol=0.02)
    turned = np.mean([forward, *others], axis=0)
    np.testing.assert_allclose(rotated[split], turned[split], atol=0.02)


def test_every_class_stands_once_in_every_place():
    rotations = list_rotations((0, 1, 2, 3))
    assert rotations[0] == (0, 1, 2, 3)
    assert all(sorted(place) == [0, 1, 2, 3] for place in zip(*rotations, strict=True))


@given(hnp.arrays(np.float32, (3, 4, 5), elements=st.floats(-50, 50, width=32)))
def test_the_average_of_distributions_is_one(values):
    logs = log_softmax(values.astype(np.float64), axis=-1).astype(np.float32)
    expected = np.exp(logs.astype(np.float64)).mean(0)
    np.testing.assert_allclose(np.exp(average(list(logs))), expected, atol=1e-6)


def test_names_of_classes_can_be_scored(tiny_causal):
    found = answer(make_teacher(tiny_causal, labels="names"), make_corpus())
    np.testing.assert_allclose(np.exp(found).sum(1), 1, rtol=1e-5)


def test_examples_come_from_gold_of_train(tiny_causal):
    corpus = make_corpus()
    teacher = make_teacher(tiny_causal, prompt={"examples": 2})
    shown = teacher._draft(corpus).examples
    assert {text for text, _ in shown} <= set(corpus.splits["train"].texts)
    assert teacher.digest(corpus, 0, False) != make_teacher(tiny_causal).digest(corpus, 0, False)


def test_a_prompt_is_shown_as_the_model_reads_it(tiny_causal):
    corpus = make_corpus()
    shown = make_teacher(tiny_causal).show("the puppy", SimpleNamespace(corpus=corpus))
    assert "A) cats\nB) dogs\nC) fish" in shown
    assert shown.endswith("the puppy\n</text>\nCode: <end>\n<assistant> ")


def test_long_texts_are_counted_or_refused_before_the_run(tiny_causal):
    corpus = make_corpus(["the cat", "purr " * 200])
    (note,) = make_teacher(tiny_causal).check_rows(corpus, None)
    assert "1 of 2 texts without their middle" in note.text
    with pytest.raises(InputError, match=r"1 of 2 texts do not fit into teacher.max_length 128"):
        make_teacher(tiny_causal, too_long="refuse").check_rows(corpus, None)
    assert np.isfinite(answer(make_teacher(tiny_causal), corpus)).all()


def test_a_model_without_a_chat_template_reads_plain_text_and_says_so(copied):
    (copied / "chat_template.jinja").unlink()
    (note,) = make_teacher(copied).check_rows(make_corpus(), None)
    assert note.text.endswith("has no chat template, so it reads the prompt as plain text")
    assert np.isfinite(answer(make_teacher(copied), make_corpus())).all()


def test_mass_on_what_is_no_label_is_told(tiny_causal, caplog):
    caplog.set_level(logging.INFO, "potstill")
    answer(make_teacher(tiny_causal), make_corpus())
    assert "% of the probability lay on what begins no label" in caplog.text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "no/model.gguf"}, "Model file no/model.gguf does not exist"),
        ({"model": "owner/model"}, "no local folder, and as a hub id it has no revision"),
        ({"max_length": 129}, "reads 128 tokens at most. Set max_length: 128 or less"),
        ({"prompt": {"template": "lost.jinja"}}, "lost.jinja cannot be read"),
    ],
)
def test_what_cannot_answer_is_refused_before_rows_are_read(tiny_causal, settings, message):
    teacher = CausalLmTeacher.model_validate(
        {"model": str(tiny_causal), "max_length": 128} | settings
    )
    with pytest.raises(InputError) as caught:
        teacher.check(None, "single_label")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_several_labels_are_refused(tiny_causal):
    with pytest.raises(InputError, match="gives one label to a text"):
        make_teacher(tiny_causal).check(None, "multi_label")


def test_a_classifier_is_no_causal_model(tiny_base):
    with pytest.raises(InputError, match="BertForSequenceClassification, which does not predict"):
        make_teacher(tiny_base).check(None, "single_label")


def test_more_classes_than_single_tokens_are_refused(copied):
    tokenizer = make_word_tokenizer()
    tokenizer.save_pretrained(copied)
    classes = tuple(f"class {number}" for number in range(30))
    corpus = Corpus({"train": Split(("to",), np.array([0]))}, classes)
    with pytest.raises(InputError, match="30 classes need as many codes of a single token"):
        make_teacher(copied).check_rows(corpus, None)


@pytest.mark.slow
def test_a_real_model_in_a_gguf_file_knows_what_it_reads_about():
    teacher = make_teacher(find_smollm2(), max_length=256, labels="names", order="one")
    texts = ("I love cats, they purr and meow all day", "A shark swims in the reef with its fins")
    corpus = Corpus({"train": Split(texts, np.array([0, 2]))}, CLASSES)
    teacher.check(None, "single_label")
    assert teacher.check_rows(corpus, None) == []
    assert answer(teacher, corpus).argmax(1).tolist() == [0, 2]


@pytest.mark.slow
def test_codes_of_a_real_tokenizer_are_single_tokens_and_its_names_several():
    teacher = make_teacher(find_smollm2(), max_length=512)
    classes = ("money-fx", "crude", "earn", *(f"class {number}" for number in range(40)))
    corpus = Corpus({"train": Split(("to",), np.array([0]))}, classes)
    codes = teacher._make_questions(corpus).encode_labels(tuple(range(len(classes))))
    assert {len(code) for code in codes} == {1}
    assert len(set(codes)) == len(classes)
    named = teacher.model_copy(update={"labels": "names"})._make_questions(corpus)
    labels = named.encode_labels(tuple(range(len(classes))))
    assert max(map(len, labels)) > 1
    tokenizer = LocalModel(teacher.model).open_tokenizer()
    assert [tokenizer.decode(label) for label in labels] == list(classes)
