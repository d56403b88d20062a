import copy

import pytest
import torch
import transformers
from samples import CLASSES, make_rows

from distill_tasks.training.model_settings import class_settings, without_dropout
from distill_tasks.training.working_copy import WorkingCopy, learns_embeddings

TEXTS = list(make_rows(12, seed=5)["text"])
GOLD = torch.arange(12) % len(CLASSES)


@pytest.fixture
def batch(tiny_base):
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_base)
    return dict(tokenizer(TEXTS, padding=True, return_tensors="pt"))


@pytest.fixture
def model(tiny_base):
    transformers.set_seed(1)
    config = transformers.AutoConfig.from_pretrained(tiny_base, **class_settings(CLASSES))
    made = transformers.AutoModelForSequenceClassification.from_pretrained(
        tiny_base, config=without_dropout(config), dtype="float32"
    )
    made.classifier.weight.data *= 30  # so that rows answer differently, as trained ones do
    made.base_model.embeddings.requires_grad_(False)
    return made


def learn(model, batch):
    torch.nn.functional.cross_entropy(model(**batch).logits.float(), GOLD).backward()


def gradients(model):
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad])


def test_gradients_are_those_of_float32_but_for_rounding(model, batch):
    exact = copy.deepcopy(model)
    learn(exact, batch)
    working = WorkingCopy(model)
    learn(working.refresh(training=True), batch)
    working.hand_over()
    given, expected = gradients(model), gradients(exact)
    assert given.dtype == torch.float32
    assert torch.cosine_similarity(given, expected, dim=0) > 0.999
    torch.testing.assert_close(given.norm(), expected.norm(), rtol=0.02, atol=0)
    assert all(p.grad is None for p in working.copy.parameters())
    assert all(p.grad is None for p in model.base_model.embeddings.parameters())


def test_gradients_of_several_batches_add_up_in_float32(model, batch):
    working, sums = WorkingCopy(model), []
    for _ in range(3):
        learn(working.refresh(training=True), batch)
        working.hand_over()
        sums.append(gradients(model).clone())
    torch.testing.assert_close(sums[1], 2 * sums[0], rtol=0, atol=0)
    torch.testing.assert_close(sums[2], sums[1] + sums[0], rtol=0, atol=0)


def test_the_copy_has_the_weights_the_model_has_now_and_steps_too_small_for_it_add_up(model):
    working = WorkingCopy(model)
    own = model.classifier.weight
    with torch.no_grad():
        own.fill_(1)
        for _ in range(16):  # bfloat16 knows nothing between 1 and 1 + 2**-7
            own += 2**-11
    found = working.refresh(training=True).classifier.weight
    assert found.dtype == torch.bfloat16
    assert (found == 1 + 2**-7).all()
    assert (own == 1 + 2**-7).all()


def test_what_is_no_weight_keeps_its_precision(model):
    angles = torch.linspace(0, 1, 5)
    model.register_buffer("angles", angles)
    assert WorkingCopy(model).copy.angles.dtype == torch.float32


def test_the_copy_is_in_training_where_the_model_is(model):
    working = WorkingCopy(model)
    assert working.refresh(training=True).classifier.training
    assert not working.refresh(training=False).classifier.training


def test_embeddings_that_learn_are_told_wherever_they_are(model):
    assert not learns_embeddings(model)
    model.base_model.embeddings.token_type_embeddings.requires_grad_(True)
    assert learns_embeddings(model)
    assert not learns_embeddings(model.classifier)
