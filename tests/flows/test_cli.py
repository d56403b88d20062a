import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import yaml
from broken_server import broken_server
from builders import make_latency
from command_line import potstill
from prefect.settings import PREFECT_API_URL, temporary_settings
from samples import make_rows

from distill_tasks.config import TrackingConfig, parse_config
from distill_tasks.core.notes import Note, Rank
from distill_tasks.core.retries import RETRIES
from distill_tasks.results.estimates import Planned
from distill_tasks.scoring.intervals import Figure
from distill_tasks.scoring.verdicts import PairedComparison, Verdict
from distill_tasks.stages.plan import sum_up
from distill_tasks.tracking.logged_models import log_student
from distill_tasks.tracking.store import connect
from flows import cli
from flows.printing import print_notes, print_plan, print_side_by_side
from registry.side_by_side import SideBySide

COMMANDS = (
    *("init", "check", "plan", "run", "label", "compare", "promote", "rollback", "predict"),
    *("synthesize", "export", "ui", "schema", "trigger", "status", "automations"),
)


@pytest.fixture
def save(tmp_path):
    def write(settings):
        path = tmp_path / "distill.yaml"
        path.write_text(yaml.safe_dump(settings))
        return path

    return write


def rewrite(path, change):
    frame = pd.read_parquet(path)
    change(frame).to_parquet(path, index=False)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(capsys, command):
    code, printed = potstill(capsys, command, "--help")
    assert code == 0
    assert f"Example: potstill {command}" in " ".join(printed.split())


