import re
import time
from pathlib import Path

import mlflow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect import flow
from prefect.types.names import LOWERCASE_LETTERS_NUMBERS_AND_DASHES_ONLY_REGEX as ALLOWED
from prefect_states import progress_artifacts

from distill_tasks.config import parse_config
from distill_tasks.core.progress import ProgressFile, Training, TrainingEnd, TrainingStep
from distill_tasks.core.run_progress import Stage, told_stage
from distill_tasks.results.grid import first_trials
from distill_tasks.results.run import start_run
from distill_tasks.stages import progress_artifacts as artifacts
from distill_tasks.stages.halve import halve
from distill_tasks.stages.label import label, teach
from distill_tasks.stages.prepare import prepare
from distill_tasks.stages.progress_artifacts import ProgressArtifacts, name_key, show_trainings
from distill_tasks.stages.train import train
from distill_tasks.tracking.figures import log_curve
from distill_tasks.tracking.runs import find_or_start
from distill_tasks.tracking.store import connect


@given(name=st.text(max_size=80))
def test_any_name_makes_a_key_that_prefect_takes(name):
    assert re.fullmatch(ALLOWED, name_key(name))
    assert name_key("layers-2-model-MiniLM_L6.v2") == "training-layers-2-model-minilm-l6-v2"


@flow
def train_twice(folder):
    """Two rungs of one training and another training."""
    with show_trainings(folder):
        for name, share, done in (("a", 0.25, 0), ("b", 1.0, 0), ("a", 1.0, 2)):
            file = ProgressFile(Path(folder), name)
            with file.told():
                training = Training(file, 8, 32, share, done)
                for step in range(done, round(8 * share)):
                    training.take(1 / (1 + step))


@pytest.mark.usefixtures("prefect_server")
def test_a_training_has_one_artifact_whatever_its_parts(tmp_path):
    train_twice(str(tmp_path))
    found = progress_artifacts()
    assert set(found) == {"training-a", "training-b"}
    assert len(progress_artifacts()) == 2
    for item in found.values():
        assert item["data"] == 100.0
        assert "step 8 of 8, loss 0.125" in item["description"]


STAGES = (Stage("prepare", "read the rows", 1), Stage("train", "train <b>students</b>", 3))


@flow
def go_through_stages(folder):
    """One stage, then another in which a student trains."""
    with show_trainings(folder, STAGES):
        with told_stage("prepare"):
            pass
        with told_stage("train"), ProgressFile(Path(folder), "layers-2").told():
            wait_for("layers-2")


def wait_for(name):
    """Wait until Prefect shows a run in which a student of this name trains."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        about = progress_artifacts().get("run", {})
        if name in about.get("description", ""):
            return
        time.sleep(0.5)
    raise AssertionError(progress_artifacts())


@pytest.mark.usefixtures("prefect_server")
def test_a_run_has_one_artifact_that_names_its_stage_and_who_trains(tmp_path, monkeypatch):
    monkeypatch.setattr(artifacts, "SECONDS_BETWEEN_UPDATES", 0.2)
    go_through_stages(str(tmp_path))
    found = progress_artifacts()
    assert set(found) == {"run"}  # a training that took no step has none
    assert found["run"]["description"] == "ended at stage 2 of 2: train &lt;b>students&lt;/b>"
    assert found["run"]["data"] == 100


@pytest.fixture
def asked(monkeypatch):
    """What Prefect is asked to write: of which training, and how many percent."""
    calls = []

    def create(percent, key, description):
        calls.append(("create", percent))
        return key, description

    def update(made, percent, description):
        calls.append((description, percent))
        return made

    monkeypatch.setattr(artifacts, "create_progress_artifact", create)
    monkeypatch.setattr(artifacts, "update_progress_artifact", update)
    return calls


def test_outside_a_flow_nothing_is_kept(asked, tmp_path):
    train_twice.fn(str(tmp_path))
    assert not asked


def test_updates_are_seldom_and_the_last_is_always_written(asked):
    shown = ProgressArtifacts()
    shown.hear(TrainingStep("a"))
    shown.show()
    assert not asked  # it may not learn in steps
    for step in range(1, 8):
        shown.hear(TrainingStep("a", step, 8))
        shown.show()
    shown.hear(TrainingEnd("a", "done"))
    shown.hear(TrainingStep("b", 8, 8))
    shown.show()
    assert asked == [("create", 12.5)]
    shown.close()
    assert sorted(asked) == [("a: step 7 of 8", 87.5), ("create", 12.5), ("create", 100)]
    shown.close()
    assert len(asked) == 3


def test_an_artifact_keeps_what_was_told_before(asked):
    shown = ProgressArtifacts()
    for step in (TrainingStep("a", 1, 8, loss=0.5), TrainingStep("a", 2, 8)):
        shown.hear(step)
    shown.close()
    shown.hear(TrainingStep("a", 3, 8))
    shown.close()
    assert asked == [("create", 25), ("a: step 3 of 8, loss 0.5", 37.5)]


@pytest.mark.usefixtures("prefect_server")
def test_a_server_that_refuses_ends_no_training(monkeypatch, caplog, tmp_path):
    def refuse(*_, **__):
        raise OSError("database is locked")

    monkeypatch.setattr(artifacts, "create_progress_artifact", refuse)
    monkeypatch.setattr(artifacts.logger, "propagate", True)
    train_twice(str(tmp_path))
    assert "progress of a is not in Prefect: OSError: database is locked" in caplog.text


@flow
def train_grid(config):
    """The stages of a distillation up to its first trainings."""
    with show_trainings(config.work_dir):
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
    found = progress_artifacts()
    assert set(found) == {name_key(student.name) for student in config.students[:2]}
    assert len(progress_artifacts()) == 2  # those of the rungs are those of the trainings
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
    told = client.get_metric_history(run_id, "training loss")
    assert [metric.step for metric in told] == [*range(1, steps + 1)]
    assert [metric.value for metric in told] == [point["train/loss"] for point in layers.curve]
    scored = client.get_metric_history(run_id, "training validation accuracy")
    assert [metric.step for metric in scored] == [steps]
    paces = client.get_metric_history(run_id, "training rows per s")
    assert [metric.step for metric in paces] == [*range(24, steps + 1)]  # of the last part
