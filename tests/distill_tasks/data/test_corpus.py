import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distill_tasks.core.errors import InputError
from distill_tasks.core.notes import Note, Rank
from distill_tasks.data.corpus import Corpus, Split
from distill_tasks.data.rows import read_corpus, read_rows
from distill_tasks.data.settings import DataConfig, RowFormat


@pytest.fixture
def read(tmp_path):
    """Write (text, label) pairs, or a frame, for each split and read them as a corpus."""

    def read(seed=0, classes=None, settings=None, problem="single_label", **splits):
        held_out = rows("cats dogs", "held")
        paths = {}
        for name, pairs in ({"held_out": held_out} | splits).items():
            paths[name] = str(tmp_path / f"{name}.parquet")
            if isinstance(pairs, list):
                pairs = pd.DataFrame(pairs, columns=["text", "label"])
            pairs.to_parquet(paths[name])
        settings = {"validation_share": 0.2} | (settings or {})
        return read_corpus(DataConfig(**paths, **settings), seed, classes, problem)

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


@pytest.mark.parametrize(
    ("train_rows", "share"), [(100, 0.4), (500, 0.4), (600, 1 / 3), (1000, 0.2), (50_000, 0.2)]
)
def test_by_default_as_much_is_carved_as_gives_200_rows_within_bounds(train_rows, share):
    config = DataConfig(train="train.csv", held_out="held_out.csv")
    assert config.share_of_validation(train_rows) == pytest.approx(share)


def test_the_share_that_is_written_is_carved(read):
    corpus = read(train=TRAIN, settings={"validation_share": "auto"})
    assert len(corpus.splits["validation"]) == 0.4 * len(TRAIN)
    corpus = read(train=TRAIN, settings={"validation_share": 0.1})
    assert len(corpus.splits["validation"]) == 0.1 * len(TRAIN)


def test_students_learn_from_train_with_gold_and_transfer_without(read):
    corpus = read(train=TRAIN, validation=rows("cats", "seen"), transfer=[("more", None)])
    assert corpus.training_rows.texts == (*(text for text, _ in TRAIN), "more")
    assert corpus.training_rows.gold.tolist() == [0, 1] * 10 + [-1]


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
    with pytest.raises(InputError, match=r"data\.train: 1 texts are empty or not text \(row 20,"):
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
    assert {note.rank for note in corpus.findings} == {Rank.KNOW}
    assert tuple(note.text for note in corpus.findings) == (
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
    carved = Note(Rank.FINE, "validation carved from train: 10 of 50 rows")
    assert corpus.findings == (carved,)


def test_a_class_too_small_to_split_is_announced(read):
    corpus = read(train=rows("cats " * 10 + "dogs"))
    assert corpus.splits["train"].gold.tolist().count(1) == 1
    whole = "too small to split, kept whole in train: dogs (1 text)"
    assert corpus.findings[1] == Note(Rank.KNOW, whole)
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


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.tuples(st.integers(0, 12), st.sampled_from(["cats", "dogs"])), min_size=2),
    st.floats(0.05, 0.6),
    st.integers(0, 3),
)
def test_rows_of_one_text_are_carved_together_whatever_their_labels(read, drawn, share, seed):
    train = [*TRAIN[:4], *((f"row {number}", label) for number, label in drawn)]
    settings = {"validation_share": share}
    corpus = read(train=train, seed=seed, settings=settings)
    kept, carved = corpus.splits["train"], corpus.splits["validation"]
    assert not set(kept.texts) & set(carved.texts)
    assert len(kept) + len(carved) == len(train)
    assert set(kept.gold) == {0, 1}  # no class leaves train
    assert corpus.digest == read(train=train, seed=seed, settings=settings).digest


def test_the_share_is_one_of_texts_where_rows_repeat(read):
    corpus = read(train=rows("cats dogs " * 10) * 3)
    assert len(corpus.splits["validation"]) == 4 * 3
    assert np.bincount(corpus.splits["validation"].gold).tolist() == [6, 6]
    with pytest.raises(InputError, match="has 2 texts, too few to carve"):
        read(train=rows("cats dogs") * 9)


SINGLE = [(f"row {number}", ("cats", "dogs", "fish")[number**2 % 7 % 3]) for number in range(60)]
JOINED = [
    (f"row {number}", "|".join(name for bit, name in enumerate("abc") if number % 7 >> bit & 1))
    for number in range(60)
]


