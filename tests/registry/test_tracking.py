import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time

import mlflow
import pytest
from broken_server import broken_server
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from samples import FAMILIES, LAYERS, LAYERS_ONNX, VARIANTS, WORDS_STUDENT

from distill_tasks.config import TrackingConfig
from distill_tasks.core.errors import InputError
from distill_tasks.reporting.pages import write_markdown
from distill_tasks.reporting.tables import tabulate_models
from distill_tasks.results.outcomes import TEACHER
from distill_tasks.stages.report import write_report
from distill_tasks.tracking.logged_models import find_student, log_student
from distill_tasks.tracking.retries import RETRIES, say_unanswered
from distill_tasks.tracking.runs import find_or_start, finish, tracked
from distill_tasks.tracking.store import check_experiment, check_tracking, connect

CONTROLS = ("words-on-gold", "majority-class")
SERVED = (*FAMILIES, *VARIANTS)


def runs_of(house):
    query = f"tags.distillation = '{house.distillation.digest}'"
    return house.client.search_runs([house.distillation.experiment_id], query)


def models_of(house):
    query = f"tags.distillation = '{house.distillation.digest}'"
    experiment = house.distillation.experiment_id
    return house.client.search_logged_models([experiment], filter_string=query)


def test_summary_teacher_controls_and_each_student_have_one_finished_run(house):
    runs = runs_of(house)
    assert sorted(run.info.run_name for run in runs) == sorted(
        ["animals", TEACHER, *CONTROLS, *SERVED]
    )
    assert {run.info.status for run in runs} == {"FINISHED"}
    roles = sorted(run.data.tags["potstill.role"] for run in runs)
    assert roles == sorted(["summary", TEACHER, *CONTROLS, *["student"] * len(SERVED)])


def test_every_run_carries_the_same_names_of_figures(house):
    by_name = {run.info.run_name: run.data.metrics for run in runs_of(house)}
    for name in (TEACHER, *CONTROLS, *SERVED):
        figures = house.findings.held_out.models[name].figures
        assert {"quality/accuracy", "fidelity/kl"} <= figures.keys()
        for key, figure in figures.items():
            assert by_name[name][key] == pytest.approx(figure.value)
            assert by_name[name][f"{key}_low"] == pytest.approx(figure.low)
    for name in (TEACHER, *SERVED):
        latency = house.findings.latencies.by_name[name]
        assert by_name[name]["latency/p95_ms"] == pytest.approx(latency.p95_ms)
        assert by_name[name]["latency/aa_p95"] == pytest.approx(latency.aa_p95)
        assert by_name[name]["throughput/rows_per_s_of_4"] == pytest.approx(latency.throughput)
    for name in SERVED:
        takes = house.findings.latencies.footprints[name]
        assert by_name[name]["serving/resident_mb"] == pytest.approx(takes.resident_mb)
        assert by_name[name]["serving/cold_start_s"] == pytest.approx(takes.cold_start_s)
    assert "serving/resident_mb" not in by_name[TEACHER]


def test_teacher_and_candidates_were_measured_in_one_run(house):
    found = house.findings.latencies
    assert found.by_name.keys() == {TEACHER, *SERVED}
    assert found.footprints.keys() == set(SERVED)
    times = {name: latency.p50_ms for name, latency in found.by_name.items()}
    assert times[LAYERS_ONNX] < times[LAYERS] < times[TEACHER]
    light = [takes for name, takes in found.footprints.items() if name != LAYERS]
    torch = found.footprints[LAYERS]
    assert torch.resident_mb > 2 * max(takes.resident_mb for takes in light)
    assert torch.installed_mb > 2 * max(takes.installed_mb for takes in light)


def test_every_student_is_one_ready_logged_model(house):
    models = [model for model in models_of(house) if model.model_type == "student"]
    assert sorted(model.name for model in models) == sorted(SERVED)
    assert {str(model.status) for model in models} == {"READY"}
    assert {model.name: model.model_id for model in models} == {
        name: house.report.runs.model_ids[name] for name in SERVED
    }


