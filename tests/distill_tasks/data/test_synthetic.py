import numpy as np
import pandas as pd
import pytest
from samples import CLASSES, make_rows

from distill_tasks.core.errors import InputError
from distill_tasks.data.corpus import LEARNT, Corpus, Split
from distill_tasks.data.rows import read_corpus
from distill_tasks.data.settings import DataConfig
from distill_tasks.data.synthetic import INTENDED, MARK, Sieve, write_synthetic

LONG = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"


def split(*texts):
    return Split(texts, np.full(len(texts), -1))


@pytest.fixture
def sieve():
    texts = {
        "train": ("a row of train", f"{LONG} train"),
        "held_out": ("a row of held out", f"{LONG} train"),
        "transfer": ("a row of transfer",),
    }
    return Sieve(Corpus({name: split(*rows) for name, rows in texts.items()}, CLASSES))


def test_what_repeats_a_row_nearly_or_exactly_is_held_back_and_counted(sieve):
    taken = ["quite new", f"New: {LONG.upper()} and so on"]
    assert not [text for text in ("a row of train", "a row of transfer") if sieve.take(text)]
    assert not sieve.take("A row of TRAIN!")
    assert not sieve.take(LONG)
    assert [text for text in [*taken, *taken, taken[0].upper()] if sieve.take(text)] == taken
    assert sieve.removed == {"train": 2, "transfer": 1, "held_out": 1, "synthetic": 3}


def test_a_leak_counts_as_one_however_often_it_is_written(sieve):
    for _ in range(2):
        assert not sieve.take(f"{LONG} train.")
    assert sieve.removed == {"held_out": 2}


@pytest.fixture
def texts():
    rows = make_rows(330, seed=1)[300:]
    return dict(zip(rows["text"], rows["label"], strict=True))


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_file_becomes_a_split_that_teaches_and_scores_nothing(
    data_folder, tmp_path, texts, suffix
):
    texts |= {"none, of these": "cats"}
    path = tmp_path / f"synthetic.{suffix}"
    write_synthetic(texts, path)
    corpus = read(data_folder, path)
    rows = corpus.splits["synthetic"]
    assert (rows.texts, rows.slices) == (tuple(texts), tuple(texts.values()))
    assert (rows.gold == -1).all()
    assert corpus.training_rows.texts[-len(texts) :] == tuple(texts)
    without = read(data_folder, None)
    assert corpus.without("synthetic").digest == without.digest != corpus.digest
    assert corpus.evaluation_texts == without.evaluation_texts
    assert set(LEARNT) & {"validation", "held_out"} == set()
    corpus.save(tmp_path)
    assert Corpus.open(tmp_path).splits["synthetic"].slices == rows.slices


def read(folder, path):
    tables = {name: str(folder / f"{name}.parquet") for name in ("train", "transfer", "held_out")}
    return read_corpus(DataConfig(**tables, synthetic=path and str(path)), seed=7)


def test_rows_that_other_splits_have_by_now_are_left_out(data_folder, tmp_path, texts):
    leaked = pd.read_parquet(data_folder / "held_out.parquet")["text"][0]
    write_synthetic(texts | {leaked: "cats"}, tmp_path / "synthetic.csv")
    corpus = read(data_folder, tmp_path / "synthetic.csv")
    assert corpus.splits["synthetic"].texts == tuple(texts)
    assert "1 rows of synthetic repeat held_out" in corpus.findings[0].text


WRONG = {
    "class": (lambda rows: rows.assign(**{INTENDED: "cast"}), "'cast' .did you mean 'cats'"),
    "column": (lambda rows: rows.drop(columns=INTENDED), f"has no column '{INTENDED}'"),
    "no text": (lambda rows: rows.rename(columns={"text": "texts"}), "did you mean 'texts'"),
    "real rows": (lambda rows: rows.drop(columns=MARK), "has no column 'synthetic'"),
    "not marked": (lambda rows: rows.assign(**{MARK: rows.index > 0}), "1 rows that are not"),
    "empty": (lambda rows: rows[:0], "has no rows"),
    "blank": (lambda rows: rows.assign(text=[" ", *rows["text"][1:]]), "rows without text .0."),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_refused_in_one_line(data_folder, tmp_path, texts, name):
    change, said = WRONG[name]
    path = tmp_path / "synthetic.parquet"
    write_synthetic(texts, path)
    change(pd.read_parquet(path)).to_parquet(path, index=False)
    with pytest.raises(InputError, match=rf"^data\.synthetic.*{said}") as caught:
        read(data_folder, path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(data_folder, tmp_path):
    with pytest.raises(InputError, match=r"data\.synthetic: .*nowhere\.csv does not exist"):
        read(data_folder, tmp_path / "nowhere.csv")