@pytest.mark.parametrize(
    ("train", "problem", "label_column", "digest"),
    [
        (SINGLE, "single_label", "label", "3b1c0752ddafbfa1"),
        (SINGLE, "single_label", None, "6b3b3c77c33ceb28"),
        (JOINED, "multi_label", "label", "6e9665752e8426f3"),
    ],
)
def test_rows_that_never_repeat_are_carved_as_they_always_were(
    read, train, problem, label_column, digest
):
    classes = None if label_column else ["cats", "dogs", "fish"]
    held_out = [("held", "cats" if problem == "single_label" else "a")]
    settings = {"label_column": label_column}
    corpus = read(7, classes, settings, problem, train=train, held_out=held_out)
    assert corpus.digest == digest


def test_one_text_with_two_labels_is_named_with_the_rows_of_the_files(read):
    train = [("held 1", "cats"), ("same", "dogs"), *TRAIN, ("same", "cats")]
    assert read(train=train).findings[0] == Note(
        Rank.KNOW,
        "2 texts have different labels: cats (train row 0) and dogs (held_out row 1), "
        "dogs (train row 1) and cats (train row 22)",
    )


def test_labels_unseen_for_their_spelling_alone_are_answered_with_the_option(read):
    splits = {"train": TRAIN, "held_out": rows("Cats dogs", "other")}
    with pytest.raises(InputError, match=r"never saw: Cats .*one with data\.merge_labels"):
        read(**splits)
    corpus = read(**splits, settings={"merge_labels": True})
    assert corpus.splits["held_out"].gold.tolist() == [0, 1]
    merged = "labels were merged: 'Cats' (1 rows) as 'cats'"
    assert corpus.findings[0] == Note(Rank.FINE, merged)


@pytest.mark.parametrize(
    ("problem", "name"), [("single_label", " "), ("multi_label", ""), ("multi_label", "a|b")]
)
def test_classes_of_a_teacher_that_no_answer_can_be_written_with_are_refused(read, problem, name):
    with pytest.raises(InputError, match=f"class 1 is named {name!r}".replace("|", r"\|")):
        read(0, ["cats", name], {"label_column": None}, problem, train=TRAIN)


def test_rows_without_any_labels_take_the_classes_of_the_teacher(read):
    settings = {"label_column": None}
    corpus = read(train=TRAIN, classes=["dogs", "cats"], settings=settings)
    assert corpus.classes == ("dogs", "cats")
    assert not any(split.has_gold for split in corpus.splits.values())
    assert len(corpus.splits["validation"]) == 4
    with pytest.raises(InputError, match="teacher has no classes of its own"):
        read(train=TRAIN, settings=settings)
    with pytest.raises(InputError, match=r"teacher has fewer than two classes \(cats\)"):
        read(train=TRAIN, classes=["cats"], settings=settings)


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


@pytest.mark.parametrize("problem", ["single_label", "multi_label"])
def test_a_saved_corpus_opens_as_it_was(read, tmp_path, problem):
    held_out = pd.DataFrame(rows("cats dogs", "held"), columns=["text", "label"])
    corpus = read(
        train=TRAIN,
        transfer=[("held 0", None), ("ünï \n code", None)],
        held_out=held_out.assign(source=["forum", "mail"]),
        settings={"slice_column": "source"},
        problem=problem,
    )
    folder = tmp_path / "corpus"
    folder.mkdir()
    corpus.save(folder)
    opened = Corpus.open(folder)
    assert opened.digest == corpus.digest
    assert (opened.findings, opened.problem) == (corpus.findings, problem)
    assert list(opened.splits) == ["train", "validation", "held_out", "transfer"]
    assert opened.texts == corpus.texts
    assert opened.splits["held_out"].slices == ("forum", "mail")
    for name, split in corpus.splits.items():
        np.testing.assert_array_equal(opened.splits[name].gold, split.gold)


