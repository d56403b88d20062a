"""Rows that can be learnt, and names, that many tests share."""

from __future__ import annotations

import numpy as np
import pandas as pd

from distill_tasks.latency import Latency

CLASSES = ("cats", "dogs", "fish")
WORDS = {
    "cats": ("purr", "whisker", "kitten", "meow", "claw"),
    "dogs": ("bark", "leash", "puppy", "fetch", "growl"),
    "fish": ("swim", "fin", "gill", "scale", "reef"),
}
FILLERS = ("the", "animal", "likes", "to", "and", "very", "much", "today", "a", "house")


def make_rows(count: int, seed: int) -> pd.DataFrame:
    """Return rows whose class can be read from their words, no two texts alike."""
    generator = np.random.default_rng(seed)
    texts: dict[str, str] = {}
    while len(texts) < count:
        label = CLASSES[len(texts) % len(CLASSES)]
        words = [*generator.choice(WORDS[label], 2), *generator.choice(FILLERS, 6)]
        generator.shuffle(words)
        texts[" ".join(words)] = label
    return pd.DataFrame({"text": list(texts), "label": list(texts.values())})


LAYERS, STATIC, WORDS_STUDENT = "layers-2", "static-8-epochs-1", "bag-of-words-200"
FAMILIES = (LAYERS, STATIC, WORDS_STUDENT)


def make_latency(p95_ms: float) -> Latency:
    return Latency(p95_ms / 2, p95_ms, p95_ms * 2, 1000.0, 20, 4, 1, "this machine", 0.0)