def test_metrics_of_a_logged_model_name_the_rows_they_were_measured_on(house):
    for name in (TEACHER, *SERVED):
        metrics = house.client.get_logged_model(house.report.runs.model_ids[name]).metrics
        rows = {metric.key: metric.dataset_name for metric in metrics}
        assert rows["quality/accuracy"] == "held_out"
        assert rows["validation/quality/accuracy"] == "validation"


def test_the_summary_run_holds_all_that_a_reviewer_reads(house):
    run_id = house.distillation.run_id
    paths = {file.path for file in house.client.list_artifacts(run_id)}
    pages = {"report.html", "report.md", "front.png", "distill.yaml"}
    found = {"candidates.json", "data_report.json", "learning_curve.json", "blend.json"}
    assert paths == pages | found | {"environment.json"}
    environment = json.loads(load(run_id, "environment.json"))
    assert environment["packages"]["mlflow"] == mlflow.__version__
    assert load(run_id, "report.md") == write_markdown(house.findings)
    assert "<html" in load(run_id, "report.html")
    run = house.client.get_run(run_id)
    assert run.data.tags["potstill.chosen"] == house.findings.selection.chosen
    assert run.data.tags["potstill.verdict"] == "INCONCLUSIVE"
    quality = house.findings.held_out.candidates[house.findings.selection.chosen].quality
    assert run.data.metrics["quality/accuracy"] == pytest.approx(quality.value)
    assert house.report.runs.compare in run.data.tags["mlflow.note.content"]


def load(run_id, path):
    return mlflow.artifacts.load_text(f"runs:/{run_id}/{path}")


def test_what_was_found_is_there_to_be_read_by_a_program(house):
    run_id, findings = house.distillation.run_id, house.findings
    table = json.loads(load(run_id, "candidates.json"))
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert rows == tabulate_models(house.findings)
    report = json.loads(load(run_id, "data_report.json"))
    assert {split["name"]: split["rows"] for split in report["splits"]} == {
        name: len(split) for name, split in house.corpus.splits.items()
    }
    curve = json.loads(load(run_id, "learning_curve.json"))
    assert [point["transfer_rows"] for point in curve["points"]] == [14, 28, 55, 110]
    assert json.loads(load(run_id, "blend.json"))["reason"] == findings.tuning.reason


def test_a_variants_run_tells_of_which_student_it_is_and_how_it_runs(house):
    variants = {"torch": LAYERS, "onnx": LAYERS_ONNX, "numpy": FAMILIES[1]}
    for variant, name in variants.items():
        params = house.client.get_run(house.report.runs.run_ids[name]).data.params
        assert (params["variant"], params["candidate"]) == (variant, name)
    runs = [house.client.get_run(house.report.runs.run_ids[n]) for n in (LAYERS, LAYERS_ONNX)]
    torch, onnx = (run.data.params for run in runs)
    assert onnx["layers"] == torch["layers"] == "2"
    figures = [run.data.metrics["quality/accuracy"] for run in runs]
    assert figures[0] == figures[1]


def test_a_finalists_run_holds_its_panel_its_verdict_and_its_classes(house):
    leading = house.findings.selection.leading
    assert len(leading) == len(FAMILIES)
    for name in leading:
        run_id = house.report.runs.run_ids[name]
        panel = json.loads(load(run_id, "panel.json"))
        assert panel["confusion"] == house.findings.proof.panels[name].confusion
        verdict = json.loads(load(run_id, "verdict.json"))
        assert verdict["verdict"] == "INCONCLUSIVE"
        assert "evaluate.controls is off" in verdict["reason"]
        classes = json.loads(load(run_id, "per_class.json"))
        assert classes == house.findings.held_out.models[name].per_class
        run = house.client.get_run(run_id)
        assert run.data.tags["potstill.verdict"] == "INCONCLUSIVE"
        assert (run.data.params["seed"], run.data.params["taught"]) == ("10", "True")
    behind = set(SERVED) - set(leading)  # the same student, judged in another variant
    for name in (TEACHER, *CONTROLS, *behind):
        files = house.client.list_artifacts(house.report.runs.run_ids[name])
        assert not {file.path for file in files} & {"panel.json", "verdict.json"}


