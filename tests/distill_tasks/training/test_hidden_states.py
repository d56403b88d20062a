import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file
from samples import CLASSES, make_gold_set
from scipy import special, stats

from distill_tasks.config import parse_config
from distill_tasks.core.errors import InputError
from distill_tasks.data.corpus import NO_LABEL
from distill_tasks.serving.served_model import open_model
from distill_tasks.stages.prepare import check_config
from distill_tasks.students import BagOfWordsStudent, LayersStudent, StaticStudent
from distill_tasks.students.controls import without_teacher
from distill_tasks.students.layers import copy_layers
from distill_tasks.training.checkpoint import Checkpoint
from distill_tasks.training.hidden_states import PROJECTION, OnlineTeacher, load_online_teacher
from distill_tasks.training.losses import hidden_distance
from distill_tasks.training.objective import Objective

IDS = torch.tensor([[2, 7, 9, 11, 8, 3], [2, 12, 3, 0, 0, 0], [2, 15, 6, 20, 3, 0]])
BATCH = {"input_ids": IDS, "attention_mask": (IDS != 0).long()}
GOLD = {
    "single_label": torch.tensor([0, NO_LABEL, 2]),
    "multi_label": torch.tensor([[0, 1, 1], [NO_LABEL] * 3, [0, 0, 0]]),
}
BOTH = {"hidden": 0.7, "relations": 3.0}
BESIDE = "train: the teacher is beside the student for "
widths = pytest.mark.parametrize("width", [None, 16])


@pytest.fixture(scope="module")
def base(tiny_base, tmp_path_factory):
    """The tiny transformer with weights so large that every layer changes something."""
    folder = tmp_path_factory.mktemp("teacher")
    transformers.AutoTokenizer.from_pretrained(tiny_base).save_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tiny_base)
    torch.manual_seed(1)
    for weight in model.parameters():
        if weight.dim() == 2:
            torch.nn.init.normal_(weight, std=0.2)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def teacher(base):
    return Checkpoint(base, None, 16)


@pytest.fixture
def model(base):
    """The teacher in float32, as the student's attention is."""
    return transformers.AutoModelForSequenceClassification.from_pretrained(
        base, attn_implementation="eager", dtype="float32"
    )


def copy(teacher, layers):
    """Return the student of so many layers before it learns."""
    student = copy_layers(teacher, layers, CLASSES)
    student.set_attn_implementation("eager")
    return student.train()


def make_bert(width, heads):
    """Return a random student of one layer."""
    torch.manual_seed(2)
    return transformers.BertForSequenceClassification(
        transformers.BertConfig(
            vocab_size=50,
            hidden_size=width,
            num_hidden_layers=1,
            num_attention_heads=heads,
            intermediate_size=32,
        )
    ).eval()


def loss_of(model, student, objective, labels=GOLD["single_label"], inputs=BATCH):
    """Return the loss of a batch that both have read."""
    online_teacher = OnlineTeacher(model, objective)
    with online_teacher.joined(student):
        student(**inputs)
        return online_teacher.loss(inputs, labels)


def last_states(model):
    """Return the last hidden states, queries, keys and values of a BERT, without any hook."""
    with torch.no_grad():
        states = model.base_model(**BATCH, output_hidden_states=True).hidden_states
        attention = model.base_model.encoder.layer[-1].attention.self
        made = [part(states[-2]) for part in (attention.query, attention.key, attention.value)]
    return [states[-1].numpy(), *(state.numpy() for state in made)]


def relate(row, heads):
    """Return how each token relates to the others (heads × tokens, tokens)."""
    parts = [part @ part.T / np.sqrt(part.shape[1]) for part in np.split(row, heads, axis=1)]
    return special.softmax(np.concatenate(parts), axis=1)


def tokens_of(student, model):
    """Yield what both make of each row's real tokens: hidden states, queries, keys, values."""
    said, told = last_states(student), last_states(model)
    for row, real in enumerate(BATCH["attention_mask"].bool().numpy()):
        yield [state[row][real] for state in said], [state[row][real] for state in told]


def hidden_by_hand(student, model):
    """Return 1 − cosine for each row, as numpy reckons it."""
    rows = []
    for (said, *_), (told, *_) in tokens_of(student, model):
        lengths = np.linalg.norm(said, axis=1) * np.linalg.norm(told, axis=1)
        rows.append(np.mean(1 - (said * told).sum(1) / lengths))
    return np.array(rows)


