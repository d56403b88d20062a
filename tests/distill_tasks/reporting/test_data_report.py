import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_tasks.config import parse_config
from distill_tasks.core.notes import Note, Rank
from distill_tasks.data.corpus import NO_LABEL, Corpus, Split
from distill_tasks.data.rows import read_corpus
from distill_tasks.reporting.data_report import inspect_corpus
from distill_tasks.stages.prepare import keep_corpus, report_on_data

LONG = " ".join(f"word{number}" for number in range(40))
NEARLY = f"{LONG} more"  # one word triple in 39 is new
APART = " ".join(f"other{number}" for number in range(40))


def split(texts, gold=None):
    return Split(tuple(texts), np.full(len(texts), NO_LABEL) if gold is None else np.array(gold))


def distinct(count, name):
    return [f"{name}{number} {name}a{number} {name}b{number}" for number in range(count)]


def inspect(tokens=None, max_length=None, classes=("a", "b"), problem="single_label", **splits):
    """Report on splits, all others being large and without any fault."""
    fine = {
        "train": split(distinct(60, "train"), [0, 1] * 30),
        "validation": split(distinct(4, "validation"), [0, 1] * 2),
        "held_out": split(distinct(8, "held"), [0, 1] * 4),
    }
    every = {name: (fine | splits)[name] for name in (*fine, *(splits.keys() - fine.keys()))}
    return inspect_corpus(Corpus(every, classes, problem=problem), tokens, max_length)


def of(report, name):
    return next(one for one in report.splits if one.name == name)


def warned(report, words):
    return [note.text for note in report.warnings if words in note.text]


def test_rows_and_classes_are_counted_in_every_split():
    report = inspect(transfer=split(distinct(5, "new")))
    assert [(one.name, one.rows) for one in report.splits] == [
        ("train", 60),
        ("validation", 4),
        ("held_out", 8),
        ("transfer", 5),
    ]
    assert of(report, "train").classes == {"a": 30, "b": 30}
    assert of(report, "transfer").classes == {}
    assert of(report, "train").truncated is None
    assert report.overlaps == []
    assert {(one.exact_repeats, one.near_repeats) for one in report.splits} == {(0, 0)}


def test_exact_repeats_are_counted_from_the_second_one_on_and_are_no_near_repeats():
    texts = [LONG, LONG, APART, LONG, *distinct(50, "x")]
    report = inspect(train=split(texts, [0, 1] * 27))
    assert (of(report, "train").exact_repeats, of(report, "train").near_repeats) == (2, 0)
    assert warned(report, "repeat an earlier one of their split: 2 of train")


def test_near_repeats_inside_a_split_count_each_later_row_once():
    twice = [LONG, NEARLY, f"{LONG} again", APART, *distinct(50, "x")]
    report = inspect(train=split(twice, [0, 1] * 27))
    assert (of(report, "train").exact_repeats, of(report, "train").near_repeats) == (0, 2)
    assert report.overlaps == []


@pytest.mark.parametrize("learning", ["train", "transfer"])
@pytest.mark.parametrize("scoring", ["validation", "held_out"])
def test_rows_that_nearly_repeat_a_scoring_row_are_counted_with_an_example(learning, scoring):
    learnt = split([*distinct(20, "x"), NEARLY, f"{LONG} again"], [0, 1] * 11)
    report = inspect(**{learning: learnt, scoring: split([LONG, APART], [0, 1])})
    (overlap,) = report.overlaps
    assert (overlap.split, overlap.scoring, overlap.rows) == (learning, scoring, 2)
    assert overlap.example == (NEARLY[:160], LONG[:160])
    assert warned(report, f"near duplicate in a split that scores: 2 of {learning} in {scoring};")


def test_case_and_punctuation_are_no_difference_but_other_words_are():
    shouted = split([f"{LONG.upper()}!", *distinct(21, "x")], [0, 1] * 11)
    assert inspect(train=shouted, held_out=split([LONG, APART], [0, 1])).overlaps[0].rows == 1
    assert inspect(train=shouted, held_out=split([APART, "y"], [0, 1])).overlaps == []


def test_different_texts_without_any_word_are_no_repeats():
    report = inspect(train=split(["😀", "!?", "🐟", *distinct(51, "x")], [0, 1] * 27))
    assert (of(report, "train").exact_repeats, of(report, "train").near_repeats) == (0, 0)


def triples(text):
    words = text.split()
    return {tuple(words[start : start + 3]) for start in range(len(words) - 2)}


@settings(deadline=None, max_examples=15)
@given(st.data())
def test_near_repeats_are_those_of_the_exact_similarity_but_for_borderline_pairs(data):
    words = [f"w{number}" for number in range(60)]
    changed = data.draw(st.lists(st.sets(st.integers(0, 59), max_size=20), max_size=6))
    texts = [" ".join("new" if n in at else w for n, w in enumerate(words)) for at in changed]
    texts = list(dict.fromkeys([" ".join(words), *texts]))
    sure = maybe = 0
    for row, text in enumerate(texts):
        shares = [
            len(triples(text) & triples(other)) / len(triples(text) | triples(other))
            for other in texts[:row]
        ]
        sure += max(shares, default=0) > 0.95
        maybe += max(shares, default=0) > 0.65
    gold = [number % 2 for number in range(len(texts))]
    assert sure <= of(inspect(validation=split(texts, gold)), "validation").near_repeats <= maybe


