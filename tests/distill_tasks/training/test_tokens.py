import threading

import numpy as np
import pytest
import torch
import transformers
from datasets import Dataset
from samples import CLASSES, make_rows

from distill_tasks.training.recipe import Recipe
from distill_tasks.training.token_store import Tokens
from distill_tasks.training.tokens import LENGTH, STEP, pad
from distill_tasks.training.trainer import train_classifier

FRAME = make_rows(40, seed=4)
TEXTS = list(FRAME["text"])
OTHERS = TEXTS[30:]
COLUMNS = {"input_ids", "token_type_ids", "attention_mask", LENGTH}


@pytest.fixture
def tokens(tiny_base, tmp_path):
    """A fresh tokenizer, as each training has one, and the cache that all share."""

    def make(max_length=16, folder=tmp_path / "tokens", base=tiny_base, **settings):
        tokenizer = transformers.AutoTokenizer.from_pretrained(base, **settings)
        return Tokens(tokenizer, max_length, folder)

    return make


@pytest.fixture
def made(monkeypatch):
    """How many texts were turned into token ids and kept, each time."""
    kept = []
    plain = Dataset.save_to_disk

    def save(dataset, *args, **kwargs):
        kept.append(len(dataset))
        return plain(dataset, *args, **kwargs)

    monkeypatch.setattr(Dataset, "save_to_disk", save)
    return kept


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("texts", [TEXTS[:7], [""], ["", *TEXTS[:3]]])
@pytest.mark.parametrize(("most", "multiple"), [(16, STEP), (15, None), (5, None)])
def test_batches_are_padded_as_the_tokenizer_would(tiny_base, side, texts, most, multiple):
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_base, padding_side=side)
    tokenizer.pad_token, tokenizer._pad_token_type_id = "[UNK]", 1  # not 0, as all else may be
    rows = tokenizer(texts, truncation=True, max_length=most)
    theirs = tokenizer.pad(rows, pad_to_multiple_of=multiple, return_tensors="pt")
    ours = pad(tokenizer, rows, most)
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        torch.testing.assert_close(ours[name], expected, rtol=0, atol=0)
    assert ours["input_ids"].shape[1] % (multiple or 1) == 0


def stamp(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_tokens_are_those_of_the_tokenizer_with_their_number(tokens, tiny_base):
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_base)
    expected = [tokenizer(text, truncation=True, max_length=7) for text in TEXTS]
    for folder in ({}, {"folder": None}):
        found = tokens(7, **folder).read(TEXTS)
        assert set(found.column_names) == COLUMNS
        for column in COLUMNS - {LENGTH}:
            assert list(found[column]) == [row[column] for row in expected]
        assert list(found[LENGTH]) == [len(row["input_ids"]) for row in expected]
        assert max(found[LENGTH]) == 7


def test_tokens_are_made_once_and_then_read_from_arrow(tokens, made, tmp_path):
    first = [list(tokens().read(texts)["input_ids"]) for texts in (TEXTS, OTHERS)]
    before = stamp(tmp_path / "tokens")
    assert made == [40, 10]
    for _ in range(3):
        again = tokens()
        found = [again.read(texts) for texts in (TEXTS, OTHERS)]
        assert [list(rows["input_ids"]) for rows in found] == first
        assert all(rows.cache_files[0]["filename"].endswith(".arrow") for rows in found)
    assert made == [40, 10]
    assert stamp(tmp_path / "tokens") == before


def test_the_order_in_which_texts_are_asked_for_does_not_matter(tokens, made):
    for order in ((TEXTS, OTHERS), (OTHERS, TEXTS), (OTHERS,)):
        one = tokens()
        for texts in order:
            one.read(texts)
    assert made == [40, 10]


def test_a_tokenizer_saved_in_use_makes_the_same_tokens(tokens, made, copied_base):
    tokens().read(TEXTS)
    used = transformers.AutoTokenizer.from_pretrained(copied_base)
    used(TEXTS, truncation=True, max_length=5, padding=True)
    used.save_pretrained(copied_base)
    found = tokens(base=copied_base).read(TEXTS)
    assert len(set(found[LENGTH])) > 1 or max(found[LENGTH]) > 5
    assert made == [40]


def test_other_texts_lengths_and_tokenizers_are_kept_apart(tokens, made, copied_base):
    tokens().read(TEXTS)
    vocabulary = (copied_base / "tokenizer.json").read_text()
    (copied_base / "tokenizer.json").write_text(vocabulary.replace('"purr"', '"hiss"'))
    others = [
        (tokens(), TEXTS[:-1]),
        (tokens(), TEXTS[::-1]),
        (tokens(9), TEXTS),
        (tokens(9, truncation_side="left"), TEXTS),
        (tokens(model_input_names=["input_ids", "attention_mask"]), TEXTS),
        (tokens(base=copied_base), TEXTS),
    ]
    for one, texts in others:
        found = one.read(texts)
        fresh = Tokens(one.tokenizer, one.max_length, None).read(texts)
        assert found.to_dict() == fresh.to_dict()
    assert made == [40, 39, 40, 40, 40, 40, 40]


