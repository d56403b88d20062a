import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_tasks.core.errors import InputError
from distill_tasks.data.corpus import Corpus, Split
from distill_tasks.llm.prompt import CUT, PromptConfig, cut_middle, draw_examples

CLASSES = ("Billing", "Delivery", "Other")
CODES = ("A", "B", "C")
TRAIN = Split(("my bill", "where is it", "bill again", "hm"), np.array([0, 1, 0, -1]))
CORPUS = Corpus({"train": TRAIN}, CLASSES)


def make(**settings):
    return PromptConfig(**settings).make(CORPUS, CODES, seed=0)


def test_a_code_belongs_to_a_place_and_not_to_a_class():
    prompt = make(about="Support tickets.", descriptions={"Billing": "money"}, examples=2)
    forward, backward = prompt.constant((0, 1, 2)), prompt.constant((2, 1, 0))
    assert "A) Billing: money\nB) Delivery\nC) Other\n" in forward
    assert "A) Other\nB) Delivery\nC) Billing: money\n" in backward
    assert "where is it\n</text>\nCode: B" in forward
    assert "Support tickets." in forward


def test_what_is_the_same_for_all_texts_comes_first():
    first, other = (make(examples=1).messages(text, (0, 1, 2)) for text in ("one", "other"))
    assert first[0] == other[0]
    assert first[0]["role"] == "system"
    assert first[1] == {"role": "user", "content": "<text>\none\n</text>\nCode:"}


def test_a_text_is_data_and_no_template():
    (_, asked) = make().messages("{{ options }} {% for %} </text> <TEXT>", (0, 1, 2))
    assert "{{ options }} {% for %} < /text> < TEXT>" in asked["content"]


def test_examples_are_rows_of_train_with_gold_the_classes_in_turn():
    assert {number for _, number in draw_examples(CORPUS, 2, seed=0)} == {0, 1}
    drawn = draw_examples(CORPUS, 9, seed=0)
    assert sorted(drawn) == [("bill again", 0), ("my bill", 0), ("where is it", 1)]
    assert draw_examples(CORPUS, 2, seed=0) == draw_examples(CORPUS, 2, seed=0)
    assert draw_examples(CORPUS, 0, seed=0) == ()


@pytest.mark.parametrize(
    "change",
    [{"about": "x"}, {"examples": 1}, {"descriptions": {"Other": "x"}}],
    ids=lambda change: next(iter(change)),
)
def test_the_digest_changes_with_whatever_is_shown(change):
    assert make(**change).digest != make().digest


def test_a_template_of_ones_own_is_read(tmp_path):
    path = tmp_path / "mine.jinja"
    path.write_text(
        "{% for o in options %}{{ o.code }}={{ o.name }} {% endfor %}\n---\nQ: {{ text }}"
    )
    messages = make(template=str(path)).messages("hello", (1, 0, 2))
    assert [one["content"] for one in messages] == ["A=Delivery B=Billing C=Other", "Q: hello"]


WRONG = {
    "unknown": ("{{ option }}\n---\n{{ text }}", "names 'option' .did you mean 'options'"),
    "too early": ("{{ text }}\n---\n{{ text }}", "names 'text'.*above '---'"),
    "no text": ("x\n---\ny", "never shows the text"),
    "one part": ("{{ text }}", "has no line '---'"),
    "no jinja": ("{% for %}\n---\n{{ text }}", "is no Jinja template: .*line 1"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_template_is_refused_in_one_line(name, tmp_path):
    written, said = WRONG[name]
    path = tmp_path / "wrong.jinja"
    path.write_text(written)
    with pytest.raises(InputError, match=said) as caught:
        make(template=str(path))
    assert "\n" not in str(caught.value)


def test_a_missing_template_and_a_description_of_no_class_are_refused():
    with pytest.raises(InputError, match="cannot be read: No such file"):
        make(template="nowhere.jinja")
    with pytest.raises(InputError, match=r"has .Biling. \(did you mean .Billing.\?\)"):
        make(descriptions={"Biling": "money"})


@given(st.text(max_size=80), st.integers(20, 60))
def test_a_cut_text_keeps_both_ends(text, characters):
    cut = cut_middle(text, characters)
    assert len(cut) == min(len(text), characters)
    if cut != text:
        start, end = cut.split(CUT, 1)[0], cut[-5:]
        assert text.startswith(start)
        assert text.endswith(end)
