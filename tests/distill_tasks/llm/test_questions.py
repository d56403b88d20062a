import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from language_models import CHAT, make_word_tokenizer
from samples import CLASSES

from distill_tasks.core.errors import InputError
from distill_tasks.data.corpus import Corpus, Split
from distill_tasks.llm.chat import ChatTokenizer
from distill_tasks.llm.prompt import PromptConfig
from distill_tasks.llm.questions import Questions, choose_token_codes, find_ending

FORWARD, BACKWARD = (0, 1, 2), (2, 1, 0)


def make_questions(max_length=128, wanted="code", codes="ABC", template=CHAT, classes=CLASSES):
    corpus = Corpus({"train": Split(("to",), np.array([0]))}, tuple(classes))
    prompt = PromptConfig().make(corpus, codes, seed=0, wanted=wanted)
    return Questions(ChatTokenizer(make_word_tokenizer(chat_template=template)), prompt, max_length)


def read(questions, tokens):
    return questions.chat.tokenizer.decode(tokens)


def test_a_prompt_lists_the_classes_in_the_order_that_is_asked_for():
    questions = make_questions()
    (forward,), (backward,) = (questions.encode(["puppy"], order) for order in (FORWARD, BACKWARD))
    assert "A ) cats B ) dogs C ) fish" in read(questions, forward)
    assert "A ) fish B ) dogs C ) cats" in read(questions, backward)
    assert "puppy" in read(questions, forward)


def test_a_class_is_answered_with_the_code_of_its_place():
    questions = make_questions()
    found = [
        [read(questions, label) for label in questions.encode_labels(order)]
        for order in (FORWARD, BACKWARD, (1, 2, 0))
    ]
    assert found == [["A", "B", "C"], ["C", "B", "A"], ["C", "A", "B"]]


def test_a_class_is_answered_with_its_name_in_any_order():
    questions = make_questions(wanted="name")
    for order in (FORWARD, BACKWARD):
        labels = [read(questions, label) for label in questions.encode_labels(order)]
        assert labels == list(CLASSES)
    (prompt,) = questions.encode(["puppy"], BACKWARD)
    assert "- fish - dogs - cats" in read(questions, prompt)
    assert "Answer with the name" in read(questions, prompt)


@given(st.integers(0, 400), st.integers(90, 128))
def test_a_long_text_lacks_its_middle_and_fits(words, max_length):
    questions = make_questions(max_length)
    text = " ".join(["purr", *["the"] * words, "bark"])
    (tokens,) = questions.encode([text], FORWARD)
    said = read(questions, tokens)
    assert len(tokens) < max_length
    assert ("purr" in said, "bark" in said) == (True, True)
    room = max_length - 1 - len(questions.encode([""], FORWARD)[0])
    assert questions.count_long([text]) == (words + 2 > room)
    assert len(tokens) >= min(words + 2, room - 8) + len(questions.encode([""], FORWARD)[0])


def test_a_prompt_that_leaves_no_room_is_refused_in_one_line():
    with pytest.raises(InputError, match="max_length 40 leaves no room for a text") as caught:
        make_questions(max_length=40)
    assert "\n" not in str(caught.value)


def test_names_that_the_tokenizer_cannot_tell_apart_are_refused_in_one_line():
    with pytest.raises(InputError, match="classes zebra, gnu apart as answers") as caught:
        make_questions(wanted="name", classes=("cats", "zebra", "gnu"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("template", [CHAT, None], ids=["chat", "plain"])
def test_codes_are_single_tokens_where_the_answer_begins(template):
    questions = make_questions(template=template)
    assert choose_token_codes(questions.chat, questions.prompt) == ("A", "B", "C")


def test_the_end_of_a_chat_is_the_end_of_its_last_message():
    assert find_ending(make_questions().prompt) == [{"role": "user", "content": "Code:"}]