def relations_by_hand(student, model, heads=2):
    """Return the divergence of relations for each row, as scipy reckons it."""
    rows = []
    for (_, *said), (_, *told) in tokens_of(student, model):
        pairs = zip(said, told, strict=True)
        found = [stats.entropy(relate(t, heads), relate(s, heads), axis=1) for s, t in pairs]
        rows.append(np.mean(found))
    return np.array(rows)


@pytest.mark.parametrize("problem", list(GOLD))
@pytest.mark.parametrize("terms", [{"hidden": 0.7}, {"relations": 3.0}, BOTH], ids=" ".join)
def test_the_loss_of_a_batch_is_the_one_by_hand(model, teacher, terms, problem):
    student = copy(teacher, 2)
    hidden, relations = hidden_by_hand(student, model), relations_by_hand(student, model)
    assert hidden.min() > 0.01
    assert relations.min() > 0.001
    rows = terms.get("hidden", 0) * hidden + terms.get("relations", 0) * relations
    expected = (0.3 * rows[0] + rows[1] + 0.3 * rows[2]) / 3
    found = loss_of(model, student, Objective(2, 0.3, {"kl": 5, **terms}), GOLD[problem])
    assert found.item() == pytest.approx(expected, rel=1e-4)


def test_of_another_width_the_projected_states_are_compared(model):
    student = make_bert(16, 4)
    online_teacher = OnlineTeacher(model, Objective(2, 1, BOTH))
    with online_teacher.joined(student):
        student(**BATCH)
        loss = online_teacher.loss(BATCH, GOLD["single_label"])
        loss.backward()
        projection = student.get_submodule(PROJECTION)
        assert projection.weight.grad.abs().max() > 0
    said, told = (torch.from_numpy(last_states(each)[0]) for each in (student, model))
    hidden = hidden_distance(said, told, BATCH["attention_mask"], projection).mean()
    expected = 0.7 * hidden.item() + 3 * relations_by_hand(student, model).mean()
    assert loss.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("term", ["hidden", "relations"])
def test_a_term_of_half_the_weight_is_half_the_term(model, teacher, term):
    student = copy(teacher, 1)
    whole, half = (loss_of(model, student, Objective(2, 0.9, {term: w})) for w in (1.0, 0.5))
    assert whole > 0
    assert half.item() == whole.item() / 2


def test_the_whole_teacher_has_nothing_to_learn(model, teacher):
    whole = copy(teacher, 4)
    loss = loss_of(model, whole, Objective(2, 0.9, BOTH))
    loss.backward()
    assert loss.item() == 0
    slopes = [weight.grad for weight in whole.parameters() if weight.grad is not None]
    assert max(slope.abs().max() for slope in slopes) < 1e-6
    assert loss_of(model, copy(teacher, 3), Objective(2, 0.9, BOTH)) > 0.01


def test_the_student_learns_and_the_teacher_does_not(model, teacher):
    student = copy(teacher, 1)
    loss_of(model, student, Objective(2, 0.9, BOTH)).backward()
    layer = student.bert.encoder.layer[0]
    assert all(weight.grad.abs().max() > 0 for weight in layer.attention.self.parameters())
    assert layer.output.dense.weight.grad.abs().max() > 0
    assert all(weight.grad is None for weight in model.parameters())
    assert not model.training


def test_states_in_bf16_are_compared_in_float32(model, teacher):
    student = copy(teacher, 1)
    exact = loss_of(model, student, Objective(2, 0.9, BOTH))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = loss_of(model.bfloat16(), student, Objective(2, 0.9, BOTH))
    assert rounded.dtype == torch.float32
    assert rounded.item() == pytest.approx(exact.item(), rel=0.05)


def test_padding_changes_nothing(model, teacher):
    student, objective = copy(teacher, 1), Objective(2, 0.9, BOTH)
    padded = {name: torch.nn.functional.pad(value, (0, 3)) for name, value in BATCH.items()}
    found = loss_of(model, student, objective, inputs=padded)
    torch.testing.assert_close(found, loss_of(model, student, objective))


@pytest.mark.parametrize("width", [32, 16])
def test_a_student_that_leaves_is_as_it_came(model, width):
    online_teacher = OnlineTeacher(model, Objective(2, 0.9, BOTH))
    student = make_bert(width, 2)
    before = {name: value.clone() for name, value in student.state_dict().items()}

    def fail():
        with online_teacher.joined(student):
            student(**BATCH)
            assert (f"{PROJECTION}.weight" in student.state_dict()) == (width != 32)
            raise MemoryError

    with pytest.raises(MemoryError):
        fail()
    assert student.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    assert not any(module._forward_hooks for module in student.modules())
    assert loss_of(model, student, Objective(2, 0.9, BOTH)) > 0


