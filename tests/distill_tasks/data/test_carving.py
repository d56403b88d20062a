import numpy as np
import pytest

from distill_tasks.data.carving import carve_again
from distill_tasks.data.corpus import Corpus, Split

GOLD = np.array([0, 1] * 20)


@pytest.fixture
def corpus():
    rows = Split(tuple(f"row {number}" for number in range(40)), GOLD)
    splits = {"train": rows.take(np.arange(10, 40)), "validation": rows.take(np.arange(10))}
    held_out = Split(("held",), np.array([0]))
    return Corpus(splits | {"held_out": held_out}, ("cats", "dogs"))


def test_a_further_carving_parts_the_same_rows_otherwise(corpus):
    carvings = carve_again(corpus, 3, seed=0)
    pool = (*corpus.splits["validation"].texts, *corpus.splits["train"].texts)
    for carving in carvings:
        train, validation = (carving.corpus.splits[name] for name in ("train", "validation"))
        assert sorted(train.texts + validation.texts) == sorted(pool)
        assert validation.texts == tuple(pool[row] for row in carving.rows)
        assert np.bincount(validation.gold).tolist() == [5, 5]
        assert carving.corpus.splits["held_out"] == corpus.splits["held_out"]
    assert len({carving.corpus.digest for carving in carvings} | {corpus.digest}) == 4


def test_carvings_follow_the_seed_and_further_ones_change_no_earlier_one(corpus):
    digests = [carving.corpus.digest for carving in carve_again(corpus, 3, seed=0)]
    assert [carving.corpus.digest for carving in carve_again(corpus, 2, seed=0)] == digests[:2]
    assert carve_again(corpus, 1, seed=9)[0].corpus.digest not in digests
    assert carve_again(corpus, 0, seed=0) == []
