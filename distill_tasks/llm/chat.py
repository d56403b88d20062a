"""Chats as a local model's token ids: the prompt, and where the answer begins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from distill_tasks.llm.prompt import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FIXED: dict[str, Any] = {"enable_thinking": False, "date_string": "26 Jul 2024"}
"""Settings of templates: without thinking, which would come before the answer, and with a fixed
date, which some templates tell the model (Llama 3 has this default) and which would change it."""
MARK = "@"
"""An answer whose place in a rendered chat is looked for."""


class ChatTokenizer:
    """A tokenizer, with the chat template of its model if it has one."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.has_template = bool(tokenizer.chat_template)
        """Without one the messages are read as plain text."""
        self._takes_system = self.has_template and self._accepts_system()

    def render(self, messages: Sequence[Message]) -> str:
        """Return the text of a chat, up to where the answer begins."""
        if not self.has_template:
            return _join(messages)
        return self._apply(self._fold(messages), begin_answer=True)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of rendered chats."""
        ids: list[list[int]] = self.tokenizer(
            list(texts),
            add_special_tokens=not self.has_template,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )["input_ids"]
        return ids

    def encode_answer(self, messages: Sequence[Message], answer: str) -> tuple[int, ...]:
        """Return the tokens of an answer to a chat, as the model would write them.

        None are returned where the answer's first characters join the prompt's last token, or the
        tokenizer does not know a character of it.
        """
        prompt = self.render(messages)
        alone, both = self.encode([prompt, prompt + self._find_lead(messages) + answer])
        answered = tuple(both[len(alone) :])
        known = self.tokenizer.unk_token_id not in answered
        return answered if known and both[: len(alone)] == alone else ()

    def find_end(self) -> int:
        """Return the token by which the model ends an answer: in plain text that of a new line."""
        end, line = self.tokenizer.eos_token_id, self.tokenizer("\n", add_special_tokens=False)
        plain: list[int] = line["input_ids"]
        return end if isinstance(end, int) and (self.has_template or not plain) else plain[-1]

    def _find_lead(self, messages: Sequence[Message]) -> str:
        """Return what stands between the prompt and the answer: nothing, or a space."""
        prompt = self.render(messages)
        if not self.has_template:
            return "" if prompt[-1:].isspace() else " "
        answered = [*self._fold(messages), {"role": "assistant", "content": MARK}]
        whole = self._apply(answered, begin_answer=False)
        lead, mark, _ = whole[len(prompt) :].partition(MARK)
        return lead if whole.startswith(prompt) and mark and not lead.strip() else ""

    def _accepts_system(self) -> bool:
        from jinja2 import TemplateError

        roles = ("system", "user")
        try:
            self._apply([{"role": role, "content": MARK} for role in roles], begin_answer=True)
        except TemplateError:
            return False
        return True

    def _fold(self, messages: Sequence[Message]) -> list[Message]:
        """Return messages of roles that the template takes."""
        if self._takes_system or len(messages) < 2:
            return list(messages)
        return [{"role": "user", "content": _join(messages)}]

    def _apply(self, messages: Sequence[Message], *, begin_answer: bool) -> str:
        rendered = self.tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=begin_answer, **FIXED
        )
        assert isinstance(rendered, str)
        return rendered


def _join(messages: Sequence[Message]) -> str:
    return "\n\n".join(message["content"] for message in messages)
