import pytest
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from samples import FAMILIES, TEACHER_VARIANTS, VARIANTS, WORDS_STUDENT

from distill_tasks.results.references import TEACHER
from distill_tasks.stages.report import write_report
from distill_tasks.students.controls import WORDS_ON_GOLD
from distill_tasks.tracking.logged_models import find_student, log_student
from distill_tasks.tracking.runs import find_or_start

SERVED = (*FAMILIES, *VARIANTS)


def models_of(house):
    query = f"tags.distillation = '{house.distillation.digest}'"
    experiment = house.distillation.experiment_id
    return house.client.search_logged_models([experiment], filter_string=query)


def test_every_student_is_one_ready_logged_model(house):
    models = [model for model in models_of(house) if model.model_type == "student"]
    assert sorted(model.name for model in models) == sorted([*SERVED, WORDS_ON_GOLD])
    assert {str(model.status) for model in models} == {"READY"}
    teachers = [model.name for model in models_of(house) if model.model_type == "teacher"]
    assert sorted(teachers) == [TEACHER, *TEACHER_VARIANTS]
    assert {model.name: model.model_id for model in models} == {
        name: house.report.runs.model_ids[name] for name in (*SERVED, WORDS_ON_GOLD)
    }


def test_metrics_of_a_logged_model_name_the_rows_they_were_measured_on(house):
    for name in (TEACHER, *TEACHER_VARIANTS, *SERVED):
        metrics = house.client.get_logged_model(house.report.runs.model_ids[name]).metrics
        rows = {metric.key: metric.dataset_name for metric in metrics}
        assert rows["accuracy"] == "held_out"
        assert rows["validation accuracy"] == "validation"


def test_a_logged_model_that_a_kill_left_pending_is_replaced(house):
    experiment = house.distillation.experiment_id
    run_id, _ = find_or_start(experiment, "killed", "student/x", "x")
    half = house.client.create_logged_model(experiment, name="x", source_run_id=run_id)
    assert str(half.status) == "PENDING"
    folder = house.candidate(WORDS_STUDENT).student.folder
    assert find_student(run_id, folder) is None
    made = log_student(run_id, "x", folder, {"distillation": "killed"})
    assert find_student(run_id, folder) == made
    query = f"source_run_id = '{run_id}'"
    left = house.client.search_logged_models([experiment], filter_string=query)
    assert [(model.model_id, str(model.status)) for model in left] == [(made, "READY")]


@pytest.mark.parametrize("lost", ["artifacts/student/weights.npz", None])
def test_a_logged_model_that_lost_files_is_logged_again_with_its_figures(house, lost):
    name = WORDS_STUDENT
    model = house.client.get_logged_model(house.report.runs.model_ids[name])
    get_artifact_repository(model.artifact_location).delete_artifacts(lost)
    again = write_report(house.findings, house.distillation)
    assert again.runs.run_ids == house.report.runs.run_ids
    whole = house.client.get_logged_model(again.runs.model_ids[name])
    assert whole.model_id != model.model_id
    assert {m.key: m.value for m in whole.metrics} == {m.key: m.value for m in model.metrics}
    house.report = again


def test_a_student_whose_name_has_a_dot_is_logged_under_a_name_that_mlflow_allows(house):
    experiment = house.distillation.experiment_id
    name = "static-8-learning-rate-1.23e-05"
    run_id, _ = find_or_start(experiment, "dotted", f"student/{name}", name)
    folder = house.candidate(WORDS_STUDENT).student.folder
    made = log_student(run_id, name, folder, {"distillation": "dotted", "model": name})
    model = house.client.get_logged_model(made)
    assert (model.name, model.tags["model"]) == ("static-8-learning-rate-1_23e-05", name)
