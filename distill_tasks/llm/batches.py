"""Requests in batches: cheaper, answered within a day, and found again after a kill.

Calls are reserved before their file is sent, and the endpoint's name of the file is in the ledger
before a batch is made of it. So whatever is interrupted, the next process knows what was asked: it
looks for the batch of that file, makes it if there is none, and waits for its end.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Self, TypeVar

from distill_tasks.core.errors import InputError
from distill_tasks.llm.batch_api import BatchApi, Line, write_lines
from distill_tasks.llm.client import Address, Client, Request, find_cost
from distill_tasks.llm.failures import REFUSED, EndpointError, Failure
from distill_tasks.llm.ledger import FREE, Batch, Ledger
from distill_tasks.llm.prompt import Message

if TYPE_CHECKING:
    from openai.types import Batch as RemoteBatch

T = TypeVar("T")

logger = logging.getLogger("potstill")

MOST_REQUESTS, MOST_BYTES = 50_000, 100_000_000
"""In one batch: what endpoints take at most is 50,000 requests, and 200 MB or less."""
MOST_BATCHES = 4
"""How many batches a request is in before it counts as never answered."""
QUEUE_FULL = "token_limit_exceeded"
"""The code of a batch with more tokens than the endpoint lets one wait for."""
WAITING: dict[str, Any] = {REFUSED: "it waits for its batch"}


class Collector(Client):
    """A client that sends nothing: it lists what is to be asked in a batch."""

    def __init__(self, address: Address, ledger: Ledger, most: int = MOST_REQUESTS) -> None:
        """``most`` requests are enough."""
        super().__init__(address, ledger)
        self.listed: dict[str, Request] = {}
        self._most, self._bytes, self._postponed = most, 0, 0

    async def try_to(self, answer: Callable[[], Awaitable[T]]) -> T | None:
        """Return an answer if all replies to it are there; else None, and list what is to be asked.

        Once enough for a batch is listed, nothing more is tried.
        """
        if len(self.listed) >= self._most or self._bytes >= MOST_BYTES:
            return None
        before = self._postponed
        found = await answer()
        return found if self._postponed == before else None

    async def complete(
        self,
        request: str,
        messages: Sequence[Message],
        most: int,
        *,
        limit_name: str = "max_tokens",
        **options: Any,
    ) -> dict[str, Any]:
        """List a request, and return in place of its reply that it waits."""
        made = self.make_request(messages, most, limit_name, options)
        self.listed[request] = made
        self._postponed += 1
        self._bytes += made.prompt_tokens  # at most as many as bytes
        return WAITING


class Batches:
    """The batches of one endpoint; every step is in the ledger before the next one is taken."""

    def __init__(self, address: Address, ledger: Ledger) -> None:
        self.address, self.ledger = address, ledger
        self.most = MOST_REQUESTS
        """Requests in one batch; fewer once the endpoint said that its queue is full."""
        self._api = BatchApi(address)
        self._price = address.batch_price or FREE
        self._asked: Counter[str] = Counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._api.close()

    def finish_open(self) -> None:
        """Wait for the batches that an earlier process has left, and keep their replies."""
        for batch in self.ledger.open_batches():
            if batch.file is None:  # nothing was made of it
                self._release_due(batch)
                self.ledger.end_batch(batch)
            else:
                logger.info("label: a batch of %d requests was asked before", len(batch))
                self._finish(batch)

    def ask(self, requests: Mapping[str, Request]) -> list[dict[str, Any]]:
        """Return the replies to one batch of the first requests, as many as the limits hold.

        Some may have none and be asked again. Raises OutOfBudgetError where the limits hold none,
        InputError for what the endpoint never answers, and EndpointError where it stays broken.
        """
        first = dict(islice(requests.items(), self.most))
        self._check_patience(first)
        worst = [self._price.of(one.prompt_tokens, one.answer_tokens) for one in first.values()]
        batch = self.ledger.reserve_batch([*zip(first, worst, strict=True)])
        asked, most = [*first][: len(batch)], self.most
        content = write_lines(batch.first, [first[name].body for name in asked])
        batch = replace(batch, file=self._api.send(content))
        self.ledger.note_batch(batch)
        logger.info("label: %d of %d requests are in a batch", len(batch), len(requests))
        replies = self._finish(batch)
        if self.most == most:  # it was taken
            self._asked.update(asked)
        return replies

    def _finish(self, batch: Batch) -> list[dict[str, Any]]:
        """Return the replies to a batch whose file was sent, once it has ended."""
        assert batch.file is not None  # it was sent
        name = batch.name or self._api.start(batch.file)
        self.ledger.note_batch(replace(batch, name=name))
        ended = self._api.wait(name)
        replies, lasting = self._settle(batch, self._api.read(ended))
        if ended.status != "completed":
            self._release_due(batch)
        self.ledger.end_batch(batch)
        if lasting is not None:
            raise InputError(lasting.describe(self.address.base_url, self.address.model))
        if ended.status == "failed":
            self._make_smaller(batch, ended)
        logger.info(
            "label: the batch is %s: %d of %d requests are answered",
            *(ended.status, len(replies), len(batch)),
        )
        return replies

    def _settle(
        self, batch: Batch, lines: Sequence[Line]
    ) -> tuple[list[dict[str, Any]], Failure | None]:
        """Keep the replies to a batch, and return them with a failure that never passes."""
        due, lasting = self.ledger.list_due(batch), None
        replies: list[dict[str, Any]] = []
        for line in lines:
            worst, failure = due.pop(line.call, None), line.failure
            if worst is None:
                continue
            reply = failure.refusal if failure else line.reply
            if reply is not None:
                cost = 0.0 if failure else find_cost(reply, self._price, worst)
                self.ledger.settle(line.call, cost, reply)
                replies.append(reply)
            elif failure is not None:
                if failure.is_free:
                    self.ledger.release(line.call)
                lasting = lasting if failure.may_pass else failure
        return replies, lasting

    def _release_due(self, batch: Batch) -> None:
        for call in self.ledger.list_due(batch):
            self.ledger.release(call)

    def _make_smaller(self, failed: Batch, ended: RemoteBatch) -> None:
        """Halve further batches where the endpoint's queue is full; else raise EndpointError."""
        errors = (ended.errors and ended.errors.data) or []
        if len(failed) > 1 and any(one.code == QUEUE_FULL for one in errors):
            self.most = len(failed) // 2
            logger.warning("label: the endpoint's queue is full; batches have %d now", self.most)
            return
        said = errors[0].message if errors else "it does not say why"
        raise EndpointError(f"{self.address.base_url} does not take the batch: {said}")

    def _check_patience(self, names: Mapping[str, Request]) -> None:
        """Raise EndpointError for requests that were in too many batches."""
        left = [name for name in names if self._asked[name] >= MOST_BATCHES]
        if left:
            raise EndpointError(
                f"{self.address.base_url} left {len(left):,} requests unanswered in "
                f"{MOST_BATCHES} batches. Everything answered is kept; the same command asks only "
                "for the rest."
            )
