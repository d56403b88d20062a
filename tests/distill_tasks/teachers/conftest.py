"""Rows that teachers are made of and answer."""

import numpy as np
import pytest
from samples import CLASSES, make_rows

from distill_tasks.data.corpus import Corpus, Split


@pytest.fixture(scope="module")
def corpus():
    rows = make_rows(500, seed=1)
    gold = np.array([CLASSES.index(name) for name in rows["label"]])
    every = Split(tuple(rows["text"]), gold)
    ends = {"train": (0, 240), "validation": (240, 270), "held_out": (270, 370)}
    ends["transfer"] = (370, 500)
    return Corpus({name: every.take(np.arange(*end)) for name, end in ends.items()}, CLASSES)
