"""Champions behind `mlflow models serve`, in an environment of what they ask for and no more."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import mlflow
import pytest
from samples import make_gold_set, make_rows

from distill_tasks.config import TrackingConfig
from distill_tasks.measuring.footprint import pin
from distill_tasks.students import BagOfWordsStudent, LayersStudent
from distill_tasks.students.formats import export_variant
from distill_tasks.tracking.logged_models import log_student
from distill_tasks.tracking.store import connect
from registry.aliases import CHAMPION

ROOT = Path(__file__).parents[2]
MODELS = ("onnx_int8", "bag_of_words")
PATIENCE_S = 180
"""How long a server may take to answer its first ping."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def students(tiny_base, tmp_path_factory):
    """The folders of a small transformer in int8 and of a student that needs numpy alone."""
    training_set = make_gold_set(tiny_base, 120)
    trained, *folders = (
        tmp_path_factory.mktemp(name) for name in ("torch", "onnx_int8", "bag_of_words")
    )
    learner = LayersStudent(layers=1, epochs=8, learning_rate=0.005, batch_rows=16)
    learner.train(training_set, trained)
    export_variant(trained, "onnx_int8", None, [], folders[0])
    BagOfWordsStudent(max_features=60).train(training_set, folders[1])
    return dict(zip(MODELS, folders, strict=True))


@pytest.fixture(scope="module")
def store(students, tmp_path_factory):
    """A tracking store in which every student is the champion of a model of its name."""
    before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
    uri = f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"
    connect(TrackingConfig(uri=uri, experiment="served"))
    client = mlflow.MlflowClient()
    for name, folder in students.items():
        with mlflow.start_run() as run:
            pass
        model = log_student(run.info.run_id, name, folder, {})
        client.create_registered_model(name)
        version = client.create_model_version(name, f"models:/{model}", model_id=model)
        client.set_registered_model_alias(name, CHAMPION, version.version)
    yield uri
    mlflow.set_tracking_uri(before[0])
    mlflow.set_registry_uri(before[1])


@pytest.fixture(scope="module")
def environment(store, tmp_path_factory):
    """The Python of a fresh environment with the requirements of both versions installed."""
    assert mlflow.get_tracking_uri() == store
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    command = [folder / "bin/python", "-m", "pip", "install"]
    command += ["--quiet", "--disable-pip-version-check", "--no-compile"]
    for name in MODELS:
        command += ["-r", mlflow.pyfunc.get_model_dependencies(f"models:/{name}@{CHAMPION}")]
    known = os.environ | {"PIP_CONSTRAINT": str(ROOT / "constraints.txt")}
    subprocess.run(command, env=known, cwd=folder, check=True)
    return folder / "bin"


@contextmanager
def serve(environment, uri, name, folder):
    """Serve a champion over HTTP while the block runs, and yield its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [environment / "mlflow", "models", "serve", "-m", f"models:/{name}@{CHAMPION}"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    path = f"{environment}{os.pathsep}{os.environ['PATH']}"
    settings = os.environ | {"MLFLOW_TRACKING_URI": uri, "PATH": path}
    log = folder / f"{name}.log"
    with log.open("w") as output:
        server = subprocess.Popen(
            command, cwd=folder, env=settings, stdout=output, stderr=output, start_new_session=True
        )
    try:
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + PATIENCE_S
        while not is_up(address):
            assert server.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.2)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # mlflow started uvicorn, which waits for its workers
        server.wait()


def is_up(address):
    try:
        with urllib.request.urlopen(f"{address}/ping", timeout=5) as response:
            return response.status == 200
    except OSError:
        return False


def post(address, body):
    """Return the status of an invocation and what it said."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{address}/invocations", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.fixture(scope="module", params=MODELS)
