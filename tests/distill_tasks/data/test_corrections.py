import pandas as pd
import pytest
from samples import make_rows

from distill_tasks.core.errors import InputError
from distill_tasks.core.notes import Rank
from distill_tasks.data.corrections import row_keys
from distill_tasks.data.rows import read_corpus
from distill_tasks.data.settings import DataConfig

ROWS = make_rows(60, seed=1)


def write(folder, corrections, **changes):
    ROWS[:40].to_csv(folder / "train.csv", index=False)
    ROWS[40:].to_csv(folder / "held_out.csv", index=False)
    frame = pd.DataFrame(corrections, columns=["key", "text", "corrected"])
    frame.to_csv(folder / "fixed.csv", index=False, encoding="utf-8-sig")
    paths = {name: str(folder / f"{name}.csv") for name in ("train", "held_out")}
    return DataConfig(**paths, corrections=str(folder / "fixed.csv"), **changes)


def fix(row, label, text=None):
    said = ROWS["text"][row]
    return row_keys([said])[0], text or said, label


def gold_of(corpus, row):
    for split in corpus.splits.values():
        if ROWS["text"][row] in split.texts:
            return corpus.classes[split.gold[split.texts.index(ROWS["text"][row])]]
    return None


def find(corpus, word):
    return [note for note in corpus.findings if word in note.text]


def test_corrections_replace_gold_wherever_the_text_is_and_are_counted(tmp_path):
    right = ROWS["label"][2]
    given = [fix(0, "fish"), fix(1, " cats "), fix(2, right), fix(3, None), fix(51, "fish")]
    config = write(tmp_path, given)
    corpus = read_corpus(config, seed=0)
    assert [gold_of(corpus, row) for row in (0, 1, 2, 3, 51)] == [
        *("fish", "cats", right, ROWS["label"][3], "fish")
    ]
    (note,) = find(corpus, "corrected")
    said = note.text.removeprefix(f"gold labels corrected by {config.corrections}: ")
    assert said == "3 (2 of train, 1 of held_out)"
    plain = read_corpus(config.model_copy(update={"corrections": None}), seed=0)
    assert plain.digest != corpus.digest


def test_line_breaks_that_a_spreadsheet_changed_do_not_matter(tmp_path):
    broken = ROWS["text"][0].replace(" ", "\r\n", 1)
    assert gold_of(read_corpus(write(tmp_path, [fix(0, "fish", broken)]), seed=0), 0) == "fish"


def test_cells_that_a_spreadsheet_must_not_run_are_read_as_what_they_were(tmp_path):
    rows = ROWS.replace({"label": {"fish": "+1"}})
    rows.loc[0, "text"] = "=" + rows["text"][0]
    key, text = row_keys([rows["text"][0]])[0], rows["text"][0]
    config = write(tmp_path, [(key, f"'{text}", "'+1")])
    rows[:40].to_csv(tmp_path / "train.csv", index=False)
    rows[40:].to_csv(tmp_path / "held_out.csv", index=False)
    corpus = read_corpus(config, seed=0)
    split = next(split for split in corpus.splits.values() if text in split.texts)
    assert corpus.classes[split.gold[split.texts.index(text)]] == "+1"


def test_a_changed_text_keeps_its_gold_and_is_told(tmp_path):
    gone = (row_keys(["a text of yesterday"])[0], "a text of yesterday", "fish")
    slipped = fix(0, "fish", ROWS["text"][1])
    corpus = read_corpus(write(tmp_path, [gone, slipped]), seed=0)
    assert gold_of(corpus, 0) == ROWS["label"][0]
    (note,) = find(corpus, "left out")
    assert note.rank is Rank.ACT
    assert f"2 ({gone[0]}, {slipped[0]}); no labelled row has that text" in note.text


@pytest.mark.parametrize(
    ("given", "changes", "said"),
    [
        ([fix(0, "fihs")], {}, r"has the label 'fihs' \(did you mean 'fish'\?\)"),
        ([fix(0, "fish"), fix(0, "dogs")], {}, "two labels for row-"),
        ([fix(0, "fish")], {"label_column": None}, "data.label_column is null"),
    ],
)
def test_corrections_that_cannot_be_meant_are_refused(tmp_path, given, changes, said):
    with pytest.raises(InputError, match=said):
        read_corpus(write(tmp_path, given, **changes), seed=0, classes=("cats", "dogs"))


def test_another_table_is_refused(tmp_path):
    config = write(tmp_path, [])
    other = config.model_copy(update={"corrections": str(tmp_path / "train.csv")})
    with pytest.raises(InputError, match=r"no column 'key'.*review/label_errors\.csv of a run"):
        read_corpus(other, seed=0)


def test_several_labels_are_corrected_together(tmp_path):
    rows = pd.DataFrame({"text": ROWS["text"], "label": ["cats|dogs", "dogs", "cats"] * 20})
    config = write(tmp_path, [fix(0, "dogs"), fix(1, "dogs | cats")])
    rows[:40].to_csv(config.train, index=False)
    rows[40:].to_csv(config.held_out, index=False)
    corpus = read_corpus(config, seed=0, problem="multi_label")
    said = {
        text: tuple(gold)
        for split in corpus.splits.values()
        for text, gold in zip(split.texts, split.gold, strict=True)
    }
    assert [said[text] for text in ROWS["text"][:2]] == [(0, 1), (1, 1)]
