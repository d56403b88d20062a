import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from samples import CLASSES, make_rows
from transformers import AutoModelForSequenceClassification

from distill_tasks.config import parse_config
from distill_tasks.core.errors import DivergedError, PotstillError
from distill_tasks.core.store import Store
from distill_tasks.data.corpus import NO_LABEL, Split
from distill_tasks.data.rows import read_corpus
from distill_tasks.data.soft_labels import SoftLabelStore
from distill_tasks.results.grid import Trial
from distill_tasks.results.kept import identify
from distill_tasks.results.references import TeacherReference
from distill_tasks.results.run import OpenRun
from distill_tasks.results.trained import train_one, train_partly
from distill_tasks.scoring.calibration import Calibration, calibrate
from distill_tasks.scoring.predictions import AnswerStore
from distill_tasks.serving.served_model import ABOUT, open_model
from distill_tasks.training.checkpoint import Checkpoint
from distill_tasks.training.objective import Objective

FAMILIES = ("layers", "static", "bag_of_words")


@pytest.fixture
def stage(written, tiny_base):
    """Train one student of a family, with changes to what it is made from."""
    written["students"] = [
        {"family": "layers", "layers": 1, "epochs": 1},
        {"family": "static", "dimensions": 8, "epochs": 1},
        {"family": "bag_of_words", "max_features": 100},
    ]

    def run(
        family,
        changes=None,
        share=None,
        student=None,
        splits=None,
        objective=(2.0, 0.9),
        teacher="teacher",
        weights=tiny_base,
        classes=None,
        seed=7,
        **trial,
    ):
        config = parse_config(written | (changes or {}), "test")
        corpus = read_corpus(config.data, config.seed, problem=config.problem)
        corpus.splits.update(splits or {})
        if classes is not None:
            corpus = type(corpus)(corpus.splits, classes)
        model = Checkpoint(weights, None, config.teacher.max_length)
        reference = TeacherReference(teacher, corpus.classes, model, 0.0, [], reused=True)
        answers = np.random.default_rng(len(teacher)).normal(size=(len(corpus.training_rows), 3))
        labels = SoftLabelStore(
            f"{config.work_dir}/labels/{'-'.join(corpus.classes)}", teacher, corpus.classes
        )
        labels.add(corpus.training_rows.texts, answers.astype(np.float32))
        chosen = config.students[FAMILIES.index(family)].model_copy(update=student or {})
        run = OpenRun(config, corpus, reference, labels, Objective(*objective))
        given = run, Trial(chosen, seed, **trial)
        return train_one(*given) if share is None else train_partly(*given, share)

    return run


@pytest.fixture
def trained(written):
    """The folders of trained students in the store."""
    return lambda: sorted(path.name for path in Path(written["work_dir"], "students").iterdir())


