"""The client of an OpenAI-compatible endpoint: bounded, paced, patient, and paid from a ledger."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

from distill_tasks.core.credentials import mask_credentials
from distill_tasks.core.errors import InputError
from distill_tasks.llm.failures import BrokenRequestError, EndpointError, Failure
from distill_tasks.llm.ledger import FREE, Ledger, Price, most_tokens
from distill_tasks.llm.prompt import Message

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

logger = logging.getLogger("potstill")

ATTEMPTS = 6
"""How often one request is tried before the endpoint counts as failed."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 60.0
"""Between attempts: the mean of the first wait, which doubles, and the longest one."""
BYTES_PER_TOKEN = 4
"""What a token usually holds, for limits of tokens per minute and for estimates."""
KEPT = "choices", "usage", "model", "system_fingerprint"
"""What is kept of a reply."""


@dataclass(frozen=True)
class Address:
    """Where an endpoint is and what it is asked for."""

    base_url: str
    model: str
    key: str
    price: Price = FREE
    batch_price: Price | None = None
    """Of what is asked in batches; None where requests are sent one by one."""
    timeout_s: float = 60.0
    concurrency: int = 32
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


@dataclass(frozen=True)
class Request:
    """The body of a request, and how many tokens it takes at most."""

    body: dict[str, Any]
    prompt_tokens: int
    answer_tokens: int


class Pace:
    """Spreads an amount for each minute evenly over time."""

    def __init__(self, per_minute: int | None) -> None:
        self._seconds_each = 0.0 if per_minute is None else 60 / per_minute
        self._free_at = 0.0

    async def take(self, amount: float) -> None:
        """Wait until so much may be used."""
        now = time.monotonic()
        start = max(self._free_at, now)
        self._free_at = start + amount * self._seconds_each
        if start > now:
            await asyncio.sleep(start - now)


class Client:
    """Sends requests to one endpoint; every reply is in the ledger before it is returned."""

    def __init__(self, address: Address, ledger: Ledger) -> None:
        self.address, self.ledger = address, ledger
        self._places = asyncio.Semaphore(address.concurrency)
        self._requests, self._tokens = (
            Pace(limit) for limit in (address.requests_per_minute, address.tokens_per_minute)
        )

    @cached_property
    def _sdk(self) -> AsyncOpenAI:
        return _open_sdk(self.address)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._sdk.close()

    async def complete(
        self,
        request: str,
        messages: Sequence[Message],
        most: int,
        *,
        limit_name: str = "max_tokens",
        **options: Any,
    ) -> dict[str, Any]:
        """Return the reply to a chat, as plain data, kept under the digest ``request``.

        ``most`` tokens may be answered, which the endpoint calls ``limit_name``. Raises
        EndpointError if it does not answer, OutOfBudgetError before a call that the limits do not
        allow, and InputError for a wrong key, an unknown model or a wrong option.
        """
        asked = self.make_request(messages, most, limit_name, options)
        worst = self.address.price.of(asked.prompt_tokens, asked.answer_tokens)
        tokens = asked.prompt_tokens / BYTES_PER_TOKEN + asked.answer_tokens
        async with self._places:
            for attempt in range(1, ATTEMPTS + 1):
                await self._requests.take(1)
                await self._tokens.take(tokens)
                call = self.ledger.reserve(request, worst)
                wait_s = await self._try(call, worst, asked.body, attempt)
                if not isinstance(wait_s, float):
                    return wait_s
                await asyncio.sleep(wait_s)
        raise AssertionError("the last attempt returns or raises")

    def make_request(
        self, messages: Sequence[Message], most: int, limit_name: str, options: Mapping[str, Any]
    ) -> Request:
        """Return the request that asks for at most so many tokens of an answer to a chat."""
        body = {"model": self.address.model, "messages": messages, limit_name: most, **options}
        prompt_tokens = most_tokens([message["content"] for message in messages])
        return Request(body, prompt_tokens, options.get("n", 1) * most)

    async def tokenize(self, text: str) -> list[int] | None:
        """Return the tokens of a text, from a server that tells them (vLLM's `/tokenize`)."""
        import openai

        root = self.address.base_url.rstrip("/").removesuffix("/v1")
        body = {"model": self.address.model, "prompt": text, "add_special_tokens": False}
        try:
            found: Any = await self._sdk.post(f"{root}/tokenize", body=body, cast_to=object)
        except openai.APIError:
            return None
        tokens = found.get("tokens") if isinstance(found, dict) else None
        return tokens if isinstance(tokens, list) else None

    async def reach(self) -> None:
        """Raise InputError unless the endpoint can be reached and takes the key; it costs nothing.

        An endpoint that does not list its models is believed.
        """
        import openai

        try:
            await self._sdk.models.list()
        except openai.APIStatusError as error:
            if error.status_code in (401, 403):
                raise InputError(self._describe(read_failure(error))) from None
        except openai.APIError as error:
            raise InputError(
                f"{self.address.base_url} cannot be reached: {say_cause(error)}. Start that "
                "server, or correct teacher.base_url."
            ) from None

    async def _try(
        self, call: int, worst: float, body: dict[str, Any], attempt: int
    ) -> dict[str, Any] | float:
        """Return the reply to one attempt, or the seconds to wait for the next one."""
        import httpx2
        import openai

        address, began = self.address, time.monotonic()
        try:
            given = await self._sdk.post("/chat/completions", body=body, cast_to=httpx2.Response)
            reply = read_reply(given.text)
        except openai.APIStatusError as error:
            failure = read_failure(error)
            if failure.refusal is not None:
                self.ledger.settle(call, 0.0, failure.refusal)
                return failure.refusal
            if failure.is_free:
                self.ledger.release(call)
            if not failure.may_pass:
                raise InputError(self._describe(failure)) from None
            broken = BrokenRequestError if failure.status == 500 else EndpointError
            return self._wait(attempt, f"answered {failure}", error.response.headers, broken)
        except openai.APITimeoutError:
            return self._wait(attempt, f"gave no answer within {address.timeout_s:g} s")
        except openai.APIConnectionError as error:
            return self._wait(attempt, f"cannot be reached: {say_cause(error)}")
        except ValueError as error:
            return self._wait(attempt, f"gave an answer that is no reply: {error}")
        cost = find_cost(reply, address.price, worst)
        self.ledger.settle(call, cost, reply, time.monotonic() - began)
        return reply

    def _describe(self, failure: Failure) -> str:
        return failure.describe(self.address.base_url, self.address.model)

    def _wait(
        self,
        attempt: int,
        reason: str,
        headers: Mapping[str, str] | None = None,
        failure: type[EndpointError] = EndpointError,
    ) -> float:
        """Return the seconds until the next attempt; raise ``failure`` after the last one."""
        if attempt == ATTEMPTS:
            raise failure(
                f"{self.address.base_url} {reason}, after {ATTEMPTS} attempts. Everything answered "
                "is kept; the same command asks only for the rest."
            )
        return find_wait(attempt, headers or {})


