import re

import mlflow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.types.names import LOWERCASE_LETTERS_NUMBERS_AND_DASHES_ONLY_REGEX as ALLOWED

from distill_tasks.config import parse_config
from distill_tasks.core.progress import Training, shown
from distill_tasks.results.grid import first_trials
from distill_tasks.results.run import start_run
from distill_tasks.stages import progress_artifacts as artifacts
from distill_tasks.stages.halve import halve
from distill_tasks.stages.label import label, teach
from distill_tasks.stages.prepare import prepare
from distill_tasks.stages.progress_artifacts import kept_in_prefect, name_key
from distill_tasks.stages.train import train
from distill_tasks.tracking.runs import connect, find_or_start, log_curve


def read_artifacts():
    """Return the progress artifacts of the last flow run."""
    with get_client(sync_client=True) as client:
        kept = client.request("POST", "/artifacts/filter", json={"sort": "CREATED_DESC"}).json()
    last = kept[0]["flow_run_id"]
    return [item for item in kept if item["flow_run_id"] == last and item["type"] == "progress"]


@given(name=st.text(max_size=80))
def test_any_name_makes_a_key_that_prefect_takes(name):
    assert re.fullmatch(ALLOWED, name_key(name))
    assert name_key("layers-2-model-MiniLM_L6.v2") == "training-layers-2-model-minilm-l6-v2"


@flow
def train_twice():
    """Two rungs of one training and another training, each in a block of its own."""
    for name, share, done in (("a", 0.25, 0), ("b", 1.0, 0), ("a", 1.0, 2)):
        with kept_in_prefect(), shown(name):
            training = Training(8, 32, share, done)
            for step in range(done, round(8 * share)):
                training.take(1 / (1 + step))


@pytest.mark.usefixtures("prefect_server")
def test_a_training_has_one_artifact_whatever_its_parts():
    train_twice()
    found = {item["key"]: item for item in read_artifacts()}
    assert set(found) == {"training-a", "training-b"}
    assert len(read_artifacts()) == 2
    for item in found.values():
        assert item["data"] == 100.0
        assert "step 8 of 8, loss 0.125" in item["description"]


@pytest.fixture
def asked(monkeypatch):
    """What Prefect is asked to write: of which training, and how many percent."""
    calls = []

    def create(percent, key, description):
        calls.append(("create", percent))
        return key, description

    def update(made, percent, description):
        calls.append((description.split(":")[0], percent))
        return made

    monkeypatch.setattr(artifacts, "create_progress_artifact", create)
    monkeypatch.setattr(artifacts, "update_progress_artifact", update)
    return calls


def test_outside_a_flow_nothing_is_kept(asked):
    train_twice.fn()
    assert not asked


@pytest.mark.usefixtures("prefect_server")
def test_updates_are_seldom_and_the_last_is_always_written(asked):
    train_twice()
    first, last = ("create", 0), ("a", 100)
    assert asked == [first, ("a", 25), first, ("b", 100), ("a", 25), last]


@pytest.mark.usefixtures("prefect_server")
def test_a_server_that_refuses_ends_no_training(monkeypatch, caplog):
    def refuse(*_, **__):
        raise OSError("database is locked")

    monkeypatch.setattr(artifacts, "create_progress_artifact", refuse)
    monkeypatch.setattr(artifacts.logger, "propagate", True)
    train_twice()
    assert "progress of a is not in Prefect: OSError: database is locked" in caplog.text


@flow
def train_grid(config):
    """The stages of a distillation up to its first trainings."""
    corpus = prepare(config)
    teacher = teach(config, corpus)
    run = start_run(config, corpus, teacher, label(config, corpus, teacher))
    halve(run)
    return [train(run, trial) for trial in first_trials(config)]


@pytest.mark.usefixtures("prefect_server")
def test_a_run_shows_each_training_in_prefect_and_its_losses_in_mlflow(quick, ready_teacher):
    students = [
        {"family": "layers", "layers": 1, "batch_rows": [4, 8], "epochs": 1},
        {"family": "bag_of_words", "max_features": 50},
    ]
    search = {"halving": True}
    settings = quick | {"students": students, "teacher": ready_teacher, "search": search}
    config = parse_config(settings, "test")
    trained = train_grid(config)
    found = {item["key"]: item for item in read_artifacts()}
    assert set(found) == {name_key(student.name) for student in config.students[:2]}
    assert len(read_artifacts()) == 2  # those of the rungs are those of the trainings
    steps = 46  # 72 + 110 rows in batches of 4
    layers = trained[0]
    line = (
        rf"{layers.name}: step {steps} of {steps}, loss [-.e\d]+, accuracy [\d.]+, [\d,.]+ rows/s"
    )
    shown_there = found[name_key(layers.name)]
    assert re.fullmatch(line, shown_there["description"])
    assert shown_there["data"] == 100.0

    run_id, _ = find_or_start(connect(config.tracking), "distillation", "student", "layers")
    log_curve(run_id, layers.curve)
    client = mlflow.MlflowClient(config.tracking.uri)
    told = client.get_metric_history(run_id, "train/loss")
    assert [metric.step for metric in told] == [*range(1, steps + 1)]
    assert [metric.value for metric in told] == [point["train/loss"] for point in layers.curve]
    scored = client.get_metric_history(run_id, "validation/accuracy")
    assert [metric.step for metric in scored] == [steps]
    paces = client.get_metric_history(run_id, "train/rows_per_s")
    assert [metric.step for metric in paces] == [*range(24, steps + 1)]  # of the last part
