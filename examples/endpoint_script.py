"""What the scripted endpoint plays: what it can do, what goes wrong, and what it costs."""

from __future__ import annotations

import hashlib
import json
import random
import threading
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, TextIO

from endpoint_model import Flaws, draw_share


class Fault(StrEnum):
    """What can happen to a request instead of a good answer."""

    NONE = "none"
    RATE_LIMITED = "rate_limited"
    """429 with Retry-After, at once."""
    SERVER_ERROR = "server_error"
    """500, after the latency."""
    UNAVAILABLE = "unavailable"
    """503, at once."""
    SILENT = "silent"
    """No answer ever; the client has to give up."""
    TRUNCATED = "truncated"
    """200, with half of the JSON."""
    DROPPED = "dropped"
    """The connection is closed after the latency."""
    OFF_LIST = "off_list"
    """The model says something that is no option, unless a grammar forbids it."""
    REFUSED = "refused"
    """The model refuses, in ``message.refusal``."""


FREE = {Fault.RATE_LIMITED, Fault.SERVER_ERROR, Fault.UNAVAILABLE}
"""Faults for which nothing is charged: the model has not worked."""
BROKEN = {Fault.SILENT, Fault.TRUNCATED, Fault.DROPPED}
"""Faults after which the model's work is charged and does not arrive."""
OF_THE_TEXT = {Fault.OFF_LIST, Fault.REFUSED}
"""Faults that a rate gives to certain texts, each time they are asked, and not to requests."""


@dataclass
class Script:
    """What the endpoint plays; it may be changed while it runs."""

    model: str = "oracle-large"
    """The name that requests must give."""
    served_model: str = "oracle-2026-01-01"
    """The name that answers give; empty repeats the request's."""
    system_fingerprint: str = "fp_1"
    api_key: str = ""
    """The key that requests must carry; empty takes any."""
    latency_ms: float = 0.0
    seed: int = 0
    flaws: Flaws = field(default_factory=Flaws)

    rates: dict[str, float] = field(default_factory=dict)
    """By fault, the share of requests (for off_list and refused of texts) that it happens to."""
    scripted: list[Fault] = field(default_factory=list)
    """Faults of the first requests, in their order; rates rule after them."""
    retry_after_s: float = 1.0
    retry_after_date: bool = False
    """Give Retry-After as an HTTP date, not as seconds."""

    logprobs: Literal["given", "ignored", "zeros", "empty", "refused", "fails"] = "given"
    """`fails` is an HTTP 500 each time, which llama-cpp-python says of what it does not do."""
    max_top_logprobs: int = 20
    over_cap: Literal["refused", "cut"] = "refused"
    """What happens to a request for more of them."""
    ignores_n: bool = False
    max_n: int = 10_000
    """Answers in one reply; more are refused."""
    response_format: Literal["honoured", "ignored", "refused", "fails"] = "honoured"
    """The same goes for vLLM's structured_outputs."""
    token_ids: bool = False
    """Whether it has vLLM's /tokenize and logprob_token_ids."""
    digits_apart: bool = False
    """Whether each digit is a token of its own."""
    context_tokens: int = 8192
    batches: bool = True
    batch_polls: int = 2
    """How often a batch is in progress when asked for, before it is completed."""
    batch_expires: bool = False
    """Whether a batch ends with half of its lines unanswered."""
    batch_most_lines: int = 50_000
    """Lines of a batch at most; one with more fails, since the queue is full."""
    lost_batches: int = 0
    """Of how many batches that are made the client is not told, since the connection breaks."""

    input_price: float = 0.0
    """For a million tokens; a batch costs half."""
    output_price: float = 0.0
    characters_per_token: float = 4.0

    def draw_fault(self, number: int, text: str) -> Fault:
        """Return what happens to the request of this number, counted from 0."""
        if number < len(self.scripted):
            return Fault(self.scripted[number])
        draws = {
            False: random.Random(f"{self.seed}-fault-{number}").random(),  # noqa: S311
            True: draw_share(text, f"{self.seed}-fault"),
        }
        for fault, rate in self.rates.items():
            source = fault in OF_THE_TEXT
            draws[source] -= rate
            if draws[source] < 0:
                return Fault(fault)
        return Fault.NONE

    def count_tokens(self, text: str) -> int:
        """Return about how many tokens a text has."""
        return max(1, round(len(text) / self.characters_per_token))


@dataclass(frozen=True)
class Entry:
    """One request, as the endpoint saw and charged it."""

    number: int
    at: float
    """Seconds since 1970."""
    kind: Literal["chat", "batch"]
    prompt: str
    """Digest of the messages."""
    text: str
    """Digest of the text that is to be classified."""
    constrained: bool
    prompt_tokens: int
    completion_tokens: int
    price: float
    fault: Fault
    status: int
    """Of the HTTP response."""
    in_flight: int
    """How many requests were open, this one among them."""

    @property
    def answered(self) -> bool:
        """Whether a whole answer went out, be it off-list or a refusal."""
        return self.status == 200 and self.fault not in BROKEN


class Ledger:
    """Every request that reached the endpoint, in memory and as one JSON line each in a file.

    A request is entered when it arrives, as a provider charges it: a client that is killed pays for
    what was in flight.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.entries: list[Entry] = []
        self.file: TextIO | None = None
        self.writing = threading.Lock()
        if path is not None:
            self.file = path.open("a+", buffering=1, encoding="utf-8")
            self.file.seek(0)
            self.entries = [Entry(**json.loads(line)) for line in self.file]

    def __len__(self) -> int:
        return len(self.entries)

    def enter(self, entry: Entry) -> None:
        """Add a request."""
        with self.writing:
            self.entries.append(entry)
            if self.file is not None:
                self.file.write(json.dumps(vars(entry)) + "\n")

    @property
    def spent(self) -> float:
        """The price of all requests."""
        return sum(entry.price for entry in list(self.entries))

    @property
    def tokens(self) -> int:
        """The tokens of all requests that were charged, in and out."""
        charged = [entry for entry in list(self.entries) if entry.fault not in FREE]
        return sum(entry.prompt_tokens + entry.completion_tokens for entry in charged)

    @property
    def most_in_flight(self) -> int:
        """How many requests were open at once, at most."""
        return max((entry.in_flight for entry in list(self.entries)), default=0)

    def find_asked_twice(self) -> dict[str, int]:
        """Return the prompts that were answered more than once, with how often."""
        answered = Counter(
            (entry.prompt, entry.constrained) for entry in list(self.entries) if entry.answered
        )
        return {prompt: times for (prompt, _), times in answered.items() if times > 1}


def digest(value: Any) -> str:
    """Return a short digest of anything that JSON can hold."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=8).hexdigest()


def read_ledger(path: Path) -> Ledger:
    """Return what is entered so far into the ledger of an endpoint in another process."""
    ledger = Ledger()
    ledger.entries = [Entry(**json.loads(line)) for line in path.read_text().splitlines()]
    return ledger