def find_wait(attempt: int, headers: Mapping[str, str]) -> float:
    """Return the seconds to wait after an attempt, with jitter, and as long as a server asks to."""
    told = read_retry_after(headers)
    doubled = FIRST_WAIT_S * 2 ** (attempt - 1)
    wait_s: float = min(doubled, LONGEST_WAIT_S) * random.uniform(0.5, 1.5)  # noqa: S311  # no secret
    return wait_s if told is None else told + wait_s * 0.2


def find_cost(reply: Mapping[str, Any], price: Price, worst: float) -> float:
    """Return what a reply costs; ``worst`` where it does not count its tokens."""
    usage = reply.get("usage") or {}
    counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    counted = [count for count in counts if isinstance(count, int)]
    return price.of(*counted) if len(counted) == len(counts) else worst


def read_failure(error: APIStatusError) -> Failure:
    """Return what a response says that is no success."""
    return Failure.read(error.status_code, error.body, error.message)


def say_cause(error: Exception) -> str:
    """Return why nothing could be sent, without credentials."""
    return mask_credentials(str(error.__cause__ or error).splitlines()[0])


def read_reply(text: str) -> dict[str, Any]:
    """Return what is kept of a reply; raise ValueError unless it is one."""
    return keep_reply(json.loads(text))


def keep_reply(reply: Any) -> dict[str, Any]:
    """Return what is kept of a reply, read from JSON; raise ValueError unless it is one."""
    choices = reply.get("choices") if isinstance(reply, dict) else None
    if not (isinstance(choices, list) and choices and isinstance(choices[0], dict)):
        raise ValueError("it has no choices")
    return {name: reply[name] for name in KEPT if reply.get(name) is not None}


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a server asks to wait, given as seconds or as a date (RFC 9110)."""
    written = headers.get("retry-after")
    if written is None:
        return None
    try:
        seconds = float(written)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(written).timestamp() - time.time()
        except ValueError:
            return None
    return min(max(seconds, 0.0), LONGEST_WAIT_S)


def _open_sdk(address: Address) -> AsyncOpenAI:
    from openai import AsyncOpenAI, DefaultAioHttpClient

    return AsyncOpenAI(
        http_client=DefaultAioHttpClient(),  # the usual one is slow with many connections
        base_url=address.base_url,
        api_key=address.key,
        timeout=address.timeout_s,
        max_retries=0,  # every attempt is paid from the ledger
    )
