"""The pretended language model of this example: it knows most tickets, and takes some for another.

It looks up what a ticket is about in data/truth.parquet and blurs it: the class that the ticket
mentions beside its own matter, and classes alike, get a part of the probability, now and then the
largest. It also writes tickets, and knows what it wrote them about. A text it has not seen (yours,
or one cut to length) is taken for the ticket that shares most words with it.
"""

from __future__ import annotations

import functools
import json
import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
from make_data import DATA, Ticket, Writer, read_phrases

SURE, TEMPTED, ALIKE = 4.9, 1.4, 0.8
"""Logits of the true class, of the one mentioned beside it and of those alike; others have 0."""
SPREAD = 1.15
"""Standard deviation of what each logit gains, the same whenever a ticket is asked about."""
WRITTEN = DATA / "written.jsonl"
"""The tickets that it wrote itself, whose class it knows as well."""
REPEATED, AGAIN = 0.2, ("Thanks!", "Please help.", "Regards")
"""Share of written tickets that are the one before, and what is added to it."""


def judge(text: str, classes: Sequence[str]) -> list[float]:
    """Return the probability of each class (classes,); classes it has not heard of get a little."""
    ticket = find_ticket(text)
    draw = random.Random(f"oracle {ticket.text}")  # noqa: S311
    logits = {}
    for name in sorted(read_classes()):
        alike = ALIKE if name in read_alike()[ticket.label] else 0.0
        tempted = TEMPTED if name == ticket.other else 0.0
        own = SURE if name == ticket.label else alike + tempted
        logits[name] = own + draw.gauss(0, SPREAD)
    weights = [math.exp(logits.get(name, -4.0)) for name in classes]
    return [weight / sum(weights) for weight in weights]


def find_ticket(text: str) -> Ticket:
    """Return the ticket of a text, or the one that shares most words with it."""
    key = simplify(text)
    return read_tickets().get(key) or read_written().get(key) or find_nearest(key)


def write(label: str, count: int, draw: random.Random) -> list[str]:
    """Return tickets of a class as a model writes them: now and then much like the one before."""
    writer, written = Writer(read_phrases(), draw.getrandbits(32)), read_written()
    tickets: list[Ticket] = []
    while len(tickets) < count:
        if tickets and draw.random() < REPEATED:
            again = f"{tickets[-1].text} {draw.choice(AGAIN)}"
            tickets.append(replace(tickets[-1], text=again))
        else:
            tickets.append(writer.write(label))
    written |= {simplify(ticket.text): ticket for ticket in tickets}
    with WRITTEN.open("a", encoding="utf-8") as file:
        file.writelines(f"{json.dumps(vars(ticket))}\n" for ticket in tickets)
    return [ticket.text for ticket in tickets]


@functools.cache
def read_written() -> dict[str, Ticket]:
    """Return the tickets that it wrote itself, also before it was started anew."""
    lines = WRITTEN.read_text(encoding="utf-8").splitlines() if WRITTEN.exists() else []
    return {simplify(one["text"]): Ticket(**one) for one in map(json.loads, lines)}


@functools.cache
def find_nearest(text: str) -> Ticket:
    """Return the ticket that shares most words with a text, rare words counting more."""
    words = set(text.split())
    frequency = count_words()
    return max(
        read_tickets().items(),
        key=lambda pair: math.fsum(1 / frequency[word] for word in words & set(pair[0].split())),
    )[1]


def simplify(text: str) -> str:
    """Return a text in small letters, with one space between words."""
    return " ".join(text.lower().split())


@functools.cache
def read_tickets() -> dict[str, Ticket]:
    """Return all tickets by their simplified texts."""
    rows = pd.read_parquet(DATA / "truth.parquet")
    tickets = [Ticket(*row) for row in rows.itertuples(index=False)]
    return {simplify(ticket.text): ticket for ticket in tickets}


@functools.cache
def count_words() -> Counter[str]:
    """Return in how many tickets each word occurs."""
    return Counter(word for text in read_tickets() for word in set(text.split()))


@functools.cache
def read_classes() -> tuple[str, ...]:
    """Return the names of the classes."""
    return tuple(read_phrases()["classes"])


@functools.cache
def read_alike() -> dict[str, set[str]]:
    """Return for each class those that are alike."""
    pairs = [*read_phrases()["alike"]]
    return {
        name: {other for pair in pairs if name in pair for other in pair if other != name}
        for name in read_classes()
    }
