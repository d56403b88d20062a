import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import answer_plainly, make_run, spread_weights, train_students, without_weights
from samples import CLASSES, WORDS, make_rows, write_words
from transformers import AutoModelForSequenceClassification, MiniMaxConfig

from distill_tasks.config import parse_config
from distill_tasks.core.errors import InputError
from distill_tasks.core.store import MANIFEST
from distill_tasks.data.rows import read_corpus
from distill_tasks.data.soft_labels import SoftLabelStore
from distill_tasks.results.exported import name_variant
from distill_tasks.results.grid import Grid, Trial
from distill_tasks.results.references import TEACHER, TeacherReference
from distill_tasks.results.run import OpenRun
from distill_tasks.results.trained import train_one
from distill_tasks.scoring.calibration import calibrate
from distill_tasks.serving.served_model import ABOUT, GRAPH, open_model
from distill_tasks.stages.export import export as export_stage
from distill_tasks.stages.export import export_all
from distill_tasks.training.checkpoint import Checkpoint
from distill_tasks.training.objective import Objective

VARIANTS = ("onnx", "onnx_int8")


@pytest.fixture(scope="module")
def config(tiny_base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    rows = make_rows(300, seed=1)
    splits = {"train": rows[:90], "transfer": rows[90:200][["text"]], "held_out": rows[200:]}
    for name, split in splits.items():
        split.to_parquet(folder / f"{name}.parquet", index=False)
    written = {
        "name": "animals",
        "work_dir": str(folder / "work"),
        "data": {name: str(folder / f"{name}.parquet") for name in splits},
        "teacher": {"kind": "finetune", "base": str(tiny_base), "max_length": 16},
        "students": [
            {
                "family": "layers",
                "layers": 1,
                "epochs": 8,
                "learning_rate": 0.005,
                "batch_rows": 16,
            },
            {"family": "static", "dimensions": 8, "epochs": 1},
            {"family": "bag_of_words", "max_features": 100},
        ],
        "evaluate": {"answer_precision": 0.9},
        "export": {"variants": list(VARIANTS)},
        "registry": {"model": "animals"},
    }
    return parse_config(written, "test")


@pytest.fixture(scope="module")
def corpus(config):
    return read_corpus(config.data, config.seed)


@pytest.fixture(scope="module")
def students(config, corpus, tiny_base):
    """A transformer from two seeds and without a teacher, and the students of numpy."""
    model = Checkpoint(tiny_base, None, 16)
    teacher = TeacherReference("teacher", CLASSES, model, 0.0, [], reused=True)
    wanted = [
        next(number for number, name in enumerate(CLASSES) if set(text.split()) & set(WORDS[name]))
        for text in corpus.training_rows.texts
    ]
    labels = SoftLabelStore(f"{config.work_dir}/labels", "teacher", CLASSES)
    labels.add(corpus.training_rows.texts, 4 * np.eye(3, dtype=np.float32)[wanted])
    layers, static, words = config.students
    trials = [
        Trial(layers, 7),
        Trial(static, 7),
        Trial(layers, 8, served=False),
        Trial(layers, 7, distilled=False, served=False),
        Trial(words, 7),
    ]
    run = OpenRun(config, corpus, teacher, labels, Objective(2.0, 0.9))
    return [train_one(run, trial) for trial in trials]


def export(config, corpus, students):
    return export_all(OpenRun(config, corpus, without_weights(), None, None), Grid(students))


@pytest.fixture(scope="module")
def exported(config, corpus, students):
    return export(config, corpus, students)


@pytest.fixture
def layers(students):
    """The transformer from its first seed."""
    return students[0]


def named(found, name):
    (student,) = (student for student in found.students if student.name == name)
    return student


def asking_for(config, *variants):
    return config.model_copy(
        update={"export": config.export.model_copy(update={"variants": variants})}
    )


def times(found):
    """When each file of the variants was written."""
    files = [path for s in found.students if "onnx" in s.variant for path in s.folder.iterdir()]
    return {path: path.stat().st_mtime_ns for path in files}


def test_every_taught_transformer_is_followed_by_its_variants_and_the_others_are_left_alone(
    exported, students
):
    layers, static, second, control, words = (student.name for student in students)
    assert [student.name for student in exported.students] == [
        layers,
        f"{layers}-onnx",
        f"{layers}-onnx-int8",
        static,
        second,
        f"{layers}-onnx-seed-8",
        f"{layers}-onnx-int8-seed-8",
        control,
        words,
    ]
    assert [student for student in exported.students if student in students] == students
    assert exported.failed == {}
    assert not exported.reused


def test_a_variant_is_its_student_under_another_name_in_another_folder(exported, layers):
    for variant in VARIANTS:
        found = named(exported, name_variant(layers.student, variant))
        assert (found.variant, found.candidate, found.served) == (variant, found.name, True)
        kept = ("student", "seed", "distilled", "trained", "parameters", "seconds", "curve")
        assert all(getattr(found, field) == getattr(layers, field) for field in kept)
        assert found.digest != layers.digest
        assert found.folder != layers.folder
        assert {path.name for path in found.folder.iterdir()} == {ABOUT, GRAPH, "tokenizer.json"}
        sizes = [path.stat().st_size for path in found.folder.iterdir()]
        assert found.disk_mb == sum(sizes) / 1e6


def test_a_variant_answers_as_the_student_of_its_own_seed(exported, students, corpus):
    texts = corpus.splits["held_out"].texts
    first, _, second, *_ = students
    torches = [open_model(student.folder).logits(texts) for student in (first, second)]
    assert np.abs(torches[0] - torches[1]).max() > 0.1
    for seed, suffix in enumerate(("", "-seed-8")):
        onnx = named(exported, f"{first.student}-onnx{suffix}")
        assert onnx.candidate == f"{first.student}-onnx"
        assert onnx.served == (not suffix)
        logits = open_model(onnx.folder).logits(texts)
        np.testing.assert_allclose(logits, torches[seed], atol=1e-4)
        int8 = open_model(named(exported, f"{first.student}-onnx-int8{suffix}").folder)
        gap = np.abs(int8.logits(texts) - torches[seed]).max()
        assert 0 < gap < 0.1 * np.ptp(torches[seed])


def test_variants_of_seeds_have_digests_of_their_own(exported):
    digests = [student.digest for student in exported.students]
    assert len(set(digests)) == len(digests)


def test_calibration_is_the_variants_own_and_lies_in_its_description(exported, corpus, layers):
    validation = corpus.splits["validation"]
    for variant in VARIANTS:
        found = named(exported, name_variant(layers.student, variant))
        model = open_model(found.folder)
        logits = model.logits(validation.texts)
        expected = calibrate(logits, validation.decisions(3), "single_label", 0.9)
        assert found.calibration.temperature == pytest.approx(expected.temperature, rel=1e-6)
        assert found.calibration.answer_from == pytest.approx(expected.answer_from, rel=1e-6)
        about = json.loads((found.folder / ABOUT).read_text())
        assert about["calibration"] == found.calibration.to_json()
        assert about["runtime"] == "onnx"
        assert model.temperature == found.calibration.temperature
    assert found.calibration.temperature != layers.calibration.temperature  # int8's own
    about = json.loads((layers.folder / ABOUT).read_text())
    assert about["calibration"] == layers.calibration.to_json()
    assert about["runtime"] == "transformers"


def test_a_second_run_exports_nothing_again(config, corpus, exported, students):
    before = times(exported)
    again = export(config, corpus, [replace(student, reused=True) for student in students])
    assert again.reused
    assert all(student.reused for student in again.students)
    assert again.students == [replace(student, reused=True) for student in exported.students]
    assert times(again) == before
    assert len(before) == 2 * 2 * 3


def test_what_is_added_later_is_all_that_is_exported(config, corpus, exported, students):
    before = times(exported)
    wider = export(asking_for(config, *VARIANTS, "onnx_int8_static"), corpus, students[:1])
    assert [s.variant for s in wider.students] == ["torch", *VARIANTS, "onnx_int8_static"]
    assert [s.reused for s in wider.students] == [False, True, True, False]
    assert not wider.reused
    assert before.items() <= (times(exported) | times(wider)).items()
    static = open_model(wider.students[-1].folder)
    gap = static.logits(["purr kitten"]) - open_model(students[0].folder).logits(["purr kitten"])
    assert np.abs(gap).max() < 1


def test_asked_for_no_variants_all_students_stay_as_they_are(config, corpus, students):
    found = export(asking_for(config), corpus, students)
    assert found.students == students
    assert found.failed == {}


def test_no_students_are_nothing_to_export(config, corpus):
    found = export(config, corpus, [])
    assert (found.students, found.failed) == ([], {})


def test_missing_packages_are_an_error_and_no_reason_to_leave_out(
    config, corpus, students, monkeypatch
):
    monkeypatch.setattr("distill_tasks.students.formats.find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"potstill\[onnx\]"):
        export(config, corpus, students)


TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
    "num_labels": 3,
    "id2label": dict(enumerate(CLASSES)),
    "label2id": {name: number for number, name in enumerate(CLASSES)},
    "pad_token_id": 0,
}


@pytest.fixture
def strange(students, tmp_path):
    """Make a student of another architecture out of a trained one."""

    def make(student, architecture):
        folder = Path(shutil.copytree(students[0].folder, tmp_path / architecture.model_type))
        vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
        settings = TINY | {"vocab_size": vocabulary}
        settings |= {"num_key_value_heads": 2, "num_local_experts": 2, "head_dim": 16}
        settings |= {"layer_types": ["linear_attention"], "block_size": 4}
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(architecture(**settings))
        model.save_pretrained(folder)
        (folder / ABOUT).write_text((students[0].folder / ABOUT).read_text())
        return replace(student, folder=folder, digest=architecture.model_type)

    return make


def test_a_student_that_cannot_be_exported_is_left_out_and_the_others_go_on(
    config, corpus, exported, students, strange, caplog
):
    """The graph of MiniMax's linear attention fits no other length than that of its sample."""
    odd = strange(replace(students[0], name="odd", student="odd", candidate="odd"), MiniMaxConfig)
    assert len(open_model(odd.folder).answer(["purr kitten", "the puppy"])) == 2
    with caplog.at_level(logging.WARNING, "potstill"):
        found = export(asking_for(config, "onnx"), corpus, [odd, *students])
    assert set(found.failed) == {"odd-onnx"}
    reason = found.failed["odd-onnx"]
    assert reason.startswith("its export failed: Fail: [ONNXRuntimeError]")
    assert "\n" not in reason
    assert len(reason) <= 230
    assert f"export odd-onnx: left out, {reason}" in caplog.text
    names = [student.name for student in exported.students if student.variant != "onnx_int8"]
    assert [student.name for student in found.students] == ["odd", *names]
    assert not found.reused
    store = Path(config.work_dir) / "served"
    assert not [f for f in store.glob("*/" + MANIFEST) if "minimax" in f.read_text()]


@pytest.mark.usefixtures("exported")
def test_where_one_seed_fails_the_whole_candidate_is_left_out(config, corpus, students, tmp_path):
    folder = Path(shutil.copytree(students[2].folder, tmp_path / "broken"))
    (folder / "model.safetensors").write_bytes(b"half")
    first, second = students[0], replace(students[2], folder=folder, digest="broken")
    found = export(asking_for(config, "onnx"), corpus, [first, second])
    ((name, reason),) = found.failed.items()
    assert name == f"{first.student}-onnx"
    assert reason.startswith("its export failed: SafetensorError: ")
    assert found.students == [first, second]


@pytest.mark.usefixtures("exported")
def test_a_student_whose_folder_is_damaged_is_left_out_until_it_is_mended(
    config, corpus, students, tmp_path
):
    folder = Path(shutil.copytree(students[2].folder, tmp_path / "damaged"))
    damaged = replace(students[2], folder=folder)
    one, name = asking_for(config, "onnx_int8_static"), f"{damaged.student}-onnx-int8-static"
    tokenizer = (folder / "tokenizer.json").read_bytes()
    (folder / "tokenizer.json").unlink()
    found = export(one, corpus, [damaged, students[1]])
    assert (found.students, set(found.failed)) == ([damaged, students[1]], {name})
    (folder / "tokenizer.json").write_bytes(tokenizer)
    found = export(one, corpus, [damaged, students[1]])
    assert [student.candidate for student in found.students] == [
        damaged.candidate,
        name,
        students[1].candidate,
    ]
    assert found.failed == {}


def test_an_export_that_was_killed_is_finished_by_the_next_run(config, corpus, exported, students):
    found = named(exported, f"{students[0].student}-onnx-int8")
    texts = corpus.splits["held_out"].texts
    answers, about = open_model(found.folder).logits(texts), (found.folder / ABOUT).read_text()
    final = found.folder.parent
    draft = final.rename(final.with_name(f"{final.name}.partial"))
    (draft / MANIFEST).unlink()
    (draft / found.folder.name / ABOUT).unlink()
    (draft / found.folder.name / GRAPH).write_bytes(b"half a graph")
    again = export(config, corpus, students[:1])
    assert [student.reused for student in again.students] == [False, True, False]
    assert again.students[-1] == found
    np.testing.assert_array_equal(open_model(found.folder).logits(texts), answers)
    assert (found.folder / ABOUT).read_text() == about
    assert not draft.exists()
    assert (final / MANIFEST).is_file()


def test_a_deleted_variant_is_exported_again_to_the_same_answers(
    config, corpus, exported, students
):
    found = named(exported, f"{students[0].student}-onnx-int8")
    answers = open_model(found.folder).logits(["purr kitten"])
    shutil.rmtree(found.folder.parent)
    again = export(config, corpus, students[:1])
    assert again.students[-1] == found
    np.testing.assert_array_equal(open_model(found.folder).logits(["purr kitten"]), answers)


@pytest.fixture(scope="module")
def lively(tiny_base, tmp_path_factory):
    """A teacher whose answers differ from text to text."""
    folder = tmp_path_factory.mktemp("teacher") / "model"
    return spread_weights(Path(shutil.copytree(tiny_base, folder)), 0.5)


@pytest.fixture(scope="module")
def with_teacher(config, corpus, students, lively):
    """What is exported where the teacher has weights here."""
    model = Checkpoint(lively, None, 16)
    teacher = TeacherReference("lively", CLASSES, model, 0.0, [], reused=True)
    return export_all(OpenRun(config, corpus, teacher, None, None), Grid(students[-1:]))


def test_the_teacher_itself_is_exported_as_a_control(with_teacher, lively, corpus):
    words, *variants = with_teacher.students
    assert [one.name for one in variants] == ["teacher-onnx", "teacher-onnx-int8"]
    assert with_teacher.of([TEACHER]) == variants
    assert with_teacher.trained == [words]
    texts = corpus.splits["held_out"].texts
    plain = answer_plainly(lively, texts)
    assert plain.std(axis=0).min() > 0.05
    for variant, likeness in zip(variants, (0.999999, 0.95), strict=True):
        assert (variant.distilled, variant.served, variant.is_teacher) == (False, True, True)
        assert {path.name for path in variant.folder.iterdir()} == {ABOUT, GRAPH, "tokenizer.json"}
        logits = open_model(variant.folder).logits(texts)
        assert np.corrcoef(logits.ravel(), plain.ravel())[0, 1] > likeness
    weights = AutoModelForSequenceClassification.from_pretrained(lively)
    assert {one.parameters for one in variants} == {weights.num_parameters()}
    assert variants[1].disk_mb < variants[0].disk_mb


def test_the_teacher_is_exported_once(config, corpus, students, with_teacher):
    teacher = TeacherReference(
        "lively", CLASSES, Checkpoint("gone", None, 16), 0.0, [], reused=True
    )
    again = export_all(OpenRun(config, corpus, teacher, None, None), Grid(students[-1:]))
    assert [one.digest for one in again.of([TEACHER])] == [
        one.digest for one in with_teacher.of([TEACHER])
    ]
    assert all(one.reused for one in again.of([TEACHER]))


def test_a_teacher_that_cannot_be_exported_ends_no_run(config, corpus, students, tmp_path):
    teacher = TeacherReference(
        "lost", CLASSES, Checkpoint(tmp_path, None, 16), 0.0, [], reused=True
    )
    found = export_all(OpenRun(config, corpus, teacher, None, None), Grid(students[-1:]))
    assert found.students == students[-1:]
    assert set(found.failed) == {"teacher-onnx", "teacher-onnx-int8"}
    assert "its export failed" in found.failed["teacher-onnx"]


def export_twice(folder, base, **changes):
    """Return twice what is exported of two transformers, one of them broken, and a teacher."""
    folder.mkdir()
    students = [{"family": "layers", "layers": number, "epochs": 1} for number in (1, 2)]
    teacher = {"kind": "transformers", "model": str(base), "max_length": 16}
    variants = {"variants": ["onnx", "onnx_int8"]}
    written = write_words(folder) | {"teacher": teacher, "students": students, "export": variants}
    run = make_run(parse_config(written | changes, "test"))
    grid = Grid(train_students(run.open()))
    (grid.students[1].folder / "model.safetensors").write_bytes(b"half")
    return export_stage(run, grid), export_stage(run, grid)


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_models_exported_at_once_are_those_exported_one_by_one_failures_too(tiny_base, tmp_path):
    alone, _ = export_twice(tmp_path / "alone", tiny_base)
    two = {"kind": "local", "workers": 2}
    made, found = export_twice(tmp_path / "beside", tiny_base, execution=two)
    assert [one.variant for one in made.students] == ["torch", *VARIANTS, "torch", *VARIANTS]
    assert [one.digest for one in made.students] == [one.digest for one in alone.students]
    for one, other in zip(made.students, alone.students, strict=True):
        assert one.calibration.temperature == pytest.approx(other.calibration.temperature)
    broken = made.students[3].name
    assert made.failed == alone.failed == found.failed
    assert set(made.failed) == {f"{broken}-onnx", f"{broken}-onnx-int8"}
    assert found.students == [
        replace(one, reused=one.variant != "torch", folder=again.folder)
        for one, again in zip(made.students, found.students, strict=True)
    ]
