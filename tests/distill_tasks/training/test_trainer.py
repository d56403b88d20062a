import shutil
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from samples import CLASSES, make_rows
from sklearn.metrics import f1_score
from transformers import BertForSequenceClassification

from distill_tasks.training import device
from distill_tasks.training.batches import SORTED_STEPS, Order
from distill_tasks.training.model_settings import class_settings, without_dropout
from distill_tasks.training.recipe import Recipe
from distill_tasks.training.token_store import Tokens
from distill_tasks.training.trainer import is_out_of_memory, train_classifier
from distill_tasks.training.working_copy import WorkingCopy

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

    def run(folder, recipe=RECIPE, shift=0, gold=gold, build=BertForSequenceClassification, **of):
        def make():
            transformers.set_seed(0)
            settings = {"num_hidden_layers": 1, "attn_implementation": "eager"} | of
            return build.from_pretrained(tiny_base, dtype="float32", **settings)

        tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_base)
        tokens = Tokens(tokenizer, recipe.max_length, None)
        return train_classifier(
            make,
            tokenizer,
            tokens.read_rows(texts[:96], gold[:96]),
            tokens.read_rows(texts[96:], (gold[96:] + shift) % 3 if shift else gold[96:]),
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


def read(folder):
    """The bytes of a saved model."""
    return (folder / "model.safetensors").read_bytes()


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
    assert read(tmp_path / "killed") == read(tmp_path / "whole")


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


def test_patience_without_gold_on_validation_stops_nothing(train, rows, tmp_path):
    gold = rows[1].copy()
    gold[96:] = -1
    curve = train(tmp_path / "patient", replace(RECIPE, patience_epochs=1), gold=gold)
    assert [point["epoch"] for point in curve] == [1, 2, 3, 4]
    train(tmp_path / "plain", RECIPE, gold=gold)
    assert read(tmp_path / "patient") == read(tmp_path / "plain")


def test_patience_that_never_ends_keeps_the_best_epoch_too(train, rows, tmp_path):
    patient = Recipe(12, 0.01, batch_rows=16, max_length=16, seed=3, patience_epochs=12)
    curve = train(tmp_path, patient, shift=1)
    losses = [point["validation/loss"] for point in curve]
    assert len(losses) == 12
    assert losses[-1] > 1.1 * min(losses)
    texts, gold = rows
    kept, _ = measure(tmp_path, texts[96:], (gold[96:] + 1) % 3)
    assert kept == pytest.approx(min(losses), rel=0.02)


# Batches in parts

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


@pytest.fixture
def in_float32(monkeypatch):
    """A machine without bf16, whose rounding would hide small mistakes."""
    monkeypatch.setattr(device, "has_bf16_instructions", lambda: False)


class Frozen(BertForSequenceClassification):
    """A model that learns no embeddings."""

    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        model = super().from_pretrained(*args, **kwargs)
        model.bert.embeddings.requires_grad_(False)
        return model


@pytest.mark.parametrize(("build", "expected"), [(BertForSequenceClassification, 0), (Frozen, 12)])
def test_with_bf16_a_model_computes_in_a_copy_unless_its_embeddings_learn(
    train, monkeypatch, tmp_path, build, expected
):
    short, handed, hand_over = replace(RECIPE, epochs=2), [], WorkingCopy.hand_over

    def count(copied):
        handed.append(1)
        hand_over(copied)

    def learn(name):
        train(tmp_path / name, short, build=build, **NO_DROPOUT)
        return load_file(tmp_path / name / "model.safetensors")

    monkeypatch.setattr(device, "has_bf16_instructions", lambda: False)
    exact = learn("exact")
    monkeypatch.setattr(WorkingCopy, "hand_over", count)
    monkeypatch.setattr(device, "has_bf16_instructions", lambda: True)
    given = learn("copied")
    assert len(handed) == expected
    for name, weight in exact.items():
        assert given[name].dtype == torch.float32
        torch.testing.assert_close(given[name], weight, rtol=0, atol=0.02, msg=name)


@pytest.mark.usefixtures("in_float32")
@pytest.mark.parametrize(("batch_rows", "batches"), [(8, 2), (4, 4), (2, 8)])
def test_batches_of_equal_parts_give_the_weights_of_whole_ones(
    train, steps, tmp_path, batch_rows, batches
):
    short = replace(RECIPE, epochs=2)
    parts = replace(short, batch_rows=batch_rows, accumulated_batches=batches)
    curve = train(tmp_path / "whole", short, **NO_DROPOUT)
    steps.clear()
    found = train(tmp_path / "parts", parts, **NO_DROPOUT)
    assert len(steps) == 2 * STEPS_PER_EPOCH * batches
    for point, expected in zip(found, curve, strict=True):
        assert point == pytest.approx(expected, abs=1e-6)
    whole, added = (load_file(tmp_path / n / "model.safetensors") for n in ("whole", "parts"))
    for name, weight in whole.items():
        torch.testing.assert_close(added[name], weight, rtol=0, atol=1e-5, msg=name)


def test_batches_in_parts_go_on_from_the_same_step(train, tmp_path):
    parts = replace(RECIPE, epochs=2, batch_rows=8, accumulated_batches=2)
    expected = train(tmp_path / "whole", parts)
    for share in (3 / 12, 8 / 12):
        train(tmp_path / "parts", replace(parts, share=share))
    found = train(tmp_path / "parts", parts)
    assert [point["step"] for point in found] == [6, 12]
    assert found[-1] == pytest.approx(expected[-1], rel=1e-6)
    assert read(tmp_path / "parts") == read(tmp_path / "whole")


# Out of memory


def hungry(most=8, from_batch=1):
    """A model that asks for far too much memory for batches of more rows than ``most``."""

    class Hungry(BertForSequenceClassification):
        def __init__(self, config):
            assert not alive, "two models at once take the memory of two"
            super().__init__(config)
            alive.add(self)

        def forward(self, input_ids, **others):
            if self.training:
                batches.append(len(input_ids))
                if len(input_ids) > most and len(batches) >= from_batch:
                    torch.empty(2**50)
            return super().forward(input_ids, **others)

    alive, batches = weakref.WeakSet(), []
    Hungry.batches = batches
    return Hungry


def notices(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "potstill"]


@pytest.mark.parametrize(
    ("batch_rows", "most", "parts"), [(16, 8, 8), (16, 15, 8), (12, 6, 6), (15, 5, 5), (7, 1, 1)]
)
def test_out_of_memory_it_goes_on_with_half_the_rows_for_as_many_steps(
    train, caplog, tmp_path, batch_rows, most, parts
):
    recipe = replace(RECIPE, epochs=2, batch_rows=batch_rows)
    curve = train(tmp_path, recipe, build=hungry(most=most))
    said = f"train: out of memory, trying again with {parts} rows at a time"
    assert notices(caplog) == [said]
    per_epoch = -(-96 // batch_rows)
    assert [point["step"] for point in curve] == [per_epoch, 2 * per_epoch]


def test_out_of_memory_it_learns_what_it_would_have_learnt_in_parts(train, tmp_path):
    train(tmp_path / "hungry", RECIPE, build=hungry())
    parts = replace(RECIPE, batch_rows=8, accumulated_batches=2)
    train(tmp_path / "parts", parts)
    assert read(tmp_path / "hungry") == read(tmp_path / "parts")


@pytest.mark.parametrize("batch_rows", [16, 7, 2, 1])
def test_out_of_memory_twice_is_a_failure(train, caplog, tmp_path, batch_rows):
    build = hungry(most=0)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        train(tmp_path, replace(RECIPE, batch_rows=batch_rows), build=build)
    assert len(build.batches) == len(notices(caplog)) + 1 == min(batch_rows, 2)


def test_out_of_memory_late_it_goes_on_from_the_last_epoch(train, caplog, steps, tmp_path):
    build = hungry(from_batch=STEPS_PER_EPOCH + 3)
    curve = train(tmp_path, RECIPE, build=build)
    assert len(notices(caplog)) == 1
    assert [point["step"] for point in curve] == [6, 12, 18, 24]
    assert len(steps) == STEPS_PER_EPOCH + 3 + 3 * STEPS_PER_EPOCH * 2


def test_another_error_is_not_tried_again(train, caplog, tmp_path):
    class Broken(BertForSequenceClassification):
        def forward(self, **_):
            return torch.ones(2) @ torch.ones(3)

    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        train(tmp_path, build=Broken)
    assert notices(caplog) == []


def say(act):
    with pytest.raises((RuntimeError, MemoryError, ValueError)) as caught:
        act()
    return caught.value


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (lambda: torch.empty(2**50), True),
        (lambda: np.ones(2**55), True),
        (lambda: bytearray(2**60), True),
        (lambda: torch.ones(2) @ torch.ones(3), False),
        (lambda: torch.ones(2).view(3), False),
        (lambda: int("out of memory"), False),
    ],
)
def test_running_out_of_memory_is_told_from_other_errors(act, expected):
    assert is_out_of_memory(say(act)) is expected