def test_rows_to_compare_on_may_lack_labels(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("text,label\none,b\ntwo,a\n")
    split, classes, findings = read_rows(path, RowFormat(), "single_label", ())
    assert (split.gold.tolist(), classes, findings) == ([1, 0], ("a", "b"), [])
    split, classes, _ = read_rows(path, RowFormat(label_column="gold"), "single_label", ())
    assert (split.gold.tolist(), classes) == ([-1, -1], ())


SEVERAL = [("one", "a|b"), ("two", "b"), ("three", ""), ("four", "c | a|a"), ("five", None)] + [
    (f"more {number}", "abc"[number % 3]) for number in range(9)
]
MATRIX = [[1, 1, 0], [0, 1, 0], [0, 0, 0], [1, 0, 1], [0, 0, 0]]


@pytest.mark.parametrize("written", [str, list])
def test_several_labels_are_read_from_lists_and_from_strings(read, written):
    def write(labels):
        if written is str or labels is None:
            return labels
        return written([word.strip() for word in labels.split("|") if word])

    train = [(text, write(labels)) for text, labels in SEVERAL]
    held_out, seen = [("held", write("c"))], [("seen", write("b|c"))]
    corpus = read(train=train, validation=seen, held_out=held_out, problem="multi_label")
    assert corpus.classes == ("a", "b", "c")
    assert corpus.splits["train"].gold[:5].tolist() == MATRIX
    assert corpus.splits["train"].gold.dtype == np.int64
    assert corpus.splits["held_out"].gold.tolist() == [[0, 0, 1]]
    bare = Note(Rank.KNOW, "2 rows of train carry none of the labels")
    assert corpus.findings == (bare,)
    assert all(corpus.splits[name].has_gold for name in ("train", "validation", "held_out"))


def test_several_labels_that_are_numbers_are_labels_too(read):
    train = [(f"row {number}", 7 + number % 2) for number in range(8)]
    corpus = read(train=train, held_out=[("held", 8)], problem="multi_label")
    assert corpus.classes == ("7", "8")
    assert corpus.splits["held_out"].gold.tolist() == [[0, 1]]


def test_a_transfer_row_of_a_multi_label_problem_has_no_gold_at_all(read):
    held_out = [("held", "a")]
    corpus = read(train=SEVERAL, held_out=held_out, transfer=[("new", None)], problem="multi_label")
    assert corpus.splits["transfer"].gold.tolist() == [[-1, -1, -1]]
    assert not corpus.splits["transfer"].has_gold
    assert corpus.splits["transfer"].decisions(3) is None
    assert corpus.training_rows.gold.shape == (len(corpus.splits["train"]) + 1, 3)


@pytest.mark.parametrize(
    ("labels", "problem", "message"),
    [
        (["a", "b"], "single_label", r"holds lists of labels, as \['a', 'b'\].*multi_label"),
        (["a|b"], "multi_label", r"the label 'a\|b' .*stands between labels"),
        (["d"], "multi_label", r"data\.held_out has labels that train never saw: d"),
    ],
)
def test_lists_of_labels_that_cannot_be_read_are_refused(read, labels, problem, message):
    train = [
        (f"row {number}", list("ab") if problem == "multi_label" else "ab") for number in (1, 2)
    ]
    with pytest.raises(InputError, match=message):
        read(train=train, held_out=[("held", labels)], problem=problem)


def test_train_without_a_single_label_is_refused(read):
    with pytest.raises(InputError, match="no labels at all"):
        read(train=[("one", ""), ("two", None)], problem="multi_label")


def test_one_class_is_enough_where_a_text_may_have_none(read):
    train = [(f"row {number}", "spam" if number % 2 else "") for number in range(8)]
    corpus = read(train=train, held_out=[("held", "")], problem="multi_label")
    assert corpus.classes == ("spam",)
    assert corpus.splits["held_out"].gold.tolist() == [[0]]


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.sets(st.sampled_from("abcd")), min_size=12, max_size=40), st.floats(0.05, 0.6))
def test_carving_of_several_labels_takes_about_the_same_share_of_each(read, labels, share):
    labels = [*labels, *map(set, "aabbccdd")]
    train = [(f"row {number}", sorted(row)) for number, row in enumerate(labels)]
    corpus = read(
        train=train,
        held_out=[("held", ["a"])],
        settings={"validation_share": share},
        problem="multi_label",
    )
    kept, carved = corpus.splits["train"], corpus.splits["validation"]
    assert sorted(kept.texts + carved.texts) == sorted(text for text, _ in train)
    # Five groups at most (the rarest label of a row, or none), each rounded by one row at most.
    assert abs(len(carved) - share * len(train)) <= 5
    given = dict(train)
    for split in (kept, carved):
        for text, gold in zip(split.texts, split.gold, strict=True):
            assert [name for name, there in zip("abcd", gold, strict=True) if there] == given[text]


def test_carving_of_several_labels_leaves_the_rarest_on_both_sides(read):
    train = [(f"row {number}", "common|rare" if number < 4 else "common") for number in range(100)]
    corpus = read(train=train, held_out=[("held", "rare")], problem="multi_label")
    assert corpus.splits["validation"].gold.sum(axis=0).tolist() == [20, 1]
    assert corpus.splits["train"].gold.sum(axis=0).tolist() == [80, 3]


