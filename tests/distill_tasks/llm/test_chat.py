import pytest
from language_models import CHAT, make_word_tokenizer

from distill_tasks.llm.chat import ChatTokenizer

MESSAGES = [{"role": "system", "content": "to the"}, {"role": "user", "content": "Code:"}]
WITHOUT_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + CHAT
)
WITH_SPACE = (
    "{% for message in messages %}<{{ message.role }}>{{ ' ' if message.role == 'assistant' }}"
    "{{ message.content }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


def open_chat(template=CHAT):
    return ChatTokenizer(make_word_tokenizer(chat_template=template))


def read(chat, tokens):
    return chat.tokenizer.convert_ids_to_tokens(list(tokens))


def test_a_chat_is_rendered_by_the_models_template():
    assert open_chat().render(MESSAGES) == "<system> to the <end>\n<user> Code: <end>\n<assistant> "


def test_a_template_without_a_system_role_gets_one_message():
    assert open_chat(WITHOUT_SYSTEM).render(MESSAGES) == (
        "<user> to the\n\nCode: <end>\n<assistant> "
    )


def test_without_a_template_the_messages_are_plain_text():
    chat = open_chat(None)
    assert not chat.has_template
    assert chat.render(MESSAGES) == "to the\n\nCode:"


def test_an_answer_has_the_tokens_that_the_model_would_write():
    chat = open_chat()
    assert read(chat, chat.encode_answer(MESSAGES, "A")) == ["A"]
    assert read(chat, chat.encode_answer(MESSAGES, "cats to dogs")) == ["cats", "to", "dogs"]


@pytest.mark.parametrize("template", [CHAT, None], ids=["chat", "plain"])
def test_an_answer_ends_with_the_end_token_where_a_line_has_none(template):
    chat = open_chat(template)
    assert chat.find_end() == chat.tokenizer.eos_token_id


@pytest.mark.parametrize(
    ("template", "lead"),
    [(CHAT, ""), (WITH_SPACE, " "), (None, " ")],
    ids=["chat", "space", "plain"],
)
def test_what_stands_before_an_answer_is_read_from_the_template(template, lead):
    assert open_chat(template)._find_lead(MESSAGES) == lead


def test_an_answer_that_joins_the_prompt_has_no_tokens_of_its_own():
    messages = [{"role": "user", "content": "Code cat"}]
    chat = open_chat("{{ messages[-1].content }}")
    assert chat.encode_answer(messages, "s") == ()
    assert chat.encode_answer(messages, " zebra") == ()


def test_thinking_is_off_and_the_date_fixed():
    chat = open_chat("{{ enable_thinking }} {{ date_string }}{{ messages[0].content }}")
    assert chat.render(MESSAGES) == "False 26 Jul 2024to the"
