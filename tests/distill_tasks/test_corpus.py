import numpy as np
import pandas as pd
import pytest

from distill_tasks.corpus import Corpus, DataConfig, Split, read_corpus, read_rows
from distill_tasks.errors import InputError


@pytest.fixture
def read(tmp_path):
    """Write (text, label) pairs for each split and read them as a corpus."""

    def read(seed=0, classes=None, settings=None, **splits):
        held_out = rows("cats dogs", "held")
        paths = {}
        for name, pairs in ({"held_out": held_out} | splits).items():
            paths[name] = str(tmp_path / f"{name}.parquet")
            pd.DataFrame(pairs, columns=["text", "label"]).to_parquet(paths[name])
        return read_corpus(DataConfig(**paths, **(settings or {})), seed, classes)

    return read


def rows(labels, prefix="row"):
    return [(f"{prefix} {number}", label) for number, label in enumerate(labels.split())]


TRAIN = rows("cats dogs " * 10)


def test_rows_become_splits_with_class_numbers(read):
    validation = rows("dogs cats", "seen")
    corpus = read(train=TRAIN, validation=validation, transfer=[("more", "ignored")])
    assert corpus.classes == ("cats", "dogs")
    assert corpus.splits["validation"].texts == ("seen 0", "seen 1")
    assert corpus.splits["validation"].gold.tolist() == [1, 0]
    assert corpus.splits["transfer"].gold.tolist() == [-1]
    assert not corpus.splits["transfer"].has_gold
    assert corpus.findings == ()


def test_students_learn_from_train_with_gold_and_transfer_without(read):
    corpus = read(train=TRAIN, validation=rows("cats", "seen"), transfer=[("more", None)])
    assert corpus.lesson.texts == (*(text for text, _ in TRAIN), "more")
    assert corpus.lesson.gold.tolist() == [0, 1] * 10 + [-1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"text_column": "txt"}, r"data\.train has no column 'txt' \(did you mean 'text'\?\)"),
        ({"label_column": "lable"}, r"data\.train has no column 'lable' \(did you mean 'label'\?"),
    ],
)
def test_a_missing_column_is_answered_with_the_nearest(read, settings, message):
    with pytest.raises(InputError, match=message):
        read(train=TRAIN, settings=settings)


@pytest.mark.parametrize("split", ["train", "validation", "held_out", "transfer", "production"])
def test_a_split_without_rows_is_refused(read, split):
    with pytest.raises(InputError, match=rf"data\.{split} has no rows"):
        read(**{"train": TRAIN, split: []})


def test_one_class_is_refused(read):
    with pytest.raises(InputError, match="one class only \\('cats'\\)"):
        read(train=rows("cats cats cats"))


@pytest.mark.parametrize("split", ["held_out", "validation"])
def test_a_label_that_train_never_saw_is_refused(read, split):
    message = rf"data\.{split} has labels that train never saw: cat \(did you mean 'cats'\?\)"
    with pytest.raises(InputError, match=message):
        read(**{"train": TRAIN, split: rows("cat dogs", "other")})


@pytest.mark.parametrize("bad", ["", "  \n", None])
def test_texts_without_words_are_refused_with_their_row(read, bad):
    with pytest.raises(InputError, match=r"data\.train: 1 texts are empty or no text \(row 20,"):
        read(train=[*TRAIN, (bad, "cats")])


def test_texts_that_are_numbers_are_refused(read):
    with pytest.raises(InputError, match=r"2 texts .*row 0, 1, .*first found: 5\)"):
        read(train=TRAIN, transfer=[(5, None), (6, None)])


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_missing_labels_are_refused_with_their_row(read, split):
    splits = {"train": TRAIN, split: [*rows("cats dogs", "other"), ("no label", None)]}
    with pytest.raises(InputError, match=rf"data\.{split}: 1 rows have no 'label' \(row 2\)"):
        read(**splits)


def test_repeats_leave_training_but_never_held_out(read):
    corpus = read(
        train=[("row 3", "dogs"), ("held 1", "dogs"), *TRAIN[:3]],
        held_out=rows("cats dogs", "held"),
        transfer=[("held 0", None), ("new", None), ("row 2", None)],
        validation=[("row 0", "cats"), ("seen", "dogs")],
    )
    assert corpus.splits["held_out"].texts == ("held 0", "held 1")
    assert corpus.splits["validation"].texts == ("row 0", "seen")
    assert corpus.splits["train"].texts == ("row 3", "row 1", "row 2")
    assert corpus.splits["transfer"].texts == ("new",)


