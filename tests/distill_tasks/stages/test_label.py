from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from builders import spread_weights
from samples import CLASSES, make_rows
from scipy import special

from distill_tasks.config import parse_config
from distill_tasks.data.corpus import Split
from distill_tasks.data.rows import read_corpus
from distill_tasks.data.settings import SampleConfig
from distill_tasks.results.run import make_training_set, start_run
from distill_tasks.results.teacher import make_teacher
from distill_tasks.stages.label import drop_unanswered, label_rows
from distill_tasks.stages.prepare import keep_corpus
from distill_tasks.training.classifier import SequenceClassifier


@pytest.fixture
def saved(written, data_folder):
    """The configuration of a saved teacher that answers every row, in an order of its own."""
    frames = [pd.read_parquet(path) for path in data_folder.glob("*.parquet")]
    texts = sorted(pd.concat([*frames, make_rows(330, seed=1)])["text"].unique(), key=len)
    values = np.random.default_rng(0).normal(size=(len(texts), 3)).round(3)
    table = pd.DataFrame({"fish": values[:, 0], "text": texts, "cats": values[:, 1]})
    table.assign(dogs=values[:, 2]).to_parquet(data_folder.parent / "answers.parquet")
    path = str(data_folder.parent / "answers.parquet")
    written["teacher"] = {"kind": "saved", "path": path, "values": "logits"}
    written["students"] = [{"family": "bag_of_words"}]
    return parse_config(written, "test")


@pytest.fixture
def ready(written, copied_base):
    """The configuration of a random transformer whose answers differ from text to text."""
    lively = spread_weights(copied_base, 0.5)
    written["teacher"] = {"kind": "transformers", "model": str(lively), "max_length": 16}
    return parse_config(written, "test")


@pytest.fixture(params=["saved", "ready"])
def either(request):
    return request.getfixturevalue(request.param)


def read(config):
    classes = config.teacher.check(config.data, config.problem)
    return read_corpus(config.data, config.seed, classes)


def label_all(config, corpus):
    return label_rows(config, corpus, make_teacher(config, corpus))


def test_no_row_is_asked_twice(either):
    corpus = read(either)
    first, second = label_all(either, corpus), label_all(either, corpus)
    assert (first.asked, first.reused) == (len(corpus.texts), False)
    assert (second.asked, second.reused) == (0, True)
    before, after = (labels.open().read(corpus.texts).logits for labels in (first, second))
    np.testing.assert_array_equal(before, after)


def test_only_new_rows_are_asked(either):
    corpus = read(either)
    before = label_all(either, corpus).open().read(corpus.texts).logits
    texts = (*corpus.splits["transfer"].texts, *make_rows(330, seed=1)["text"][300:])
    larger = Split(texts, np.full(len(texts), -1))
    more = replace(corpus, splits={**corpus.splits, "transfer": larger})
    labels = label_all(either, more)
    assert (labels.asked, labels.reused) == (30, False)
    np.testing.assert_array_equal(labels.open().read(corpus.texts).logits, before)


@pytest.fixture
def sampled(saved):
    """Returns the configuration of the saved teacher with a sample of so many rows."""

    def take(rows, kind="stratified"):
        data = saved.data.model_copy(update={"sample": SampleConfig(rows=rows, kind=kind)})
        return saved.model_copy(update={"data": data})

    return take


def test_only_a_sample_is_asked_and_what_it_leaves_out_teaches_nobody(sampled):
    config = sampled(100)
    corpus = read(config)
    labels = label_all(config, corpus)
    assert labels.asked == 100 + len(corpus.evaluation_texts)
    kept = keep_corpus(config, corpus)
    reduced = drop_unanswered(config, kept, labels)
    rows = reduced.open()
    assert len(rows.training_rows) == 100
    assert not labels.open().missing(rows.texts)
    assert rows.splits["train"].digest == corpus.splits["train"].digest  # gold comes first
    assert rows.splits["validation"].digest == corpus.splits["validation"].digest
    assert rows.findings == corpus.findings  # `check` says it, and nobody refused to answer
    run = start_run(config, reduced, make_teacher(config, corpus), labels).open()
    assert len(make_training_set(run, seed=0).rows) == 100


def test_a_larger_sample_asks_only_about_the_further_rows_and_a_smaller_one_nothing(sampled):
    corpus = read(sampled(100))
    asked = [label_all(sampled(rows), corpus).asked for rows in (100, 130, 80, 10_000, 100)]
    everything = len(corpus.training_rows) - 130
    assert asked[1:] == [30, 0, everything, 0]
    labels = label_all(sampled(80), corpus)
    kept = keep_corpus(sampled(80), corpus)
    assert len(drop_unanswered(sampled(80), kept, labels).open().training_rows) == 80


