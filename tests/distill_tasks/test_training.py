import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file
from samples import CLASSES, make_rows
from sklearn.metrics import f1_score

from distill_tasks.training import Recipe, Rows, name_classes, train_classifier, without_dropout

STEPS_PER_EPOCH = 6
RECIPE = Recipe(epochs=4, learning_rate=0.003, batch_rows=16, max_length=16, seed=3)


@pytest.fixture(scope="module")
def rows():
    frame = make_rows(140, seed=2)
    return list(frame["text"]), np.array([CLASSES.index(name) for name in frame["label"]])


@pytest.fixture
def train(tiny_base, rows):
    """Train one fresh model into a folder; ``shift`` teaches validation other classes."""
    texts, gold = rows

    def run(folder, recipe=RECIPE, shift=0, gold=gold):
        transformers.set_seed(0)
        model = transformers.BertForSequenceClassification.from_pretrained(
            tiny_base, num_hidden_layers=1, attn_implementation="eager", dtype="float32"
        )
        return train_classifier(
            model,
            transformers.AutoTokenizer.from_pretrained(tiny_base),
            Rows(texts[:96], gold[:96]),
            Rows(texts[96:], (gold[96:] + shift) % 3 if shift else gold[96:]),
            recipe,
            folder,
        )

    return run


