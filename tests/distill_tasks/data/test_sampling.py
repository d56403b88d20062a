import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_tasks.core.errors import InputError
from distill_tasks.core.notes import Rank
from distill_tasks.data.corpus import Corpus, Split
from distill_tasks.data.sampling import check_sample, keep_sample, list_asked, order_texts
from distill_tasks.data.settings import SampleConfig

CLASSES = ("cats", "dogs", "fish")
GOLD = st.lists(st.integers(0, 2), min_size=1, max_size=60)
KINDS = st.sampled_from(["stratified", "random", "uncertain"])
SEEDS = st.integers(0, 1000)


def make_corpus(gold, transfer_rows, order=None):
    train = Split(tuple(f"labelled {row}" for row in range(len(gold))), np.array(gold))
    bare = Split(tuple(f"bare {row}" for row in range(transfer_rows)), np.full(transfer_rows, -1))
    held_out = Split(("held", "out"), np.array([0, 1]))
    splits = {"train": train, "held_out": held_out, "transfer": bare}
    if order is not None:
        splits["train"] = train.take(order.permutation(len(train)))
        splits["transfer"] = bare.take(order.permutation(len(bare)))
    return Corpus({name: split for name, split in splits.items() if len(split)}, CLASSES)


@given(GOLD, st.integers(0, 40), KINDS, SEEDS)
def test_the_order_is_that_of_texts_and_seed_whatever_the_order_of_the_rows(
    gold, transfer, kind, seed
):
    corpus = make_corpus(gold, transfer)
    sample = SampleConfig(rows=1, kind=kind)
    order = order_texts(corpus, sample, seed)
    assert sorted(order) == sorted(corpus.training_rows.texts)
    shuffled = make_corpus(gold, transfer, np.random.default_rng(seed))
    assert order_texts(shuffled, sample, seed) == order


@given(st.integers(0, 40), st.integers(1, 40), KINDS, SEEDS)
def test_further_rows_change_nothing_about_the_order_of_those_that_were_there(
    before, further, kind, seed
):
    sample = SampleConfig(rows=1, kind=kind)
    small, large = (
        order_texts(make_corpus([0, 1, 2], transfer), sample, seed)
        for transfer in (before, before + further)
    )
    assert [text for text in large if text in set(small)] == small


@given(GOLD, st.integers(1, 40), SEEDS)
def test_rows_with_gold_come_first_and_each_class_by_its_share(gold, transfer, seed):
    order = order_texts(make_corpus(gold, transfer), SampleConfig(rows=1), seed)
    gold_of = {f"labelled {row}": number for row, number in enumerate(gold)}
    assert all(text in gold_of for text in order[: len(gold)])
    counts, classes = np.bincount(gold, minlength=3), len(set(gold))
    assert len({gold_of[text] for text in order[:classes]}) == classes
    for rows in range(classes, len(gold)):
        taken = np.bincount([gold_of[text] for text in order[:rows]], minlength=3)
        assert (taken <= rows * counts / len(gold) + 1).all()
        assert (taken >= (rows - classes) * counts / len(gold)).all()


def test_random_rows_have_gold_or_not_and_follow_the_seed():
    corpus = make_corpus([0, 1] * 200, 400)
    order = order_texts(corpus, SampleConfig(rows=1, kind="random"), seed=0)
    with_gold = sum(text.startswith("labelled") for text in order[:400])
    assert 150 < with_gold < 250
    assert order != order_texts(corpus, SampleConfig(rows=1, kind="random"), seed=1)


def test_rows_with_several_labels_come_first_too():
    gold = np.array([[1, 1, 0], [1, 0, 0], [1, 0, 0], [0, 0, 0]])
    splits = {
        "train": Split(("both", "one", "other", "none"), gold),
        "transfer": Split(tuple(f"bare {row}" for row in range(20)), np.full((20, 3), -1)),
    }
    order = order_texts(Corpus(splits, CLASSES, (), "multi_label"), SampleConfig(rows=1), seed=0)
    assert set(order[:4]) == {"both", "one", "other", "none"}
    assert {"both", "none"} < set(order[:3])


def test_the_teacher_is_asked_about_the_sample_and_all_rows_that_score():
    corpus = make_corpus([0, 1], 3)
    assert list_asked(corpus, None) == corpus.texts
    assert list_asked(corpus, ["bare 2"]) == ["bare 2", "held", "out"]


def test_what_a_sample_leaves_out_leaves_the_corpus():
    corpus = make_corpus([0, 1, 1], 3)
    kept = keep_sample(corpus, ["labelled 2", "bare 0"])
    assert kept.training_rows.texts == ("labelled 2", "bare 0")
    assert kept.splits["held_out"] == corpus.splits["held_out"]
    assert "transfer" not in keep_sample(corpus, ["labelled 2"]).splits
    assert keep_sample(corpus, None) is corpus


def test_it_is_said_what_is_left_out_and_loudly_if_it_is_gold():
    corpus = make_corpus([0, 1] * 5, 10)
    assert check_sample(corpus, None, seed=0) == []
    (note,) = check_sample(corpus, SampleConfig(rows=12), seed=0)
    assert note.rank is Rank.KNOW
    assert note.text.startswith("data.sample leaves 8 of 20 texts of train and transfer out")
    for kind in ("stratified", "uncertain"):
        note = check_sample(corpus, SampleConfig(rows=4, kind=kind), seed=0)[1]
        assert note.rank is Rank.ACT
        assert note.text.startswith("data.sample leaves out 6 of 10 rows with gold")


@pytest.mark.parametrize("rows", [20, 21])
def test_more_rows_than_there_are_are_all(rows):
    (note,) = check_sample(make_corpus([0, 1] * 5, 10), SampleConfig(rows=rows), seed=0)
    assert note.rank is Rank.FINE
    assert note.text.endswith("20 different texts: all are labelled")


def test_a_random_sample_without_any_row_of_train_is_refused():
    with pytest.raises(InputError, match=r"takes 1 of 501 texts at random, none of them of train"):
        check_sample(make_corpus([0], 500), SampleConfig(rows=1, kind="random"), seed=0)