@pytest.mark.parametrize("texts", [[""], ["", "purr", ""], ["same"] * 3])
def test_few_and_empty_texts_are_texts_too(tokens, texts):
    for _ in range(2):
        found = tokens().read(texts)
        assert len(found) == len(texts)
        assert [len(ids) for ids in found["input_ids"]] == list(found[LENGTH])


def test_a_tokenizer_is_saved_the_same_whether_tokens_were_made_or_read(tokens, tmp_path):
    saved = []
    for number, folder in enumerate((None, tmp_path / "cache", tmp_path / "cache")):
        one = tokens(folder=folder)
        one.read(TEXTS)
        one.tokenizer.save_pretrained(tmp_path / str(number))
        saved.append((tmp_path / str(number) / "tokenizer.json").read_bytes())
    assert saved[0] == saved[1] == saved[2]


def test_a_draft_half_written_at_a_kill_harms_nothing(tokens, made, monkeypatch, tmp_path):
    plain = Dataset.save_to_disk

    def die(dataset, path, *args, **kwargs):
        plain(dataset, path, *args, **kwargs)
        (path / "state.json").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Dataset, "save_to_disk", die)
        with pytest.raises(KeyboardInterrupt):
            tokens().read(TEXTS)
    assert list((tmp_path / "tokens").iterdir()) == []
    left = tmp_path / "tokens" / "tmpkilled"  # as kill -9 leaves it
    left.mkdir()
    (left / "data-00000-of-00001.arrow").write_bytes(b"half")
    for _ in range(2):
        assert list(tokens().read(TEXTS)[LENGTH])
    assert made == [40, 40]


def test_a_full_disk_is_told_and_leaves_nothing(tokens, monkeypatch, tmp_path):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Dataset, "save_to_disk", fail)
    with pytest.raises(OSError, match="No space left"):
        tokens().read(TEXTS)
    assert list((tmp_path / "tokens").iterdir()) == []


@pytest.mark.parametrize("at_once", [2, 4])
def test_two_at_once_both_have_their_tokens_and_one_folder_stays(
    tokens, monkeypatch, tmp_path, at_once
):
    plain, barrier = Dataset.save_to_disk, threading.Barrier(at_once)

    def save(dataset, *args, **kwargs):
        plain(dataset, *args, **kwargs)
        barrier.wait(60)  # every draft is whole before the first is renamed

    monkeypatch.setattr(Dataset, "save_to_disk", save)
    readers = [tokens() for _ in range(at_once)]
    found = []
    threads = [
        threading.Thread(target=lambda one=one: found.append(one.read(TEXTS))) for one in readers
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == at_once
    assert len({str(rows.to_dict()) for rows in found}) == 1
    assert len(list((tmp_path / "tokens").iterdir())) == 1
    assert tokens().read(TEXTS).to_dict() == found[0].to_dict()


def test_who_reads_goes_on_reading_while_another_is_late(tokens, monkeypatch):
    plain, reading = Dataset.save_to_disk, []

    def be_late(dataset, *args, **kwargs):
        monkeypatch.setattr(Dataset, "save_to_disk", plain)
        reading.append(tokens().read(TEXTS))
        plain(dataset, *args, **kwargs)

    monkeypatch.setattr(Dataset, "save_to_disk", be_late)
    late = tokens().read(TEXTS)
    assert reading[0].to_dict() == late.to_dict()
    assert reading[0].cache_files == late.cache_files


def test_trainings_share_tokens_and_learn_the_same_from_them(tiny_base, made, tmp_path):
    gold = np.array([CLASSES.index(name) for name in FRAME["label"]])
    recipe = Recipe(epochs=1, learning_rate=0.003, batch_rows=8, max_length=16, seed=3)

    def make():
        transformers.set_seed(0)
        return transformers.BertForSequenceClassification.from_pretrained(
            tiny_base, num_hidden_layers=1
        )

    def train(name, cache):
        (tmp_path / name).mkdir()
        tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_base)
        tokens = Tokens(tokenizer, 16, cache)
        return train_classifier(
            make,
            tokenizer,
            tokens.read_rows(TEXTS[:30], gold[:30]),
            tokens.read_rows(TEXTS[30:], gold[30:]),
            recipe,
            tmp_path / name,
        )

    curves = [train("none", None), *(train(n, tmp_path / "cache") for n in ("first", "second"))]
    assert made == [30, 10]
    assert curves[0] == curves[1] == curves[2]
    for path in (tmp_path / "none").iterdir():
        for name in ("first", "second"):
            assert (tmp_path / name / path.name).read_bytes() == path.read_bytes()