def test_help_is_quick_because_nothing_heavy_is_imported():
    program = (
        "import sys; from flows import cli\n"
        "heavy = {'torch', 'mlflow', 'prefect', 'transformers', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_schema_prints_the_committed_schema(capsys):
    code, printed = potstill(capsys, "schema")
    assert code == 0
    assert json.loads(printed) == json.loads(Path("schema/distill.schema.json").read_text())


def test_two_models_are_printed_side_by_side(capsys):
    timed = make_latency(2), make_latency(8)
    gap = PairedComparison(Figure(0.05, 0.01, 0.09, 40), 0.01, Verdict.BEATS)
    pair = SideBySide(
        ("new", "old"), "accuracy", (0.95, 0.9), (0.9, 0.8), 0.875, gap, timed, 40, ()
    )
    print_side_by_side(pair)
    printed = capsys.readouterr().out
    rows = [re.findall(r"[^\s│┃]+", line) for line in printed.splitlines()]
    titles = ["model", "accuracy", "ms", "ms", "ms", "rows/s"]
    new, old = ["new", "0.9500", "1", "2", "4"], ["old", "0.9000", "4", "8", "16"]
    for row in (titles, [*new, "1,000"], [*old, "1,000"]):
        assert row in rows
    assert "They agree on 87.50 % of the rows." in printed
    difference = "+5.00 points [+1.00, +9.00]"
    assert f"BEATS: accuracy of new minus that of old is {difference}." in printed


def test_compare_reads_rows_as_a_run_does_and_says_what_it_found(
    capsys, written, light_folders, tmp_path
):
    tracking = TrackingConfig(**written["tracking"])
    connect(tracking)
    with mlflow.start_run() as run:
        pass
    model = log_student(run.info.run_id, "words", light_folders["bag_of_words"], {})
    rows = make_rows(60, seed=8)
    rows.loc[:5, "label"] = " Cats"  # two of the six are
    rows.to_csv(tmp_path / "rows.csv")
    command = ["compare", *[f"models:/{model}"] * 2, "--on", tmp_path / "rows.csv"]
    command += ["--tracking-uri", tracking.uri]
    plain, merged = potstill(capsys, *command), potstill(capsys, *command, "--merge-labels")
    assert (plain[0], merged[0]) == (0, 0)
    assert (
        "must be acted on: labels differ in case or spaces alone: ' Cats' (6 rows) as 'cats'"
        in plain[1]
    )
    assert "fine: labels were merged: ' Cats' (6 rows) as 'cats'" in merged[1]
    before, after = (
        float(re.search(r"│ models:\S+ +│ +([\d.]+)", said[1])[1]) for said in (plain, merged)
    )
    assert after == pytest.approx(before + 2 / 60, abs=2e-4)


def test_the_most_urgent_notes_are_printed_and_the_others_counted(capsys):
    notes = [Note(Rank.FINE, "a"), Note(Rank.KNOW, "b"), Note(Rank.ACT, "c")]
    print_notes(notes, most=2)
    print_notes(notes, most=3)
    assert [line.strip() for line in capsys.readouterr().out.splitlines()] == [
        *("must be acted on: c", "should be known: b", "1 more in the report"),
        *("must be acted on: c", "should be known: b", "fine: a"),
    ]


def test_check_says_what_it_found(capsys, save, written):
    code, printed = potstill(capsys, "check", save(written))
    assert code == 0
    assert "train 72, validation 18, held_out 100, transfer 110 rows; 3 classes" in printed
    assert "layers-1-epochs-1" in printed


def test_students_whose_long_names_differ_at_their_ends_are_told_apart(capsys, written):
    usual = {"family": "layers", "layers": 1, "epochs": 9, "learning_rate": 0.001}
    usual |= {"batch_rows": 64, "accumulated_batches": 2, "width": 16}
    students = [usual | {"feed_forward": [32, 64]}]
    config = parse_config(written | {"students": students}, "test")
    planned = [Planned(student.name, 1, False, 1, 1.0) for student in config.students]
    print_plan(config, sum_up(config, planned, (0.0, 0.0)))
    printed = capsys.readouterr().out
    assert "-32 " in printed
    assert "-64 " in printed


def test_plan_prints_the_grid_and_what_it_takes(capsys, save, quick):
    students = {"students": [{"family": "bag_of_words", "max_features": [50, 20]}]}
    code, printed = potstill(capsys, "plan", save(quick | students | {"search": {"halving": True}}))
    assert code == 0
    assert "animals: 2 candidates" in printed
    words = printed.split()
    for name in ("bag-of-words-50", "bag-of-words-20"):
        _, parameters, _, steps, _, minutes = words[words.index(name) + 1 :][:6]
        assert int(parameters) > 3 * 20
        assert (steps, minutes) == ("–", "0.0")
    assert "A whole run takes about" in printed
    assert "Halving is on" in printed
    assert not list(Path(quick["work_dir"]).iterdir())


def test_an_unknown_command_and_a_missing_argument_are_wrong_input(capsys):
    assert potstill(capsys, "distil")[0] == 2
    assert potstill(capsys, "run")[0] == 2


def no_label_column(data):
    return data.rename(columns={"label": "lable"})


def one_class(data):
    return data.assign(label="cats")


def unseen_label(data):
    return data.assign(label=["dgos", *data["label"][1:]])


def empty_text(data):
    return data.assign(text=["", *data["text"][1:]])


@pytest.mark.parametrize(
    ("split", "change", "said"),
    [
        ("train", no_label_column, "no column 'label' (did you mean 'lable'?)"),
        ("train", one_class, "one class only ('cats')"),
        ("train", empty_text, "row 0, counted from 0"),
        ("held_out", lambda data: data[:0], "data.held_out has no rows"),
        ("held_out", unseen_label, "train never saw: dgos (did you mean 'dogs'?)"),
    ],
)
def test_wrong_rows_cost_two_lines_and_nothing_else(
    capsys, save, written, data_folder, split, change, said
):
    rewrite(data_folder / f"{split}.parquet", change)
    code, printed = potstill(capsys, "run", save(written))
    assert code == 2
    assert said in printed
    assert len(printed.splitlines()) <= 2
    assert not list(Path(written["work_dir"]).glob("*/"))


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("teacher", "epcohs"), 3, "`teacher.epcohs` (did you mean 'epochs'?)"),
        (("data", "train"), "nowhere.csv", "nowhere.csv does not exist"),
        (("work_dir",), "/proc/nowhere", "cannot be written"),
        (("tracking", "uri"), "http://127.0.0.1:9", "cannot be reached"),
        (("tracking", "uri"), "http://bob:pw@127.0.0.1:9", "`tracking.uri` holds a password"),
        (("teacher", "base"), "/nowhere", "no local folder"),
        (("students",), [{"family": "layers", "layers": 9}], "the teacher has 4"),
        (("teacher", "max_length"), 4000, "reads at most 64 tokens"),
    ],
)
def test_a_wrong_setting_is_named(capsys, save, written, path, value, said):
    place = written
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    code, printed = potstill(capsys, "run", save(written))
    assert code == 2
    assert said in " ".join(printed.split())
    assert len(printed.splitlines()) <= 2