def test_held_out_without_the_label_column_has_no_gold_and_says_so(read):
    held_out = pd.DataFrame({"text": ["held 0", "held 1"], "source": ["x", "y"]})
    corpus = read(train=TRAIN, held_out=held_out)
    assert corpus.splits["held_out"].gold.tolist() == [-1, -1]
    assert corpus.findings[0] == Note(
        Rank.ACT,
        "held_out has no column 'label': it is scored against the teacher only, and no verdict "
        "can be given",
    )
    assert corpus.splits["validation"].has_gold


@pytest.mark.parametrize("split", ["train", "validation", "held_out"])
def test_a_misspelt_label_column_is_never_taken_for_an_absent_one(read, split):
    wrong = pd.DataFrame({"text": ["held 0", "held 1"], "labels": ["cats", "dogs"]})
    with pytest.raises(InputError, match=rf"data\.{split} has no column 'label' \(did you mean"):
        read(**{"train": TRAIN, split: wrong})


@pytest.mark.parametrize(
    ("values", "read_as"),
    [
        (["mail", None], ("mail", "(empty)")),
        ([2020, 2021], ("2020", "2021")),
        ([1.5, None], ("1.5", "(empty)")),
        ([True, False], ("True", "False")),
        (pd.Categorical(["mail", None]), ("mail", "(empty)")),
    ],
)
def test_slices_of_held_out_are_the_values_of_their_column(read, values, read_as):
    held_out = pd.DataFrame(rows("cats dogs", "held"), columns=["text", "label"])
    corpus = read(
        train=TRAIN, held_out=held_out.assign(source=values), settings={"slice_column": "source"}
    )
    assert corpus.splits["held_out"].slices == read_as
    assert corpus.splits["held_out"].take(np.array([1])).slices == read_as[1:]
    assert corpus.splits["train"].slices is None
    assert corpus.digest != read(train=TRAIN, held_out=held_out).digest


def test_a_slice_column_that_held_out_lacks_is_refused(read):
    held_out = pd.DataFrame(rows("cats dogs", "held"), columns=["text", "label"])
    with pytest.raises(InputError, match=r"no column 'sorce' \(did you mean 'source'\?\)"):
        read(
            train=TRAIN,
            held_out=held_out.assign(source="mail"),
            settings={"slice_column": "sorce"},
        )


def test_rows_to_compare_on_are_read_as_the_rows_of_a_run(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('text,label\none,"a, b"\none,a\ntwo, B\n')
    split, classes, findings = read_rows(path, RowFormat(), "multi_label", ("a", "b"))
    assert (split.gold.tolist(), classes) == ([[0, 1, 1], [0, 1, 0], [1, 0, 0]], ("B", "a", "b"))
    assert [finding.text.split(":")[0] for finding in findings] == [
        "labels are read as written with ',' between them",
        "labels differ in case or spaces alone",
        "1 text has different labels",
    ]
    merged = RowFormat(merge_labels=True)
    assert read_rows(path, merged, "multi_label", ("a", "b"))[1] == ("a", "b")
    with pytest.raises(InputError, match=r"no column 'labl' \(did you mean 'label'"):
        read_rows(path, RowFormat(label_column="labl"), "multi_label", ())


def test_several_labels_to_compare_on_are_read_too(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("text,label\none,b|a\ntwo,\n")
    split, classes, _ = read_rows(path, RowFormat(), "multi_label", ())
    assert (split.gold.tolist(), classes) == ([[1, 1], [0, 0]], ("a", "b"))


def test_an_empty_place_in_a_list_of_labels_is_no_label(read):
    train = [("one", ["a", None]), *((f"row {number}", ["b"]) for number in range(4))]
    assert read(train=train, held_out=[("held", [None])], problem="multi_label").classes == (
        "a",
        "b",
    )


@pytest.mark.parametrize("gold", [[0, 2, -1, 1], [[0, 1, 1], [-1, -1, -1]]])
def test_another_order_of_classes_leaves_every_row_its_labels(gold):
    split = Split(tuple(map(str, range(len(gold)))), np.array(gold))
    corpus = Corpus({"train": split}, ("a", "b", "c"))
    other = corpus.reorder(("c", "a", "b"))
    assert other.classes == ("c", "a", "b")
    expected = [[1, 0, -1, 2], [[1, 0, 1], [-1, -1, -1]]][np.ndim(gold) - 1]
    assert other.splits["train"].gold.tolist() == expected
    assert other.reorder(corpus.classes).digest == corpus.digest
