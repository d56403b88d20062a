"""Texts that a language model writes for every class, without those that repeat others."""

from __future__ import annotations

import logging
import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from distill_tasks.config import DistillConfig
from distill_tasks.core.errors import PotstillError
from distill_tasks.data.corpus import Corpus
from distill_tasks.data.synthetic import Sieve
from distill_tasks.llm.assignments import TEXTS_EACH
from distill_tasks.results.teacher import teacher_context

if TYPE_CHECKING:
    from distill_tasks.llm.estimate import Estimate

logger = logging.getLogger("potstill")

MOST_TIMES = 2
"""How many times the requests that would do may be made, to replace texts that repeat others."""


@dataclass(frozen=True)
class Synthesis:
    """What was written, and what of it was left out."""

    texts: dict[str, str]
    """New texts, with the class that each was written for."""
    written: int
    removed: Counter[str]
    """How many were left out, by the split whose row they repeat."""
    per_class: dict[str, int]
    """How many are kept of each class."""


def write_texts(config: DistillConfig, corpus: Corpus, per_class: int) -> Synthesis:
    """Have the teacher write so many new texts for each class.

    Texts that repeat a row of the corpus or each other, nearly or exactly, are left out, and others
    asked for, up to a limit. The same is asked when it is repeated, so nothing is paid for twice.
    Raises PotstillError if no text is new.
    """
    sieve, written = Sieve(corpus), 0
    kept: dict[str, list[str]] = {name: [] for name in corpus.classes}
    asked = dict.fromkeys(corpus.classes, 0)
    with config.teacher.open_writer(teacher_context(config, corpus)) as writer:
        while wanted := _list_wanted(per_class, kept, asked):
            logger.info("synthesize: %d requests for %d texts each", len(wanted), TEXTS_EACH)
            for (name, _), texts in zip(wanted, writer.write(wanted), strict=True):
                asked[name] += 1
                written += len(texts)
                room = per_class - len(kept[name])
                kept[name] += [text for text in texts if sieve.take(text)][:room]
    found = {text: name for name, new in kept.items() for text in new}
    if not found:
        raise PotstillError(
            f"None of {written:,} texts that {config.teacher.kind} wrote is new. Look at its "
            "replies, and correct teacher.prompt."
        )
    return Synthesis(found, written, sieve.removed, {n: len(new) for n, new in kept.items()})


def estimate_texts(config: DistillConfig, corpus: Corpus, per_class: int) -> Estimate:
    """Return what the texts cost that are not written yet; nothing is asked."""
    nothing: dict[str, list[str]] = {name: [] for name in corpus.classes}
    with config.teacher.open_writer(teacher_context(config, corpus)) as writer:
        wanted = _list_wanted(per_class, nothing, dict.fromkeys(nothing, 0))
        return writer.estimate(wanted, more=MOST_TIMES)


def _list_wanted(
    per_class: int, kept: dict[str, list[str]], asked: dict[str, int]
) -> list[tuple[str, int]]:
    """Return the next assignments, as class and number; none where no more may be asked for."""
    most = MOST_TIMES * math.ceil(per_class / TEXTS_EACH)
    return [
        (name, number)
        for name, done in asked.items()
        for number in range(
            done, min(most, done + math.ceil((per_class - len(kept[name])) / TEXTS_EACH))
        )
    ]
