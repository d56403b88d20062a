import numpy as np
import pytest

from distill_tasks.core.errors import InputError
from distill_tasks.core.notes import Note, Rank
from distill_tasks.data.corpus import Corpus, Split
from distill_tasks.data.scored import hold_back

ODD = Note(Rank.KNOW, "odd")


@pytest.fixture
def corpus():
    train = Split(("one", "two"), np.array([0, 1]))
    transfer = Split(tuple(f"text {n}" for n in range(10)), np.full(10, -1))
    return Corpus({"train": train, "transfer": transfer, "production": train}, ("a", "b"), (ODD,))


def test_some_transfer_rows_are_held_back_from_training(corpus):
    held = hold_back(corpus, 4, seed=1)
    assert list(held.splits) == ["train", "transfer", "scored", "production"]
    parts = held.splits["transfer"].texts, held.splits["scored"].texts
    assert (len(parts[0]), len(parts[1])) == (6, 4)
    assert sorted(parts[0] + parts[1]) == sorted(corpus.splits["transfer"].texts)
    assert set(parts[1]).isdisjoint(held.training_rows.texts)
    assert held.findings[0] == ODD
    assert held.findings[1].text.startswith("4 of 10 transfer rows train no student")


def test_the_same_seed_holds_back_the_same_rows_and_another_one_others(corpus):
    drawn = [hold_back(corpus, 4, seed).splits["scored"].texts for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_corpus_with_rows_held_back_is_read_as_it_was_saved(corpus, tmp_path):
    held = hold_back(corpus, 4, seed=1)
    held.save(tmp_path)
    assert Corpus.open(tmp_path).digest == held.digest


def test_none_are_held_back_where_none_are_asked_for(corpus):
    assert hold_back(corpus, 0, seed=1) is corpus


@pytest.mark.parametrize("rows", [10, 11])
def test_more_than_there_are_is_refused(corpus, rows):
    with pytest.raises(InputError, match=f"scored_transfer is {rows}, but data.transfer has 10"):
        hold_back(corpus, rows, seed=1)
    del corpus.splits["transfer"]
    with pytest.raises(InputError, match="transfer has 0 different rows"):
        hold_back(corpus, 1, seed=1)
