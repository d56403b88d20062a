import json
import re
from pathlib import Path

import pytest

from distill_tasks.config import TrackingConfig, load_config, parse_config
from distill_tasks.core.credentials import _KEY, mask_credentials, refuse_credentials
from distill_tasks.core.errors import InputError

MARK = "hunter2xMARKEDxSECRETx0123456789"
SECRETS = {
    "a server's password": f"http://bob:{MARK}@127.0.0.1:5000",
    "a server's token": f"https://{MARK}@mlflow.example",
    "a password with a slash": f"http://bob:{MARK[:8]}/{MARK}@mlflow.example",
    "a password with an at": f"http://bob:{MARK[:8]}@{MARK}@mlflow.example",
    "a quoted password": f"http://bob:%40{MARK}@mlflow.example",
    "a database's password": f"postgresql+psycopg2://bob:{MARK}@db.example/mlflow",
    "a password without a user": f"redis://:{MARK}@db.example",
    "a password behind a question mark": f"postgresql://db.example/m?user=bob&password={MARK}",
    "a connection string": f"mssql+pyodbc:///?odbc_connect=UID%3Dbob%3BPWD%3D{MARK}",
    "a signed address": f"https://rows.example/a.csv?X-Amz-Signature={MARK}&a=1",
    "a token of the hub": f"hf_{MARK}",
    "a token of GitHub": f"ghp_{MARK}",
    "a key of an API": f"sk-proj-{MARK}",
    "a key of Prefect": f"pnu_{MARK}",
}
PLAIN = [
    "sqlite:///mlflow.db",
    "sqlite:////srv/a:b@c/mlflow.db",
    "http://127.0.0.1:5000",
    "https://host.example:8080/path@v1",
    "postgresql://bob@db.example:5432/mlflow",
    "mysql+pymysql://bob@db/mlflow?read_default_file=~/.my.cnf",
    "s3://bucket/rows@2026.csv",
    "hf://datasets/owner/name@main",
    "mail a@b.example: the token was lost; password=forgotten",
    "sk-learn-models/bag-of-words-and-more-words",
    "owner/hf_model",
]


@pytest.fixture
def plain():
    return {
        "name": "plain",
        "data": {"train": "train.csv", "held_out": "held_out.csv"},
        "teacher": {"kind": "finetune", "base": "some/folder"},
        "students": [{"family": "pretrained", "model": "some/folder"}],
        "registry": {"model": "plain"},
    }


PLACES = [
    ("tracking", "uri"),
    ("tracking", "experiment"),
    ("tracking",),
    ("data", "train"),
    ("data", "held_out", "hub"),
    ("teacher", "base"),
    ("teacher", "revision"),
    ("students", 0, "model"),
    ("registry", "model"),
    ("work_dir",),
    ("name",),
    ("nowhere", "at", "all"),
]


def put(written, place, value):
    *parents, last = place
    for key in parents:
        if isinstance(written, dict) and not isinstance(written.get(key), dict | list):
            written[key] = {}
        written = written[key]
    written[last] = value


@pytest.mark.parametrize("place", PLACES, ids=lambda place: ".".join(map(str, place)))
@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
def test_a_credential_is_refused_wherever_it_stands_and_never_repeated(plain, place, secret):
    put(plain, place, secret)
    with pytest.raises(InputError) as caught:
        parse_config(plain, "distill.yaml")
    said = str(caught.value)
    assert said.startswith(f"distill.yaml: `{'.'.join(map(str, place))}` holds a password")
    assert "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in said
    assert "Secret blocks" in said
    assert MARK not in said
    assert MARK[:8] not in said
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("key", ["password", "token", "api_key", "hub-token", "TRACKING_PASSWORD"])
def test_a_key_that_is_made_for_a_credential_is_refused_whatever_it_holds(plain, key):
    plain["tracking"] = {key: "pw"}
    with pytest.raises(InputError, match=f"`tracking.{key}` holds a password or a token"):
        parse_config(plain, "distill.yaml")


def test_a_credential_where_a_key_should_be_is_not_repeated_either(plain):
    plain["tracking"] = {SECRETS["a server's password"]: None}
    with pytest.raises(InputError, match=re.escape("`tracking.http://***@127.0.0.1:5000` holds")):
        parse_config(plain, "distill.yaml")


@pytest.mark.parametrize("text", PLAIN)
def test_what_holds_no_credential_is_taken(text):
    refuse_credentials({"tracking": {"uri": text}})
    assert mask_credentials(text) == text


def test_no_key_that_is_allowed_is_taken_for_one_of_a_credential():
    schema = json.loads(Path("schema/distill.schema.json").read_text())
    parts = [schema, *schema["$defs"].values()]
    keys = {key for part in parts for key in part.get("properties", {})}
    assert {"uri", "train", "model"} <= keys
    assert not [key for key in keys if _KEY.fullmatch(key)]


def test_data_that_refers_to_itself_comes_to_an_end():
    written = {"name": "a"}
    written["data"] = [written]
    refuse_credentials(written)


def test_a_part_of_a_configuration_refuses_credentials_by_itself():
    with pytest.raises(InputError, match=r"^`uri` holds a password") as caught:
        TrackingConfig(uri=SECRETS["a server's password"])
    assert MARK not in str(caught.value)


def test_a_file_that_is_no_yaml_is_refused_without_its_lines(tmp_path):
    path, address = tmp_path / "distill.yaml", SECRETS["a server's password"]
    path.write_text(f"tracking:\n  uri: {address}: {MARK}: [")
    with pytest.raises(InputError, match="line 2") as caught:
        load_config(path)
    assert MARK not in str(caught.value)


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
def test_credentials_in_the_text_of_an_error_are_masked(secret):
    masked = mask_credentials(f"cannot reach {secret} now")
    assert MARK not in masked or "odbc_connect" in secret  # quoted twice: refused, not masked
    assert masked.startswith("cannot reach ")
    assert masked.endswith(" now")
