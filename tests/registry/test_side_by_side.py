import os
import shutil

import mlflow
import numpy as np
import pytest
from samples import (
    CLASSES,
    LAYERS,
    STATIC,
    WORDS_STUDENT,
    make_rows,
)
from sklearn.metrics import f1_score

from distill_tasks.core.errors import InputError
from distill_tasks.data.corpus import NO_LABEL, Split
from distill_tasks.data.soft_labels import SoftLabels
from distill_tasks.results.references import TEACHER
from distill_tasks.scoring.verdicts import Verdict
from distill_tasks.serving.served_model import open_model
from distill_tasks.students import BagOfWordsStudent
from distill_tasks.students.base import TrainingSet
from distill_tasks.tracking import logged_models
from distill_tasks.tracking.logged_models import log_student
from distill_tasks.training.objective import Objective
from registry.side_by_side import compare_models

BEATS, NO_BEATS, INCONCLUSIVE = Verdict.BEATS, Verdict.NO_BEATS, Verdict.INCONCLUSIVE


def test_two_models_are_compared_on_the_same_rows_whatever_the_order_of_classes(house, model):
    first, second = (house.register(model, name).uri for name in (STATIC, WORDS_STUDENT))
    right, other = (
        house.findings.held_out.models[name].quality.value for name in (STATIC, WORDS_STUDENT)
    )
    classes = house.corpus.classes
    turned = Split(house.held_out.texts, len(classes) - 1 - house.held_out.gold)
    found = compare_models(first, second, turned, classes[::-1], house.config.measure)
    assert (found.names, found.rows) == ((first, second), 100)
    assert found.qualities == pytest.approx((right, other))
    assert found.comparison.difference.value == pytest.approx(right - other)
    assert found.comparison.verdict is NO_BEATS
    assert found.agreement == pytest.approx(right)  # the second one is always right
    assert all(latency.p95_ms > 0 for latency in found.latencies)


def test_models_are_timed_in_a_python_of_their_own_by_the_code_of_their_versions(
    house, model, tmp_path, monkeypatch
):
    opened = tmp_path / "opened"
    house.register(model, WORDS_STUDENT)
    for name in ("served_pyfunc.py", "served_model.py", "served_text.py"):
        shutil.copy(logged_models.CODE / name, tmp_path)
    with (tmp_path / "served_model.py").open("a") as code:
        code.write(f"\nwith open({str(opened)!r}, 'a') as file: print(os.getpid(), file=file)\n")
    monkeypatch.setattr(logged_models, "CODE", tmp_path)
    with mlflow.start_run(experiment_id=house.distillation.experiment_id) as run:
        pass
    folder = house.candidate(WORDS_STUDENT).student.folder
    marked = f"models:/{log_student(run.info.run_id, 'marked', folder, {})}"
    opened.unlink()
    rows = house.held_out.take(np.arange(20))
    compare_models(marked, f"models:/{model}/1", rows, CLASSES, house.config.measure)
    answering, timing = opened.read_text().split()
    assert int(answering) == os.getpid() != int(timing)


def test_answers_with_several_labels_are_compared_label_by_label(house, tmp_path):
    rows = make_rows(120, seed=8)
    classes, gold = CLASSES, np.array([[c == label for c in CLASSES] for label in rows["label"]])
    gold[::3, 2] = True  # every third row has fish beside its own
    texts = tuple(np.where(np.arange(120) % 3 == 0, rows["text"] + " fin gill", rows["text"]))
    split = Split(texts, gold.astype(np.int64))
    sharp = SoftLabels(np.where(gold, 6.0, -6.0).astype(np.float32), classes, "by hand")
    training_set = TrainingSet(
        split, sharp, split, classes, Objective(1.0, 0.5), 0, None, "multi_label"
    )
    models, answers = [], []
    for features in (200, 3):
        folder = tmp_path / str(features)
        folder.mkdir()
        BagOfWordsStudent(max_features=features).train(training_set, folder)
        with mlflow.start_run(experiment_id=house.distillation.experiment_id) as run:
            pass
        models.append(f"models:/{log_student(run.info.run_id, 'several', folder, {})}")
        answers.append(open_model(folder).logits(texts) >= 0)
    found = compare_models(*models, split, classes, house.config.measure, "micro_f1")
    expected = [f1_score(gold, said, average="micro", zero_division=0) for said in answers]
    assert found.qualities == pytest.approx(expected, abs=1e-6)
    assert found.comparison.verdict is BEATS
    assert found.agreement == pytest.approx((answers[0] == answers[1]).all(axis=1).mean())


@pytest.mark.parametrize("nameless", ["", " ", "a|b", "|"])
def test_a_single_label_of_any_name_counts_where_it_is_right(house, tmp_path, nameless):
    rows = make_rows(90, seed=8)
    classes = (nameless, *CLASSES[1:])
    gold = np.array([CLASSES.index(label) for label in rows["label"]])
    split = Split(tuple(rows["text"]), gold)
    sharp = SoftLabels(8 * np.eye(3, dtype=np.float32)[gold], classes, "by hand")
    training_set = TrainingSet(split, sharp, split, classes, Objective(1.0, 0.5), 0, None)
    BagOfWordsStudent(max_features=200).train(training_set, tmp_path)
    with mlflow.start_run(experiment_id=house.distillation.experiment_id) as run:
        pass
    model = f"models:/{log_student(run.info.run_id, 'nameless', tmp_path, {})}"
    found = compare_models(model, model, split, classes, house.config.measure)
    right = open_model(tmp_path).logits(split.texts).argmax(axis=1) == gold
    assert right[gold == 0].all()
    assert found.qualities == (pytest.approx(right.mean()),) * 2
    assert found.agreement == 1


def test_rows_without_gold_give_agreement_and_latency_alone(house, model):
    first, second = (house.register(model, name).uri for name in (STATIC, WORDS_STUDENT))
    texts = house.held_out.texts[:40]
    rows = Split(texts, np.full(len(texts), NO_LABEL))
    found = compare_models(first, second, rows, (), house.config.measure)
    assert (found.qualities, found.comparison) == (None, None)
    assert 0.5 < found.agreement < 1


def test_an_address_of_no_potstill_model_is_refused_in_one_line(house, tmp_path):
    (tmp_path / "other.py").write_text(
        "import pandas as pd\n"
        "from mlflow.models import set_model\n"
        "from mlflow.pyfunc.model import PythonModel\n"
        "class Other(PythonModel):\n"
        "    def predict(self, context, model_input: pd.DataFrame, params=None) -> pd.DataFrame:\n"
        "        return model_input\n"
        "set_model(Other())\n"
    )
    other = tmp_path / "other"
    mlflow.pyfunc.save_model(other, python_model=tmp_path / "other.py", pip_requirements=[])
    house.register("real", LAYERS)
    teacher = f"models:/{house.report.runs.model_ids[TEACHER]}"
    nowhere = ("models:/nobody@champion", "models:/real/9", "models:/real@nothing", "models:/")
    for uri in (*nowhere, str(tmp_path / "nothing"), teacher, str(other)):
        with pytest.raises(InputError) as caught:
            compare_models(uri, "models:/real/1", house.held_out, (), house.config.measure)
        assert str(caught.value).startswith(f"{uri} cannot be opened as a model of Potstill: ")
        assert "\n" not in str(caught.value)