@pytest.fixture
def interrupt(monkeypatch, train):
    """Train into a folder and be stopped inside a given step."""

    def run(folder, step):
        count = iter(range(1, 1000))
        whole = transformers.Trainer.training_step

        def stop(*args, **kwargs):
            if next(count) == step:
                raise KeyboardInterrupt
            return whole(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(transformers.Trainer, "training_step", stop)
            with pytest.raises(KeyboardInterrupt):
                train(folder)
        return sorted(path.name for path in (folder / "checkpoints").iterdir())

    return run


@pytest.fixture
def steps(monkeypatch):
    """The steps that are really taken."""
    taken = []
    whole = transformers.Trainer.training_step

    def count(*args, **kwargs):
        taken.append(1)
        return whole(*args, **kwargs)

    monkeypatch.setattr(transformers.Trainer, "training_step", count)
    return taken


def answer(folder, texts):
    """The logits of a saved model, in float32."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        return model(**tokenizer(texts, padding=True, return_tensors="pt")).logits


def measure(folder, texts, gold):
    """The loss and accuracy of a saved model."""
    logits = answer(folder, texts)
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(gold))
    return float(loss), float(np.mean(logits.argmax(1).numpy() == gold))


def test_a_killed_training_continues_from_its_checkpoint(train, interrupt, steps, tmp_path):
    whole = train(tmp_path / "whole")
    assert interrupt(tmp_path / "killed", STEPS_PER_EPOCH * 2 + 3) == ["checkpoint-12"]
    steps.clear()
    continued = train(tmp_path / "killed")
    assert len(steps) == STEPS_PER_EPOCH * 2
    assert [point["step"] for point in continued] == [6, 12, 18, 24]
    assert continued == whole
    one, other = (load_file(tmp_path / n / "model.safetensors") for n in ("whole", "killed"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_training_killed_before_its_first_checkpoint_starts_again(
    train, interrupt, steps, tmp_path
):
    assert interrupt(tmp_path, 3) == []
    steps.clear()
    train(tmp_path)
    assert len(steps) == STEPS_PER_EPOCH * 4


def test_a_checkpoint_half_written_at_the_kill_is_no_crash(train, interrupt, tmp_path):
    (newest,) = interrupt(tmp_path, STEPS_PER_EPOCH + 3)
    (tmp_path / "checkpoints" / newest / "trainer_state.json").unlink()  # it is written last
    assert [point["step"] for point in train(tmp_path)] == [6, 12, 18, 24]


def test_an_older_whole_checkpoint_is_continued_where_the_newest_is_half(
    train, interrupt, steps, tmp_path
):
    (newest,) = interrupt(tmp_path, STEPS_PER_EPOCH + 3)
    half = tmp_path / "checkpoints" / "checkpoint-12"
    shutil.copytree(tmp_path / "checkpoints" / newest, half)
    (half / "trainer_state.json").unlink()
    steps.clear()
    train(tmp_path)
    assert len(steps) == STEPS_PER_EPOCH * 3


def test_curve_has_losses_and_the_accuracy_of_the_saved_model(train, rows, tmp_path):
    curve = train(tmp_path)
    texts, gold = rows
    loss, accuracy = measure(tmp_path, texts[96:], gold[96:])
    scores = {"validation/loss", "validation/accuracy", "validation/macro_f1"}
    assert [set(point) for point in curve] == [{"epoch", "step", "train/loss"} | scores] * 4
    assert [point["epoch"] for point in curve] == [1, 2, 3, 4]
    assert curve[-1]["validation/accuracy"] == pytest.approx(accuracy, abs=0.05)
    assert curve[-1]["validation/loss"] == pytest.approx(loss, rel=0.05)
    assert not (tmp_path / "checkpoints").exists()


def test_curve_of_several_labels_has_the_scores_of_the_saved_model(train, rows, tmp_path):
    texts, gold = rows
    several = np.stack([gold == 0, gold < 2, np.ones(len(gold))], axis=1).astype(np.int64)
    recipe = replace(RECIPE, problem="multi_label", epochs=2)
    curve = train(tmp_path, recipe, gold=several)
    said = answer(tmp_path, texts[96:]).numpy() > 0
    assert curve[-1]["validation/accuracy"] == pytest.approx(
        np.mean((said == several[96:]).all(axis=1)), abs=0.05
    )
    assert curve[-1]["validation/macro_f1"] == pytest.approx(
        f1_score(several[96:], said, average="macro", zero_division=0), abs=0.05
    )
    weights = torch.tensor([1.0, 2.0, 3.0])
    weighed = replace(recipe, class_weights=weights.numpy(), epochs=1)
    curve = train(tmp_path / "weighed", weighed, gold=several)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(
        answer(tmp_path / "weighed", texts[96:]),
        torch.from_numpy(several[96:]).float(),
        pos_weight=weights,
    )
    assert curve[-1]["validation/loss"] == pytest.approx(float(loss), rel=0.05)


def test_without_gold_on_validation_there_is_no_validation_curve(train, rows, tmp_path):
    gold = rows[1].copy()
    gold[96:] = -1
    curve = train(tmp_path, replace(RECIPE, epochs=1), gold=gold)
    assert [set(point) for point in curve] == [{"epoch", "step", "train/loss"}]


def test_early_stopping_keeps_the_best_epoch(train, rows, tmp_path):
    patient = Recipe(12, 0.01, batch_rows=16, max_length=16, seed=3, patience_epochs=3)
    curve = train(tmp_path, patient, shift=1)
    losses = [point["validation/loss"] for point in curve]
    texts, gold = rows
    kept, _ = measure(tmp_path, texts[96:], (gold[96:] + 1) % 3)
    assert len(losses) == losses.index(min(losses)) + 1 + 3 < 12
    assert losses[-1] > 1.1 * min(losses)
    assert kept == pytest.approx(min(losses), rel=0.02)


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "electra"])
def test_without_dropout_a_model_in_training_answers_the_same_twice(kind):
    torch.manual_seed(0)
    small = {"num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 30}
    width = {"dim": 8, "hidden_dim": 8} if kind == "distilbert" else {"hidden_size": 8}
    config = transformers.AutoConfig.for_model(kind, **small, **width, **name_classes(CLASSES))
    ids = torch.randint(5, 30, (2, 8))

    def answer_twice():
        model = transformers.AutoModelForSequenceClassification.from_config(config).train()
        return [model(ids).logits for _ in range(2)]

    assert not torch.equal(*answer_twice())
    assert without_dropout(config) is config
    assert torch.equal(*answer_twice())
    assert config.id2label == dict(enumerate(CLASSES))
