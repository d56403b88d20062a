"""What every family of students keeps to, a toy included that is one class and one line more."""

import pickle
import subprocess
import sys
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, ClassVar, Literal, get_args

import numpy as np
import pytest
import torch
import transformers
from pydantic import BeforeValidator, Field, TypeAdapter
from samples import CLASSES, WORDS, make_rows
from sklearn.metrics import f1_score

from distill_tasks.config import DistillConfig
from distill_tasks.core.digests import digest_folder
from distill_tasks.core.errors import PotstillError
from distill_tasks.core.settings import expand_grid
from distill_tasks.data.corpus import NO_LABEL, Split
from distill_tasks.data.soft_labels import SoftLabels
from distill_tasks.results.evaluator import Evaluator
from distill_tasks.results.grid import first_trials
from distill_tasks.results.run import OpenRun
from distill_tasks.results.teacher import make_teacher
from distill_tasks.results.trained import train_one
from distill_tasks.serving.served_model import open_model
from distill_tasks.stages.label import label_rows
from distill_tasks.stages.plan import plan_grid
from distill_tasks.stages.prepare import check_config
from distill_tasks.students import (
    BagOfWordsStudent,
    LayersStudent,
    PretrainedStudent,
    StaticStudent,
    Student,
    StudentConfig,
)
from distill_tasks.students.base import TrainingSet
from distill_tasks.students.folder import check_served, count_parameters, describe_model
from distill_tasks.training.checkpoint import Checkpoint
from distill_tasks.training.curve import Curve
from distill_tasks.training.losses import distillation_loss
from distill_tasks.training.objective import Objective

STUDENTS = {
    "layers": LayersStudent(layers=1, epochs=8, learning_rate=0.005, batch_rows=16),
    "narrow": LayersStudent(layers=2, epochs=1, width=16, vocabulary="corpus"),
    "in-parts": LayersStudent(layers=1, epochs=2, accumulated_batches=3),
    "patient": LayersStudent(layers=1, epochs=4, patience_epochs=1),
    "pretrained": PretrainedStudent(model="the tiny one", epochs=1, max_length=16),
    "static": StaticStudent(dimensions=16, epochs=10),
    "linear": BagOfWordsStudent(max_features=200),
    "characters": BagOfWordsStudent(max_features=200, characters=4),
    "hidden": BagOfWordsStudent(max_features=200, hidden_units=8),
    "hashed": BagOfWordsStudent(max_features=200, hashed=True),
}
LEARNT = ("layers", "static", "linear")
"""Those that are trained for long enough to be asked what they know."""
TRANSFORMERS = ("narrow", "in-parts", "patient", "pretrained")
LIGHT = ("static", "linear", "characters", "hidden", "hashed")
every_student = pytest.mark.parametrize("name", STUDENTS)
every_family = pytest.mark.parametrize("name", LEARNT)


def make_training_set(base, with_gold=True, **changes):
    """Half the rows have gold; the teacher knows every row's class, but is never certain."""
    rows = make_rows(270, seed=3)
    true = np.array([CLASSES.index(name) for name in rows["label"]])
    gold = np.where((np.arange(270) < 120) & with_gold, true, NO_LABEL)
    logits = np.float32(4) * np.eye(3, dtype=np.float32)[true]
    every = Split(tuple(rows["text"]), gold)
    training_set = TrainingSet(
        rows=every.take(np.arange(240)),
        soft_labels=SoftLabels(logits[:240], CLASSES, "teacher"),
        validation=Split(every.texts[240:], true[240:] if with_gold else gold[240:]),
        classes=CLASSES,
        objective=Objective(2.0, 0.9),
        seed=5,
        teacher=Checkpoint(base, None, 16),
    )
    return replace(training_set, **changes)


@dataclass(frozen=True)
class Case:
    """One student, trained for all tests; it was the first to keep what trainings share."""

    student: Student
    training_set: TrainingSet
    folder: Path
    curve: list[Curve]


@pytest.fixture(scope="module")
def case(tiny_base, tmp_path_factory):
    """Return the case of a name, trained once."""

    @cache
    def train(name):
        student, folder = STUDENTS[name], tmp_path_factory.mktemp(name)
        if name == "pretrained":
            student = student.model_copy(update={"model": str(tiny_base)})
        training_set = make_training_set(tiny_base, work_dir=tmp_path_factory.mktemp("work"))
        return Case(student, training_set, folder, student.train(training_set, folder))

    return train


