"""Soft labels from an endpoint: one row is asked in one or several orders, and its replies read."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from distill_tasks.core.digests import digest
from distill_tasks.core.errors import PotstillError
from distill_tasks.llm.client import Client
from distill_tasks.llm.distributions import (
    Distribution,
    UnusableError,
    average_orders,
    disagree,
    from_stated,
    from_top_logprobs,
    from_votes,
)
from distill_tasks.llm.failures import REFUSED
from distill_tasks.llm.orders import Orders, list_rotations
from distill_tasks.llm.prompt import Message, Prompt

Method = Literal["token_logprobs", "top_logprobs", "votes", "verbalised"]

READING_VERSION = 2
"""Raised when the same replies are read as other answers."""
STATED_TOKENS = 24
"""Tokens for the confidence in one class: its code, a number and what stands around them."""
SAMPLED: dict[str, Any] = {"temperature": 1}
"""What votes are asked for with: left to themselves, servers sample at other temperatures."""
CONSTRAINED_TOKENS = 24
"""Tokens for an answer that the server constrains to an object with one code."""


@dataclass(frozen=True)
class Way:
    """How an endpoint is asked, as its probe found it."""

    method: Method
    top: int = 0
    """Log-probabilities that it lists at most."""
    samples: int = 1
    """Votes for each row and order."""
    several: bool = True
    """Whether it gives several samples in one reply."""
    answer_tokens: int = 1
    limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the endpoint calls the most tokens of an answer."""
    constrained: bool = True
    """Whether it can be held to the codes when an answer was none."""
    token_ids: tuple[int, ...] = ()
    """The codes' tokens, for `token_logprobs`."""

    @property
    def options(self) -> dict[str, Any]:
        """What a request says beside the messages."""
        if self.method == "votes":
            return SAMPLED | ({"n": self.samples} if self.several and self.samples > 1 else {})
        if self.method == "verbalised":
            return {"temperature": 0, "response_format": {"type": "json_object"}}
        asked = {"logprobs": True, "top_logprobs": self.top, "temperature": 0}
        if self.method == "token_logprobs":
            return asked | {"logprob_token_ids": list(self.token_ids)}
        return asked


class ChangedTeacherError(PotstillError):
    """The endpoint no longer answers as it did."""


@dataclass(frozen=True)
class Rejected:
    """A row without an answer, and what was said in its place."""

    reason: str
    replied: str = ""


Answer: TypeAlias = Distribution | Rejected


