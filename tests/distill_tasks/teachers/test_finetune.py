from dataclasses import replace

import numpy as np
import pytest
import torch
from builders import answer_plainly, change_weights
from safetensors.torch import load_file
from samples import CLASSES, WORDS
from transformers import AutoModelForSequenceClassification

from distill_tasks.data.corpus import Corpus, Split
from distill_tasks.teachers.finetune import FinetuneTeacher


@pytest.fixture(scope="module")
def recipe(tiny_base):
    settings = {"max_length": 16, "learning_rate": 0.002, "batch_rows": 8}
    return FinetuneTeacher(base=str(tiny_base), **settings)


@pytest.fixture(scope="module")
def distilled(recipe, corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("taught")
    recipe.train(corpus, folder, seed=7, balanced=False)
    return folder


def test_finetuning_beats_chance_on_held_out_and_names_the_classes(distilled, corpus):
    held_out = corpus.splits["held_out"]
    said = answer_plainly(distilled, held_out.texts).argmax(axis=1)
    assert np.mean(said == held_out.gold) > 0.6
    model = AutoModelForSequenceClassification.from_pretrained(distilled)
    assert model.config.id2label == dict(enumerate(CLASSES))


def test_same_seed_finetunes_the_same_weights_and_another_seed_others(recipe, corpus, tmp_path):
    short = recipe.model_copy(update={"epochs": 1})
    weights = []
    for number, seed in enumerate((7, 7, 8)):
        short.train(corpus, tmp_path / str(number), seed=seed, balanced=False)
        weights.append((tmp_path / str(number) / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]


@pytest.mark.parametrize("kept", [torch.float16, torch.bfloat16])
def test_a_base_kept_in_16_bits_is_finetuned_in_float32(recipe, copied_base, corpus, kept):
    model = AutoModelForSequenceClassification.from_pretrained(copied_base)
    model.to(kept).save_pretrained(copied_base)
    short = recipe.model_copy(update={"base": str(copied_base), "epochs": 1})
    short.train(corpus, copied_base.parent / "out", seed=7, balanced=False)
    weights = load_file(copied_base.parent / "out" / "model.safetensors").values()
    assert any(not torch.equal(value, value.to(kept).float()) for value in weights)


@pytest.mark.parametrize(
    ("split", "differs"), [("train", True), ("validation", True), ("transfer", False)]
)
def test_finetune_digest_sees_gold_rows_but_no_transfer_rows(recipe, corpus, split, differs):
    fewer = corpus.splits[split].take(np.arange(5))
    other = replace(corpus, splits={**corpus.splits, split: fewer})
    assert (
        recipe.digest(corpus, 7, balanced=False) != recipe.digest(other, 7, balanced=False)
    ) is differs


def test_finetune_digest_sees_seed_settings_and_base(recipe, corpus, copied_base):
    copied = recipe.model_copy(update={"base": str(copied_base)})
    before = recipe.digest(corpus, 7, balanced=False)
    assert copied.digest(corpus, 7, balanced=False) == before
    change_weights(copied_base)
    longer = recipe.model_copy(update={"epochs": 9})
    others = [(recipe, 8, False), (longer, 7, False), (copied, 7, False), (recipe, 7, True)]
    assert before not in [teacher.digest(corpus, *rest) for teacher, *rest in others]


MOODS = {
    "calm": {"purr", "whisker", "kitten"},
    "funny": {"meow", "claw", "bark", "leash"},
    "loud": set(WORDS["fish"]),
    "sad": {"house", "today"},
}


def mark_moods(corpus):
    """The same texts with other labels: any number of four, told by the words in them."""
    splits = {}
    for name, split in corpus.splits.items():
        words = [set(text.split()) for text in split.texts]
        gold = [[bool(marks & row) for marks in MOODS.values()] for row in words]
        splits[name] = Split(split.texts, np.array(gold, np.int64))
    return Corpus(splits, tuple(MOODS), problem="multi_label")


def test_finetuning_on_several_labels_gives_a_classifier_of_several_labels(
    recipe, corpus, tmp_path
):
    several = mark_moods(corpus)
    short = recipe.model_copy(update={"epochs": 5})
    curve = short.train(several, tmp_path, seed=7, balanced=False)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert model.config.problem_type == "multi_label_classification"
    assert model.config.id2label == dict(enumerate(MOODS))
    held_out = several.splits["held_out"]
    said = answer_plainly(tmp_path, held_out.texts) > 0
    always = held_out.gold.mean(axis=0) > 0.5
    assert np.mean(said == held_out.gold) > np.mean(always == held_out.gold) + 0.1
    assert curve[-1]["validation/macro_f1"] > 0.6


def test_a_base_whose_head_has_other_classes_gets_a_new_one(recipe, corpus, tmp_path):
    short = recipe.model_copy(update={"epochs": 1})
    short.train(mark_moods(corpus), tmp_path, seed=7, balanced=False)
    assert load_file(tmp_path / "model.safetensors")["classifier.bias"].shape == (4,)


@pytest.mark.parametrize("balanced", [False, True])
def test_balanced_finetuning_says_the_rare_class_more_often(recipe, corpus, tmp_path, balanced):
    train = corpus.splits["train"]
    rare = np.flatnonzero(train.gold == 2)[:6]
    rows = np.concatenate([np.flatnonzero(train.gold != 2), rare])
    fewer = replace(corpus, splits={**corpus.splits, "train": train.take(rows)})
    short = recipe.model_copy(update={"epochs": 1})
    short.train(fewer, tmp_path, seed=7, balanced=balanced)
    logits = answer_plainly(tmp_path, corpus.splits["held_out"].texts)
    told = torch.softmax(torch.from_numpy(logits), dim=1)[:, 2].mean()
    assert bool(told > 0.22) is balanced
