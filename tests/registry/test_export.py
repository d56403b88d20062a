import base64
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import mlflow
import pandas as pd
import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from mlflow.data.pandas_dataset import from_pandas
from mlflow.entities.model_registry import ModelVersion, ModelVersionTag
from mlflow.exceptions import MlflowException

from distill_tasks.config import TrackingConfig
from distill_tasks.core.errors import InputError
from distill_tasks.data.settings import RowFormat
from distill_tasks.serving.served_model import open_model
from distill_tasks.students.folder import describe_fields
from distill_tasks.tracking.logged_models import log_student
from distill_tasks.tracking.store import connect
from registry.export import check_push, export_version, write_card

CARD = "# words of pets\n\nGood.\n\n[Summary run](http://inside:5000/#/x) · [all](http://inside/y)"
CARD += "\n\n## How to call it\n\n    load_model('models:/pets@champion')"


@pytest.fixture(scope="module")
def tracking(light_folders, empty_mlflow, tmp_path_factory):
    """A store with one champion, which reads two fields."""
    folder = tmp_path_factory.mktemp("exported")
    shutil.copy(empty_mlflow, folder / "mlflow.db")
    student = shutil.copytree(light_folders["bag_of_words"], folder / "student")
    describe_fields(student, RowFormat(text_column=["subject", "body"]))
    config = TrackingConfig(uri=f"sqlite:///{folder}/mlflow.db", experiment="test")
    connect(config)
    with mlflow.start_run() as run:
        pass
    model = log_student(run.info.run_id, "words", student, {})
    rows = from_pandas(pd.DataFrame({"text": ["purr"]}), name="held_out")
    with mlflow.start_run(run.info.run_id):
        mlflow.log_metrics({"macro F1": 0.87654, "p95 ms": 1}, model_id=model, dataset=rows)
    client = mlflow.MlflowClient(config.uri)
    client.create_registered_model("pets")
    client.create_model_version("pets", f"models:/{model}", model_id=model, description=CARD)
    client.set_registered_model_alias("pets", "champion", "1")
    return config


@pytest.fixture
def client(tracking):
    connect(tracking)
    return mlflow.MlflowClient(tracking.uri)


