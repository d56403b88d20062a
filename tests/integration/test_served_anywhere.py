import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from fastapi.testclient import TestClient
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.scoring_server import init
from samples import (
    CLASSES,
    FAMILIES,
    LAYERS,
    LAYERS_ONNX,
    STATIC,
    VARIANTS,
    WORDS_STUDENT,
    make_rows,
)

from distill_tasks.serving.served_model import open_model
from distill_tasks.tracking import logged_models

SERVED = (*FAMILIES, *VARIANTS)
ELSEWHERE = """
import importlib, json, sys

paths, tracking, *uris = json.loads(sys.argv[1])
sys.path += paths  # what is installed, without the .pth files that lead back to this project
import mlflow

mlflow.set_tracking_uri(tracking)
absent = []
for name in ("distill_tasks", "registry", "flows"):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        absent.append(name)
answers, heavy = {}, {}
for uri in uris:
    model = mlflow.pyfunc.load_model(uri)
    answers[uri] = model.predict(["purr kitten", ""]).to_dict("records")
    heavy[uri] = sorted({"torch", "transformers"} & sys.modules.keys())
print(json.dumps({"absent": absent, "answers": answers, "heavy": heavy}))
"""


@pytest.fixture(scope="module")
def champions(house):
    """The champion's address of each candidate, every one under a name of its own."""
    for name in SERVED:
        house.crown(f"served-{name}", name)
    return {name: f"models:/served-{name}@champion" for name in SERVED}


@pytest.fixture(scope="module")
def elsewhere(house, tmp_path_factory):
    """Load and ask models in a fresh Python where this project is not installed."""
    folder = tmp_path_factory.mktemp("elsewhere")
    script = folder / "ask.py"
    script.write_text(ELSEWHERE)
    paths = [path for path in sys.path if path.endswith("site-packages")]

    def ask(*uris):
        given = json.dumps([paths, house.config.tracking.uri, *uris])
        command = [sys.executable, "-I", "-S", str(script), given]
        environment = os.environ | {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])

    return ask


@pytest.mark.parametrize("name", SERVED)
def test_the_champion_answers_with_label_confidence_and_probabilities(house, champions, name):
    texts = list(make_rows(4, seed=9)["text"])
    answers = mlflow.pyfunc.load_model(champions[name]).predict(texts)
    assert list(answers.columns) == ["label", "confidence", "probabilities", "abstain"]
    student = open_model(house.candidate(name).student.folder).answer(texts)
    for row, answer in enumerate(student):
        assert answers.label[row] == answer.label
        assert answers.confidence[row] == pytest.approx(answer.confidence)
        assert answers.probabilities[row] == pytest.approx(answer.probabilities)
        assert answers.probabilities[row].keys() == set(CLASSES)
        assert sum(answers.probabilities[row].values()) == pytest.approx(1)


TEXTS = list(make_rows(6, seed=9)["text"])
OTHERS = ["a puppy"] * 6


@pytest.mark.parametrize(
    "given",
    [
        TEXTS,
        np.array(TEXTS),
        np.array(TEXTS, dtype=object)[:, None],
        pd.Series(TEXTS),
        pd.Series(TEXTS, name="review"),
        pd.Series(TEXTS, dtype="category"),
        pd.DataFrame({"text": TEXTS}),
        pd.DataFrame({"message": TEXTS}),
        pd.DataFrame({"text": TEXTS, "id": range(6)}),
        pd.DataFrame({"id": range(6), "text": TEXTS}, index=list("abcdef")),
        pd.DataFrame({"subject": OTHERS, "text": TEXTS}),
        {"subject": OTHERS, "text": TEXTS},
        [{"subject": "a puppy", "text": text} for text in TEXTS],
    ],
    ids=lambda given: f"{type(given).__name__}",
)
def test_texts_are_taken_from_whatever_holds_them(champions, given):
    model = mlflow.pyfunc.load_model(champions[WORDS_STUDENT])
    answers, plain = model.predict(given), model.predict(TEXTS)
    assert answers.probabilities.tolist() == plain.probabilities.tolist()
    assert plain.label.nunique() > 1


@pytest.mark.parametrize(
    ("given", "columns"),
    [
        (pd.DataFrame({"subject": OTHERS, "body": TEXTS}), "['subject', 'body']"),
        (pd.DataFrame({"text": TEXTS, "a": OTHERS, "b": OTHERS}).set_index("text"), "['a', 'b']"),
        (np.array([OTHERS, TEXTS]).T, "[0, 1]"),
        ([], "[]"),
    ],
    ids=["other names", "text as index", "no names", "nothing"],
)
def test_a_table_of_several_columns_without_the_texts_is_refused(champions, given, columns):
    model = mlflow.pyfunc.load_model(champions[WORDS_STUDENT])
    with pytest.raises(MlflowException) as caught:
        model.predict(given)
    assert f"Found {columns}, none named 'text'." in str(caught.value)


def test_another_column_of_texts_can_be_named(champions):
    model = mlflow.pyfunc.load_model(champions[WORDS_STUDENT])
    table = pd.DataFrame({"text": OTHERS, "body": TEXTS})
    answers = model.predict(table, params={"text_column": "body"})
    assert answers.label.tolist() == model.predict(TEXTS).label.tolist()


