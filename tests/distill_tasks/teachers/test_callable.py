import sys

import numpy as np
import pytest
from answering import by_words
from samples import CLASSES

from distill_tasks.config import parse_config
from distill_tasks.core.errors import InputError, PotstillError
from distill_tasks.results.teacher import make_teacher, teacher_context
from distill_tasks.stages.label import label_rows
from distill_tasks.stages.prepare import check_config
from distill_tasks.teachers.base import ONE_HOT
from distill_tasks.teachers.callable import CallableTeacher, open_function

MODULE = "answers_of_a_test"
SECRET = "sk-" + 24 * "a"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working directory, in which a module of the user lies and can be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop(MODULE, None)


def write_module(folder, body="return 3", more=""):
    code = f"from answering import *\ndef answer(texts):\n    {body}\n{more}\n"
    (folder / f"{MODULE}.py").write_text(code)


def configure(written, **settings):
    written["teacher"] = {"kind": "callable", "function": f"{MODULE}:answer", **settings}
    written["students"] = [{"family": "bag_of_words"}]
    return parse_config(written, "test")


def label_all(config):
    corpus = check_config(config)
    labels = label_rows(config, corpus, make_teacher(config, corpus))
    return corpus, labels


def test_a_function_in_the_working_directory_answers_every_row_once(here, written):
    write_module(here, "return by_words(texts)")
    config = configure(written, batch_rows=7)
    corpus, labels = label_all(config)
    assert labels.asked == len(corpus.texts)
    logits = labels.open().read(corpus.texts).logits
    np.testing.assert_allclose(logits, np.log(by_words(corpus.texts)), rtol=1e-5)
    assert label_all(config)[1].asked == 0


@pytest.mark.parametrize("where", ["setting", "attribute"])
def test_the_order_of_its_numbers_is_the_one_that_is_named(here, written, where):
    more = f"answer.classes = {CLASSES[::-1]}" if where == "attribute" else ""
    write_module(here, "return by_words(texts)[:, ::-1]", more)
    config = configure(written, **({} if more else {"classes": CLASSES[::-1]}))
    corpus, labels = label_all(config)
    assert corpus.classes == labels.classes == CLASSES[::-1]
    logits = labels.open().read(corpus.texts).logits
    np.testing.assert_allclose(logits[:, ::-1], np.log(by_words(corpus.texts)), rtol=1e-5)


def test_labels_alone_are_told_to_be_one_hot(here, written):
    write_module(here, "return [CLASSES[row.argmax()] for row in by_words(texts)]")
    assert ONE_HOT in check_config(configure(written)).findings
    write_module(here, "return by_words(texts)")
    sys.modules.pop(MODULE)
    assert ONE_HOT not in check_config(configure(written)).findings


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no_such_module_here:answer", "no_such_module_here cannot be imported: ModuleNotFound"),
        (f"{MODULE}:anser", r"has no 'anser' \(did you mean 'answer'\?\)"),
        (f"{MODULE}:answer.inner", "has no 'inner'"),
        (f"{MODULE}:CLASSES", "is a tuple, which cannot be called"),
    ],
)
def test_what_cannot_be_called_is_refused_before_rows_are_read(here, written, name, said):
    write_module(here)
    written["data"]["train"] = str(here / "lost.parquet")
    with pytest.raises(InputError, match=said) as caught:
        check_config(configure(written, function=name))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fault", [f"raise ValueError('{SECRET}')", "raise SystemExit(3)", "oh no"])
def test_a_module_that_fails_is_refused_in_one_line_without_its_secrets(here, fault):
    write_module(here, more=fault)
    with pytest.raises(InputError, match="cannot be imported") as caught:
        open_function(f"{MODULE}:answer")
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return by_words(texts)[1:]", "are 1 for 2 texts"),
        ("return by_words(texts) * float('nan')", "NaN"),
        ("return ['cat' for text in texts]", r"'cat' \(did you mean 'cats'\?\)"),
        ("raise KeyError(f'one\\n{SECRET}')", "failed: KeyError"),
        ("raise SystemExit(3)", "failed: SystemExit: 3"),
    ],
)
def test_answers_of_no_use_end_the_check(here, written, body, said):
    write_module(here, body, f"SECRET = {SECRET!r}")
    with pytest.raises(PotstillError, match=said) as caught:
        check_config(configure(written))
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_classes_than_the_data_has_are_refused(here, written):
    write_module(here)
    with pytest.raises(InputError, match="have the classes cats, wolves; the data has cats, dogs"):
        check_config(configure(written, classes=["cats", "wolves"]))
    with pytest.raises(InputError, match="Name each of two or more once"):
        check_config(configure(written, classes=["cats", "cats"]))


def test_what_was_answered_before_an_error_is_kept(here, written):
    counted = "global calls; calls += 1\n    if calls == 4: raise OSError('away')\n    "
    write_module(here, f"{counted}return by_words(texts)", "calls = 0")
    config = configure(written, batch_rows=8)
    corpus = check_config(config)  # the first call
    teacher = make_teacher(config, corpus)
    with pytest.raises(PotstillError, match=r"failed: OSError: away\. What it answered before"):
        label_rows(config, corpus, teacher)
    assert label_rows(config, corpus, teacher).asked == len(corpus.texts) - 2 * 8


def test_a_row_without_an_answer_is_left_out(here, config, corpus):
    write_module(here, "return [None if 'purr' in text else 'dogs' for text in texts]")
    teacher = CallableTeacher(function=f"{MODULE}:answer", batch_rows=5)
    texts = corpus.texts
    batches = list(teacher.answers(texts, teacher_context(config, corpus)))
    rows = np.concatenate([rows for rows, _ in batches])
    assert [texts[row] for row in rows] == [text for text in texts if "purr" not in text]
    assert 0 < len(rows) < len(texts)


def test_the_digest_follows_the_file_and_the_version_but_not_the_batches(here, corpus):
    write_module(here)
    teacher = CallableTeacher(function=f"{MODULE}:answer")

    def read(**changes):
        return teacher.model_copy(update=changes).digest(corpus, 0, balanced=False)

    before = read()
    assert read(batch_rows=3) == before
    assert read(version=2) != before
    write_module(here, "return 4")
    assert read() != before