# Teachers and students that cannot be compared


def make_distilbert():
    torch.manual_seed(2)
    return transformers.DistilBertForSequenceClassification(
        transformers.DistilBertConfig(vocab_size=50, dim=16, hidden_dim=32, n_layers=2, n_heads=2)
    )


def test_a_teacher_without_queries_of_its_own_is_refused_for_relations_alone():
    with pytest.raises(InputError, match=r"DistilBert.* have no query, key, value as BERT's"):
        OnlineTeacher(make_distilbert(), Objective(2, 0.9, {"relations": 1}))
    student = make_distilbert().train()
    assert loss_of(make_distilbert(), student, Objective(2, 0.9, {"hidden": 1})) > 0  # dropout


def write(written, *students, term="hidden"):
    """Return a configuration with a term about the inside and these students."""
    return {**written, "students": list(students), "loss": {"terms": {"kl": 1, term: 0.5}}}


def check(written, folder, *students, term):
    written["teacher"]["base"] = str(folder)
    return check_config(parse_config(write(written, *students, term=term), "test"))


def test_a_teacher_without_queries_of_its_own_is_refused_before_anything_is_done(
    written, copied_base
):
    make_distilbert().save_pretrained(copied_base)
    with pytest.raises(InputError, match=r"DistilBert.* have no query, key, value as BERT's"):
        check(written, copied_base, LAYERS, term="relations")
    check(written, copied_base, LAYERS, term="hidden")


def test_a_width_that_the_teachers_heads_do_not_divide_is_refused_for_relations_alone(
    written, copied_base
):
    settings = json.loads((copied_base / "config.json").read_text())
    settings["num_attention_heads"] = 8  # each 4 wide
    (copied_base / "config.json").write_text(json.dumps(settings))
    odd, even = ({**LAYERS, "width": width} for width in (12, 16))
    with pytest.raises(InputError, match=r"heads as the teacher's 8; .* width 12 .* multiple of 8"):
        check(written, copied_base, LAYERS, even, odd, term="relations")
    check(written, copied_base, LAYERS, even, term="relations")
    check(written, copied_base, odd, term="hidden")


LAYERS, WORDS = {"family": "layers", "layers": 1}, {"family": "bag_of_words"}


def test_a_grid_of_which_no_student_can_lower_a_term_is_refused(written):
    static = {"family": "static"}
    told = "no student can lower hidden; add one of family layers"
    for students in ([WORDS, static], [{**LAYERS, "vocabulary": "corpus"}]):
        with pytest.raises(InputError, match=told):
            parse_config(write(written, *students), "test")
    assert len(parse_config(write(written, WORDS, static, LAYERS), "test").students) == 3


# Training


@pytest.fixture
def training_set(base):
    """A training set of which half the rows have gold."""
    training_set = make_gold_set(base, 96)
    gold = np.where(np.arange(96) % 2, training_set.rows.gold, NO_LABEL)
    return replace(training_set, rows=replace(training_set.rows, gold=gold))


def with_terms(training_set, **terms):
    return replace(training_set, objective=Objective(2.0, 0.9, {"kl": 1.0, **terms}))


def student_of(width=None, **changes):
    settings = {"epochs": 2, "learning_rate": 0.003, "batch_rows": 16, "width": width, **changes}
    return LayersStudent(layers=1, **settings)


def weights_of(folder):
    return (folder / "model.safetensors").read_bytes()


def open_saved(folder):
    return transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()


def test_the_loss_of_a_training_step_holds_the_terms(training_set, model, teacher, tmp_path):
    once = student_of(epochs=1, batch_rows=len(training_set.rows))
    losses = [
        once.train(with_terms(training_set, **terms), tmp_path)[0]["train/loss"]
        for terms in ({}, {"hidden": 2.0})
    ]
    tokenizer = transformers.AutoTokenizer.from_pretrained(teacher.model)
    batch = tokenizer(list(training_set.rows.texts), padding=True, return_tensors="pt")
    labels = torch.from_numpy(training_set.rows.gold)
    expected = loss_of(model, copy(teacher, 1), Objective(2, 0.9, {"hidden": 2.0}), labels, batch)
    assert expected > 0.1
    assert losses[1] - losses[0] == pytest.approx(expected.item(), rel=0.05)


@pytest.mark.parametrize("term", ["hidden", "relations"])
def test_a_student_gets_closer_to_the_teacher_in_what_it_lowers(
    training_set, model, tmp_path, term
):
    distances = []
    for terms in ({}, {term: 4.0}):
        student_of(epochs=4).train(with_terms(training_set, **terms), tmp_path)
        distances.append(loss_of(model, open_saved(tmp_path), Objective(2, 1, {term: 1.0})).item())
    assert distances[1] < 0.8 * distances[0]


