import mlflow
import pytest
from prefect_states import state_of

from distill_tasks.config import parse_config
from distill_tasks.reporting.rows import list_models
from flows.distill import distill

pytestmark = pytest.mark.usefixtures("prefect_server")


def test_what_a_search_finds_competes_is_reported_and_is_found_again(quick):
    """The grid's own student reads too few words to be chosen."""
    space = {"family": "bag_of_words", "max_features": {"low": 100, "high": 400}}
    quick["students"] = [{"family": "bag_of_words", "max_features": 2}]
    quick["search"] = {"optuna": {"trials": 2, "spaces": [space]}}
    quick |= {"evaluate": {"controls": False}, "select": {"choose": "most_accurate"}}
    config = parse_config(quick, "test")
    outcome = distill(config)
    assert state_of("search") == "Completed"

    grid = {student.name for student in config.students}
    candidates = {candidate.name for candidate in outcome.selection.candidates}
    further = candidates - grid
    assert len(further) == 2
    assert outcome.selection.chosen in further
    assert candidates <= {row.name for row in list_models(outcome.findings)}

    client = mlflow.MlflowClient(config.tracking.uri)
    for name in further:
        run = client.get_run(outcome.report.runs.run_ids[name])
        assert run.info.run_name == name
        assert run.data.params["max_features"] == name.rsplit("-", 1)[1]
        assert "validation accuracy" in run.data.metrics
        assert client.get_logged_model(outcome.report.runs.model_ids[name]).name == name
    tags = client.get_model_version("animals", "1").tags
    assert tags["candidate"] == outcome.selection.chosen

    assert distill(config).report.runs.run_ids == outcome.report.runs.run_ids
    assert state_of("search") == "Cached"
