import numpy as np
import pytest
import torch
import transformers
from builders import NARROW_STUDENT, refuse_layers
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from samples import CLASSES, make_rows

from distill_tasks.core.errors import InputError
from distill_tasks.core.settings import expand_grid
from distill_tasks.serving.served_model import open_model
from distill_tasks.students import LayersStudent
from distill_tasks.students.layers import choose_layers, copy_layers
from distill_tasks.students.narrow import narrow, read_probe
from distill_tasks.training.checkpoint import Checkpoint
from distill_tasks.training.probe import probe

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
TEXTS = list(make_rows(40, seed=2)["text"])


# Which layers


def test_layers_are_the_first_the_last_or_those_named():
    assert choose_layers(2, 6, "first") == [0, 1]
    assert choose_layers(2, 6, "last") == [4, 5]
    assert choose_layers(2, 6, "spaced") == choose_layers(2, 6) == [2, 5]
    assert choose_layers(3, 12, "2-7-12") == [1, 6, 11]


@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.integers(1, n), st.just(n))))
def test_first_and_last_layers_are_named_alike_by_number(numbers):
    kept, available = numbers
    for take in ("first", "last", "spaced"):
        chosen = choose_layers(kept, available, take)
        by_number = "-".join(str(number + 1) for number in chosen)
        assert choose_layers(kept, available, by_number) == chosen


@pytest.mark.parametrize("take", ["1-2", "1-2-3-4", "3-2-1", "1-2-2", "0-1-2", "2-4-7"])
def test_layers_that_are_not_as_many_rising_and_there_are_refused(take):
    with pytest.raises(InputError, match=rf"take is {take} for a student of 3 layers .* from 1 to"):
        choose_layers(3, 6, take)


def test_a_single_layer_may_be_named_by_a_plain_number():
    assert LayersStudent(layers=1, take=4).take == "4"


@pytest.mark.parametrize("take", ["frist", "", "2-", "-2", "2 4", "1.5", "a-b", True])
def test_words_that_name_no_layers_are_refused(take):
    with pytest.raises(ValidationError, match=r"'first' or 'last'"):
        LayersStudent(layers=1, take=take)


def test_every_setting_of_the_family_spans_the_grid_under_its_own_name():
    grid = {
        "family": "layers",
        "layers": [1, 2],
        "take": ["spaced", "first"],
        "width": [None, 16],
        "feed_forward": [None, 48],
        "vocabulary": ["teacher", "corpus"],
    }
    names = [LayersStudent.model_validate(one).name for one in expand_grid([grid])]
    assert len(set(names)) == 32
    assert names[0] == "layers-1"
    assert names[-1] == "layers-2-take-first-width-16-feed-forward-48-vocabulary-corpus"


# Narrower


@torch.inference_mode()
def say(model, probe):
    return model.eval()(**probe).logits


@pytest.mark.parametrize("layers", [1, 2])
def test_the_fewer_layers_the_higher_the_usual_learning_rate(training_set, tmp_path, layers):
    usual = LayersStudent(layers=layers, epochs=1)
    chosen = usual.model_copy(update={"learning_rate": 1e-3 / layers})
    other = usual.model_copy(update={"learning_rate": 2e-3 / layers})
    weights = []
    for name, student in {"usual": usual, "chosen": chosen, "other": other}.items():
        student.train(training_set, tmp_path / name)
        weights.append((tmp_path / name / "model.safetensors").read_bytes())
    assert weights[0] == weights[1] != weights[2]


def test_the_served_student_answers_as_the_model_that_training_began_with(
    training_set, teacher, tmp_path
):
    """Steps too small to change a weight show both ends of training at once."""
    still = NARROW_STUDENT.model_copy(update={"epochs": 1, "learning_rate": 1e-30})
    still.train(training_set, tmp_path)
    model = copy_layers(teacher, 2, CLASSES, "1-3")
    model = narrow(model, 16, 32, read_probe(teacher, training_set.rows.texts))
    tokenizer = transformers.AutoTokenizer.from_pretrained(teacher.model)
    expected = say(model, dict(tokenizer(TEXTS, padding=True, return_tensors="pt")))
    assert float(expected.std(dim=0).min()) > 1e-3
    np.testing.assert_allclose(open_model(tmp_path).logits(TEXTS), expected, atol=1e-5)


def test_layers_widths_and_units_that_the_teacher_lacks_are_refused(written):
    assert "take is 1-5 for a student of 2 layers of a teacher with 4" in refuse_layers(
        written, take="1-5"
    )
    assert "5 layers was asked for; the teacher has 4" in refuse_layers(written, layers=5)
    for width in (24, 48, 8):
        said = refuse_layers(written, width=width)
        assert said.startswith(f"students.width is {width}; the teacher is 32 wide")
        assert said.endswith("Set it to a multiple of 16, 32 at most.")
    assert "feed_forward is 65; the teacher has 64" in refuse_layers(written, feed_forward=65)


def test_one_student_of_a_grid_that_cannot_be_is_enough(written):
    assert "students.width is 20" in refuse_layers(written, width=[None, 16, 20])


def test_what_the_teacher_can_give_is_accepted(teacher):
    students = [
        LayersStudent(layers=2, take="1-4", width=16, feed_forward=64),
        LayersStudent(layers=4, width=32, vocabulary="corpus"),
    ]
    opened = probe(teacher, "teacher.max_length", ready=True)
    LayersStudent.check_teacher(students, *opened, ["kl", "relations"])


# What is copied of a teacher, weight by weight


@pytest.fixture(scope="module", params=STACKS)
def stacked(request, tmp_path_factory):
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


def test_copied_layers_have_exactly_the_weights_of_the_chosen_ones(stacked):
    full, stack, where = stacked
    theirs = dict(full.named_parameters())
    ours = dict(copy_layers(where, 2, CLASSES).named_parameters())
    origin = {f"{stack}.0.": f"{stack}.2.", f"{stack}.1.": f"{stack}.5."}
    for name, weight in ours.items():
        for new, old in origin.items():
            name = name.replace(new, old) if name.startswith(new) else name
        assert torch.equal(weight, theirs.pop(name)), name
    assert {name.split(".")[3] for name in theirs} == {"0", "1", "3", "4"}


def test_a_copy_of_all_layers_gives_the_logits_of_the_teacher(stacked):
    full, _, where = stacked
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