def served(request, environment, store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    with serve(environment, store, request.param, folder) as address:
        yield request.param, address


def here(name, texts):
    """What the same version says in this process."""
    return mlflow.pyfunc.load_model(f"models:/{name}@{CHAMPION}").predict(texts)


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("name", MODELS)
def test_a_version_asks_for_what_its_runtime_imports(name):
    path = mlflow.pyfunc.get_model_dependencies(f"models:/{name}@{CHAMPION}")
    light = {"onnx_int8": ["numpy", "onnxruntime", "tokenizers"], "bag_of_words": ["numpy"]}
    assert sorted(Path(path).read_text().splitlines()) == sorted(pin(["mlflow", *light[name]]))


@pytest.mark.parametrize("name", ["torch", "transformers", "distill_tasks", "registry", "flows"])
def test_what_trained_the_model_is_not_where_it_is_served(environment, tmp_path, name):
    command = [environment / "python", "-c", f"import {name}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert f"No module named '{name}'" in done.stderr


def test_a_table_of_texts_is_answered_as_in_this_process(served):
    name, address = served
    texts = ["purr kitten", "", "fin 😀 \x07", "puppy leash " * 8334]
    table = {"columns": ["text"], "data": [[text] for text in texts]}
    status, said = post(address, {"dataframe_split": table})
    assert status == 200, said
    expected = here(name, texts)
    assert [row["label"] for row in said["predictions"]] == expected.label.tolist()
    for row, answer in enumerate(said["predictions"]):
        assert answer["probabilities"] == pytest.approx(expected.probabilities[row], abs=1e-5)
        assert answer["confidence"] == pytest.approx(expected.confidence[row], abs=1e-5)
        assert answer["abstain"] == expected.abstain[row]


def test_a_plain_list_of_texts_is_answered_as_in_this_process(served):
    name, address = served
    status, said = post(address, {"inputs": ["purr kitten"]})
    assert status == 200, said
    (label,) = here(name, ["purr kitten"]).label
    assert [row["label"] for row in said["predictions"]] == [label]


def test_answers_asked_for_at_once_are_those_asked_for_in_turn(served):
    name, address = served
    texts = list(make_rows(200, seed=9)["text"])
    asked = {"params": {"top_k": 1}}
    with ThreadPoolExecutor(50) as pool:
        replies = list(pool.map(lambda text: post(address, {"inputs": [text]} | asked), texts))
    assert {status for status, _ in replies} == {200}
    labels = [said["predictions"][0]["label"] for _, said in replies]
    assert labels == here(name, texts).label.tolist()
    assert [list(said["predictions"][0]["probabilities"]) for _, said in replies] == [
        [label] for label in labels
    ]


WRONG = {
    "null in a table": (
        {"dataframe_split": {"columns": ["text"], "data": [["fine"], [None]]}},
        "Row 1 is nan, not text. Give a list of strings.",
    ),
    "null in a list": ({"inputs": ["fine", None]}, "Row 1 is None, not text."),
    "half a character": ({"inputs": ["half \ud83d"]}, "half a character (a lone surrogate)"),
    "no texts": ({"inputs": []}, "Which column holds the texts? Found []"),
    "no column of texts": (
        {"dataframe_split": {"columns": ["id", "body"], "data": [["the puppy", "purr kitten"]]}},
        "Which column holds the texts? Found ['id', 'body'], none named 'text'.",
    ),
    "another format": ({"texts": ["purr"]}, "exactly one of the input fields"),
    "a text alone": ({"inputs": "purr"}, "This is no list or table of texts."),
    "no classes": ({"inputs": ["purr"], "params": {"top_k": 0}}, "top_k is 0. Give the number"),
    "no confidence": ({"inputs": ["purr"], "params": {"threshold": 2}}, "threshold is 2.0. Give"),
}


@pytest.mark.parametrize(("body", "complaint"), WRONG.values(), ids=WRONG.keys())
def test_what_is_no_text_is_refused_with_the_reason_and_the_server_goes_on(served, body, complaint):
    name, address = served
    status, said = post(address, body)
    assert status == 400
    assert complaint in said
    (label,) = here(name, ["purr kitten"]).label
    assert post(address, {"inputs": ["purr kitten"]})[1]["predictions"][0]["label"] == label


def test_the_server_makes_text_of_a_number_beside_text_before_a_model_sees_it(served):
    name, address = served
    status, said = post(address, {"inputs": ["fine", 3]})
    assert status == 200
    expected = here(name, ["fine", "3"]).probabilities
    for row, answer in enumerate(said["predictions"]):
        assert answer["probabilities"] == pytest.approx(expected[row], abs=1e-5)


ROWS = [{"id": "the puppy", "text": "purr kitten", "body": "fin gill"}]
TABLES = {
    "dataframe_split": {"columns": list(ROWS[0]), "data": [list(ROWS[0].values())]},
    "dataframe_records": ROWS,
    "instances": ROWS,
    "inputs": {name: [cell] for name, cell in ROWS[0].items()},
}


@pytest.mark.parametrize("form", TABLES)
def test_of_a_table_of_several_columns_the_texts_are_taken_by_name(served, form):
    name, address = served
    for params, text in (({}, "purr kitten"), ({"text_column": "body"}, "fin gill")):
        status, said = post(address, {form: TABLES[form], "params": params})
        assert status == 200, said
        (expected,) = here(name, [text]).probabilities
        assert said["predictions"][0]["probabilities"] == pytest.approx(expected, abs=1e-5)


def test_rows_of_csv_are_answered_too(served):
    name, address = served
    body = b"id,text\nthe puppy,purr kitten\n"
    request = urllib.request.Request(f"{address}/invocations", body, {"Content-Type": "text/csv"})
    with urllib.request.urlopen(request, timeout=60) as response:
        (answer,) = json.load(response)["predictions"]
    assert answer["label"] == here(name, ["purr kitten"]).label[0]
