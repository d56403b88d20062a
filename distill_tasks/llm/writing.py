"""Texts that a language model behind an endpoint writes; each reply is kept before the next."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from distill_tasks.core.errors import InputError
from distill_tasks.llm.assignments import TEXTS_EACH, Assigner, Assignment
from distill_tasks.llm.client import Address, Client
from distill_tasks.llm.estimate import Estimate, Load, estimate_load, usual_tokens
from distill_tasks.llm.labelling import read_contents
from distill_tasks.llm.ledger import Ledger, OutOfBudgetError, most_tokens
from distill_tasks.llm.stream import Stream

WAY = "writing"
"""The fact in the ledger that says how this endpoint is asked for texts."""
FORMAT = {
    "type": "json_schema",
    "json_schema": {
        "name": "texts",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"texts": {"type": "array", "items": {"type": "string"}}},
            "required": ["texts"],
            "additionalProperties": False,
        },
    },
}
"""Holds an answer to a list of texts."""
WAYS: tuple[dict[str, Any], ...] = (
    {"limit_name": "max_tokens", "response_format": FORMAT},
    {"limit_name": "max_completion_tokens", "response_format": FORMAT},
    {"limit_name": "max_tokens"},
    {"limit_name": "max_completion_tokens"},
)
"""What endpoints take beside the messages; the first that is not refused is used."""
LISTED = re.compile(r"^\s*(?:\d+[.):]|[-*•])\s+(?P<text>.+?)\s*$", re.MULTILINE)
"""A line of a list that is no JSON."""


@dataclass
class Writer:
    """Asks one endpoint for texts, and reads what it replies."""

    address: Address
    ledger: Ledger
    assigner: Assigner

    def write(self, wanted: Sequence[tuple[str, int]]) -> list[list[str]]:
        """Return the texts of each assignment, by its class and number; none where it was refused.

        Replies in the ledger are read from there. Raises OutOfBudgetError, EndpointError and
        InputError as the client does.
        """
        assignments = [self.assigner.assign(*one) for one in wanted]
        if not assignments:
            return []
        way = self._find_way(assignments[0])

        @asynccontextmanager
        async def open_client() -> AsyncIterator[Callable[[int], Awaitable[list[str]]]]:
            async with Client(self.address, self.ledger) as client:
                yield lambda number: self._ask(client, assignments[number], way)

        found = Stream(open_client, len(assignments), self.address.concurrency)
        try:
            written = dict(found)
        except OutOfBudgetError as error:
            raise OutOfBudgetError(
                f"{error}. Spent so far: {self.ledger.spent().committed:.4g}; what was written is "
                "kept. Raise the limit to go on: the same command asks only for the rest."
            ) from None
        return [written[number] for number in range(len(assignments))]

    def estimate(self, wanted: Sequence[tuple[str, int]], more: int = 1) -> Estimate:
        """Return what the assignments cost that have no reply yet; nothing is asked.

        At most they may be asked ``more`` times as often, since texts that repeat others are
        replaced.
        """
        kept = self.ledger.list_requests()
        assignments = [self.assigner.assign(*one) for one in wanted]
        due = [one for one in assignments if one.request not in kept]
        contents = [[message["content"] for message in one.messages] for one in due]
        answer = sum(one.most_tokens for one in due)
        load = Load(
            requests=len(due),
            prompt_tokens=sum(map(usual_tokens, contents)),
            completion_tokens=answer / 2,
            most_prompt_tokens=more * sum(map(most_tokens, contents)),
            most_completion_tokens=more * answer,
        )
        usual, spent = self.ledger.usual(writing=True), self.ledger.spent().committed
        return estimate_load(TEXTS_EACH * len(due), load, self.address, usual=usual, spent=spent)

    def _find_way(self, first: Assignment) -> dict[str, Any]:
        """Return how the endpoint takes a request for texts, found with the first one."""
        known = self.ledger.recall(WAY)
        if known is not None:
            return dict(known)

        async def try_ways() -> dict[str, Any]:
            refusals = []
            async with Client(self.address, self.ledger) as client:
                for way in WAYS:
                    try:
                        await self._ask(client, first, way)
                    except InputError as error:
                        refusals.append(error)
                    else:
                        return way
            raise refusals[0]

        found = asyncio.run(try_ways())
        self.ledger.remember(WAY, found)
        return found

    async def _ask(self, client: Client, one: Assignment, way: dict[str, Any]) -> list[str]:
        kept = self.ledger.replies(one.request)
        reply = kept[0] if kept else None
        if reply is None:
            reply = await client.complete(one.request, one.messages, one.most_tokens, **way)
        return [text for content in read_contents(reply) for text in read_texts(content)]


def read_texts(content: str) -> list[str]:
    """Return the texts that an answer lists, as JSON or line by line; none if it lists none.

    Of a list that was cut, the texts that are whole are returned.
    """
    for start in re.finditer(r"\[", content):
        if texts := _read_list(content, start.end()):
            return texts
    return [found["text"].strip("\"'") for found in LISTED.finditer(content)]


def _read_list(content: str, at: int) -> list[str]:
    """Return the texts of a JSON list whose bracket stands before a place, as far as it goes."""
    texts: list[str] = []
    decoder, gap = json.JSONDecoder(), re.compile(r"[\s,]*")
    while True:
        try:
            value, at = decoder.raw_decode(content, gap.match(content, at).end())  # type: ignore[union-attr]
        except ValueError:
            return texts
        text = value.get("text") if isinstance(value, dict) else value
        if isinstance(text, str) and text.strip():
            texts.append(text.strip())