def test_writing_a_finished_report_again_adds_nothing(house):
    before = [run.to_dictionary() for run in runs_of(house)], len(models_of(house))
    with tracked(house.config, house.corpus) as again:
        report = write_report(house.findings, again)
    assert report.reused
    assert report.runs.run_ids == house.report.runs.run_ids
    assert report.runs.model_ids == house.report.runs.model_ids
    after = runs_of(house)
    assert {run.info.run_id for run in after} == {r["info"]["run_id"] for r in before[0]}
    assert {run.info.status for run in after} == {"FINISHED"}
    assert len(models_of(house)) == before[1]
    for name, run_id in report.runs.run_ids.items():
        assert len(house.client.get_metric_history(run_id, "quality/accuracy")) == 1, name


def test_a_summary_that_a_kill_left_unwritten_is_written_without_new_runs(house):
    client, run_id = house.client, house.distillation.run_id
    before = {run.info.run_id for run in runs_of(house)}
    client.delete_tag(run_id, "potstill.logged")
    with tracked(house.config, house.corpus) as again:
        assert not again.finished
        assert not write_report(house.findings, again).reused
    assert {run.info.run_id for run in runs_of(house)} == before
    assert client.get_run(run_id).data.tags["potstill.logged"] == "true"


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


def test_a_distillation_that_raises_is_failed_and_says_why_until_it_ends_well(house):
    config = house.config.model_copy(update={"name": "unlucky"})
    with (
        pytest.raises(ValueError, match="the still leaks"),
        tracked(config, house.corpus) as first,
    ):
        raise ValueError("the still leaks")
    run = house.client.get_run(first.run_id)
    assert run.info.status == "FAILED"
    assert run.data.tags["potstill.failure"] == "ValueError: the still leaks"
    with tracked(config, house.corpus) as second:
        assert house.client.get_run(first.run_id).info.status == "RUNNING"
    run = house.client.get_run(second.run_id)
    assert second.run_id == first.run_id
    assert run.info.status == "FINISHED"
    assert "potstill.failure" not in run.data.tags


def name_config(house, name, **changes):
    return house.config.model_copy(update={"name": name, **changes})


def test_a_run_whose_process_is_gone_is_killed_by_the_next_one_of_its_store(house, tmp_path):
    """As kill -9 leaves them: nothing after the first lines of `tracked` ever happens."""
    config, elsewhere = (
        name_config(house, "lost"),
        name_config(house, "at work", work_dir=str(tmp_path)),
    )
    opened = [tracked(each, house.corpus) for each in (config, elsewhere)]
    left, other = (each.__enter__() for each in opened)
    inner, _ = find_or_start(left.experiment_id, left.digest, "student/a", "a")
    house.client.update_run(inner, status="RUNNING")

    def status(run_id):
        return house.client.get_run(run_id).info.status

    assert {status(run_id) for run_id in (left.run_id, inner, other.run_id)} == {"RUNNING"}
    with tracked(name_config(house, "next"), house.corpus) as following:
        assert status(following.run_id) == "RUNNING"
        assert {status(left.run_id), status(inner)} == {"KILLED"}
        assert "kill -9" in house.client.get_run(left.run_id).data.tags["potstill.failure"]
        assert status(other.run_id) == "RUNNING"  # in a store that nobody here has locked
    with tracked(config, house.corpus) as again:
        assert (again.run_id, status(left.run_id)) == (left.run_id, "RUNNING")
    assert status(left.run_id) == "FINISHED"
    assert "potstill.failure" not in house.client.get_run(left.run_id).data.tags
    opened[1].__exit__(None, None, None)


