"""What a student copies of its teacher: the chosen layers, weight by weight."""

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from samples import CLASSES

from distill_tasks.core.errors import InputError
from distill_tasks.students.layers import choose_layers, copy_layers
from distill_tasks.training.checkpoint import Checkpoint

STACKS = {
    "bert": "bert.encoder.layer",
    "roberta": "roberta.encoder.layer",
    "distilbert": "distilbert.transformer.layer",
    "electra": "electra.encoder.layer",
}
WIDTHS = {
    "bert": {"hidden_size": 16, "intermediate_size": 32},
    "roberta": {"hidden_size": 16, "intermediate_size": 32},
    "distilbert": {"dim": 16, "hidden_dim": 32},
    "electra": {"hidden_size": 16, "intermediate_size": 32, "embedding_size": 8},
}


@pytest.fixture(scope="module", params=STACKS)
def teacher(request, tmp_path_factory):
    """A random teacher of 6 layers, whose weights differ from layer to layer."""
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(1)
    config = transformers.AutoConfig.for_model(
        request.param,
        vocab_size=40,
        num_hidden_layers=6,
        num_attention_heads=2,
        max_position_embeddings=32,
        num_labels=3,
        **WIDTHS[request.param],
    )
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    model.save_pretrained(folder)
    return model.eval(), STACKS[request.param], Checkpoint(folder, None, 16)


def test_layers_are_evenly_spaced_and_end_with_the_last():
    assert choose_layers(3, 6) == [1, 3, 5]
    assert choose_layers(1, 6) == [5]
    assert choose_layers(6, 6) == [0, 1, 2, 3, 4, 5]
    assert choose_layers(4, 12) == [2, 5, 8, 11]


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(1, n), st.just(n))))
def test_chosen_layers_exist_increase_and_include_the_last(numbers):
    kept, available = numbers
    chosen = choose_layers(kept, available)
    assert len(chosen) == kept == len(set(chosen))
    assert chosen == sorted(chosen)
    assert chosen[0] >= 0
    assert chosen[-1] == available - 1


def test_more_layers_than_the_teacher_has_are_refused():
    with pytest.raises(InputError, match="7 layers was asked for; the teacher has 6"):
        choose_layers(7, 6)


def test_copied_layers_have_exactly_the_weights_of_the_chosen_ones(teacher):
    full, stack, where = teacher
    theirs = dict(full.named_parameters())
    ours = dict(copy_layers(where, 2, CLASSES).named_parameters())
    origin = {f"{stack}.0.": f"{stack}.2.", f"{stack}.1.": f"{stack}.5."}
    for name, weight in ours.items():
        for new, old in origin.items():
            name = name.replace(new, old) if name.startswith(new) else name
        assert torch.equal(weight, theirs.pop(name)), name
    assert {name.split(".")[3] for name in theirs} == {"0", "1", "3", "4"}


def test_a_copy_of_all_layers_gives_the_logits_of_the_teacher(teacher):
    full, _, where = teacher
    ids = torch.randint(4, 40, (5, 12), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = full(ids).logits
        torch.testing.assert_close(copy_layers(where, 6, CLASSES).eval()(ids).logits, expected)
        assert not torch.allclose(copy_layers(where, 5, CLASSES).eval()(ids).logits, expected)


def test_a_copy_has_no_dropout_and_is_in_float32_whatever_the_teacher(copied_base):
    model = transformers.AutoModelForSequenceClassification.from_pretrained(copied_base)
    model.bfloat16().save_pretrained(copied_base)
    student = copy_layers(Checkpoint(copied_base, None, 16), 1, CLASSES)
    assert {weight.dtype for weight in student.parameters()} == {torch.float32}
    rates = {m.p for m in student.modules() if isinstance(m, torch.nn.Dropout)}
    assert rates == {0.0}


@pytest.mark.parametrize("headless", [True, False])
def test_a_base_without_a_head_for_the_classes_gets_one(copied_base, headless):
    if headless:
        transformers.AutoModel.from_pretrained(copied_base).save_pretrained(copied_base)
    base = Checkpoint(copied_base, None, 16)
    torch.manual_seed(5)
    student = copy_layers(base, 1, ("calm", "funny", "loud", "sad"))
    assert student.classifier.out_features == student.config.num_labels == 4
    assert student.config.id2label[3] == "sad"
    theirs = transformers.AutoModel.from_pretrained(copied_base)
    last, only = theirs.encoder.layer[-1], student.bert.encoder.layer[0]
    for name, weight in only.named_parameters():
        assert torch.equal(weight, last.get_parameter(name)), name
    torch.manual_seed(5)
    again = copy_layers(base, 1, ("calm", "funny", "loud", "sad"))
    assert torch.equal(again.classifier.weight, student.classifier.weight)
    assert student.classifier.weight.std() > 0