def test_a_teacher_of_other_classes_is_refused(capsys, save, quick, ready_teacher, copied_base):
    settings = json.loads((copied_base / "config.json").read_text())
    settings["id2label"] = {"0": "cats", "1": "dogs", "2": "birds"}
    (copied_base / "config.json").write_text(json.dumps(settings))
    quick["teacher"] = ready_teacher | {"model": str(copied_base)}
    code, printed = potstill(capsys, "check", save(quick))
    assert code == 2
    assert "answers birds, cats, dogs; the data has cats, dogs, fish" in " ".join(printed.split())


def test_repeated_rows_are_reported_and_never_leave_held_out(capsys, save, written, data_folder):
    held_out = pd.read_parquet(data_folder / "held_out.parquet")
    rewrite(data_folder / "train.parquet", lambda data: pd.concat([data, held_out[:2]]))
    code, printed = potstill(capsys, "check", save(written))
    assert code == 0
    assert "2 rows of train repeat held_out and were left out of train (row 90, 91)" in printed
    assert "held_out 100" in printed


NAME = "refund [/complaint] [click](http://evil.example) :smile: \x1b[2J"
"""A class that wants to be more than a name."""


def test_names_in_notes_are_shown_as_they_are(capsys, save, written, data_folder):
    rewrite(data_folder / "train.parquet", lambda data: data.assign(label=[NAME, *data.label[1:]]))
    code, printed = potstill(capsys, "check", save(written))
    assert code == 0
    shown = NAME.replace("\x1b", "␛")
    assert f"should be known: too small to split, kept whole in train: {shown} (1 text)" in printed


def test_an_experiment_that_was_deleted_in_the_ui_is_said_before_any_work(capsys, save, written):
    client = mlflow.MlflowClient(written["tracking"]["uri"])
    client.delete_experiment(client.create_experiment("test"))
    for command in ("check", "run"):
        code, printed = potstill(capsys, command, save(written))
        assert code == 2
        assert printed.startswith("error: tracking.experiment 'test' was deleted. Restore it with")
        assert len(printed.splitlines()) == 1
    assert not list(Path(written["work_dir"]).glob("*/"))


@pytest.mark.parametrize("command", ["check", "run", "label"])
def test_a_dead_prefect_server_is_said_soon_and_before_any_work(capsys, save, written, command):
    start, url = time.monotonic(), "http://bob:hunter2@127.0.0.1:9/api"
    with temporary_settings({PREFECT_API_URL: url}):
        code, printed = potstill(capsys, command, save(written))
    assert code == 2
    assert printed.startswith("error: PREFECT_API_URL http://***@127.0.0.1:9/api cannot be reached")
    assert len(printed.splitlines()) == 1
    assert time.monotonic() - start < 10
    assert not Path(written["work_dir"]).exists()


@pytest.mark.usefixtures("prefect_server")
def test_a_tracking_server_that_breaks_after_the_check_ends_the_run_in_one_line(
    capsys, save, quick, monkeypatch
):
    monkeypatch.setenv(RETRIES, "1")
    with broken_server(finds_experiments=True) as uri:
        code, printed = potstill(capsys, "run", save(quick | {"tracking": {"uri": uri}}))
    assert code == 1
    said = [line.split(":")[0] for line in printed.splitlines()]
    stages = [line for line in said if line.startswith("stage ")]  # told by the clock
    assert [line for line in said if line not in stages] == ["grid", "MLflow", "error"]
    assert stages == ["stage 1 of 30, 0"]
    assert "MLflow: answered 500; retry 1 of 1" in printed
    assert "error: MLflow gave up: API request to " in printed


