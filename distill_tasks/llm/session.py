"""A session with one endpoint: it is probed once, watched for changes, and asked row by row."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from distill_tasks.core.digests import digest
from distill_tasks.llm.batch_api import BatchApi
from distill_tasks.llm.batches import Batches, Collector
from distill_tasks.llm.client import Address, Client
from distill_tasks.llm.distributions import Distribution
from distill_tasks.llm.estimate import Estimate, estimate
from distill_tasks.llm.failures import EndpointError
from distill_tasks.llm.labelling import (
    Answer,
    ChangedTeacherError,
    Labeller,
    Method,
    Rejected,
    Way,
)
from distill_tasks.llm.ledger import Ledger, OutOfBudgetError
from distill_tasks.llm.orders import Orders
from distill_tasks.llm.probe import NoMethodError, Probe, probe
from distill_tasks.llm.prompt import Prompt
from distill_tasks.llm.stream import Stream

logger = logging.getLogger("potstill")

PROBED_ROWS = 3
"""Texts that an endpoint is probed with until it answers one."""
CANARY_ROWS = 50
"""Rows that are asked again in each run that asks for others."""
USUAL_DISAGREEMENT, SURE = 0.02, 0.01
"""How often a model answers a row differently by chance, and the p-value that shows a change."""
FIRST_LOOK = 50
"""Rows after which the share of answered ones may end a session."""
REJECTED_SHOWN = 3


@dataclass(frozen=True)
class Identity:
    """Which of an endpoint's models answers, as far as anyone can tell, and how it is asked."""

    probe: Probe
    generation: int = 1
    """Raised each time that it was found to have changed."""

    @property
    def name(self) -> str:
        """What is part of the digest of its answers."""
        return f"{self.probe.served} {self.generation}"


