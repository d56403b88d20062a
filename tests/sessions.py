"""Sessions with the scripted endpoint about rows whose truth is known; also in a process to kill.

Run as a program with an address and a folder, it labels all rows in batches.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from answering import judge
from samples import CLASSES, make_rows

from distill_tasks.data.corpus import Corpus, Split
from distill_tasks.llm import batch_api
from distill_tasks.llm.client import Address
from distill_tasks.llm.codes import choose_codes
from distill_tasks.llm.distributions import Distribution
from distill_tasks.llm.labelling import Answer, Way
from distill_tasks.llm.ledger import Ledger, Limits, Price
from distill_tasks.llm.prompt import PromptConfig
from distill_tasks.llm.session import Session

TEXTS = list(dict.fromkeys(make_rows(60, seed=1)["text"]))
TRUTH = {text: CLASSES[int(np.argmax(judge(text, CLASSES)))] for text in TEXTS}
WANTED = Way("votes", samples=4, answer_tokens=4)
PRICE = Price(1.0, 2.0)
NO_LIMITS = Limits()
IN_BATCHES: dict[str, Any] = {"batch_price": Price(0.5, 1.0)}


def open_session(
    url: str,
    folder: Path,
    *,
    method: Any = None,
    order: Any = "one",
    limits: Limits = NO_LIMITS,
    classes: Sequence[str] = CLASSES,
    address: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Session:
    """Return a session with settings, some of its address; all in a folder share a ledger."""
    asked = {"key": "secret", "price": PRICE, "timeout_s": 0.5, **(address or {})}
    corpus = Corpus({"train": Split((TEXTS[0],), np.array([0]))}, tuple(classes))
    prompt = PromptConfig().make(
        corpus, choose_codes(len(classes)), 0, "confidence" if method == "verbalised" else "code"
    )
    return Session(
        Address(url, "oracle-large", **asked),
        Ledger(folder / "ledger.sqlite", limits),
        prompt,
        key=f"{method} {order}",
        wanted=WANTED,
        method=method,
        order=order,
        **settings,
    )


def label(session: Session, texts: Sequence[str] = TEXTS) -> dict[str, Answer]:
    """Return the answers by text."""
    session.identify(texts)
    return {texts[number]: found for number, found in session.label(texts)}


def decide(answers: Mapping[str, Answer]) -> dict[str, str]:
    """Return the likeliest classes by text, of which none may be rejected."""
    return {
        text: CLASSES[found.best]
        for text, found in answers.items()
        if isinstance(found, Distribution)
    }


def main(url: str, folder: str) -> None:
    """Label all rows in batches."""
    batch_api.FIRST_POLL_S = batch_api.LONGEST_POLL_S = 0.05
    label(open_session(url, Path(folder), address=IN_BATCHES))


if __name__ == "__main__":
    main(*sys.argv[1:])