def test_a_share_of_rows_longer_than_the_teacher_reads_is_reported():
    tokens = {
        "train": np.array([9] * 30 + [8] * 30),
        "validation": np.array([8, 8, 8, 9]),
        "held_out": np.array([1] * 8),
    }
    report = inspect(tokens, 8)
    shares = [of(report, name).truncated for name in ("train", "validation", "held_out")]
    assert (shares, report.max_length) == ([0.5, 0.25, 0.0], 8)
    assert report.warnings[-1] == Note(
        Rank.KNOW,
        "longer than the 8 tokens that are read (teacher.max_length): 50 % of train, "
        "25 % of validation",
    )


def test_classes_with_few_rows_and_an_imbalance_are_named():
    gold = [0] * 400 + [1] * 19
    report = inspect(train=split(distinct(419, "x"), gold))
    assert warned(report, "fewer than 20 gold rows of b (19)")
    assert warned(report, "a has 21 times the rows of b")
    enough = inspect(train=split(distinct(420, "x"), [*gold, 1]))
    assert not warned(enough, "fewer than")
    assert warned(enough, "a has 20 times the rows of b")
    assert not warned(inspect(train=split(distinct(421, "x"), [*gold, 1, 1])), "imbalanced")


def test_the_advice_to_take_macro_f1_says_how_many_rows_of_each_class_it_takes():
    train = split(distinct(420, "x"), [0] * 400 + [1] * 20)
    held_out = split(distinct(8, "held"), [0] * 5 + [1] * 3)
    (warning,) = warned(inspect(train=train, held_out=held_out), "imbalanced")
    # 0.1 · ((1.96 + 0.84) / 0.1)² rows, were one in ten right by one model alone.
    assert warning.endswith(
        "select.metric macro_f1. A verdict by macro F1 takes held_out rows of every class: under 6 "
        "decide nothing, to call 10 points in a class takes about 79; of b there are 3"
    )
    (bare,) = warned(inspect(train=train, held_out=split(distinct(8, "held"))), "imbalanced")
    assert bare.endswith("takes about 79")


def test_a_class_that_held_out_lacks_leaves_f1():
    held_out = split(distinct(8, "held"), [0] * 8)
    assert warned(inspect(held_out=held_out), "no rows of b: nothing is known of them, and F1")
    assert warned(inspect(held_out=held_out), "over 1 of 2 classes")
    (absent,) = [note for note in inspect(held_out=held_out).warnings if "no rows" in note.text]
    assert absent.rank is Rank.ACT
    assert not warned(inspect(held_out=split(distinct(8, "held"))), "nothing is known")


def test_a_multi_label_row_counts_for_each_of_its_labels():
    gold = np.array([[1, 1], [1, 0]] * 30)
    splits = {"train": split(distinct(60, "t"), gold), "validation": split(["v"], [[0, 0]])}
    held_out = split(distinct(2, "h"), [[1, 0], [0, 0]])
    report = inspect(**splits, held_out=held_out, problem="multi_label")
    assert of(report, "train").classes == {"a": 60, "b": 30}
    assert of(report, "validation").classes == {"a": 0, "b": 0}
    assert warned(report, "held_out has no rows of b")


@pytest.mark.parametrize(("rows", "enough"), [(7848, False), (7849, True)])
def test_a_held_out_too_small_for_one_point_is_told_how_many_rows_it_takes(rows, enough):
    # 0.1 · ((1.95996 + 0.84162) / 0.01)² = 7848.9 rows call one point with a chance of 80 %.
    report = inspect(held_out=split(["same"] * rows, [0, 1] * (rows // 2) + [0] * (rows % 2)))
    assert bool(warned(report, "about 7,849 rows are needed")) is not enough


def test_few_transfer_rows_are_compared_with_what_others_used():
    assert warned(inspect(), "0 transfer rows; published distillations of classifiers used 10,000")
    assert not warned(inspect(transfer=split(["same"] * 10_000)), "transfer rows; published")


@pytest.fixture
def read(written):
    def read_changed(**changes):
        config = parse_config(written | changes, "test")
        return config, read_corpus(config.data, config.seed)

    return read_changed


def test_the_report_of_a_run_counts_the_tokens_of_its_teacher(read, written):
    teacher = written["teacher"] | {"max_length": 9}
    report = report_on_data(*read(teacher=teacher))
    # Every sample is eight words of the vocabulary, [CLS] and [SEP]: ten tokens.
    assert {one.truncated for one in report.splits} == {1.0}
    assert report.max_length == 9
    enough = report_on_data(*read(teacher=teacher | {"max_length": 10}))
    assert {one.truncated for one in enough.splits} == {0.0}


def test_a_saved_teacher_has_no_tokens_to_count(read):
    saved = {"kind": "saved", "path": "anywhere.parquet"}
    config, corpus = read(teacher=saved, students=[{"family": "bag_of_words"}])
    report = report_on_data(config, corpus)
    assert {one.truncated for one in report.splits} == {None}
    assert report.max_length is None


def test_rows_and_report_are_kept_once(read):
    config, corpus = read()
    first, second = keep_corpus(config, corpus), keep_corpus(config, corpus)
    assert (first.reused, second.reused) == (False, True)
    assert first.report == second.report
    assert first.folder == second.folder
    assert second.open().digest == corpus.digest
    assert second.open().findings == corpus.findings
    assert [one.name for one in second.report.splits] == list(corpus.splits)


def test_what_was_found_in_the_files_is_told_even_where_the_rows_are_the_same(read, data_folder):
    config, corpus = read()
    keep_corpus(config, corpus)
    held_out = pd.read_parquet(data_folder / "held_out.parquet")
    transfer = pd.read_parquet(data_folder / "transfer.parquet")
    pd.concat([transfer, held_out[["text"]][:3]]).to_parquet(data_folder / "transfer.parquet")
    config, corpus = read()
    assert any("3 rows of transfer repeat held_out" in note.text for note in corpus.findings)
    assert keep_corpus(config, corpus).open().findings == corpus.findings