# Settings


def test_every_family_of_the_union_is_held_to_this():
    families = set(get_args(get_args(StudentConfig)[0]))
    assert families == {type(student) for student in STUDENTS.values()}
    assert all(issubclass(family, Student) for family in families)


@every_student
def test_settings_come_back_from_json_and_from_another_process(name):
    student, adapter = STUDENTS[name], TypeAdapter(StudentConfig)
    assert adapter.validate_json(adapter.dump_json(student)) == student
    assert pickle.loads(pickle.dumps(student)) == student


@pytest.mark.parametrize("student", STUDENTS.values(), ids=STUDENTS)
def test_the_shape_leaves_out_what_is_about_training_and_nothing_else(student):
    others = {
        "learning_rate": 0.5,
        "freeze_embeddings": False,
        "vocabulary": "teacher" if student.grows_with_words else "corpus",
        "take": "last",
        "start": "tokens",
        "sif": False,
        "model": "another",
        "revision": "another",
        "hashed": not getattr(student, "hashed", False),
    }
    fields = type(student).model_fields.keys() - {"family"}
    changed = {field: student.model_copy(update={field: others.get(field, 77)}) for field in fields}
    assert {field for field in fields if changed[field].shape == student.shape} == (
        student.training_fields
    )
    assert {field for field in fields if changed[field].pace == student.pace} == (
        student.course_fields
    )
    assert student.course_fields <= student.training_fields


@pytest.mark.parametrize("student", STUDENTS.values(), ids=STUDENTS)
def test_a_short_training_is_one_round_of_the_same_student(student):
    short = student.short_training
    assert short.times == getattr(student, "epochs", 1)
    assert short.rows > 0
    assert (short.student.pace, short.student.short_training.times) == (student.pace, 1)


# Training


@every_family
def test_students_learn_to_say_what_the_teacher_says_of_new_rows(case, name):
    validation = case(name).training_set.validation
    said = open_model(case(name).folder).logits(validation.texts).argmax(axis=1)
    assert np.mean(said == validation.gold) > 0.8


@every_family
def test_curves_have_a_point_for_each_epoch_and_end_well_below_chance(case, name):
    rows, curve = case(name).training_set, case(name).curve
    logits, gold = torch.from_numpy(rows.soft_labels.logits), torch.from_numpy(rows.rows.gold)
    chance = distillation_loss(torch.zeros_like(logits), logits, gold, rows.objective)
    assert len(curve) == getattr(STUDENTS[name], "epochs", 1)
    assert [point["epoch"] for point in curve] == list(range(1, len(curve) + 1))
    assert curve[-1]["train/loss"] < 0.5 * chance


@pytest.mark.parametrize("name", [*TRANSFORMERS, *LIGHT])
def test_the_same_seed_gives_the_same_folder_whatever_was_kept_before(case, name, tmp_path):
    """Who needs no weights of the teacher does without; another seed matters to random steps."""
    kept = case(name).training_set
    student, teacher = case(name).student, kept.teacher
    alone = replace(kept, work_dir=None, teacher=teacher if student.needs_teacher_weights else None)
    digests = {}
    for at, given in {"kept": kept, "alone": alone, "other": replace(kept, seed=6)}.items():
        (tmp_path / at).mkdir()
        curve = student.train(given, tmp_path / at)
        digests[at] = digest_folder(tmp_path / at)
        assert (curve == case(name).curve) is (at != "other" or not student.in_steps)
    expected = digest_folder(case(name).folder)
    assert digests["kept"] == digests["alone"] == expected
    assert (digests["other"] == expected) is not student.in_steps


@every_family
def test_students_learn_where_no_row_has_gold(name, tiny_base, tmp_path):
    teacher_says = make_training_set(tiny_base).validation.gold
    training_set = make_training_set(tiny_base, with_gold=False)
    STUDENTS[name].train(training_set, tmp_path)
    said = open_model(tmp_path).logits(training_set.validation.texts).argmax(axis=1)
    assert np.mean(said == teacher_says) > 0.8