@widths
def test_a_killed_training_goes_on_to_the_same_bytes(training_set, tmp_path, monkeypatch, width):
    distilled, student = with_terms(training_set, **BOTH), student_of(width, epochs=3)
    curve = student.train(distilled, tmp_path / "whole")
    step = transformers.Trainer.training_step
    count = iter(range(100))

    def stop(*args, **kwargs):
        if next(count) == 8:
            raise KeyboardInterrupt
        return step(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(transformers.Trainer, "training_step", stop)
        with pytest.raises(KeyboardInterrupt):
            student.train(distilled, tmp_path / "killed")
    (checkpoint,) = (tmp_path / "killed" / "checkpoints").iterdir()
    kept = load_file(checkpoint / "model.safetensors")
    assert (f"{PROJECTION}.weight" in kept) == (width is not None)
    assert student.train(distilled, tmp_path / "killed") == curve
    assert weights_of(tmp_path / "killed") == weights_of(tmp_path / "whole")


@widths
def test_a_training_in_parts_ends_in_the_same_bytes(training_set, tmp_path, width):
    distilled, student = with_terms(training_set, **BOTH), student_of(width)
    student.train(distilled, tmp_path / "whole")
    for share in (0.25, 0.5, 1.0):
        student.train(replace(distilled, share=share), tmp_path / "parts")
        assert PROJECTION not in str(load_file(tmp_path / "parts" / "model.safetensors").keys())
    assert weights_of(tmp_path / "parts") == weights_of(tmp_path / "whole")


@pytest.mark.parametrize("patience_epochs", [None, 1])
def test_what_is_saved_has_no_projection_and_is_served(training_set, tmp_path, patience_epochs):
    student = student_of(16, patience_epochs=patience_epochs)
    for name, terms in {"plain": {}, "beside": BOTH}.items():
        student.train(with_terms(training_set, **terms), tmp_path / name)
    plain, online_teacher = (
        load_file(tmp_path / n / "model.safetensors") for n in ("plain", "beside")
    )
    assert plain.keys() == online_teacher.keys()
    assert any(not torch.equal(plain[name], online_teacher[name]) for name in plain)
    answers = open_model(tmp_path / "beside").answer(training_set.validation.texts[:3])
    assert {answer.label for answer in answers} <= set(CLASSES)
    assert not (tmp_path / "beside" / "checkpoints").exists()


def test_the_teacher_is_in_memory_only_where_a_term_needs_it(training_set, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="potstill")
    distilled = with_terms(training_set, **BOTH)
    student_of(epochs=1).train(distilled, tmp_path)
    assert caplog.messages == [BESIDE + "hidden and relations"]
    caplog.clear()
    student_of(epochs=1).train(with_terms(training_set, relations=1.0), tmp_path)
    assert caplog.messages == [BESIDE + "relations"]
    caplog.clear()
    control = without_teacher(distilled, student_of(), distilled.teacher)
    for learnt in (training_set, control):
        student_of(epochs=1).train(learnt, tmp_path)
    student_of(epochs=1, vocabulary="corpus").train(distilled, tmp_path)
    assert not [message for message in caplog.messages if BESIDE in message]


def test_a_control_learns_as_if_there_were_no_such_terms(training_set, tmp_path):
    for name, terms in {"plain": {}, "beside": BOTH}.items():
        distilled = with_terms(training_set, **terms)
        control = without_teacher(distilled, student_of(), distilled.teacher)
        student_of(epochs=1).train(control, tmp_path / name)
    assert weights_of(tmp_path / "plain") == weights_of(tmp_path / "beside")


@pytest.mark.parametrize("student", [StaticStudent(dimensions=8, epochs=1), BagOfWordsStudent()])
def test_students_of_other_families_lower_the_other_terms(training_set, tmp_path, student):
    found = []
    for terms in ({}, BOTH):
        student.train(with_terms(training_set, **terms), tmp_path)
        found.append((tmp_path / "weights.npz").read_bytes())
    assert found[0] == found[1]


def test_the_teacher_is_placed_in_the_precision_of_this_device(teacher):
    online_teacher = load_online_teacher(teacher, Objective(2, 0.9, BOTH))
    assert online_teacher.weights == BOTH
    assert online_teacher.teacher.config._attn_implementation == "eager"
    weights = list(online_teacher.teacher.parameters())
    assert not any(weight.requires_grad for weight in weights)
    assert len({(weight.dtype, weight.device) for weight in weights}) == 1