def test_a_gpu_out_of_memory_is_one_too():
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "electra"])
def test_without_dropout_a_model_in_training_answers_the_same_twice(kind):
    torch.manual_seed(0)
    small = {"num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 30}
    width = {"dim": 8, "hidden_dim": 8} if kind == "distilbert" else {"hidden_size": 8}
    config = transformers.AutoConfig.for_model(kind, **small, **width, **class_settings(CLASSES))
    ids = torch.randint(5, 30, (2, 8))

    def answer_twice():
        model = transformers.AutoModelForSequenceClassification.from_config(config).train()
        return [model(ids).logits for _ in range(2)]

    assert not torch.equal(*answer_twice())
    assert without_dropout(config) is config
    assert torch.equal(*answer_twice())
    assert config.id2label == dict(enumerate(CLASSES))


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=200),
    batch_rows=st.integers(1, 8),
    accumulated=st.integers(1, 3),
    epoch=st.integers(0, 3),
)
def test_rows_come_once_each_and_sorted_by_length_within_a_few_steps_only(
    lengths, batch_rows, accumulated, epoch
):
    recipe = replace(RECIPE, batch_rows=batch_rows, accumulated_batches=accumulated)
    order = Order(recipe, lengths, lambda: epoch)
    rows = list(order)
    assert sorted(rows) == list(range(len(lengths)))
    assert list(order) == rows
    assert lengths[rows[0]] == max(lengths)  # memory runs out at once or not at all
    drawn = SORTED_STEPS * batch_rows * accumulated
    for start in range(0, len(rows), drawn):
        part = [lengths[row] for row in rows[start + 1 : start + drawn]]
        assert part == sorted(part, reverse=True)
