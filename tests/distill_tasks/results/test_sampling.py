"""What is chosen in rounds; the student is a real bag of words, the teacher counts words."""

import shutil
from itertools import pairwise

import answering
import numpy as np
import pandas as pd
import pytest
from samples import CLASSES, FILLERS, WORDS, make_rows

from distill_tasks.config import parse_config
from distill_tasks.data.rows import read_corpus
from distill_tasks.data.sampling import order_texts
from distill_tasks.data.soft_labels import SoftLabelStore
from distill_tasks.results.sampling import find_sample, list_rounds
from distill_tasks.results.teacher import make_teacher
from distill_tasks.stages.label import label_rows

ROUNDS = (200, 300, 450)
"""Where the first rounds end."""


@pytest.fixture
def unsure(tmp_path):
    """Write 40 texts with gold and 560 without, one in seven of these of two classes' words."""
    mixed = mix_classes(80)
    clear = make_rows(600, seed=1)
    parts = {
        "train": clear[:40],
        "validation": clear[40:60],
        "held_out": clear[60:80],
        "transfer": pd.concat([clear[80:560], mixed])[["text"]],
    }
    for name, frame in parts.items():
        frame.to_parquet(tmp_path / f"{name}.parquet", index=False)
    return {
        "name": "unsure",
        "work_dir": str(tmp_path / "work"),
        "data": {name: str(tmp_path / f"{name}.parquet") for name in parts},
        "teacher": {"kind": "callable", "function": "answering:counted"},
        "students": [{"family": "bag_of_words"}],
        "registry": {"model": "unsure"},
    }


def mix_classes(count):
    generator, texts = np.random.default_rng(5), set()
    while len(texts) < count:
        pair = generator.choice(CLASSES, 2, replace=False)
        words = [word for name in pair for word in generator.choice(WORDS[name], 2)]
        texts.add(" ".join([*words, *generator.choice(FILLERS, 3)]))
    return pd.DataFrame({"text": sorted(texts)})


def sample(written, rows, kind="uncertain", **changes):
    data = written["data"] | {"sample": {"rows": rows, "kind": kind}}
    return parse_config(written | {"data": data} | changes, "test")


def read(config):
    return read_corpus(config.data, config.seed)


def label(config):
    """Label a sample; return its texts, and which texts the teacher was asked about."""
    answering.ASKED.clear()
    corpus = read(config)
    labels = label_rows(config, corpus, make_teacher(config, corpus))
    assert labels.asked == len(answering.ASKED)
    return find_sample(config, corpus), list(answering.ASKED)


def test_the_texts_of_which_the_student_is_least_sure_are_asked_about(unsure):
    config = sample(unsure, 450)
    chosen, _ = label(config)
    order = order_texts(read(config), config.data.sample, config.seed)
    assert chosen[:200] == order[:200]
    mixed = set(mix_classes(80)["text"])
    share_at_random = len(mixed & set(order[200:])) / len(order[200:])
    assert len(mixed & set(chosen[200:])) / 250 > 1.5 * share_at_random


def test_of_each_round_three_in_ten_are_the_next_in_order(unsure):
    config = sample(unsure, 450)
    chosen, _ = label(config)
    order = order_texts(read(config), config.data.sample, config.seed)
    for start, end in pairwise(ROUNDS):
        rest = [text for text in order if text not in set(chosen[:start])]
        assert set(rest[: 3 * (end - start) // 10]) <= set(chosen[start:end])


def test_each_text_is_asked_about_once_and_a_second_run_asks_nothing(unsure):
    config = sample(unsure, 350)
    chosen, asked = label(config)
    corpus = read(config)
    assert len(chosen) == len(set(chosen)) == 350
    assert sorted(asked) == sorted([*chosen, *corpus.evaluation_texts])
    assert label(config) == (chosen, [])


def test_a_larger_sample_asks_only_about_what_is_new_and_is_the_one_asked_for_at_once(unsure):
    small, _ = label(sample(unsure, 250))
    large, asked = label(sample(unsure, 380))
    assert large[:250] == small
    assert sorted(asked) == sorted(large[250:])
    assert label(sample(unsure, 250)) == (small, [])
    shutil.rmtree(unsure["work_dir"])
    assert label(sample(unsure, 380))[0] == large


def test_a_sample_of_fewer_texts_than_the_first_round_trains_no_student(unsure):
    config = sample(unsure, 60)
    stratified = sample(unsure, 60, kind="stratified")
    assert label(config)[0] == find_sample(stratified, read(stratified))


def test_what_a_killed_round_had_chosen_is_asked_about_first(unsure):
    config = sample(unsure, 450)
    corpus = read(config)
    teacher = make_teacher(config, corpus)
    answers = SoftLabelStore(config.work_dir + "/labels", teacher.digest, teacher.classes)
    rounds = list_rounds(config, corpus, answers)
    first = next(rounds)
    answers.add(first, answering.by_words(first).astype(np.float32))
    second = next(rounds)  # and here it is killed
    assert len(second) == 100
    again = next(list_rounds(config, corpus, answers))
    assert again[:300] == [*first[:200], *second]
    assert find_sample(config, corpus)[:300] == again[:300]


def test_without_any_answer_texts_are_taken_in_their_order(unsure):
    unsure["teacher"] = {"kind": "callable", "function": "answering:nothing"}
    config = sample(unsure, 250)
    corpus = read(config)
    label_rows(config, corpus, make_teacher(config, corpus))
    order = order_texts(corpus, config.data.sample, config.seed)
    assert set(find_sample(config, corpus)) == set(order[:250])


def test_all_texts_are_chosen_in_the_end(unsure):
    config = sample(unsure, 10_000)
    chosen, _ = label(config)
    assert sorted(chosen) == sorted(set(read(config).training_rows.texts))