def test_repeats_are_reported_with_the_rows_of_the_file(read):
    corpus = read(
        train=[("held 1", "dogs"), *TRAIN],
        transfer=[("held 0", None), ("new", None), ("row 2", None)],
        validation=[("row 0", "cats"), ("seen", "dogs")],
    )
    assert corpus.findings == (
        "1 rows of train repeat held_out and were left out of train (row 0)",
        "1 rows of train repeat validation and were left out of train (row 1)",
        "1 rows of transfer repeat held_out and were left out of transfer (row 0)",
        "1 rows of transfer repeat train and were left out of transfer (row 2)",
    )


@pytest.mark.parametrize("split", ["train", "validation", "transfer"])
def test_a_split_that_only_repeats_is_refused(read, split):
    with pytest.raises(InputError, match=rf"data\.{split}: every row is also in data\.held_out"):
        read(**{"train": TRAIN, split: rows("cats dogs", "held")})


def test_one_class_left_after_repeats_are_removed_is_refused(read):
    with pytest.raises(InputError, match="one class only"):
        read(train=[("held 1", "dogs"), *rows("cats " * 10)])


def test_validation_takes_the_same_share_of_each_class(read):
    corpus = read(train=rows("cats " * 40 + "dogs " * 10))
    assert np.bincount(corpus.splits["validation"].gold).tolist() == [8, 2]
    assert np.bincount(corpus.splits["train"].gold).tolist() == [32, 8]
    assert not set(corpus.splits["train"].texts) & set(corpus.splits["validation"].texts)
    assert corpus.findings == ("validation carved from train: 10 of 50 rows",)


def test_a_class_too_small_to_split_is_announced(read):
    corpus = read(train=rows("cats " * 10 + "dogs"))
    assert corpus.splits["train"].gold.tolist().count(1) == 1
    assert corpus.findings[1] == "too small to split, kept whole in train: dogs (1 row)"
    with pytest.raises(InputError, match="too few to carve a validation split"):
        read(train=rows("cats dogs"))


@pytest.mark.parametrize("share", [0.01, 0.9])
def test_both_sides_of_the_carving_keep_every_class(read, share):
    corpus = read(train=rows("cats dogs " * 3), settings={"validation_share": share})
    for split in ("train", "validation"):
        assert set(corpus.splits[split].gold) == {0, 1}


def test_carving_follows_the_seed(read):
    first, again, other = (read(train=TRAIN, seed=seed) for seed in (1, 1, 2))
    assert first.digest == again.digest
    assert first.splits["validation"].texts != other.splits["validation"].texts


def test_rows_without_any_labels_take_the_classes_of_the_teacher(read):
    settings = {"label_column": None}
    corpus = read(train=TRAIN, classes=["dogs", "cats"], settings=settings)
    assert corpus.classes == ("dogs", "cats")
    assert not any(split.has_gold for split in corpus.splits.values())
    assert len(corpus.splits["validation"]) == 4
    with pytest.raises(InputError, match="teacher has no classes of its own"):
        read(train=TRAIN, settings=settings)


def test_the_order_of_a_teacher_with_the_same_classes_is_kept(read):
    assert read(train=TRAIN, classes=["dogs", "cats"]).classes == ("dogs", "cats")
    assert read(train=TRAIN, classes=["dogs", "cows"]).classes == ("cats", "dogs")


def test_the_digest_follows_rows_their_order_and_labels():
    def digest(texts, gold, classes=("x", "y")):
        return Corpus({"train": Split(tuple(texts), np.array(gold))}, classes).digest

    same = digest("ab", [0, 1])
    assert same == digest(["a", "b"], [0, 1])
    others = [digest("ba", [0, 1]), digest("ab", [1, 0]), digest("ab", [0, 1], ("y", "x"))]
    assert len({same, *others}) == 4


def test_a_saved_corpus_opens_as_it_was(read, tmp_path):
    corpus = read(train=TRAIN, transfer=[("held 0", None), ("ünï \n code", None)])
    folder = tmp_path / "corpus"
    folder.mkdir()
    corpus.save(folder)
    opened = Corpus.open(folder)
    assert opened.digest == corpus.digest
    assert opened.findings == corpus.findings
    assert list(opened.splits) == ["train", "validation", "held_out", "transfer"]
    assert opened.texts == corpus.texts


def test_rows_to_compare_on_may_lack_labels(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("text,label\none,b\ntwo,a\n")
    split, classes = read_rows(path, "text", "label")
    assert (split.gold.tolist(), classes) == ([1, 0], ("a", "b"))
    split, classes = read_rows(path, "text", "gold")
    assert (split.gold.tolist(), classes) == ([-1, -1], ())
