"""What the missing answers of an endpoint take and cost, before anything is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace

from distill_tasks.llm.client import BYTES_PER_TOKEN, Address
from distill_tasks.llm.labelling import Labeller
from distill_tasks.llm.ledger import Price, Usual, most_tokens

TOKENS_AROUND = 4
"""Tokens that a chat template usually writes around one message."""


@dataclass(frozen=True)
class Estimate:
    """What a teacher's missing answers take and cost."""

    rows: int
    """Rows that it has not answered."""
    again: int
    """Rows that it is asked again: for the audit, and to see whether it has changed."""
    requests: int
    prompt_tokens: int
    completion_tokens: int
    price: float
    """What they cost, in the currency of the prices."""
    highest: float
    """What they cost at most, every request once."""
    seconds: float | None
    """None before any request was timed, and where rows wait for batches."""
    in_batches: bool
    """Whether rows are asked in batches."""
    measured: bool
    """Whether tokens are those of earlier requests; else four bytes are taken for one."""
    spent: float
    """What was spent before."""


def join_estimates(estimates: Sequence[Estimate]) -> Estimate:
    """Return what the answers of several teachers take together, one asked after the other."""
    timed = [one.seconds for one in estimates if one.seconds is not None]
    return Estimate(
        rows=max(one.rows for one in estimates),
        again=sum(one.again for one in estimates),
        requests=sum(one.requests for one in estimates),
        prompt_tokens=sum(one.prompt_tokens for one in estimates),
        completion_tokens=sum(one.completion_tokens for one in estimates),
        price=sum(one.price for one in estimates),
        highest=sum(one.highest for one in estimates),
        seconds=sum(timed) if len(timed) == len(estimates) else None,
        in_batches=any(one.in_batches for one in estimates),
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
    missing: Sequence[str],
    labeller: Labeller,
    usual: Usual | None,
    *,
    again: Sequence[str],
    compared: Sequence[str],
    spent: float,
) -> Estimate:
    """Return what the answers to missing texts, and to those asked again, cost.

    ``compared`` are asked again to see whether the endpoint has changed, and never in batches;
    ``usual`` is what earlier calls took.
    """
    address = labeller.client.address
    price = address.batch_price or address.price
    first = _add_up([*missing, *again], labeller, usual, price)
    whole = first + _add_up(compared, labeller, usual, address.price)
    found = _describe(whole, len(missing), address, usual=usual, spent=spent)
    found = replace(found, again=len(again) + len(compared))
    in_batches = address.batch_price is not None
    return replace(found, in_batches=True, seconds=None) if in_batches else found


@dataclass(frozen=True)
class _Sum:
    """What some requests take together."""

    requests: int
    prompt_tokens: float
    completion_tokens: float
    price: float
    highest: float

    def __add__(self, other: _Sum) -> _Sum:
        pairs = zip(astuple(self), astuple(other), strict=True)
        return _Sum(*(one + two for one, two in pairs))


def _add_up(texts: Sequence[str], labeller: Labeller, usual: Usual | None, price: Price) -> _Sum:
    """Return what the answers to texts take, all of them asked once."""
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
    return _take(load, usual, price)


def _take(load: Load, usual: Usual | None, price: Price) -> _Sum:
    """Return what a load takes; what calls usually took stands for what is assumed."""
    prompt, completion = load.prompt_tokens, load.completion_tokens
    if usual is not None:
        prompt, completion = (
            load.requests * usual.prompt_tokens,
            load.requests * usual.completion_tokens,
        )
    highest = price.of(load.most_prompt_tokens, load.most_completion_tokens)
    usually = price.of(round(prompt), round(completion))
    return _Sum(load.requests, prompt, completion, usually, highest)


def estimate_load(
    rows: int, load: Load, address: Address, *, usual: Usual | None, spent: float
) -> Estimate:
    """Return what a load takes and costs for so many rows, none of them in batches."""
    whole = _take(load, usual, address.price)
    return _describe(whole, rows, address, usual=usual, spent=spent)


def _describe(
    whole: _Sum, rows: int, address: Address, *, usual: Usual | None, spent: float
) -> Estimate:
    """Return the estimate of requests that are sent one by one."""
    return Estimate(
        rows=rows,
        again=0,
        requests=whole.requests,
        prompt_tokens=round(whole.prompt_tokens),
        completion_tokens=round(whole.completion_tokens),
        price=whole.price,
        highest=whole.highest,
        seconds=None if usual is None else _time(whole, usual, address),
        in_batches=False,
        measured=usual is not None,
        spent=spent,
    )


def usual_tokens(contents: Sequence[str]) -> float:
    """Return about how many tokens a chat is."""
    return sum(len(content.encode()) / BYTES_PER_TOKEN + TOKENS_AROUND for content in contents)


def _time(whole: _Sum, usual: Usual, address: Address) -> float:
    """Return the seconds that requests take, by their latency and the rate limits."""
    seconds = [whole.requests * usual.seconds / address.concurrency]
    if address.requests_per_minute is not None:
        seconds.append(60 * whole.requests / address.requests_per_minute)
    if address.tokens_per_minute is not None:
        tokens = whole.prompt_tokens + whole.completion_tokens
        seconds.append(60 * tokens / address.tokens_per_minute)
    return max(seconds)