@every_family
def test_answers_that_hardly_count_hardly_teach(name, tiny_base, tmp_path):
    """Two of three answers are wrong. A student that can fit every row must not be able to see."""
    teacher_says = make_training_set(tiny_base).validation.gold
    training_set = make_training_set(tiny_base, with_gold=False)
    wrong = np.arange(240) % 9 < 6  # of every class
    told = training_set.soft_labels
    logits = np.where(wrong[:, None], np.roll(told.logits, 1, axis=1), told.logits)
    weights = np.where(wrong, 1e-9, 1).astype(np.float32)
    answers = replace(told, logits=logits, weights=weights / weights.mean())
    STUDENTS[name].train(replace(training_set, soft_labels=answers), tmp_path)
    said = open_model(tmp_path).logits(training_set.validation.texts).argmax(axis=1)
    assert np.mean(said == teacher_says) > np.mean(said == (teacher_says + 1) % 3) + 0.1


TRAITS = {"pet": {*WORDS["cats"], *WORDS["dogs"]}, "sly": set(WORDS["cats"])}


def make_traits(base):
    """Rows with two labels, one or none, told by words; the teacher knows, a third has gold."""
    texts = tuple(make_rows(330, seed=3)["text"])
    words = [set(text.split()) for text in texts]
    there = np.array([[bool(marks & row) for marks in TRAITS.values()] for row in words])
    gold = np.where((np.arange(330) % 3 == 0)[:, None], there, NO_LABEL)
    every = Split(texts, gold)
    return TrainingSet(
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


@every_family
def test_students_learn_to_say_any_number_of_labels(name, copied_base, tmp_path):
    model = transformers.AutoModelForSequenceClassification.from_pretrained(copied_base)
    torch.manual_seed(0)
    torch.nn.init.normal_(model.get_input_embeddings().weight, std=0.5)  # words tell apart at once
    model.save_pretrained(copied_base)
    training_set = make_traits(copied_base)
    STUDENTS[name].train(training_set, tmp_path)
    model = open_model(tmp_path)
    assert (model.problem, model.classes) == ("multi_label", list(TRAITS))
    gold = training_set.validation.gold == 1
    said = model.logits(training_set.validation.texts) > 0
    assert f1_score(gold, said, average="macro") > 0.85
    labels = [answer.label for answer in model.answer(training_set.validation.texts)]
    assert labels == ["|".join(np.array(list(TRAITS))[row]) for row in said]
    assert set(labels) >= {"", "pet", "pet|sly"}


@every_family
@pytest.mark.parametrize("make", [make_training_set, make_traits])
def test_of_one_text_a_student_learns_the_weighted_share_of_its_gold(
    name, make, tiny_base, tmp_path
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
    STUDENTS[name].train(alone, tmp_path)
    (answer,) = open_model(tmp_path).answer(same.texts[:1])
    first, second, *_ = answer.probabilities.values()
    # A quarter of the rows is of the first class: 1 to 3, with weight 3 as much as the rest.
    assert first == pytest.approx(0.5, abs=0.05)
    assert second == pytest.approx(0.25 if several else 0.5, abs=0.05)


# Serving


@every_student
def test_a_text_is_answered_alike_in_any_company(case, name):
    model, texts = open_model(case(name).folder), case(name).training_set.validation.texts
    alone = np.concatenate([model.logits([text]) for text in texts])
    np.testing.assert_allclose(model.logits(texts), alone, atol=1e-4)
    assert (model.problem, tuple(model.classes)) == ("single_label", CLASSES)


@pytest.mark.parametrize("name", ["layers", *TRANSFORMERS])
def test_what_training_said_of_validation_is_what_is_served(case, name):
    validation = case(name).training_set.validation
    said = open_model(case(name).folder).logits(validation.texts).argmax(axis=1)
    lowest = min(case(name).curve, key=lambda point: point["validation/loss"])
    kept = lowest if name == "patient" else case(name).curve[-1]
    assert np.mean(said == validation.gold) == pytest.approx(kept["validation/accuracy"], abs=0.05)


@pytest.mark.parametrize("name", LIGHT)
def test_a_training_fails_whose_weights_are_served_otherwise(case, name, tmp_path, monkeypatch):
    write = np.savez

    def write_others(file, output_bias, **arrays):
        write(file, output_bias=output_bias + np.float32([1, 0, 0]), **arrays)

    monkeypatch.setattr(np, "savez", write_others)
    with pytest.raises(PotstillError, match="answers differently than in training"):
        STUDENTS[name].train(case(name).training_set, tmp_path)


@every_family
def test_light_students_answer_without_torch(case, name):
    code = (
        "import sys; from distill_tasks.serving.served_model import open_model;"
        f"print(open_model({str(case(name).folder)!r}).answer(['the puppy'])[0].label in {CLASSES},"
        "'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", str(STUDENTS[name].runtime == "torch")]


# What a student says of itself


@every_student
def test_who_grows_with_words_is_smaller_where_there_are_few(case, name, tmp_path):
    student, kept = case(name).student, case(name).training_set
    few = np.arange(3)
    part = replace(
        kept,
        rows=kept.rows.take(few),
        soft_labels=kept.soft_labels.take(few),
    )
    student.short_training.student.train(part, tmp_path)
    fewer = count_parameters(tmp_path) < count_parameters(case(name).folder)
    assert fewer is student.grows_with_words


@pytest.mark.parametrize("name", [name for name in STUDENTS if STUDENTS[name].reads_as_teacher])
def test_who_reads_as_the_teacher_has_its_tokens(case, name):
    texts = case(name).training_set.validation.texts
    base = case(name).training_set.teacher.model
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    whole = tokenizer(list(texts), truncation=True, max_length=16)["input_ids"]
    assert open_model(case(name).folder).token_ids(texts) == whole


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_who_can_be_stopped_answers_on_the_way_and_ends_as_the_others(case, name, tmp_path):
    student, kept = case(name).student, case(name).training_set
    assert student.in_rungs
    student.train(replace(kept, share=0.5), tmp_path)
    halfway = student.open_stopped(tmp_path).logits(kept.validation.texts)
    assert np.isfinite(halfway).all()
    assert student.train(kept, tmp_path) == case(name).curve
    assert digest_folder(tmp_path) == digest_folder(case(name).folder)


@every_student
def test_a_student_brings_a_start_of_its_own_or_takes_the_teachers(case, name):
    student, teacher = case(name).student, case(name).training_set.teacher
    own = student.own_start(teacher)
    assert own == (teacher if name == "pretrained" else None) or str(own.model) == student.model
    assert not (own and student.needs_teacher_weights)
    student.check_own_start(teacher)
    student.check_memory(case(name).training_set.rows.texts, classes=3, most_gb=1.0)


# A family more


class MajorityStudent(Student):
    """A toy: whatever the text, it says what the teacher says on average."""

    size_field: ClassVar[str] = "smoothing"

    family: Literal["majority"] = "majority"
    smoothing: float = 1.0

    @property
    def in_steps(self) -> bool:
        return False

    def train(self, training_set: TrainingSet, folder: Path) -> list[Curve]:
        logits = training_set.soft_labels.logits.mean(axis=0) / self.smoothing
        nothing = np.zeros((1, len(logits)), np.float32)
        np.savez(folder / "weights.npz", output=nothing, output_bias=logits)
        classes = training_set.classes
        describe_model(folder, "bag_of_words", training_set.problem, classes, ngrams=1, hashed=True)
        check_served(folder, ["a text"], logits[None])
        return [{"epoch": 1, "step": 1, "train/loss": 0.0}]


class ToyConfig(DistillConfig):
    """The configuration with one more family in its union."""

    students: Annotated[
        tuple[Annotated[StudentConfig | MajorityStudent, Field(discriminator="family")], ...],
        BeforeValidator(expand_grid),
    ]


def test_a_family_is_one_class_and_one_line_in_the_union(written, tiny_base):
    """Followed as CONTRIBUTING tells it: it is checked, planned, trained, served and scored."""
    ready = {"kind": "transformers", "model": str(tiny_base), "max_length": 16}
    toy = {"family": "majority", "smoothing": [1.0, 2.0]}
    config = ToyConfig.model_validate(written | {"teacher": ready, "students": [toy]})
    corpus = check_config(config)
    planned = plan_grid(config, corpus)
    assert [one.name for one in planned] == ["majority-1.0", "majority-2.0"]
    assert [one.parameters for one in planned] == [6, 6]
    teacher = make_teacher(config, corpus)
    labels = label_rows(config, corpus, teacher).open()
    run = OpenRun(config, corpus, teacher, labels, config.loss.usual_objective)
    trained = [train_one(run, trial) for trial in first_trials(config)]
    assert train_one(run, first_trials(config)[0]).reused
    (answer,) = open_model(trained[0].folder).answer(["the puppy"])
    assert answer.label in CLASSES
    card = Evaluator(run, "held_out").score_seeds(trained[:1])
    assert card.quality.value == pytest.approx(1 / 3, abs=0.1)