@pytest.mark.parametrize("name", SERVED)
def test_parameters_say_how_many_classes_are_listed_and_when_to_abstain(champions, name):
    model = mlflow.pyfunc.load_model(champions[name])
    plain = model.predict(TEXTS)
    asked = model.predict(TEXTS, params={"top_k": 1, "threshold": 1})
    assert [list(row) for row in asked.probabilities] == [[label] for label in plain.label]
    assert asked.abstain.tolist() == [sure < 1 for sure in plain.confidence]
    assert asked.confidence.tolist() == plain.confidence.tolist()


NO_TABLE = "This is no list or table of texts. Give a list of strings."
MALFORMED = {
    b"{": "valid JSON",
    b'["a"]': "exactly one of the input fields",
    b'{"inputs": "a text alone"}': NO_TABLE,
    b'{"inputs": [[["a"]]]}': NO_TABLE,
    b'{"inputs": {"text": "a"}}': NO_TABLE,
    b'{"inputs": [{"text": "a"}, {"body": "b"}]}': "Row 1 is nan, not text.",
    b'{"inputs": [true]}': "Row 0 is True, not text.",
    b'{"inputs": ["a"], "params": {"top_k": 0}}': "top_k is 0. Give the number of classes",
    b'{"inputs": ["a"], "params": {"top_k": "two"}}': "convert `<class 'str'>` to `DataType.long`",
    b'{"inputs": ["a"], "params": {"threshold": 2}}': "threshold is 2.0. Give a confidence",
    b'{"dataframe_records": []}': "Which column holds the texts? Found [], none named 'text'.",
}


@pytest.fixture(scope="module")
def post(champions):
    """Ask what `mlflow models serve` runs, without a server around it."""
    scoring = init(mlflow.pyfunc.load_model(champions[WORDS_STUDENT]))
    client = TestClient(scoring, raise_server_exceptions=False)
    headers = {"Content-Type": "application/json"}
    return lambda body: client.post("/invocations", content=body, headers=headers)


@pytest.mark.parametrize(("body", "complaint"), MALFORMED.items(), ids=map(str, MALFORMED))
def test_a_malformed_body_is_the_callers_mistake_and_told_what_to_give(post, body, complaint):
    answer = post(body)
    assert answer.status_code == 400
    assert complaint in answer.json()["message"]


def test_records_are_read_by_the_name_of_their_field(post, champions):
    (said,) = post(b'{"inputs": [{"id": "a puppy", "text": "purr kitten"}]}').json()["predictions"]
    model = mlflow.pyfunc.load_model(champions[WORDS_STUDENT])
    assert said["label"] == model.predict(["purr kitten"]).label[0]


def test_the_champion_needs_nothing_of_this_project(champions, elsewhere):
    asked = (STATIC, WORDS_STUDENT, LAYERS_ONNX, LAYERS)  # the one that takes torch in is the last
    said = elsewhere(*(champions[name] for name in asked))
    assert said["absent"] == ["distill_tasks", "registry", "flows"]
    heavy = [said["heavy"][champions[name]] for name in asked]
    assert heavy == [[], [], [], ["torch", "transformers"]]
    for name in asked:
        answers = mlflow.pyfunc.load_model(champions[name]).predict(["purr kitten", ""])
        there = said["answers"][champions[name]]
        assert [answer["label"] for answer in there] == answers.label.tolist()
        for row, answer in enumerate(there):
            assert answer["probabilities"] == pytest.approx(answers.probabilities[row], abs=1e-5)


@pytest.mark.parametrize("name", SERVED)
def test_every_requirement_of_a_version_is_pinned(champions, name):
    lines = Path(mlflow.pyfunc.get_model_dependencies(champions[name])).read_text().splitlines()
    wanted = dict(line.split("==") for line in lines)
    light = {"static": ["tokenizers"], "onnx": ["onnxruntime", "tokenizers"]}
    heavy = ["safetensors", "torch", "transformers"]
    runs_on = {LAYERS: heavy, STATIC: light["static"]} | dict.fromkeys(VARIANTS, light["onnx"])
    assert sorted(wanted) == sorted(["mlflow", "numpy", *runs_on.get(name, [])])
    assert all(version and "*" not in version for version in wanted.values())


def test_a_version_holds_no_pickle(champions, tmp_path):
    for uri in champions.values():
        folder = mlflow.artifacts.download_artifacts(uri, dst_path=str(tmp_path))
        names = [name for _, _, files in os.walk(folder) for name in files]
        assert "MLmodel" in names
        assert not [name for name in names if name.endswith((".pkl", ".pickle", ".bin", ".pt"))]


def test_two_versions_in_one_process_each_run_their_own_code(house, tmp_path, monkeypatch):
    house.register("two-codes", WORDS_STUDENT)
    for name in ("served_pyfunc.py", "served_model.py", "served_text.py"):
        shutil.copy(logged_models.CODE / name, tmp_path)
    code = (tmp_path / "served_model.py").read_text()
    changed = code.replace("return self.classes[best]", 'return "newer"')
    assert changed != code
    (tmp_path / "served_model.py").write_text(changed)
    with monkeypatch.context() as patch:
        patch.setattr(logged_models, "CODE", tmp_path)
        with mlflow.start_run() as run:
            pass
        folder = house.candidate(WORDS_STUDENT).student.folder
        model = logged_models.log_student(run.info.run_id, "newer", folder, {})
    house.client.create_model_version("two-codes", f"models:/{model}", model_id=model)
    first, second = (mlflow.pyfunc.load_model(f"models:/two-codes/{number}") for number in (1, 2))
    assert second.predict(["purr kitten"]).label[0] == "newer"
    assert first.predict(["purr kitten"]).label[0] in CLASSES
    assert second.predict(["purr kitten"]).label[0] == "newer"