class Session:
    """Questions to one endpoint for one prompt, with everything kept in its ledger."""

    def __init__(
        self,
        address: Address,
        ledger: Ledger,
        prompt: Prompt,
        *,
        key: str,
        wanted: Way,
        method: Method | None,
        order: Orders,
        on_change: Literal["stop", "ask_again"] = "stop",
        min_success_ratio: float = 0.0,
    ) -> None:
        """``key`` is the digest of what the user wrote about this teacher."""
        self.address, self.ledger, self.prompt, self.key = address, ledger, prompt, key
        self.wanted, self.method, self.order = wanted, method, order
        self.on_change, self.min_success_ratio = on_change, min_success_ratio

    def identify(self, texts: Sequence[str]) -> Identity:
        """Return who answers; the endpoint is asked only if some of the texts are not answered.

        Raises ChangedTeacherError if it answers differently than before, unless it is to be asked
        again then.
        """
        known = self._recall()
        if known is None:
            return self._meet(texts, generation=1)
        answered = self._find_answered(texts, known)
        if answered.all():
            return known
        change = self._find_change([texts[row] for row in np.flatnonzero(answered).tolist()], known)
        if change is None:
            return known
        if self.on_change == "stop":
            raise ChangedTeacherError(
                f"The teacher {self.address.model} has changed: {change}. Its answers are not "
                "mixed with the earlier ones. Pin the model's version, or set teacher.on_change: "
                "ask_again to have all rows answered by the new one."
            )
        logger.warning("label: the teacher has changed: %s; it is asked all rows again", change)
        return self._meet(texts, generation=known.generation + 1)

    @property
    def way(self) -> Way:
        """How the endpoint is asked, as far as it is known."""
        identity = self._recall()
        return self.wanted if identity is None else identity.probe.way

    def label(self, texts: Sequence[str]) -> Iterator[tuple[int, Answer]]:
        """Yield the number of each text and its answer, as they come.

        Raises EndpointError if too few rows are answered.
        """
        identity = self._recall()
        assert identity is not None  # `identify` comes first
        rejected: list[Rejected] = []

        done = 0
        try:
            for number, found in self._ask(texts, identity):
                done += 1
                if isinstance(found, Rejected):
                    rejected.append(found)
                    self._check_success(rejected, done, len(texts))
                yield number, found
        except OutOfBudgetError as error:
            raise OutOfBudgetError(
                f"{error}. Spent so far: {self.ledger.spent().committed:.4g}; {done:,} of "
                f"{len(texts):,} rows are answered and kept. Raise the limit to go on: the same "
                "command asks only for the rest."
            ) from None
        if rejected:
            logger.warning("label: %s", say_rejected(rejected, done))

    def ask_again(self, texts: Sequence[str], round_name: str) -> list[Answer]:
        """Return the answers to texts that are asked anew, once for each name of a round."""
        identity = self._recall()
        assert identity is not None  # `identify` comes first
        return _sort(self._ask(texts, identity, round_name))

    def estimate(self, texts: Sequence[str], again: Sequence[str] = ()) -> Estimate:
        """Return what the answers to texts cost that are not in the ledger; nothing is asked.

        ``again`` are texts that are asked a second time. Those that tell in each run whether it
        has changed are counted too.
        """
        missing = set(self.find_missing(texts))
        labeller = Labeller(Client(self.address, self.ledger), self.prompt, self.way, self.order)
        known = [text for text in texts if text not in missing] if missing else []
        return estimate(
            [text for text in texts if text in missing],
            labeller,
            self.ledger.usual(),
            again=again,
            compared=known[:CANARY_ROWS],
            spent=self.ledger.spent().committed,
        )

    def find_missing(self, texts: Sequence[str], round_name: str = "") -> Sequence[str]:
        """Return the texts that it has not been asked about, in the round of a name."""
        identity = self._recall()
        if identity is None:
            return texts
        answered = self._find_answered(texts, identity, round_name)
        return [texts[row] for row in np.flatnonzero(~answered).tolist()]

    def reach(self) -> None:
        """Raise InputError unless the endpoint can be reached and takes the key."""

        async def ask() -> None:
            async with Client(self.address, self.ledger) as client:
                await client.reach()

        asyncio.run(ask())
        if self.in_batches:
            with closing(BatchApi(self.address)) as api:
                api.reach()

    @property
    def in_batches(self) -> bool:
        """Whether rows are asked in batches; what tells who answers is always asked at once."""
        return self.address.batch_price is not None

    def _ask(
        self, texts: Sequence[str], identity: Identity, round_name: str = ""
    ) -> Iterable[tuple[int, Answer]]:
        """Return the number of each text and its answer, one by one or in batches."""
        if self.in_batches:
            return self._ask_in_batches(texts, identity, round_name)
        if left := sum(map(len, self.ledger.open_batches())):
            logger.warning(
                "label: %d requests are in batches that were asked before: `batch: true` waits for "
                "them, else their rows are paid twice",
                left,
            )
        return self._ask_at_once(texts, identity, round_name)

    def _ask_in_batches(
        self, texts: Sequence[str], identity: Identity, round_name: str
    ) -> Iterator[tuple[int, Answer]]:
        """Yield what the ledger knows, ask a batch of what it does not, and so on to the end."""
        waiting = list(range(len(texts)))
        with Batches(self.address, self.ledger) as batches, asyncio.Runner() as runner:
            batches.finish_open()
            while waiting:
                collector = Collector(self.address, self.ledger, batches.most)
                labeller, left = self._open(collector, identity), []
                for number in waiting:
                    ask = partial(labeller.label, texts[number], round_name)
                    found = runner.run(collector.try_to(ask))
                    if found is None:
                        left.append(number)
                    else:
                        yield number, found
                for reply in batches.ask(collector.listed) if left else ():
                    labeller.refuse_other_model(reply)
                waiting = left

    def _ask_at_once(
        self, texts: Sequence[str], identity: Identity, round_name: str
    ) -> Iterable[tuple[int, Answer]]:
        """Return the number of each text and its answer, as they come."""

        @asynccontextmanager
        async def open_labeller() -> AsyncIterator[Callable[[int], Awaitable[Answer]]]:
            async with Client(self.address, self.ledger) as client:
                labeller = self._open(client, identity)
                yield lambda number: labeller.label(texts[number], round_name)

        return Stream(open_labeller, len(texts), self.address.concurrency)

    def _open(self, client: Client, identity: Identity) -> Labeller:
        way, served = identity.probe.way, identity.probe.served
        return Labeller(client, self.prompt, way, self.order, identity.name, served)

    def _meet(self, texts: Sequence[str], generation: int) -> Identity:
        """Probe the endpoint and remember what it is; a text that it refuses proves nothing."""
        *first, last = texts[:PROBED_ROWS]
        for text in first:
            with suppress(NoMethodError):
                found = self._probe(text)
                break
        else:
            found = self._probe(last)
        for name, reason in found.why_not.items():
            logger.info("label: no %s: %s", name, reason)
        logger.info("label: %s gives %s", found.served or self.address.model, found.way.method)
        identity = Identity(found, generation)
        written = TypeAdapter(Identity).dump_python(identity, mode="json")
        self.ledger.remember(f"identity {self.key}", written)
        return identity

    def _probe(self, text: str) -> Probe:
        async def ask() -> Probe:
            async with Client(self.address, self.ledger) as client:
                return await probe(client, self.prompt, text, self.wanted, self.method)

        return asyncio.run(ask())

    def _recall(self) -> Identity | None:
        written = self.ledger.recall(f"identity {self.key}")
        return None if written is None else TypeAdapter(Identity).validate_python(written)

    def _find_answered(
        self, texts: Sequence[str], identity: Identity, round_name: str = ""
    ) -> NDArray[np.bool_]:
        labeller = self._open(Client(self.address, self.ledger), identity)
        kept = self.ledger.list_requests()
        asked = (labeller.first_request(text, round_name) for text in texts)
        return np.array([request in kept for request in asked], np.bool_)

    def _find_change(self, answered: Sequence[str], known: Identity) -> str | None:
        """Return how the endpoint differs from before, from rows that it answered; None if not."""
        from scipy.stats import binomtest

        order = np.random.default_rng(0).permutation(len(answered))[:CANARY_ROWS]
        rows = [answered[number] for number in order]
        if not rows:
            return None
        before = _sort(self._ask_at_once(rows, known, ""))
        try:
            after = _sort(self._ask_at_once(rows, known, digest(self.ledger.spent().calls)))
        except ChangedTeacherError as error:
            return str(error)
        pairs = [
            (one.best, other.best)
            for one, other in zip(before, after, strict=True)
            if isinstance(one, Distribution) and isinstance(other, Distribution)
        ]
        apart = sum(one != other for one, other in pairs)
        if pairs and binomtest(apart, len(pairs), USUAL_DISAGREEMENT, "greater").pvalue < SURE:
            return f"{apart} of {len(pairs)} rows that it answered before get another class now"
        return None

    def _check_success(self, rejected: Sequence[Rejected], done: int, rows: int) -> None:
        if done < min(FIRST_LOOK, rows):
            return
        if 1 - len(rejected) / done < self.min_success_ratio:
            raise EndpointError(
                f"{say_rejected(rejected, done)} That is less than teacher.min_success_ratio "
                f"({self.min_success_ratio:g}). What was answered is kept; correct the prompt or "
                "the model."
            )


def _sort(answers: Iterable[tuple[int, Answer]]) -> list[Answer]:
    """Return answers in the order of their numbers."""
    found = dict(answers)
    return [found[number] for number in sorted(found)]


def say_rejected(rejected: Sequence[Rejected], done: int) -> str:
    """Return how many rows have no answer, with examples of what was said instead."""
    examples = "; ".join(
        f"{one.reason}{f' ({one.replied[:60]!r})' if one.replied else ''}"
        for one in list(dict.fromkeys(rejected))[:REJECTED_SHOWN]
    )
    return f"{len(rejected):,} of {done:,} rows have no answer: {examples}."