def trained_folder(student):
    """Where a student lay before it was calibrated; there is only one in the store."""
    (folder,) = student.folder.parents[2].glob("students/*/student")
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_a_student_is_trained_once(stage, trained, family):
    first, second = stage(family), stage(family)
    assert (first.reused, second.reused) == (False, True)
    assert first.digest == second.digest
    assert first.curve == second.curve
    assert first.seconds == second.seconds > 0
    assert (first.folder, first.calibration) == (second.folder, second.calibration)
    assert len(trained()) == 1
    assert (first.served, first.distilled) == (True, True)
    assert first.name == first.candidate == first.student
    assert first.variant == ("torch" if family == "layers" else "numpy")
    assert first.trained == second.trained == trained()[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_deleted_folders_mean_trained_again_to_the_same_answers(stage, family):
    first = stage(family)
    texts = list(make_rows(5, seed=8)["text"])
    answers = open_model(first.folder).logits(texts)
    shutil.rmtree(trained_folder(first).parent)
    shutil.rmtree(first.folder.parent)
    second = stage(family)
    assert not second.reused
    assert second.folder == first.folder
    np.testing.assert_array_equal(open_model(second.folder).logits(texts), answers)


def test_a_deleted_served_folder_means_calibrated_again_but_not_trained(stage):
    first = stage("static")
    about = (first.folder / ABOUT).read_text()
    shutil.rmtree(first.folder.parent)
    second = stage("static")
    assert second.reused
    assert (second.folder / ABOUT).read_text() == about


def test_a_folder_without_manifest_means_trained_again(stage):
    first = stage("static")
    (trained_folder(first).parent / "manifest.json").unlink()
    assert not stage("static").reused
    assert stage("static").reused


def test_a_damaged_student_is_trained_again_and_is_the_same_one(stage, caplog):
    first = stage("bag_of_words")
    with (trained_folder(first) / "weights.npz").open("r+b") as file:
        file.seek(200)
        file.write(b"\xff\xff\xff\xff")  # what is served is a link to it
    second = stage("bag_of_words")
    assert not second.reused
    assert (second.digest, second.folder) == (first.digest, first.folder)
    said = [line for line in caplog.messages if line.endswith("it is made again")]
    assert [line.split("/")[0] for line in said] == ["store: students", "store: served"]
    assert all(f"({first.name}) is not whole: student/weights.npz" in line for line in said)
    assert stage("bag_of_words").reused


def test_class_names_that_were_swapped_are_never_served(stage):
    first = stage("bag_of_words")
    about = (first.folder / ABOUT).read_text()
    swapped = about.replace("cats", "x").replace("dogs", "cats").replace("x", "dogs")
    (first.folder / ABOUT).write_text(swapped)
    second = stage("bag_of_words")
    assert second.reused  # only its calibration was made again
    assert (second.folder / ABOUT).read_text() == about


def test_a_model_is_named_by_its_bytes_and_one_of_before_by_its_recipe(stage):
    assert identify("recipe", {"content": "a"}) != identify("recipe", {"content": "b"}) != "recipe"
    assert identify("recipe", {}) == "recipe"
    student = stage("bag_of_words")
    assert student.digest != student.folder.parent.name
    for manifest in student.folder.parents[2].glob("*/*/manifest.json"):
        about = json.loads(manifest.read_text())["about"]
        about.pop("content", None)  # as it was written before bytes were looked at
        manifest.write_text(json.dumps(about))
    shutil.rmtree(student.folder.parent)  # named by the bytes of what it was made from
    old = stage("bag_of_words")
    assert old.reused
    assert old.folder != student.folder


def test_whatever_makes_another_student_makes_another_digest(stage):
    rows = make_rows(400, seed=1)["text"][320:]
    others = [
        stage("bag_of_words"),
        stage("bag_of_words", objective=(3.0, 0.9)),
        stage("bag_of_words", objective=(2.0, 0.5)),
        stage("bag_of_words", {"loss": {"balance_classes": True}}),
        stage("bag_of_words", seed=8),
        stage("bag_of_words", teacher="another"),
        stage("bag_of_words", distilled=False),
        stage("bag_of_words", student={"max_features": 50}),
        stage("bag_of_words", splits={"transfer": Split(tuple(rows), np.full(len(rows), -1))}),
        stage("static"),
    ]
    assert len({student.digest for student in others}) == len(others)
    assert not any(student.reused for student in others)


def test_what_makes_no_other_student_keeps_the_digest(stage):
    first = stage("bag_of_words")
    held_out = Split(tuple(make_rows(9, seed=5)["text"]), np.zeros(9, np.int64))
    changed = {"name": "other", "registry": {"model": "other"}, "measure": {"calls": 30}}
    second = stage("bag_of_words", changed, splits={"held_out": held_out})
    assert (second.digest, second.reused) == (first.digest, True)


def test_every_seed_beyond_the_served_one_is_the_same_student_by_another_name(stage):
    served, other = stage("bag_of_words"), stage("bag_of_words", served=False)
    assert other.reused
    assert (other.digest, other.name) == (served.digest, f"{served.name}-seed-7")
    assert (other.served, other.candidate, other.student) == (False, served.name, served.name)


def test_calibration_lies_in_the_served_folder_beside_links_to_the_trained_files(stage):
    student = stage("static")
    source = trained_folder(student)
    linked = {path.name for path in source.iterdir()} - {ABOUT}
    assert {path.name for path in student.folder.iterdir()} == linked | {ABOUT}
    assert len(linked) == 2
    for name in linked:
        assert (student.folder / name).samefile(source / name)
    trained, served = (json.loads((f / ABOUT).read_text()) for f in (source, student.folder))
    assert "calibration" not in trained
    assert served == trained | {"calibration": student.calibration.to_json()}


@pytest.mark.parametrize("family", FAMILIES)
def test_calibration_is_fitted_to_the_answers_on_validation(stage, written, family):
    student = stage(family)
    corpus = read_corpus(parse_config(written, "test").data, 7)
    validation = corpus.splits["validation"]
    logits = open_model(student.folder).logits(validation.texts)
    expected = calibrate(logits, validation.decisions(3), "single_label", None)
    assert student.calibration.temperature == pytest.approx(expected.temperature, rel=1e-3)
    assert student.calibration.temperature != 1
    model = open_model(student.folder)
    assert model.temperature == student.calibration.temperature
    assert model.answer_from == 0


def test_a_precision_to_answer_with_changes_the_calibration_and_trains_nothing(stage, trained):
    always = stage("bag_of_words")
    sure = stage("bag_of_words", {"evaluate": {"answer_precision": 0.9}})
    surer = stage("bag_of_words", {"evaluate": {"answer_precision": 0.999}})
    assert (sure.reused, surer.reused) == (True, True)
    assert len(trained()) == 1
    assert len({always.digest, sure.digest, surer.digest}) == 3
    assert {always.trained, sure.trained, surer.trained} == set(trained())
    assert always.calibration.answer_from is None
    assert 0 < sure.calibration.answer_from <= surer.calibration.answer_from
    texts = list(make_rows(40, seed=8)["text"])
    silent = [
        sum(answer.abstain for answer in open_model(student.folder).answer(texts))
        for student in (always, sure, surer)
    ]
    assert silent[0] == 0 < silent[1] <= silent[2]


def test_without_gold_a_student_is_served_as_it_is(stage, written):
    student = stage("bag_of_words", classes=CLASSES, splits=bare(written))
    assert student.calibration == Calibration()
    assert open_model(student.folder).temperature == 1


def bare(written):
    """The splits without any gold."""
    corpus = read_corpus(parse_config(written, "test").data, 7)
    return {n: Split(s.texts, np.full(len(s), NO_LABEL)) for n, s in corpus.splits.items()}


def test_of_several_labels_each_gets_its_threshold(stage, data_folder):
    for name in ("train", "held_out"):
        rows = make_rows(90, seed=len(name))
        rows["label"] = rows["label"].map({"cats": "pet|sly", "dogs": "pet", "fish": "wet"})
        rows.to_parquet(data_folder / f"{name}.parquet")
    student = stage("bag_of_words", {"problem": "multi_label"})
    assert len(student.calibration.thresholds) == 3
    assert open_model(student.folder).thresholds == student.calibration.thresholds


def test_a_control_does_not_depend_on_the_teacher_or_the_blend(stage):
    first = stage("static", distilled=False, served=False)
    again = stage("static", distilled=False, served=False, teacher="another", objective=(5.0, 0.1))
    assert (again.digest, again.reused) == (first.digest, True)
    assert (first.distilled, first.served) == (False, False)
    assert first.name == "static-8-epochs-1-on-gold-seed-7"
    assert first.candidate == first.student == "static-8-epochs-1"


def test_a_control_takes_as_many_steps_as_the_student_it_stands_beside(stage):
    for family in ("layers", "static"):
        distilled, control = stage(family), stage(family, distilled=False)
        assert [point["step"] for point in control.curve] == [p["step"] for p in distilled.curve]


def test_a_control_of_a_finetuned_teacher_starts_from_the_base(stage, tmp_path):
    student = stage("layers", distilled=False, weights=tmp_path / "no teacher needed")
    assert open_model(student.folder).classes == list(CLASSES)


def test_a_control_of_a_ready_teacher_starts_from_the_teacher(stage, tiny_base, copied_base):
    def ready(model):
        return {"teacher": {"kind": "transformers", "model": str(model), "max_length": 16}}

    first = stage("static", ready(tiny_base), distilled=False)
    assert first.digest == stage("static", distilled=False).digest  # the same weights
    settings = (copied_base / "config.json").read_text()
    (copied_base / "config.json").write_text(settings.replace('"gelu"', '"relu"'))
    assert stage("static", ready(copied_base), distilled=False).digest != first.digest


def test_whatever_makes_another_control_makes_another_digest(stage, written, copied_base):
    (copied_base / "notes.txt").write_text("another base")
    base = {"teacher": written["teacher"] | {"base": str(copied_base)}}
    shorter = {"teacher": written["teacher"] | {"max_length": 9}}
    others = [
        stage("static", distilled=False),
        stage("static", base, distilled=False),
        stage("static", shorter, distilled=False),
        stage("static", {"loss": {"balance_classes": True}}, distilled=False),
        stage("static", distilled=False, seed=8),
        stage("static", distilled=False, classes=("cows", "dogs", "fish")),
        stage("static", distilled=False, student={"dimensions": 4}),
    ]
    assert len({student.digest for student in others}) == len(others)


def test_parameters_of_layers_are_counted_as_torch_counts_them(stage):
    student = stage("layers")
    model = AutoModelForSequenceClassification.from_pretrained(student.folder)
    assert student.parameters == sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize("family", ["static", "bag_of_words"])
def test_parameters_of_light_students_are_the_numbers_they_answer_with(stage, family):
    student = stage(family)
    model = open_model(student.folder)
    weights = [value for value in vars(model).values() if isinstance(value, np.ndarray)]
    once = {value.tobytes(): value for value in weights}  # the first layer may be the last one too
    assert student.parameters == sum(value.size for value in once.values()) > 100


@pytest.mark.parametrize("family", FAMILIES)
def test_disk_size_is_the_megabytes_of_all_files_that_are_served(stage, family):
    student = stage(family)
    sizes = [path.stat().st_size for path in student.folder.rglob("*") if path.is_file()]
    assert student.disk_mb == sum(sizes) / 1e6
    assert not list(student.folder.rglob("checkpoint*"))


@pytest.mark.parametrize(
    ("family", "learning_rate"), [("layers", 1e30), ("static", 1e30)], ids=["layers", "static"]
)
def test_a_training_that_diverges_stops_at_the_first_broken_loss(stage, family, learning_rate):
    with pytest.raises(DivergedError) as caught:
        stage(family, student={"learning_rate": learning_rate})
    assert re.fullmatch(
        r"the loss became (nan|inf) in step [2-9] at learning_rate 1e\+30\. Lower it\.",
        str(caught.value),
    )


def trained_files(student):
    folder = trained_folder(student)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("shares", [[1 / 8], [1 / 8, 1 / 4, 1 / 2], [1 / 4, 1 / 4]], ids=str)
@pytest.mark.parametrize("distilled", [True, False])
def test_a_student_halted_on_its_way_ends_as_one_that_was_not(stage, written, shares, distilled):
    whole = stage("layers", distilled=distilled)
    expected, texts = trained_files(whole), list(make_rows(5, seed=8)["text"])
    shutil.rmtree(written["work_dir"])
    before = 0.0
    for share in shares:
        part = stage("layers", share=share, distilled=distilled)
        assert (part.share, part.validation.shape[1]) == (share, 3)
        assert part.seconds >= before
        before = part.seconds
        early = open_model(part.folder).logits(texts)
    found = stage("layers", distilled=distilled)
    assert (found.reused, found.digest, found.trained) == (False, whole.digest, whole.trained)
    assert trained_files(found) == expected
    assert found.seconds > before
    assert [point["step"] for point in found.curve] == [point["step"] for point in whole.curve]
    for name in ("epoch", "train/loss", "validation/loss", "validation/accuracy"):
        assert found.curve[-1][name] == pytest.approx(whole.curve[-1][name], rel=1e-6)
    assert np.abs(early - open_model(found.folder).logits(texts)).max() > 1e-5


def test_a_share_asked_again_is_answered_without_training(stage):
    first = stage("layers", share=1 / 4)
    stage("layers", share=1 / 2)
    stage("layers")
    again = stage("layers", share=1 / 4)
    np.testing.assert_array_equal(again.validation, first.validation)
    assert again.seconds == first.seconds
    with pytest.raises(PotstillError, match="trained to its end before"):
        stage("layers", share=1 / 8)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_it_said_of_validation_to_be_calibrated_is_not_asked_again(stage, written, family):
    student = stage(family)
    validation = read_corpus(parse_config(written, "test").data, 7).splits["validation"]
    kept = AnswerStore(Store(written["work_dir"]), validation).read(
        student.digest, student.name, lambda: pytest.fail("it was asked again")
    )
    logits = open_model(student.folder).logits(validation.texts)
    np.testing.assert_allclose(kept, logits, atol=1e-4)


def test_a_halted_student_says_of_validation_what_its_folder_says(stage, written):
    part = stage("layers", share=1 / 2)
    validation = read_corpus(parse_config(written, "test").data, 7).splits["validation"]
    logits = open_model(part.folder).logits(validation.texts)
    np.testing.assert_allclose(part.validation, logits, atol=0.02)