def test_an_exported_champion_answers_from_its_folder_alone(client, tmp_path):
    folder = tmp_path / "deep" / "pets"
    assert export_version(client, "pets", "champion", folder).version == 1
    names = {path.name for path in folder.iterdir()}
    assert names > {"README.md", "requirements.txt", "served_model.py", "served_text.py"}
    assert "mlflow" not in (folder / "requirements.txt").read_text()
    assert "numpy==" in (folder / "requirements.txt").read_text()
    command = [sys.executable, "served_model.py", ".", "purr kitten"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["label"] == "cats"
    assert [path.name for path in folder.parent.iterdir()] == ["pets"]


def test_its_card_is_a_readme_that_leads_nowhere_inside(client, tmp_path):
    export_version(client, "pets", "1", tmp_path / "pets")
    card = (tmp_path / "pets" / "README.md").read_text()
    about = ModelCard(card).data
    assert about.pipeline_tag == "text-classification"
    assert about.library_name == "potstill"
    assert about.license is None
    (result,) = about.eval_results
    assert (result.metric_name, result.metric_value) == ("macro F1", 0.8765)
    assert result.dataset_name.startswith("held-out rows, digest ")
    assert "# words of pets\n\nGood." in card
    assert "It reads the fields subject, body, or a text that joins them." in card
    assert "inside" not in card
    assert "models:/" not in card  # it calls its own files
    assert 'python served_model.py . "some text"' in card


def test_its_readme_names_the_terms_of_the_teacher_and_no_field_is_markup(light_folders):
    model = open_model(light_folders["bag_of_words"])
    model.fields = ("<img src=x>", "[a](http://b.example)")
    terms = "My Terms: v2 (https://t.example/x), may train: yes"
    tags = [ModelVersionTag("teacher_licence", terms)]
    card = ModelCard(write_card(ModelVersion("a: |\n--- <b>", "3", 0, tags=tags), model))
    assert card.data.license == "other"
    assert card.data.license_name == "my-terms-v2"
    assert card.data.license_link == "https://t.example/x"
    page = MarkdownIt("commonmark").render(card.text)
    assert set(re.findall(r"<(\w+)", page)) == {"h1", "h2", "p", "pre", "code"}


@pytest.mark.parametrize(
    ("name", "alias", "said"),
    [
        ("pets", "challenger", "pets has no alias challenger"),
        ("pets", "7", "pets has no version 7"),
        ("toys", "champion", "toys has no alias champion"),
    ],
)
def test_a_version_that_is_not_there_is_refused(client, tmp_path, name, alias, said):
    with pytest.raises(InputError, match=said):
        export_version(client, name, alias, tmp_path / "pets")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_something_is_left_as_it_is(client, tmp_path):
    (tmp_path / "mine").write_text("x")
    for taken in (tmp_path, tmp_path / "mine"):
        with pytest.raises(InputError, match="is there already and not empty"):
            export_version(client, "pets", "champion", taken)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_the_champion_takes_its_fields_by_name_and_a_text_as_joined(tracking):
    connect(tracking)
    model = mlflow.pyfunc.load_model("models:/pets@champion")
    assert model.metadata.metadata == {"fields": ["subject", "body"]}
    assert list(model.input_example) == ["subject", "body"]
    expected = model.predict(["purr\nkitten"])["probabilities"][0]
    rows = pd.DataFrame({"id": [1], "body": ["kitten"], "subject": ["purr"], "text": ["fin"]})
    for given in (rows, rows.to_dict("records"), {"subject": ["purr"], "body": ["kitten"]}):
        assert model.predict(given)["probabilities"][0] == expected
    alone = model.predict(pd.DataFrame({"subject": [None], "body": ["fin gill"]}))
    assert alone["probabilities"][0] == model.predict("fin gill")["probabilities"][0]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"body": ["x"], "other": ["y"]}, r"fields \['subject', 'body'\]; found \['body'\] alone"),
        ({"body": ["x"]}, r"found \['body'\] alone"),
        ({"subject": ["x"], "body": [3]}, "The field 'body' is 3, not text"),
    ],
)
def test_rows_that_lack_a_field_are_refused(tracking, given, said):
    connect(tracking)
    model = mlflow.pyfunc.load_model("models:/pets@champion")
    with pytest.raises(MlflowException, match=said):
        model.predict(pd.DataFrame(given))


def test_a_push_needs_a_token_and_a_repositorys_name(monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(InputError, match="Set HF_TOKEN in the environment"):
        check_push("acme/pets")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with pytest.raises(InputError, match="names no repository"):
        check_push("a/b/c")


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as a push of small files needs."""

    received: dict[str, bytes]
    seen: list[tuple[str, str, str]]

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.seen.append((self.path, str(self.headers["Authorization"]), body))
        if self.path.endswith("/create"):
            answer = {"url": f"http://{self.headers['Host']}/acme/pets"}
        elif "/preupload/" in self.path:
            paths = [file["path"] for file in json.loads(body)["files"]]
            files = [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in paths]
            answer = {"files": files}
        elif self.path.endswith("/validate-yaml"):
            answer = {"errors": [], "warnings": []}
        else:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    value = line["value"]
                    self.received[value["path"]] = base64.b64decode(value["content"])
            address = f"http://{self.headers['Host']}/acme/pets/commit/1"
            answer = {"commitUrl": address, "commitOid": "1"}
        said = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *said):
        """Say nothing."""


PUSH = """
import sys
from pathlib import Path
from registry.export import push_folder
print(push_folder(Path(sys.argv[1]), "acme/pets"))
"""


def test_a_push_sends_every_file_with_the_token_of_the_environment(client, tmp_path):
    export_version(client, "pets", "champion", tmp_path / "pets")
    Hub.received, Hub.seen = {}, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    variables = {"HF_ENDPOINT": address, "HF_TOKEN": "hf_secret", "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-c", PUSH, str(tmp_path / "pets")]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True)
    server.shutdown()
    server.server_close()
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{address}/acme/pets"
    files = {path.name: path.read_bytes() for path in (tmp_path / "pets").iterdir()}
    assert Hub.received == files
    asked = {path.rsplit("/", 1)[1]: token for path, token, _ in Hub.seen}
    assert asked["create"] == asked["main"] == "Bearer hf_secret"
    assert '"private"' in Hub.seen[0][2]
