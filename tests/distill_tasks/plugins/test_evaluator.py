import shutil

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.models.evaluation.evaluator_registry import _model_evaluation_registry
from samples import CLASSES, make_rows
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.pipeline import make_pipeline

from distill_tasks.plugins.evaluator import DistillationEvaluator

TEST = make_rows(120, seed=5)
QUICK = {"latency_calls": 0}

pytestmark = [  # MLflow's own, on pandas 3 and where it stores scikit-learn's models
    pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def store(empty_mlflow, tmp_path_factory):
    """An empty store, and MLflow as it is where this project is installed."""
    folder = tmp_path_factory.mktemp("evaluations")
    shutil.copy(empty_mlflow, folder / "mlflow.db")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    mlflow.create_experiment("evaluations", artifact_location=(folder / "artifacts").as_uri())
    mlflow.set_experiment("evaluations")
    known = _model_evaluation_registry._registry
    before_us = dict(known)
    known["distillation"] = DistillationEvaluator
    yield
    known.clear()
    known.update(before_us)
    mlflow.set_tracking_uri(before)


def evaluate(model, data=TEST, targets="label", **asked):
    """Evaluate as the issue writes it: the evaluator by name, its section under its name."""
    with mlflow.start_run():
        return mlflow.models.evaluate(
            model,
            data,
            targets=targets,
            model_type="classifier" if targets else "text",
            evaluators="distillation",
            evaluator_config={"distillation": QUICK | asked},
        )


def fit(rows):
    """Return a classifier of scikit-learn and its address in MLflow."""
    words = ColumnTransformer([("words", TfidfVectorizer(), "text")])
    model = make_pipeline(words, LogisticRegression()).fit(rows[["text"]], rows["label"])
    with mlflow.start_run():
        logged = mlflow.sklearn.log_model(
            model,
            name="words",
            input_example=rows[["text"]][:2],
            pip_requirements=["scikit-learn"],
            serialization_format="cloudpickle",
        )
    return model, logged.model_uri


@pytest.fixture(scope="module")
def teacher():
    return fit(make_rows(200, seed=1))


@pytest.fixture(scope="module")
def student():
    return fit(make_rows(9, seed=2))


def test_a_scikit_learn_student_is_compared_with_its_teacher(teacher, student):
    result = evaluate(student[1], teacher=teacher[1], latency_calls=20)
    said, taught = (model.predict(TEST) for model, _ in (student, teacher))
    ours, theirs = (model.predict_proba(TEST) for model, _ in (student, teacher))
    expected = {
        "quality/accuracy": accuracy_score(TEST["label"], said),
        "quality/macro_f1": f1_score(TEST["label"], said, average="macro"),
        "teacher/quality/accuracy": accuracy_score(TEST["label"], taught),
        "fidelity/agreement": np.mean(said == taught),
        "fidelity/kl": (theirs * np.log(theirs / ours)).sum(axis=1).mean(),
    }
    for name, value in expected.items():
        assert result.metrics[name] == pytest.approx(value, abs=1e-5), name
    metrics = result.metrics
    gap = metrics["quality/accuracy"] - metrics["teacher/quality/accuracy"]
    assert metrics["verdict/low"] <= metrics["verdict/difference"] == pytest.approx(gap)
    assert gap <= metrics["verdict/high"]
    assert 0 < metrics["latency/p50_ms"] <= metrics["latency/p95_ms"]
    assert metrics["teacher/latency/p50_ms"] > 0
    assert 0 < metrics["calibration/ece"] < 1


def test_metrics_tables_and_figures_stand_in_the_run_and_on_the_model(teacher, student, tmp_path):
    result = evaluate(student[1], teacher=teacher[1])
    run = mlflow.get_run(result.run_id)
    assert run.data.metrics == pytest.approx(result.metrics)
    logged = mlflow.get_logged_model(student[1].removeprefix("models:/"))
    (one,) = [m for m in logged.metrics if m.key == "fidelity/kl" and m.run_id == result.run_id]
    assert one.dataset_digest is not None
    summary = result.artifacts["distillation"].content
    assert run.data.tags["verdict"] == summary["sentence"]
    assert summary["sentence"].startswith(f"{summary['verdict']}: the student's accuracy is ")
    assert list(result.tables["distillation_figures"]) == ["figure", "student", "teacher"]
    differ = result.tables["distillation_disagreements"]
    agreement = result.metrics["fidelity/agreement"]
    assert len(differ) == round((1 - agreement) * len(TEST)) > 0
    assert (differ["student"] != differ["teacher"]).all()
    assert set(differ["text"]) <= set(TEST["text"])
    for name in ("distillation_calibration", "distillation_confusion"):
        assert min(result.artifacts[name].content.size) > 300
    result.save(tmp_path / "saved")


def test_a_transformers_student_tells_all_of_its_probabilities(tiny_base, recwarn):
    from transformers import pipeline

    model = pipeline("text-classification", model=str(tiny_base), trust_remote_code=False)
    with mlflow.start_run():
        logged = mlflow.transformers.log_model(
            model,
            name="bert",
            input_example=["purr"],
            pip_requirements=["torch"],
            model_config={"truncation": True},
        )
    taught = pd.DataFrame(np.eye(3)[[CLASSES.index(name) for name in TEST["label"]]])
    result = evaluate(logged.model_uri, teacher=0.7 * taught + 0.1, classes=CLASSES)
    said = model(TEST["text"].tolist(), top_k=None)
    best = np.array([max(row, key=lambda one: one["score"])["label"] for row in said])
    assert result.metrics["quality/accuracy"] == pytest.approx(np.mean(best == TEST["label"]))
    assert result.metrics["fidelity/kl"] > 0.1
    assert result.metrics["teacher/quality/accuracy"] == 1
    recwarn.clear()


def always(label):
    return lambda rows: [label] * len(rows)


def test_a_column_of_the_data_may_be_the_teacher_and_a_list_the_baseline():
    data = TEST.assign(llm=TEST["label"])
    seen = []

    def model(rows):
        seen.append(list(rows.columns))
        return TEST["label"][rows.index].to_numpy()

    result = evaluate(model, data, teacher="llm", baseline=["cats"] * len(TEST))
    assert seen == [["text"]] * 2  # neither the labels nor the teacher's answers
    assert result.metrics["fidelity/agreement"] == 1
    summary = result.artifacts["distillation"].content
    assert (summary["verdict"], summary["against"]) == ("BEATS", "baseline")
    assert "calibration/ece" not in result.metrics
    assert "fidelity/kl" not in result.metrics


def test_without_labels_fidelity_alone_is_told():
    result = evaluate(always("cats"), TEST[["text"]], None, teacher=TEST["label"].tolist())
    assert set(result.metrics) == {"fidelity/agreement"}
    assert result.artifacts["distillation"].content["verdict"] is None


def test_saved_predictions_are_compared_without_a_model():
    data = TEST.assign(student="cats", llm=TEST["label"])
    with mlflow.start_run():
        result = mlflow.models.evaluate(
            data=data,
            targets="label",
            predictions="student",
            model_type="classifier",
            evaluators=["distillation"],
            evaluator_config={"distillation": {"teacher": "llm"}},
        )
    assert result.metrics["quality/accuracy"] == pytest.approx(np.mean(TEST["label"] == "cats"))
    assert mlflow.get_run(result.run_id).data.metrics == pytest.approx(result.metrics)


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ({"teacher": "llm"}, "'llm' is neither a column of the data (text) nor a model"),
        ({"teacher": ["cats"]}, "The teacher gave 1 answers to 120 rows."),
        ({"teacher": ["x"] * 120}, "The teacher answers x; the labels of the data are cats, dogs"),
        ({"teacher": np.ones((120, 3)) / 3}, "3 columns without names. List the classes"),
        ({"teacher": ["cats"] * 120, "metrik": "accuracy"}, "(did you mean 'metric'?)"),
        ({"teacher": ["cats"] * 120, "metric": "f1"}, "metric is 'f1'"),
        ({"teacher": ["cats"] * 120, "latency_calls": 3}, "Give 20 to 100,000, or 0"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_a_sentence(asked, complaint):
    with pytest.raises(MlflowException) as caught:
        evaluate(always("cats"), **asked)
    assert complaint in str(caught.value)


@pytest.mark.parametrize("config", [None, {}, {"metric_prefix": "x"}, {"classifier": {}}])
def test_who_names_no_teacher_hears_nothing_of_it(config, caplog):
    data = TEST.assign(said=TEST["label"])
    with mlflow.start_run() as run:
        mlflow.models.evaluate(
            data=data,
            targets="label",
            predictions="said",
            model_type="classifier",
            evaluator_config=config,
        )
    assert not [name for name in mlflow.get_run(run.info.run_id).data.metrics if "fidelity" in name]
    assert "distillation" not in caplog.text


def test_where_nobody_named_evaluators_a_teacher_asks_for_this_one_too():
    data = TEST.assign(said="cats", llm=TEST["label"])
    with mlflow.start_run():
        result = mlflow.models.evaluate(
            data=data,
            targets="label",
            predictions="said",
            model_type="classifier",
            evaluator_config={"distillation": {"teacher": "llm"}},
        )
    assert {"fidelity/agreement", "accuracy_score"} <= set(result.metrics)