def test_a_distillation_that_raises_after_its_report_ends_well_once_it_is_repeated(house):
    config = house.config.model_copy(update={"name": "unlucky-late"})
    with pytest.raises(ValueError, match="leaks"), tracked(config, house.corpus) as first:  # noqa: PT012
        finish(first.run_id)
        raise ValueError("the still leaks")
    assert house.client.get_run(first.run_id).info.status == "FAILED"
    with tracked(config, house.corpus) as second:
        assert (second.run_id, second.finished) == (first.run_id, True)
    assert house.client.get_run(first.run_id).info.status == "FINISHED"


def test_a_server_that_hangs_up_is_tried_twice_and_no_more(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "7")
    calls = []

    def hang_up(listening):
        with contextlib.suppress(OSError):
            while True:
                calls.append(listening.accept()[0].close())

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=hang_up, args=[listening])
        thread.start()
        with pytest.raises(InputError, match="cannot be reached: "):
            check_tracking(TrackingConfig(uri=f"http://127.0.0.1:{listening.getsockname()[1]}"))
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert len(calls) == 2


def test_a_server_that_nobody_answers_at_is_refused_in_one_sentence(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "7")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT", raising=False)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nothing else can answer there
        uri = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(InputError, match=f"^tracking.uri {uri} cannot be reached: ") as caught:
            check_tracking(TrackingConfig(uri=uri))
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("Start that server, or use sqlite:///mlflow.db.")
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "7"
    assert "MLFLOW_HTTP_REQUEST_TIMEOUT" not in os.environ


def test_a_server_that_answers_everything_with_500_is_refused_with_that_reason():
    with broken_server() as uri, pytest.raises(InputError) as caught:
        check_tracking(TrackingConfig(uri=uri))
    assert str(caught.value) == (
        f"tracking.uri {uri} cannot be reached: API request to "
        f"{uri}/api/2.0/mlflow/experiments/get-by-name failed: ResponseError('too many 500 error "
        "responses'). Start that server, or use sqlite:///mlflow.db."
    )


def test_a_server_that_breaks_later_is_asked_again_aloud_and_given_up(
    findings, monkeypatch, caplog
):
    monkeypatch.setenv(RETRIES, "2")
    before, start = mlflow.get_tracking_uri(), time.monotonic()
    try:
        with broken_server(finds_experiments=True) as uri:
            config = findings.config.model_copy(update={"tracking": TrackingConfig(uri=uri)})
            check_tracking(config.tracking)
            with pytest.raises(mlflow.MlflowException) as caught, tracked(config, findings.rows):
                pass
    finally:
        mlflow.set_tracking_uri(before)
        mlflow.set_registry_uri(before)
    assert 4 < time.monotonic() - start < 30  # MLflow waits 4 s before the second
    lines = [record.getMessage() for record in caplog.records if record.name == "potstill"]
    assert lines == [f"MLflow: answered 500; retry {number} of 2" for number in (1, 2)]
    assert say_unanswered(caught.value) == (
        f"MLflow gave up: API request to {uri}/api/2.0/mlflow/runs/search failed: "
        "ResponseError('too many 500 error responses'). Look after that server; the same command "
        "then goes on from here."
    )


def test_a_failure_that_a_server_no_longer_hears_is_still_the_failure_that_is_told(
    house, monkeypatch, caplog
):
    def is_gone(*_, **__):
        raise mlflow.MlflowException("connection refused")

    config = house.config.model_copy(update={"name": "unheard"})
    with pytest.raises(ValueError, match="the still leaks"), tracked(config, house.corpus):  # noqa: PT012
        monkeypatch.setattr(mlflow.MlflowClient, "set_tag", is_gone)
        raise ValueError("the still leaks")
    assert "MLflow does not know that the run failed: connection refused" in caplog.text


