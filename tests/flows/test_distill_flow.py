from pathlib import Path

import mlflow
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import TaskRunFilter, TaskRunFilterFlowRunId
from prefect.client.schemas.sorting import FlowRunSort

from distill_tasks.config import parse_config
from distill_tasks.errors import InputError, NothingQualifiesError
from distill_tasks.store import Store
from flows.distill import distill
from flows.label import label_only
from flows.promote import promote

pytestmark = pytest.mark.usefixtures("prefect_server")


def last_flow_run():
    with get_client(sync_client=True) as client:
        return client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=1)[0]


def task_states(flow_run):
    with get_client(sync_client=True) as client:
        one = TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=[flow_run.id]))
        runs = client.read_task_runs(task_run_filter=one)
    return {run.name: run.state_name for run in runs}


def everything_of(config):
    client = mlflow.MlflowClient(config.tracking.uri)
    experiment = client.get_experiment_by_name(config.tracking.experiment).experiment_id
    return {
        "runs": sorted(run.info.run_name for run in client.search_runs([experiment])),
        "models": len(client.search_logged_models([experiment])),
        "versions": len(client.search_model_versions(f"name = '{config.registry.model}'")),
        "shards": len(list(Path(config.work_dir).glob("labels/*/*.parquet"))),
        "aliases": dict(client.get_registered_model(config.registry.model).aliases),
    }


def test_a_second_run_makes_nothing_again_and_shows_it(config):
    first = distill(config)
    assert first.promotion.moved
    made = everything_of(config)
    students = [student.name for student in config.students]
    assert made["runs"] == sorted(["animals", "teacher", "words-on-gold", *students])
    assert made["models"] == len(students) + 1
    assert made["versions"] == 1
    assert made["aliases"] == {"champion": 1}
    assert set(task_states(last_flow_run()).values()) == {"Completed"}

    second = distill(config)
    assert everything_of(config) == made
    assert not second.promotion.moved
    states = task_states(last_flow_run())
    assert states.pop("select by knee") == "Completed"
    assert set(states.values()) == {"Cached"}


def test_the_flow_run_is_named_after_its_configuration_and_leaves_artifacts(quick):
    distill(parse_config(quick, "test"))
    run = last_flow_run()
    assert run.name == "animals"
    with get_client(sync_client=True) as client:
        kept = client.request("POST", "/artifacts/filter", json={"sort": "CREATED_DESC"}).json()
    ours = {item["key"]: item for item in kept if item["flow_run_id"] == str(run.id)}
    assert set(ours) == {"candidates", "mlflow-run"}
    assert "teacher" in ours["candidates"]["data"]


def test_labels_asked_alone_are_read_by_the_distillation(quick):
    config = parse_config(quick, "test")
    assert label_only(config).asked == 300
    distill(config)
    states = task_states(last_flow_run())
    assert next(state for name, state in states.items() if name.startswith("label")) == "Cached"


def test_a_constraint_that_none_meets_names_the_nearest_and_promotes_nothing(quick):
    config = parse_config(quick | {"select": {"max_disk_mb": 1e-6}}, "test")
    with pytest.raises(NothingQualifiesError, match="is nearest and misses max_disk_mb"):
        distill(config)
    client = mlflow.MlflowClient(config.tracking.uri)
    assert not client.search_registered_models()
    experiment = client.get_experiment_by_name("test").experiment_id
    summary = client.search_runs([experiment], "tags.`potstill.role` = 'summary'")[0]
    assert summary.info.status == "FAILED"
    assert "nearest" in summary.data.tags["potstill.failure"]
    assert client.list_artifacts(summary.info.run_id)


def test_two_runs_cannot_work_in_one_folder(quick):
    config = parse_config(quick, "test")
    with Store(config.work_dir).lock(), pytest.raises(InputError, match="Another run"):
        distill(config)


def test_a_changed_grid_asks_the_teacher_nothing_and_keeps_trained_students(quick):
    distill(parse_config(quick, "test"))
    students = [*quick["students"], {"family": "bag_of_words", "max_features": 10}]
    distill(parse_config(quick | {"students": students}, "test"))
    states = task_states(last_flow_run())
    assert states["train bag-of-words-50"] == "Cached"
    assert states["train bag-of-words-10"] == "Completed"
    assert next(state for name, state in states.items() if name.startswith("label")) == "Cached"


def test_promote_reviews_the_challenger_and_dry_run_changes_nothing(quick):
    config = parse_config(quick, "test")
    distill(config)
    with pytest.raises(InputError, match="no challenger"):
        promote(config)
    client = mlflow.MlflowClient(config.tracking.uri)
    client.set_registered_model_alias("animals", "challenger", "1")
    client.delete_registered_model_alias("animals", "champion")
    assert promote(config, dry_run=True).champion == 1
    assert "champion" not in client.get_registered_model("animals").aliases
    assert promote(config).moved
    assert client.get_registered_model("animals").aliases == {"champion": 1}
