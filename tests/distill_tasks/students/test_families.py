import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from samples import CLASSES, WORDS, make_rows
from sklearn.metrics import f1_score

from distill_tasks.core.digests import digest_folder
from distill_tasks.core.errors import InputError
from distill_tasks.data.corpus import NO_LABEL, Split
from distill_tasks.data.soft_labels import SoftLabels
from distill_tasks.serving.served_model import open_model
from distill_tasks.students import (
    BagOfWordsStudent,
    LayersStudent,
    PretrainedStudent,
    StaticStudent,
)
from distill_tasks.students.base import TrainingSet
from distill_tasks.students.layers import choose_layers, copy_layers
from distill_tasks.training.checkpoint import Checkpoint
from distill_tasks.training.losses import distillation_loss
from distill_tasks.training.objective import Objective

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
STUDENTS = {
    "layers": LayersStudent(layers=1, epochs=8, learning_rate=0.005, batch_rows=16),
    "static": StaticStudent(dimensions=16, epochs=10),
    "bag_of_words": BagOfWordsStudent(max_features=200),
}
WEIGHTS = {"layers": "model.safetensors", "static": "weights.npz", "bag_of_words": "weights.npz"}


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


def make_training_set(base, with_gold=True):
    """Half the rows have gold; the teacher knows every row's class, but is never certain."""
    rows = make_rows(270, seed=3)
    true = np.array([CLASSES.index(name) for name in rows["label"]])
    gold = np.where((np.arange(270) < 120) & with_gold, true, NO_LABEL)
    logits = np.float32(4) * np.eye(3, dtype=np.float32)[true]
    every = Split(tuple(rows["text"]), gold)
    return TrainingSet(
        rows=every.take(np.arange(240)),
        soft_labels=SoftLabels(logits[:240], CLASSES, "teacher"),
        validation=Split(every.texts[240:], true[240:] if with_gold else gold[240:]),
        classes=CLASSES,
        objective=Objective(2.0, 0.9),
        seed=5,
        teacher=Checkpoint(base, None, 16),
    )