def test_retries_end_within_a_minute_unless_the_environment_says_otherwise(house, monkeypatch):
    from mlflow.utils.request_utils import JitteredRetry

    monkeypatch.delenv(RETRIES, raising=False)
    connect(house.config.tracking)
    retry, waits = JitteredRetry(int(os.environ[RETRIES]), backoff_factor=2), []
    while retry.total:
        retry = retry.increment("GET", "/", error=ConnectionError("refused"))
        waits.append(retry.get_backoff_time())
    assert waits == [0, 4, 8, 16, 32]
    monkeypatch.setenv(RETRIES, "9")
    connect(house.config.tracking)
    assert os.environ[RETRIES] == "9"


def test_only_errors_of_requests_are_those_of_a_server():
    assert say_unanswered(ValueError("x")) is None
    assert say_unanswered(mlflow.MlflowException("no such run")) is None


def test_an_experiment_that_was_deleted_is_refused_with_the_way_back(house):
    config = house.config.tracking.model_copy(update={"experiment": "regretted"})
    made = house.client.create_experiment("regretted")
    house.client.delete_experiment(made)
    with pytest.raises(InputError) as caught:
        check_experiment(config)
    assert str(caught.value) == (
        "tracking.experiment 'regretted' was deleted. Restore it with `mlflow experiments restore "
        f"--experiment-id {made}`, or name another one."
    )
    house.client.restore_experiment(made)
    check_experiment(config)


def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path):
    path, text = tmp_path / "some.txt", "no database at all\n" * 300
    path.write_text(text)
    with pytest.raises(InputError, match=r"some.txt cannot be reached: .*file is not a database"):
        check_tracking(TrackingConfig(uri=f"sqlite:///{path}"))
    assert path.read_text() == text


def test_a_database_that_is_a_folder_is_refused_at_once(tmp_path):
    start = time.monotonic()
    with pytest.raises(InputError, match=r"cannot be reached: .*unable to open database file"):
        check_tracking(TrackingConfig(uri=f"sqlite:///{tmp_path}"))
    assert time.monotonic() - start < 20  # MLflow would try for some minutes


@pytest.mark.parametrize(
    "uri", ["nonsense://127.0.0.1/x", "postgresql://127.0.0.1:9/x", "sqlite:/x"]
)
def test_an_address_that_mlflow_cannot_use_is_refused_in_one_line(uri):
    with pytest.raises(InputError, match=f"tracking.uri {uri} cannot be reached: ") as caught:
        check_tracking(TrackingConfig(uri=uri))
    assert "\n" not in str(caught.value)


def test_a_database_in_a_folder_that_may_only_be_read_needs_no_lock(tmp_path, monkeypatch):
    tracking, lock = TrackingConfig(uri=f"sqlite:///{tmp_path}/a.db"), tmp_path / ".a.db.lock"
    check_tracking(tracking)
    lock.unlink()
    monkeypatch.setattr(os, "access", lambda *_: False)
    check_tracking(tracking)
    assert not lock.exists()


@pytest.mark.slow
def test_two_first_runs_at_once_make_one_database_and_one_experiment(tmp_path):
    """Each a process of its own, as two jobs of one night: MLflow's migrations bear no company."""
    uri = f"sqlite:///{tmp_path}/new/mlflow.db"
    program = (
        "import sys\n"
        "from distill_tasks.config import TrackingConfig\n"
        "from distill_tasks.tracking.store import check_tracking, connect\n"
        "config = TrackingConfig(uri=sys.argv[1], experiment='night')\n"
        "check_tracking(config)\n"
        "print(connect(config))\n"
    )
    command = [sys.executable, "-c", program, uri]
    processes = [subprocess.Popen(command, stdout=-1, stderr=-1, text=True) for _ in range(3)]
    ended = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], ended
    assert not any("Traceback" in errors for _, errors in ended)
    assert len({said for said, _ in ended}) == 1