def test_a_sample_of_all_rows_changes_no_corpus(sampled):
    config = sampled(10_000)
    corpus = read(config)
    kept = keep_corpus(config, corpus)
    assert drop_unanswered(config, kept, label_all(config, corpus)).digest == kept.digest


def test_a_row_repeated_in_a_split_is_asked_once(either):
    corpus = read(either)
    train = corpus.splits["train"]
    twice = train.take(np.tile(np.arange(len(train)), 2))
    labels = label_all(either, replace(corpus, splits={"train": twice}))
    assert labels.asked == len(train)
    logits = labels.open().read(twice.texts).logits
    np.testing.assert_array_equal(logits[: len(train)], logits[len(train) :])


def test_saved_answers_arrive_beside_their_texts_and_classes(saved):
    corpus = read(saved)
    table = pd.read_parquet(saved.teacher.path).set_index("text")
    labels = label_all(saved, corpus)
    soft = labels.open().read(corpus.training_rows.texts)
    assert sorted(soft.classes) == list(CLASSES)
    assert soft.classes == corpus.classes
    expected = table.loc[list(corpus.training_rows.texts), list(soft.classes)]
    np.testing.assert_allclose(soft.logits, expected, atol=1e-6)


def test_saved_probabilities_of_several_labels_arrive_as_logits_of_each(saved, written):
    table = pd.read_parquet(saved.teacher.path)
    table[list(CLASSES)] = special.expit(table[list(CLASSES)])
    table.to_parquet(saved.teacher.path)
    teacher = {"kind": "saved", "path": saved.teacher.path}
    several = parse_config(written | {"problem": "multi_label", "teacher": teacher}, "test")
    corpus = read_corpus(several.data, several.seed, problem="multi_label")
    soft = label_all(several, corpus).open().read(corpus.texts)
    expected = table.set_index("text").loc[corpus.texts, list(CLASSES)]
    np.testing.assert_allclose(special.expit(soft.logits), expected, atol=1e-6)


def test_transformers_answers_arrive_in_the_order_of_the_texts(ready):
    corpus = read(ready)
    texts = corpus.training_rows.texts
    soft = label_all(ready, corpus).open().read(texts)
    teacher = SequenceClassifier(ready.teacher.model, 16)
    expected = np.concatenate([next(teacher.answer([text]))[1] for text in texts])
    spread = expected.std(axis=0).mean()
    assert soft.classes == CLASSES
    assert np.abs(soft.logits - expected).mean() < 0.1 * spread
    assert np.abs(soft.logits - expected[::-1]).mean() > 0.5 * spread


def test_a_finetuned_teacher_is_made_once(written):
    written["teacher"]["epochs"] = 1
    config = parse_config(written, "test")
    corpus = read(config)
    first = make_teacher(config, corpus)
    weights = first.model.model / "model.safetensors"
    made = weights.stat().st_mtime_ns
    second = make_teacher(config, corpus)
    assert (first.reused, second.reused) == (False, True)
    assert weights.stat().st_mtime_ns == made
    assert first == replace(second, reused=False)
    assert len(first.curve) == 1


def test_a_finetuned_teacher_whose_folder_is_gone_is_made_again(written):
    written["teacher"]["epochs"] = 1
    config = parse_config(written, "test")
    corpus = read(config)
    first = make_teacher(config, corpus)
    before = label_rows(config, corpus, first)
    (first.model.model / "manifest.json").unlink()
    second = make_teacher(config, corpus)
    assert not second.reused
    assert (second.digest, second.model) == (first.digest, first.model)
    assert (second.model.model / "model.safetensors").is_file()
    assert (before.asked, label_rows(config, corpus, second).asked) == (len(corpus.texts), 0)


def test_a_ready_teacher_brings_its_own_order_of_classes(ready, written, copied_base):
    before = make_teacher(ready, read(ready)).digest
    config = (copied_base / "config.json").read_text()
    swapped = config.replace('"cats"', '"x"').replace('"fish"', '"cats"').replace('"x"', '"fish"')
    (copied_base / "config.json").write_text(swapped)
    other = parse_config(written, "test")
    corpus = read(other)
    assert corpus.classes == make_teacher(other, corpus).classes == ("fish", "dogs", "cats")
    assert make_teacher(other, corpus).digest != before