@pytest.fixture(scope="module", params=STUDENTS)
def trained(request, tiny_base, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    training_set = make_training_set(tiny_base)
    return request.param, folder, STUDENTS[request.param].train(training_set, folder)


def test_students_learn_to_say_what_the_teacher_says_of_new_rows(trained, tiny_base):
    _, folder, _ = trained
    training_set = make_training_set(tiny_base)
    teacher_says = training_set.validation.gold
    said = open_model(folder).logits(training_set.validation.texts).argmax(axis=1)
    assert np.mean(said == teacher_says) > 0.8


def test_curves_have_a_point_for_each_epoch_and_end_well_below_chance(trained, tiny_base):
    family, _, curve = trained
    rows = make_training_set(tiny_base)
    logits, gold = torch.from_numpy(rows.soft_labels.logits), torch.from_numpy(rows.rows.gold)
    chance = distillation_loss(torch.zeros_like(logits), logits, gold, rows.objective)
    assert len(curve) == getattr(STUDENTS[family], "epochs", 1)
    assert [point["epoch"] for point in curve] == list(range(1, len(curve) + 1))
    assert curve[-1]["train/loss"] < 0.5 * chance


def test_same_seed_gives_the_same_weights_file(trained, tiny_base, tmp_path):
    family, folder, _ = trained
    STUDENTS[family].train(make_training_set(tiny_base), tmp_path)
    name = WEIGHTS[family]
    assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


FURTHER = {
    "narrow": LayersStudent(layers=2, epochs=1, width=16, vocabulary="corpus"),
    "in-parts": LayersStudent(layers=1, epochs=2, accumulated_batches=3),
    "patient": LayersStudent(layers=1, epochs=4, patience_epochs=1),
    "pretrained": PretrainedStudent(model="the tiny one", epochs=1),
    "static": STUDENTS["static"],
    "bag_of_words": STUDENTS["bag_of_words"],
}


@pytest.mark.parametrize("student", FURTHER.values(), ids=FURTHER)
def test_same_seed_gives_the_same_folder_whatever_was_kept_before(student, tiny_base, tmp_path):
    if student.family == "pretrained":
        student = student.model_copy(update={"model": str(tiny_base)})
    training_set = make_training_set(tiny_base)
    kept = replace(training_set, work_dir=tmp_path / "work")
    folders = [tmp_path / name for name in ("alone", "keeping", "kept", "other seed")]
    training_sets = [training_set, kept, kept, replace(kept, seed=6)]
    for folder, given_set in zip(folders, training_sets, strict=True):
        folder.mkdir()
        student.train(given_set, folder)
    digests = [digest_folder(folder) for folder in folders]
    assert digests[0] == digests[1] == digests[2]
    assert (digests[3] == digests[0]) is not student.in_steps


@pytest.mark.parametrize("family", STUDENTS)
def test_students_learn_where_no_row_has_gold(family, tiny_base, tmp_path):
    teacher_says = make_training_set(tiny_base).validation.gold
    training_set = make_training_set(tiny_base, with_gold=False)
    STUDENTS[family].train(training_set, tmp_path)
    said = open_model(tmp_path).logits(training_set.validation.texts).argmax(axis=1)
    assert np.mean(said == teacher_says) > 0.8


def test_static_reads_a_tokenizer_that_pads_as_one_that_does_not(copied_base, tmp_path):
    prints = []
    for name in ("plain", "padding"):
        (tmp_path / name).mkdir()
        STUDENTS["static"].train(make_training_set(copied_base), tmp_path / name)
        prints.append((tmp_path / name / "weights.npz").read_bytes())
        tokenizer = transformers.AutoTokenizer.from_pretrained(copied_base)
        tokenizer.backend_tokenizer.enable_padding(length=16)
        tokenizer.save_pretrained(copied_base)
    assert prints[0] == prints[1]


def test_light_students_answer_without_torch(trained):
    family, folder, _ = trained
    code = (
        "import sys; from distill_tasks.serving.served_model import open_model;"
        f"print(open_model({str(folder)!r}).answer(['the puppy'])[0].label in {CLASSES},"
        "'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", str(family == "layers")]


TRAITS = {"pet": {*WORDS["cats"], *WORDS["dogs"]}, "sly": set(WORDS["cats"])}


def make_traits(base, **changes):
    """Rows with two labels, one or none, told by words; the teacher knows, a third has gold."""
    texts = tuple(make_rows(330, seed=3)["text"])
    words = [set(text.split()) for text in texts]
    there = np.array([[bool(marks & row) for marks in TRAITS.values()] for row in words])
    gold = np.where((np.arange(330) % 3 == 0)[:, None], there, NO_LABEL)
    every = Split(texts, gold)
    training_set = TrainingSet(
        rows=every.take(np.arange(270)),
        soft_labels=SoftLabels(
            np.where(there, 3, -3)[:270].astype(np.float32), tuple(TRAITS), "teacher"
        ),
        validation=Split(texts[270:], there[270:].astype(np.int64)),
        classes=tuple(TRAITS),
        objective=Objective(2.0, 0.9),
        seed=5,
        teacher=Checkpoint(base, None, 16),
        problem="multi_label",
    )
    return replace(training_set, **changes)


@pytest.mark.parametrize("family", STUDENTS)
def test_students_learn_to_say_any_number_of_labels(family, copied_base, tmp_path):
    model = transformers.AutoModelForSequenceClassification.from_pretrained(copied_base)
    torch.manual_seed(0)
    torch.nn.init.normal_(model.get_input_embeddings().weight, std=0.5)  # words tell apart at once
    model.save_pretrained(copied_base)
    training_set = make_traits(copied_base)
    STUDENTS[family].train(training_set, tmp_path)
    model = open_model(tmp_path)
    assert (model.problem, model.classes) == ("multi_label", list(TRAITS))
    gold = training_set.validation.gold == 1
    said = model.logits(training_set.validation.texts) > 0
    assert f1_score(gold, said, average="macro") > 0.85
    labels = [answer.label for answer in model.answer(training_set.validation.texts)]
    assert labels == ["|".join(np.array(list(TRAITS))[row]) for row in said]
    assert set(labels) >= {"", "pet", "pet|sly"}


@pytest.mark.parametrize("family", STUDENTS)
@pytest.mark.parametrize("make", [make_training_set, make_traits])
def test_of_one_text_a_student_learns_the_weighted_share_of_its_gold(
    family, make, tiny_base, tmp_path
):
    training_set = make(tiny_base)
    several = training_set.problem == "multi_label"
    gold = (np.arange(len(training_set.rows)) % 4 > 0).astype(np.int64)
    if several:
        gold = 1 - np.tile(gold[:, None], len(training_set.classes))
    weights = np.ones(len(training_set.classes), np.float32)
    weights[0] = 3
    same = Split(("the puppy likes the house",) * len(gold), gold)
    alone = replace(training_set, rows=same, objective=Objective(2.0, 0.0), class_weights=weights)
    STUDENTS[family].train(alone, tmp_path)
    (answer,) = open_model(tmp_path).answer(same.texts[:1])
    first, second, *_ = answer.probabilities.values()
    # A quarter of the rows is of the first class: 1 to 3, with weight 3 as much as the rest.
    assert first == pytest.approx(0.5, abs=0.05)
    assert second == pytest.approx(0.25 if several else 0.5, abs=0.05)