def test_a_password_given_on_the_command_line_is_refused_and_not_repeated(capsys):
    uri = "http://bob:hunter2@127.0.0.1:9"
    code, printed = potstill(capsys, "compare", "a", "b", "--on", "c", "--tracking-uri", uri)
    assert code == 2
    assert "`uri` holds a password" in printed
    assert "hunter2" not in printed


def test_rollback_before_any_run_is_refused(capsys, save, written):
    code, printed = potstill(capsys, "rollback", save(written))
    assert code == 2
    assert "There is no registered model 'animals'" in printed


@pytest.fixture
def long_run(save, quick, ready_teacher, tmp_path, prefect_home):
    """The command of a run whose training can be met half way, and its environment."""
    quick["teacher"] = ready_teacher
    quick["students"] = [
        {"family": "bag_of_words", "max_features": 50},
        {"family": "layers", "layers": 1, "epochs": 12},
        {"family": "bag_of_words", "max_features": 200},
    ]
    # The teacher was never trained, so words on gold are surely better.
    quick["evaluate"] = {"controls": False, "seeds": 1, "weak_teacher": "go_on"}
    program = [sys.executable, "-m", "flows.cli", "run", str(save(quick))]
    return program, os.environ | {"PREFECT_HOME": str(prefect_home(tmp_path / "prefect"))}


CHECKPOINTS = "students/*.partial/student/checkpoints/*/trainer_state.json"


def hear_interrupts():
    """Undo what a shell does to its background jobs, which ignore SIGINT and pass that on."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start_until_a_checkpoint(program, environment, work):
    """Start a run and return it when its training has a checkpoint."""
    first = subprocess.Popen(
        program,
        env=environment,
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_interrupts,
    )
    deadline = time.monotonic() + 120
    while not list(work.glob(CHECKPOINTS)):
        assert first.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return first


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_run_says_so_and_goes_on_from_the_very_step(long_run, quick, sent):
    program, environment = long_run
    work = Path(quick["work_dir"])
    first = start_until_a_checkpoint(program, environment, work)
    os.killpg(first.pid, sent)  # as a terminal does: to all the processes of the run
    printed = first.communicate(timeout=60)[1]
    assert first.returncode == 130, printed
    assert "interrupted: the same command goes on from here" in printed
    assert "Traceback" not in printed
    assert list(work.glob(CHECKPOINTS))

    second = subprocess.run(program, env=environment, capture_output=True, text=True)
    assert second.returncode == 0, second.stderr
    assert "Champion of animals is now version 1" in second.stdout


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(long_run, quick):
    """kill -9 in the grid, then the same command: no run, label or version is there twice."""
    program, environment = long_run
    work = Path(quick["work_dir"])
    first = start_until_a_checkpoint(program, environment, work)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    labels = sorted(work.glob("labels/*/*.parquet"))
    done = {path: path.stat().st_mtime_ns for path in work.glob("students/*/manifest.json")}
    assert labels
    assert len(done) == 1

    second = subprocess.run(program, env=environment, capture_output=True, text=True)
    assert second.returncode == 0, second.stderr
    assert "Champion of animals is now version 1" in second.stdout
    assert sorted(work.glob("labels/*/*.parquet")) == labels
    assert all(path.stat().st_mtime_ns == when for path, when in done.items())
    uri = quick["tracking"]["uri"]
    client = mlflow.MlflowClient(uri, registry_uri=uri)
    runs = client.search_runs([client.get_experiment_by_name("test").experiment_id])
    names = [run.info.run_name for run in runs]
    assert len(names) == len(set(names)) == 7
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert len(client.search_model_versions("name = 'animals'")) == 1


def find_servers(home):
    """Return the processes that have this run's Prefect home in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables = (folder / "environ").read_bytes()
            command = (folder / "cmdline").read_bytes()
        except OSError:  # it ended meanwhile
            continue
        if f"PREFECT_HOME={home}".encode() in variables and command:
            found.append(int(folder.name))
    return found


