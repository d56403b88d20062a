"""What the missing answers of an endpoint take and cost, before anything is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from distill_tasks.llm.client import BYTES_PER_TOKEN, Address
from distill_tasks.llm.labelling import Labeller
from distill_tasks.llm.ledger import Usual, most_tokens

TOKENS_AROUND = 4
"""Tokens that a chat template usually writes around one message."""


@dataclass(frozen=True)
class Estimate:
    """What a teacher's missing answers take and cost."""

    rows: int
    """Rows that it has not answered."""
    requests: int
    prompt_tokens: int
    completion_tokens: int
    price: float
    """What they cost, in the currency of the prices."""
    highest: float
    """What they cost at most, every request once."""
    seconds: float | None
    """None before any request was timed."""
    measured: bool
    """Whether tokens are those of earlier requests; else four bytes are taken for one."""
    spent: float
    """What was spent before."""


def join_estimates(estimates: Sequence[Estimate]) -> Estimate:
    """Return what the answers of several teachers take together, one asked after the other."""
    timed = [one.seconds for one in estimates if one.seconds is not None]
    return Estimate(
        rows=max(one.rows for one in estimates),
        requests=sum(one.requests for one in estimates),
        prompt_tokens=sum(one.prompt_tokens for one in estimates),
        completion_tokens=sum(one.completion_tokens for one in estimates),
        price=sum(one.price for one in estimates),
        highest=sum(one.highest for one in estimates),
        seconds=sum(timed) if len(timed) == len(estimates) else None,
        measured=all(one.measured for one in estimates),
        spent=sum(one.spent for one in estimates),
    )


@dataclass(frozen=True)
class Load:
    """What requests are taken to hold, before any was counted."""

    requests: int
    prompt_tokens: float
    completion_tokens: float
    most_prompt_tokens: int
    most_completion_tokens: int


def estimate(
    texts: Sequence[str], labeller: Labeller, address: Address, usual: Usual | None, spent: float
) -> Estimate:
    """Return what the answers to texts cost; ``usual`` is what earlier calls took."""
    forward = range(len(labeller.prompt.classes))
    each = labeller.usual_requests
    contents = [
        [message["content"] for message in labeller.prompt.messages(text, forward)]
        for text in texts
    ]
    requests = each * len(texts)
    load = Load(
        requests=requests,
        prompt_tokens=each * sum(map(usual_tokens, contents)),
        completion_tokens=float(requests),
        most_prompt_tokens=each * sum(map(most_tokens, contents)),
        most_completion_tokens=requests * labeller.most_answer_tokens,
    )
    return price(len(texts), load, address, usual=usual, spent=spent)


def price(
    rows: int, load: Load, address: Address, *, usual: Usual | None, spent: float
) -> Estimate:
    """Return what a load takes and costs; what calls usually took stands for what is assumed."""
    requests, prices = load.requests, address.price
    prompt, completion = load.prompt_tokens, load.completion_tokens
    if usual is not None:
        prompt, completion = requests * usual.prompt_tokens, requests * usual.completion_tokens
    return Estimate(
        rows=rows,
        requests=requests,
        prompt_tokens=round(prompt),
        completion_tokens=round(completion),
        price=prices.of(round(prompt), round(completion)),
        highest=prices.of(load.most_prompt_tokens, load.most_completion_tokens),
        seconds=None if usual is None else _time(requests, prompt + completion, usual, address),
        measured=usual is not None,
        spent=spent,
    )


def usual_tokens(contents: Sequence[str]) -> float:
    """Return about how many tokens a chat is."""
    return sum(len(content.encode()) / BYTES_PER_TOKEN + TOKENS_AROUND for content in contents)


def _time(requests: int, tokens: float, usual: Usual, address: Address) -> float:
    """Return the seconds that requests take, by their latency and the rate limits."""
    seconds = [requests * usual.seconds / address.concurrency]
    if address.requests_per_minute is not None:
        seconds.append(60 * requests / address.requests_per_minute)
    if address.tokens_per_minute is not None:
        seconds.append(60 * tokens / address.tokens_per_minute)
    return max(seconds)