def to_batch(
    found: Iterable[tuple[int, Answer]], classes: int
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    """Return the numbers of the answered rows (rows,), with log-probabilities (rows, classes).

    What comes third is the probability (rows,) that classes share of which a reply says nothing.
    """
    answered = {row: one for row, one in found if isinstance(one, Distribution)}
    logits = np.array([one.log_probabilities for one in answered.values()], np.float32)
    censored = np.array([one.censored for one in answered.values()], np.float32)
    return np.array([*answered], np.int64), logits.reshape(-1, classes), censored


@dataclass
class Labeller:
    """Asks one endpoint about rows, and reads what it replies."""

    client: Client
    prompt: Prompt
    way: Way
    order: Orders
    identity: str = ""
    """Of the endpoint's model, as far as it is known; part of the digest of each request."""
    served: str = ""
    """The name of the model that must answer, as the endpoint says it."""
    _tokens: int = field(init=False)
    _prompt: str = field(init=False)

    def __post_init__(self) -> None:
        self._prompt = self.prompt.digest
        stated = STATED_TOKENS * len(self.prompt.classes)
        self._tokens = stated if self.way.method == "verbalised" else self.way.answer_tokens

    @property
    def usual_requests(self) -> int:
        """How many requests a row takes, where no two orders disagree and no answer is rejected."""
        orders = 1 if self.order == "one" else 2
        way = self.way
        return orders * (way.samples if way.method == "votes" and not way.several else 1)

    @property
    def most_answer_tokens(self) -> int:
        """How many tokens the answer to one request has at most."""
        several = self.way.method == "votes" and self.way.several
        return self._tokens * (self.way.samples if several else 1)

    async def label(self, text: str, round_name: str = "") -> Answer:
        """Return the distribution over classes for one text, or why there is none.

        Rows that were asked before are read from the ledger; ``round_name`` asks them anew.
        """
        forward = tuple(range(len(self.prompt.classes)))
        if self.order == "one":
            return await self._ask(text, forward, round_name)
        both = await asyncio.gather(
            *(self._ask(text, order, round_name) for order in (forward, forward[::-1]))
        )
        found = [one for one in both if isinstance(one, Distribution)]
        if not found:
            return both[0]
        if self.order == "rotate" and len(found) == 2 and disagree(*found):
            rotations = list_rotations(forward)[1:]
            more = await asyncio.gather(*(self._ask(text, one, round_name) for one in rotations))
            found = [found[0], *(one for one in more if isinstance(one, Distribution))]
        return average_orders(found)

    async def _ask(self, text: str, order: tuple[int, ...], round_name: str) -> Answer:
        """Ask in one order; an answer that is no class is asked once more, held to the codes."""
        key = self.name_request(text, order, round_name)
        messages = self.prompt.messages(text, order)
        replies = await self._complete(key, messages)
        found = self.read(replies)
        if isinstance(found, Rejected) and self.way.constrained and REFUSED not in replies[0]:
            found = await self._ask_constrained(key, messages, found)
        return found if isinstance(found, Rejected) else found.place(order)

    def name_request(self, text: str, order: Sequence[int], round_name: str = "") -> str:
        """Return the digest under which the reply about a text in one order is kept."""
        way = [self.way.method, self.way.samples]
        return digest(self.identity, self._prompt, *way, text, list(order), round_name)

    def first_request(self, text: str, round_name: str = "") -> str:
        """Return the digest of what is asked first about a text."""
        return self.name_request(text, range(len(self.prompt.classes)), round_name)

    async def _complete(self, key: str, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """Return the replies to a request, of which votes may need several."""
        calls = 1 if self.way.several or self.way.method != "votes" else self.way.samples
        keys = [key if number == 0 else f"{key}-{number}" for number in range(calls)]
        return list(await asyncio.gather(*(self._call(one, messages) for one in keys)))

    async def _call(
        self, key: str, messages: Sequence[Message], tokens: int | None = None, **options: Any
    ) -> dict[str, Any]:
        for kept in self.client.ledger.replies(key):
            if self._is_of_this_model(kept):
                return kept
        chosen = options or self.way.options
        limit = self._tokens if tokens is None else tokens
        reply = await self.client.complete(
            key, messages, limit, limit_name=self.way.limit, **chosen
        )
        self.refuse_other_model(reply)
        return reply

    def refuse_other_model(self, reply: dict[str, Any]) -> None:
        """Raise ChangedTeacherError if the endpoint says that another model replied."""
        if not self._is_of_this_model(reply):
            raise ChangedTeacherError(
                f"{self.client.address.base_url} served {reply['model']}, where it was "
                f"{self.served} before"
            )

    def _is_of_this_model(self, reply: dict[str, Any]) -> bool:
        return bool(reply.get("model", self.served) == self.served)

    async def _ask_constrained(
        self, key: str, messages: Sequence[Message], why: Rejected
    ) -> Answer:
        """Ask again with the answer held to the codes: one vote, of two that were asked for."""
        tokens = max(CONSTRAINED_TOKENS, self._tokens)
        format_ = describe_constraint(self.prompt.codes)
        reply = await self._call(f"{key}-held", messages, tokens, response_format=format_)
        codes = [find_code(one, self.prompt.codes) for one in read_contents(reply)]
        if REFUSED in reply or not codes or codes[0] is None:
            return why
        counts = np.bincount([codes[0]], minlength=len(self.prompt.codes))
        return from_votes(counts, invalid=1, samples=2)

    def read(self, replies: Sequence[dict[str, Any]]) -> Answer:
        """Return the distribution over codes that replies to one request give."""
        for reply in replies:
            if REFUSED in reply:
                return Rejected(reply[REFUSED])
        contents = [content for reply in replies for content in read_contents(reply)]
        if refusal := next(filter(None, map(read_refusal, replies)), None):
            return Rejected("the model refuses", refusal)
        try:
            return self._find_distribution(replies, contents)
        except UnusableError as error:
            return Rejected(str(error), contents[0] if contents else "")

    def _find_distribution(
        self, replies: Sequence[dict[str, Any]], contents: Sequence[str]
    ) -> Distribution:
        codes = self.prompt.codes
        if self.way.method == "votes":
            found = [find_code(content, codes) for content in contents]
            counts = np.bincount([n for n in found if n is not None], minlength=len(codes))
            return from_votes(counts, found.count(None), samples=len(found))
        if self.way.method == "verbalised":
            return from_stated(read_stated(contents[0] if contents else "", codes), codes)
        return from_top_logprobs(read_listed(replies[0]), codes)


def read_contents(reply: dict[str, Any]) -> list[str]:
    """Return what each choice of a reply says."""
    return [
        str((choice.get("message") or {}).get("content") or "")
        for choice in reply.get("choices", ())
    ]


def read_refusal(reply: dict[str, Any]) -> str | None:
    """Return the refusal of a reply, if it is one."""
    choices = reply.get("choices") or [{}]
    return (choices[0].get("message") or {}).get("refusal") or None


def read_listed(reply: dict[str, Any]) -> list[tuple[str, float]]:
    """Return the tokens that a reply lists for its first place, with their log-probabilities.

    Raises UnusableError if there are none.
    """
    logprobs = reply["choices"][0].get("logprobs") or {}
    content = logprobs.get("content") or []
    if not content:
        raise UnusableError("empty", "the endpoint gives no log-probabilities")
    first = content[0]
    listed = [(one["token"], float(one["logprob"])) for one in first.get("top_logprobs") or ()]
    if not listed:
        raise UnusableError(
            "empty", "the endpoint lists no alternatives with their log-probabilities"
        )
    return listed


def read_stated(content: str, codes: Sequence[str]) -> dict[str, float]:
    """Return the confidence stated for each code; or raise UnusableError."""
    found = re.search(r"{.*}", content, re.DOTALL)
    try:
        stated = json.loads(found[0]) if found else None
        return {code: float(stated.get(code, 0.0)) for code in codes}  # type: ignore[union-attr]
    except (ValueError, TypeError, AttributeError):
        raise UnusableError("off_list", "the answer is no object of confidences") from None


def find_code(content: str, codes: Sequence[str]) -> int | None:
    """Return the number of the code that an answer gives; None if it gives none or several."""
    said = content.strip()
    held = re.fullmatch(r'{\s*"label"\s*:\s*"(?P<code>[^"]*)"\s*}', said)
    if held:
        said = held["code"]
    said = re.sub(r"^(?:code|answer|class)\s*:?\s*", "", said, flags=re.IGNORECASE)
    found = re.match(r"[\"'`*(]*(\w+)[\"'`*]*(?:$|[).:,\]])", said)
    return codes.index(found[1]) if found and found[1] in codes else None


def describe_constraint(codes: Sequence[str]) -> dict[str, Any]:
    """Return the response format that holds an answer to one of the codes."""
    schema = {
        "type": "object",
        "properties": {"label": {"type": "string", "enum": list(codes)}},
        "required": ["label"],
        "additionalProperties": False,
    }
    return {
        "type": "json_schema",
        "json_schema": {"name": "label", "strict": True, "schema": schema},
    }
