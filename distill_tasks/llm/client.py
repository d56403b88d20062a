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
from distill_tasks.core.errors import InputError, PotstillError
from distill_tasks.llm.ledger import FREE, Ledger, Price, most_tokens
from distill_tasks.llm.prompt import Message

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

logger = logging.getLogger("potstill")

ATTEMPTS = 6
"""How often one request is tried before the endpoint counts as failed."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 60.0
"""Between attempts: the mean of the first wait, which doubles, and the longest one."""
REFUSED = "refused"
"""The key of a reply that is none: why the endpoint refuses this row, whatever is done."""
BYTES_PER_TOKEN = 4
"""What a token usually holds, for limits of tokens per minute and for estimates."""
KEPT = "choices", "usage", "model", "system_fingerprint"
"""What is kept of a reply."""


class EndpointError(PotstillError):
    """The endpoint does not answer."""


class BrokenRequestError(EndpointError):
    """The endpoint fails at this very request, however often it is sent.

    Some servers answer so what they do not support.
    """


@dataclass(frozen=True)
class Address:
    """Where an endpoint is and what it is asked for."""

    base_url: str
    model: str
    key: str
    price: Price = FREE
    timeout_s: float = 60.0
    concurrency: int = 32
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


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
        prompt_tokens = most_tokens([message["content"] for message in messages])
        answer_tokens = options.get("n", 1) * most
        worst = self.address.price.of(prompt_tokens, answer_tokens)
        body = {"messages": messages, limit_name: most, **options}
        async with self._places:
            for attempt in range(1, ATTEMPTS + 1):
                await self._requests.take(1)
                await self._tokens.take(prompt_tokens / BYTES_PER_TOKEN + answer_tokens)
                call = self.ledger.reserve(request, worst)
                wait_s = await self._try(call, worst, body, attempt)
                if not isinstance(wait_s, float):
                    return wait_s
                await asyncio.sleep(wait_s)
        raise AssertionError("the last attempt returns or raises")

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
                raise InputError(_say_status(error, self.address)) from None
        except openai.APIError as error:
            reason = mask_credentials(str(error.__cause__ or error).splitlines()[0])
            raise InputError(
                f"{self.address.base_url} cannot be reached: {reason}. Start that server, or "
                "correct teacher.base_url."
            ) from None

    async def _try(
        self, call: int, worst: float, body: dict[str, Any], attempt: int
    ) -> dict[str, Any] | float:
        """Return the reply to one attempt, or the seconds to wait for the next one."""
        import httpx2
        import openai

        address, began = self.address, time.monotonic()
        try:
            given = await self._sdk.post(
                "/chat/completions", body={"model": address.model, **body}, cast_to=httpx2.Response
            )
            reply = read_reply(given.text)
        except openai.APIStatusError as error:
            if refusal := _find_refusal(error):
                self.ledger.settle(call, 0.0, refusal)
                return refusal
            if error.status_code < 500:
                self.ledger.release(call)
            if not _may_pass(error):
                raise InputError(_say_status(error, address)) from None
            broken = BrokenRequestError if error.status_code == 500 else EndpointError
            said = _say_status(error, address)
            return self._wait(attempt, said, error.response.headers, broken)
        except openai.APITimeoutError:
            return self._wait(attempt, f"gave no answer within {address.timeout_s:g} s")
        except openai.APIConnectionError as error:
            reason = mask_credentials(str(error.__cause__ or error).splitlines()[0])
            return self._wait(attempt, f"cannot be reached: {reason}")
        except ValueError as error:
            return self._wait(attempt, f"gave an answer that is no reply: {error}")
        usage = reply.get("usage") or {}
        counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
        counted = [count for count in counts if isinstance(count, int)]
        cost = address.price.of(*counted) if len(counted) == len(counts) else worst
        self.ledger.settle(call, cost, reply, time.monotonic() - began)
        return reply

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
        told = read_retry_after(headers or {})
        doubled = FIRST_WAIT_S * 2 ** (attempt - 1)
        wait_s: float = min(doubled, LONGEST_WAIT_S) * random.uniform(0.5, 1.5)  # noqa: S311  # no secret
        return wait_s if told is None else told + wait_s * 0.2


def read_reply(text: str) -> dict[str, Any]:
    """Return what is kept of a reply; raise ValueError unless it is one."""
    reply = json.loads(text)
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


def _find_refusal(error: APIStatusError) -> dict[str, Any] | None:
    """Return why this row alone is refused, as a reply; None for errors that concern all rows."""
    told = f"{error.code or ''} {_message(error)}".lower()
    if error.status_code in (400, 413, 422):
        if "context" in told and ("length" in told or "window" in told or "size" in told):
            return {REFUSED: "longer than the model's context"}
        if "content_filter" in told or "content policy" in told or "content management" in told:
            return {REFUSED: "refused by a content filter"}
    return None


def _may_pass(error: APIStatusError) -> bool:
    """Return whether the same request may succeed later."""
    if error.status_code == 429:
        return "quota" not in f"{error.code or ''} {error.type or ''}"
    return error.status_code in (408, 409, 425) or error.status_code >= 500


def _say_status(error: APIStatusError, address: Address) -> str:
    """Return what an endpoint's error means, and what to do."""
    status, told = error.status_code, mask_credentials(_message(error))[:200]
    if status in (401, 403):
        return (
            f"{address.base_url} does not accept the key (HTTP {status}). Put a valid one into the "
            "environment variable that teacher.api_key_env names."
        )
    if status == 404:
        return (
            f"{address.base_url} has no model {address.model!r} (HTTP 404: {told}). Correct "
            "teacher.model or teacher.base_url."
        )
    return f"{address.base_url} answered HTTP {status}: {told}"


def _message(error: APIStatusError) -> str:
    body = error.body
    found = body.get("message") if isinstance(body, dict) else None
    return str(found or error.message)
