"""What a local model is asked about texts, as token ids that fit into its context."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from distill_tasks.core.errors import InputError, shortlist
from distill_tasks.llm.chat import ChatTokenizer
from distill_tasks.llm.codes import choose_codes
from distill_tasks.llm.orders import Order
from distill_tasks.llm.prompt import Message, Prompt, cut_middle

LEAST_TOKENS = 16
"""Tokens that must be left for a text behind instructions, classes and examples."""


class Questions:
    """The prompts of one model: for texts, for each order of the classes.

    Raises InputError where the prompt leaves no room for a text.
    """

    def __init__(self, chat: ChatTokenizer, prompt: Prompt, max_length: int) -> None:
        self.chat = chat
        self.prompt = prompt
        self.max_length = max_length
        self._check_room()

    def encode(self, texts: Sequence[str], order: Order) -> list[list[int]]:
        """Return the tokens of the prompts of some texts; a long text lacks its middle."""
        asked = [self.chat.render(self.prompt.messages(text, order)) for text in texts]
        return [
            ids if len(ids) <= self._limit else self._shorten(text, order, len(ids))
            for text, ids in zip(texts, self.chat.encode(asked), strict=True)
        ]

    def encode_labels(self, order: Order) -> list[tuple[int, ...]]:
        """Return the tokens of what each class is answered with, where they stand in this order."""
        return [self._answers[self._name_label(number, order)] for number in range(len(order))]

    def count_long(self, texts: Sequence[str]) -> int:
        """Return how many texts have more tokens than there is room for."""
        room = self._limit - len(self._encode_one("", self._first))
        long = [text for text in texts if len(text.encode()) > room]  # tokens are bytes at least
        return sum(len(ids) > room for ids in self.chat.encode(long)) if long else 0

    @cached_property
    def end(self) -> int:
        """The token by which the model ends an answer."""
        return self.chat.find_end()

    @property
    def _first(self) -> Order:
        return tuple(range(len(self.prompt.classes)))

    @property
    def _limit(self) -> int:
        """Tokens that a prompt may have, so that the longest label still fits behind it."""
        return self.max_length - max(map(len, self._answers.values()))

    @cached_property
    def _answers(self) -> dict[str, tuple[int, ...]]:
        """The tokens of each label; raises InputError for labels that cannot be told apart."""
        named, ending = self.prompt.wanted == "name", find_ending(self.prompt)
        labels = self.prompt.classes if named else self.prompt.codes
        tokens = {label: self.chat.encode_answer(ending, label) for label in labels}
        if () in tokens.values() or len(set(tokens.values())) < len(labels):
            same = [label for label in labels if list(tokens.values()).count(tokens[label]) > 1]
            raise InputError(
                f"The tokenizer cannot tell the classes {shortlist(same or labels)} apart as "
                "answers. Set `labels: codes`."
            )
        return tokens

    def _name_label(self, number: int, order: Order) -> str:
        """Return what a class is answered with: its name, or the code of its place."""
        if self.prompt.wanted == "name":
            return self.prompt.classes[number]
        return self.prompt.codes[order.index(number)]

    def _check_room(self) -> None:
        constant = len(self._encode_one("", self._first))
        if constant + LEAST_TOKENS > self._limit:
            raise InputError(
                f"teacher.max_length {self.max_length:,} leaves no room for a text: instructions, "
                f"classes and examples alone have {constant:,} tokens. Raise it, or show less."
            )

    def _shorten(self, text: str, order: Order, length: int) -> list[int]:
        """Return the tokens of the prompt of a text that has more than fit, without its middle."""
        constant, characters = len(self._encode_one("", order)), len(text)
        ids: list[int] = []
        while length > self._limit:
            share = max(0, self._limit - constant) / (length - constant)
            characters = min(characters - 1, int(characters * share))
            ids = self._encode_one(cut_middle(text, characters), order)
            length = len(ids)
        return ids

    def _encode_one(self, text: str, order: Order) -> list[int]:
        return self.chat.encode([self.chat.render(self.prompt.messages(text, order))])[0]


def choose_token_codes(chat: ChatTokenizer, prompt: Prompt) -> tuple[str, ...]:
    """Return a code for each class that is one token where the answer to a prompt begins.

    Raises InputError if there are too few.
    """
    ending = find_ending(prompt)
    return choose_codes(
        len(prompt.classes), lambda code: len(chat.encode_answer(ending, code)) == 1
    )


def find_ending(prompt: Prompt) -> list[Message]:
    """Return a short chat that ends as all those of a prompt do."""
    asked = prompt.messages("", tuple(range(len(prompt.classes))))[-1]["content"]
    return [{"role": "user", "content": "".join(asked.splitlines()[-1:])}]