@pytest.mark.slow
def test_kill_9_of_the_main_process_alone_leaves_no_process_behind(long_run, quick):
    program, environment = long_run
    first = start_until_a_checkpoint(program, environment, Path(quick["work_dir"]))
    home = environment["PREFECT_HOME"]
    assert len(find_servers(home)) == 3  # itself, Prefect's server and its watch
    first.send_signal(signal.SIGKILL)
    first.communicate()
    deadline = time.monotonic() + 20
    while find_servers(home):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def answer(capsys, *arguments):
    """Run a command with `--json` and return its exit code and the object on stdout."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["potstill", *map(str, arguments), "--json"])
        try:
            cli.main()
            code = 0
        except SystemExit as ended:
            code = ended.code or 0
    printed = capsys.readouterr()
    return code, json.loads(printed.out), printed.err


def test_check_and_plan_answer_in_one_object(capsys, save, quick):
    students = {"students": [{"family": "bag_of_words", "max_features": 50}]}
    path = save(quick | students)
    code, checked, _ = answer(capsys, "check", path)
    assert (code, checked["outcome"], checked["exit_code"]) == (0, "done", 0)
    assert checked["rows"]["held_out"] == 100
    assert checked["students"] == ["bag-of-words-50"]
    code, planned, _ = answer(capsys, "plan", path)
    assert [student["name"] for student in planned["students"]] == ["bag-of-words-50"]
    assert planned["most_minutes"] >= planned["grid_minutes"] >= 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "nowhere.yaml"), "nowhere.yaml does not exist"),
        (("promote",), "requires an argument"),
    ],
)
def test_a_refusal_is_an_object_too_and_a_line_beside_it(capsys, arguments, said):
    code, refused, line = answer(capsys, *arguments)
    assert (code, refused["outcome"], refused["exit_code"]) == (2, "wrong_input", 2)
    assert refused["command"] == arguments[0]
    assert said in refused["message"]
    assert said in line


@pytest.fixture
def first_champion(save, written):
    """The configuration after a first run: one version, which is champion."""
    uri = written["tracking"]["uri"]
    client = mlflow.MlflowClient(uri, registry_uri=uri)
    client.create_registered_model("animals")
    client.create_model_version("animals", source="s3://models/1", await_creation_for=0)
    client.set_registered_model_alias("animals", "champion", "1")
    return save(written)


@pytest.mark.parametrize(
    ("command", "alias"), [("promote", "challenger"), ("rollback", "previous"), ("compare", "")]
)
def test_after_a_first_run_there_is_nothing_to_do_yet(
    capsys, first_champion, written, command, alias
):
    arguments = [first_champion]
    if command == "compare":
        models = ["models:/animals@champion", "models:/animals@challenger"]
        arguments = [*models, "--on", "rows.csv", "--tracking-uri", written["tracking"]["uri"]]
    expected = f"animals has no {alias or 'challenger'} yet; version 1 is champion."
    code, printed = potstill(capsys, command, *arguments)
    assert code == 0
    assert len(printed.splitlines()) == 1
    assert expected in printed
    code, said, _ = answer(capsys, command, *arguments)
    assert (code, said["outcome"]) == (0, "nothing_to_do")
    assert expected in said["message"]
    assert not Path(written["work_dir"]).exists()


def test_nothing_heavy_is_imported_to_say_that_there_is_nothing_to_do(first_champion):
    program = (
        "import sys; from flows import cli\n"
        f"sys.argv = ['potstill', 'promote', {str(first_champion)!r}]\n"
        "cli.main()\n"
        "heavy = {'torch', 'transformers', 'prefect', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.usefixtures("first_champion")
def test_an_alias_that_is_not_there_is_refused_with_the_nearest(capsys, written):
    models = ["models:/animals@chamion", "models:/animals@champion"]
    uri = written["tracking"]["uri"]
    code, printed = potstill(capsys, "compare", *models, "--on", "rows.csv", "--tracking-uri", uri)
    assert code == 2
    assert "animals has no alias 'chamion' (did you mean 'champion'?). It has champion." in printed


def test_exit_codes_are_in_the_help(capsys):
    _, printed = potstill(capsys, "--help")
    said = " ".join(printed.split())
    assert all(part in said for part in ("0 done", "2 wrong input", "130 interrupted", "with 4"))
