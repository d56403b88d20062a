"""Write the support tickets of this example: 700 with gold labels, 3,000 without, 1,000 held out.

A ticket says what happened and mostly asks for something, each in one of many ways; it may mention
a matter that it is not about, or tell one that is settled, and has typing errors. Words alone
therefore tell much and not all, and a few hundred tickets do not hold all the words. The phrases
lie in phrases.yaml. What each ticket is about also goes to data/truth.parquet, for the pretended
language model alone (oracle.py): nothing else may read it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

HERE = Path(__file__).parent
DATA = HERE / "data"
SEED = 20
ROWS = {"train": 400, "validation": 300, "transfer": 3000, "held_out": 1000}
ASKS, SETTLED, MENTIONS = 0.6, 0.35, 0.6
"""Shares of tickets that ask for something, tell a settled matter too, and mention another."""
SHARES = [3, 3, 2, 2, 2, 2, 3, 2, 2, 3, 2, 3, 2, 1, 1]
"""How the tickets are shared among the classes, in the order of phrases.yaml."""
TYPING_ERRORS = 0.07
"""Share of words with an error."""
CHOICE, SLOT = re.compile(r"\[([^\[\]]*)\]"), re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Ticket:
    """A ticket, the class it is about, and another that it speaks of; empty if none."""

    text: str
    label: str
    other: str


class Writer:
    """Writes tickets out of phrases."""

    def __init__(self, phrases: dict[str, Any], seed: int) -> None:
        self.phrases = phrases
        self.classes: dict[str, dict[str, list[str]]] = phrases["classes"]
        self.lists = {name: split(words) for name, words in phrases["slots"].items()}
        self.draw = random.Random(seed)  # noqa: S311

    def write(self, label: str) -> Ticket:
        """Return a ticket about a class."""
        own, other = self.classes[label], ""
        sentences = [self.say(own["says"])]
        if self.happens(ASKS):
            sentences.append(self.say(own["asks"]))
        if self.happens(MENTIONS):
            other = self.draw.choice([name for name in self.classes if name != label])
            place = self.draw.randint(0, len(sentences))
            sentences.insert(place, self.say(self.classes[other]["mentions"]))
        if self.happens(SETTLED):
            other = self.draw.choice(self.list_alike(label))
            matter = self.say(self.classes[other]["says"])
            settled = f"{matter}. {self.say(self.phrases['settled'])}"
            sentences = [settled, *sentences] if self.happens(0.5) else [*sentences, settled]
        return Ticket(self.finish(sentences), label, other)

    def happens(self, share: float) -> bool:
        """Draw whether something happens."""
        return self.draw.random() < share

    def list_alike(self, label: str) -> list[str]:
        """Return the classes that are alike one."""
        pairs = [pair for pair in self.phrases["alike"] if label in pair]
        return [name for pair in pairs for name in pair if name != label]

    def say(self, phrases: Sequence[str]) -> str:
        """Return one of the phrases, with its choices made and its slots filled."""
        phrase = self.draw.choice(phrases)
        phrase = CHOICE.sub(lambda found: self.draw.choice(found[1].split("|")), phrase)
        return SLOT.sub(lambda found: self.fill(found[1]), phrase)

    def fill(self, slot: str) -> str:
        """Return a word for a slot."""
        if slot == "number":
            return str(self.draw.randint(10_000, 99_999))
        return self.draw.choice(self.lists[slot])

    def finish(self, sentences: list[str]) -> str:
        """Return sentences as a customer types them."""
        if self.happens(0.5):
            sentences.insert(
                self.draw.randint(0, len(sentences)), self.say(self.phrases["fillers"])
            )
        if self.happens(0.6):
            sentences.insert(0, self.draw.choice(split(self.phrases["openings"])))
        if self.happens(0.5):
            sentences.append(self.draw.choice(split(self.phrases["closings"])))
        stop = self.draw.choice([". ", ". ", ", ", "! ", "\n", " - "])
        text = " ".join(map(self.mistype, stop.join(sentences).split(" ")))
        return text if self.happens(0.6) else text[0].upper() + text[1:]

    def mistype(self, word: str) -> str:
        """Return a word, now and then with two letters exchanged, one left out or one doubled."""
        if len(word) < 4 or not self.happens(TYPING_ERRORS):
            return word
        at = self.draw.randint(1, len(word) - 3)
        exchanged = word[at + 1] + word[at]
        middle = self.draw.choice([exchanged, word[at], word[at] * 2 + word[at + 1]])
        return word[:at] + middle + word[at + 2 :]


def split(words: str) -> list[str]:
    """Return what stands between commas."""
    return [word.strip() for word in words.split(",")]


def write_tickets(rows: int, seed: int) -> pd.DataFrame:
    """Return so many tickets, no two alike, with columns text, label and other."""
    writer = Writer(read_phrases(), seed)
    tickets: dict[str, Ticket] = {}
    while len(tickets) < rows:
        [label] = writer.draw.choices(list(writer.classes), SHARES)
        ticket = writer.write(label)
        tickets[ticket.text] = ticket
    return pd.DataFrame([vars(ticket) for ticket in tickets.values()])


def read_phrases() -> dict[str, Any]:
    """Return the classes with their phrases."""
    phrases: dict[str, Any] = yaml.safe_load((HERE / "phrases.yaml").read_text(encoding="utf-8"))
    return phrases


def main() -> None:
    """Write the splits, and the truth for the oracle."""
    DATA.mkdir(exist_ok=True)
    tickets = write_tickets(sum(ROWS.values()), SEED)
    tickets.to_parquet(DATA / "truth.parquet", index=False)
    start = 0
    for name, rows in ROWS.items():
        columns = ["text"] if name == "transfer" else ["text", "label"]
        split_rows = tickets.iloc[start : start + rows][columns]
        split_rows.to_parquet(DATA / f"{name}.parquet", index=False)
        start += rows
        print(f"{name}: {rows:,} tickets")


if __name__ == "__main__":
    main()
