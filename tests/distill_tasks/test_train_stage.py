import shutil

import numpy as np
import pytest
from samples import make_rows
from transformers import AutoModelForSequenceClassification

from distill_tasks.config import parse_config
from distill_tasks.corpus import Split, read_corpus
from distill_tasks.label import label_rows, make_teacher
from distill_tasks.served_model import open_model
from distill_tasks.train import count_parameters, measure_disk_mb, train_one

FAMILIES = ("layers", "static", "bag_of_words")


@pytest.fixture
def stage(written, tiny_base):
    """Train one student of a family, with changes to the configuration and to the corpus."""
    written["teacher"] = {"kind": "transformers", "model": str(tiny_base), "max_length": 16}
    written["students"] = [
        {"family": "layers", "layers": 1, "epochs": 1},
        {"family": "static", "dimensions": 8, "epochs": 1},
        {"family": "bag_of_words", "max_features": 100},
    ]

    def run(family, changes=None, student=None, splits=None):
        config = parse_config(written | (changes or {}), "test")
        corpus = read_corpus(config.data, config.seed)
        corpus.splits.update(splits or {})
        teacher = make_teacher(config, corpus)
        labels = label_rows(config, corpus, teacher).open().read(corpus.lesson.texts)
        chosen = config.students[FAMILIES.index(family)].model_copy(update=student or {})
        return train_one(config, chosen, corpus, labels, teacher)

    return run


@pytest.mark.parametrize("family", FAMILIES)
def test_a_student_is_trained_once(stage, family):
    first, second = stage(family), stage(family)
    assert (first.reused, second.reused) == (False, True)
    assert first.digest == second.digest
    assert first.curve == second.curve
    assert first.seconds == second.seconds > 0
    assert first.name in second.folder.parents[0].joinpath("manifest.json").read_text()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_deleted_folder_means_trained_again_to_the_same_answers(stage, family):
    first = stage(family)
    texts = list(make_rows(5, seed=8)["text"])
    answers = open_model(first.folder).logits(texts)
    shutil.rmtree(first.folder.parent)
    second = stage(family)
    assert not second.reused
    assert second.folder == first.folder
    np.testing.assert_array_equal(open_model(second.folder).logits(texts), answers)


def test_a_folder_without_manifest_means_trained_again(stage):
    first = stage("static")
    (first.folder.parent / "manifest.json").unlink()
    assert not stage("static").reused
    assert stage("static").reused


def test_whatever_makes_another_student_makes_another_digest(stage):
    rows = make_rows(400, seed=1)["text"][320:]
    others = [
        stage("bag_of_words"),
        stage("bag_of_words", {"loss": {"temperature": 3.0}}),
        stage("bag_of_words", {"loss": {"alpha": 0.5}}),
        stage("bag_of_words", {"seed": 8}),
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


def test_parameters_of_layers_are_counted_as_torch_counts_them(stage):
    student = stage("layers")
    model = AutoModelForSequenceClassification.from_pretrained(student.folder)
    assert student.parameters == sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize("family", ["static", "bag_of_words"])
def test_parameters_of_light_students_are_the_numbers_they_answer_with(stage, family):
    student = stage(family)
    model = open_model(student.folder)
    weights = [value for value in vars(model).values() if isinstance(value, np.ndarray)]
    assert student.parameters == sum(value.size for value in weights) > 100


@pytest.mark.parametrize("family", FAMILIES)
def test_disk_size_is_the_megabytes_of_all_files_that_are_served(stage, family):
    student = stage(family)
    sizes = [path.stat().st_size for path in student.folder.rglob("*") if path.is_file()]
    assert student.disk_mb == pytest.approx(sum(sizes) / 1e6)
    assert not list(student.folder.rglob("checkpoint*"))


def test_an_empty_folder_has_no_weights_and_no_size(tmp_path):
    assert (count_parameters(tmp_path), measure_disk_mb(tmp_path)) == (0, 0)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file").write_bytes(b"x" * 1500)
    assert measure_disk_mb(tmp_path) == 0.0015
