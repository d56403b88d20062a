"""The probe of an endpoint: one row tells which kinds of soft labels it really gives."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from distill_tasks.core.errors import InputError
from distill_tasks.llm.client import Client
from distill_tasks.llm.distributions import UnusableError, from_top_logprobs
from distill_tasks.llm.failures import BrokenRequestError
from distill_tasks.llm.labelling import (
    CONSTRAINED_TOKENS,
    SAMPLED,
    Method,
    Way,
    describe_constraint,
    find_code,
    read_contents,
    read_listed,
)
from distill_tasks.llm.prompt import Prompt

REFUSALS = UnusableError, InputError, BrokenRequestError
"""What shows that an endpoint does not give something: some fail instead of refusing."""
CAPS = 20, 5
"""How many log-probabilities are asked for: what vLLM and OpenAI list, and what others do."""


class NoMethodError(InputError):
    """An endpoint gives none of the kinds of soft labels that it may be asked for."""


@dataclass(frozen=True)
class Probe:
    """What an endpoint gives, and which model it says it served."""

    way: Way
    served: str
    why_not: dict[str, str]
    """Why the better methods do not work, by their names."""


async def probe(
    client: Client, prompt: Prompt, text: str, wanted: Way, method: Method | None
) -> Probe:
    """Return how an endpoint is best asked, from a few requests about one text.

    ``method`` is the only one tried; by default the best one that works is found. Raises
    NoMethodError if it does not work, naming those that do.
    """
    one = _Prober(client, prompt, text, wanted)
    await one.find_limit()
    why_not: dict[str, str] = {}
    found: Way | None = None
    tries: dict[Method, Callable[[], Awaitable[Way]]] = {
        "token_logprobs": one.try_token_logprobs,
        "top_logprobs": one.try_top_logprobs,
        "votes": one.try_votes,
    }
    if method == "verbalised":
        found = replace(one.way, method="verbalised")
    for name, attempt in tries.items():
        if found is not None or method not in (None, name):
            continue
        try:
            found = await attempt()
        except REFUSALS as error:
            why_not[name] = str(error)
    if found is None:
        raise NoMethodError(await one.say_failure(method, why_not, tries))
    held = await one.is_constrained()
    return Probe(replace(found, constrained=held), one.served, why_not)


class _Prober:
    """Asks about one text in several ways."""

    def __init__(self, client: Client, prompt: Prompt, text: str, way: Way) -> None:
        self.client, self.prompt, self.way = client, prompt, way
        self.messages = prompt.messages(text, range(len(prompt.classes)))
        self.served = ""
        self.asked = 0

    async def ask(self, most: int, **options: Any) -> dict[str, Any]:
        """Return the reply to one request."""
        self.asked += 1
        reply = await self.client.complete(
            f"probe-{self.prompt.digest}-{self.asked}",
            self.messages,
            most,
            limit_name=self.way.limit,
            **options,
        )
        self.served = str(reply.get("model", self.served))
        return reply

    async def find_limit(self) -> None:
        """Find what the endpoint calls the most tokens of an answer, and whether it answers."""
        try:
            await self.ask(self.way.answer_tokens)
        except InputError as error:
            if "max_completion_tokens" not in str(error):
                raise
            self.way = replace(self.way, limit="max_completion_tokens")
            await self.ask(self.way.answer_tokens)

    async def try_token_logprobs(self) -> Way:
        """Ask for the log-probabilities of the codes' tokens, as vLLM gives them."""
        ids = await find_token_ids(self.client, self.prompt.codes)
        way = replace(self.way, method="token_logprobs", token_ids=ids, answer_tokens=1)
        listed = read_listed(await self.ask(1, **way.options))
        said = {token.strip() for token, _ in listed}
        if missing := [code for code in self.prompt.codes if code not in said]:
            raise UnusableError(
                "empty", f"token ids are accepted and ignored: {missing[0]} is not listed"
            )
        from_top_logprobs(listed, self.prompt.codes)
        return way

    async def try_top_logprobs(self) -> Way:
        """Ask for the most likely tokens, as many as the endpoint lists."""
        refusal = UnusableError("empty", "no log-probabilities")
        for top in CAPS:
            way = replace(self.way, method="top_logprobs", top=top, answer_tokens=1)
            try:
                listed = read_listed(await self.ask(1, **way.options))
            except (InputError, BrokenRequestError) as error:
                refusal = UnusableError("empty", str(error))
                continue
            from_top_logprobs(listed, self.prompt.codes)
            return way
        raise refusal

    async def try_votes(self) -> Way:
        """Ask for samples, several in one reply where the endpoint gives them."""
        try:
            reply = await self.ask(self.way.answer_tokens, n=self.way.samples, **SAMPLED)
            several = len(read_contents(reply)) == self.way.samples
        except (InputError, BrokenRequestError):
            reply, several = await self.ask(self.way.answer_tokens, **SAMPLED), False
        contents = read_contents(reply)
        if all(find_code(content, self.prompt.codes) is None for content in contents):
            said = contents[0][:60] if contents else ""
            raise UnusableError("off_list", f"the answer is none of the codes: {said!r}")
        return replace(self.way, method="votes", several=several)

    async def is_constrained(self) -> bool:
        """Return whether the endpoint can be held to the codes."""
        try:
            reply = await self.ask(
                CONSTRAINED_TOKENS, response_format=describe_constraint(self.prompt.codes)
            )
        except (InputError, BrokenRequestError):
            return False
        contents = read_contents(reply)
        return bool(contents) and find_code(contents[0], self.prompt.codes) is not None

    async def say_failure(
        self, method: Method | None, why_not: dict[str, str], tries: dict[Method, Any]
    ) -> str:
        """Return why a method does not work, and which ones do."""
        address = self.client.address
        if method is None:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in why_not.items())
            return f"{address.base_url} gives no soft labels. {reasons}."
        working = []
        for name, attempt in tries.items():
            if name != method:
                try:
                    await attempt()
                    working.append(name)
                except REFUSALS:
                    continue
        works = f"What works here: {', '.join(working)}." if working else "No other one works."
        return (
            f"teacher.method is {method}, which {address.base_url} does not give: "
            f"{why_not[method]}. {works}"
        )


async def find_token_ids(client: Client, codes: tuple[str, ...]) -> tuple[int, ...]:
    """Return the number of each code's token, from a server that tokenizes (vLLM's `/tokenize`).

    Raises UnusableError where there is none, or a code is no single token.
    """
    found = []
    for code in codes:
        tokens = await client.tokenize(code)
        if tokens is None:
            raise UnusableError(
                "empty", "the server has no /tokenize, which tells the codes' tokens"
            )
        if len(tokens) != 1:
            raise UnusableError("off_list", f"the code {code} is {len(tokens)} tokens")
        found.append(tokens[0])
    return tuple(found)
