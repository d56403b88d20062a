import shutil

import mlflow
import pandas as pd
import pytest
from command_line import potstill
from samples import make_rows

from distill_tasks.config import TrackingConfig
from distill_tasks.tracking.logged_models import log_student
from distill_tasks.tracking.store import connect


@pytest.fixture
def given(light_folders, empty_mlflow, tmp_path):
    """A logged model, and a file of rows to answer."""
    shutil.copy(empty_mlflow, tmp_path / "mlflow.db")
    connect(TrackingConfig(uri=f"sqlite:///{tmp_path}/mlflow.db"))
    with mlflow.start_run() as run:
        pass
    model = f"models:/{log_student(run.info.run_id, 'words', light_folders['static'], {})}"
    rows = make_rows(20, seed=2)[["text"]]
    rows.loc[3, "text"] = None
    rows.to_csv(tmp_path / "in.csv", index=False)
    return model, tmp_path


def test_a_file_is_answered_and_what_has_no_text_is_counted(capsys, given):
    model, folder = given
    command = ["predict", model, folder / "in.csv", "-o", folder / "out.csv"]
    command += ["--tracking-uri", f"sqlite:///{folder}/mlflow.db"]
    code, printed = potstill(capsys, *command)
    assert code == 0, printed
    assert "out.csv: 20 rows with label, confidence, abstain" in " ".join(printed.split())
    assert "Rows without a text, so without a label: 1." in " ".join(printed.split())
    assert pd.read_csv(folder / "out.csv")["label"].notna().sum() == 19
    code, printed = potstill(capsys, *command)
    assert code == 2
    assert "out.csv is there already. Give another --output, or --overwrite it." in " ".join(
        printed.split()
    )
    assert potstill(capsys, *command, "--overwrite")[0] == 0


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("out.xlsx", "out.xlsx is none of .csv, .parquet, .jsonl"),
        ("in.csv", "is the file that is read"),
        ("no/out.csv", "There is no folder"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_before_any_work(capsys, tmp_path, output, said):
    (tmp_path / "in.csv").write_text("text\na\n")
    code, printed = potstill(
        capsys, "predict", "models:/x/1", tmp_path / "in.csv", "-o", tmp_path / output
    )
    assert (code, said in " ".join(printed.split())) == (2, True), printed
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


@pytest.mark.parametrize("address", ["models:/pets", "models:/@champion"])
def test_an_address_without_a_version_cannot_be_exported(capsys, tmp_path, address):
    code, printed = potstill(capsys, "export", address, tmp_path / "pets")
    assert code == 2
    assert f"{address} names no version" in " ".join(printed.split())
