"""What many tests share: a tiny real transformer, rows that can be learnt, a configuration."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, settings

from distill_tasks.core.process import set_up_process

set_up_process()
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models lose more to waiting threads

from mlflow_server import serve_mlflow
from samples import CLASSES, FILLERS, WORDS, make_gold_set, make_quick, write_settings, write_splits
from shared import Once, make_once

from distill_tasks.config import DistillConfig, TrackingConfig, parse_config

if TYPE_CHECKING:
    from house import House
    from night import Night

    from distill_tasks.results.findings import Findings

WHOLE_RUNS = {"flows", "integration", "registry", "reporting", "tracking"}
"""Folders of tests that need servers and whole runs."""

# No test may fail because another process keeps the machine busy.
settings.register_profile("any_load", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any_load")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have one worker begin with what takes long, the others take from its other end.

    What may take long says so by a timeout of its own; next comes what needs servers.
    """
    items.sort(key=lambda item: (-find_timeout(item), not WHOLE_RUNS & set(item.path.parts)))


def find_timeout(item: pytest.Item) -> float:
    """Return the seconds that a test may take, or 0 where it does not say so."""
    marker = item.get_closest_marker("timeout")
    return float(marker.args[0]) if marker else 0.0


@pytest.fixture(scope="session")
def once(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Makes a folder for all workers of this test run."""
    root = tmp_path_factory.getbasetemp()
    shared = root.parent if hasattr(request.config, "workerinput") else root
    return lambda name, make: make_once(shared / name, make)


@pytest.fixture(autouse=True)
def no_tracking_from_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take out where MLflow wrote in an earlier test: it is the default of commands."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="session")
def tiny_base(once: Once) -> Path:
    """A random BERT of 4 layers × 32 with a word-level vocabulary, as a local folder."""
    return once("tiny-base", save_tiny_base)


def save_tiny_base(folder: Path) -> None:
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    words = [word for group in WORDS.values() for word in group] + list(FILLERS)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(words)]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    settings = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        num_labels=len(CLASSES),
        id2label=dict(enumerate(CLASSES)),
        label2id={name: number for number, name in enumerate(CLASSES)},
    )
    BertForSequenceClassification(settings).save_pretrained(folder)


@pytest.fixture(scope="session")
def tiny_causal(once: Once) -> Path:
    """A random Llama of 3 layers × 32 with a word-level vocabulary and a chat template."""
    from language_models import save_causal_model

    return once("tiny-causal", save_causal_model)


@pytest.fixture(scope="session")
def empty_mlflow(once: Once) -> Path:
    """A fresh MLflow database: its 60 migrations take seconds, a copy of it none."""

    def migrate(folder: Path) -> None:
        from distill_tasks.tracking.store import check_tracking

        check_tracking(TrackingConfig(uri=f"sqlite:///{folder}/mlflow.db"))

    return once("empty-mlflow", migrate) / "mlflow.db"


@pytest.fixture(scope="session")
def mlflow_server(empty_mlflow: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real MLflow server that all tests share."""
    folder = tmp_path_factory.mktemp("mlflow-server")
    shutil.copy(empty_mlflow, folder / "server.db")
    with serve_mlflow(folder) as address:
        yield address


@pytest.fixture(scope="session")
def prefect_home(once: Once) -> Callable[[Path, str], Path]:
    """Puts a fresh database of Prefect's server into a folder: its migrations take seconds."""

    def migrate(folder: Path) -> None:
        command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"]
        own = os.environ | {"PREFECT_HOME": str(folder)}
        subprocess.run(command, env=own, check=True, capture_output=True)

    def settle(folder: Path, name: str = "prefect.db") -> Path:
        folder.mkdir(exist_ok=True)
        shutil.copy(once("empty-prefect", migrate) / "prefect.db", folder / name)
        return folder

    return settle


@pytest.fixture(scope="session")
def prefect_server(
    prefect_home: Callable[[Path, str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Prefect's own harness: a temporary database behind a real server."""
    from prefect.settings import (
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        PREFECT_SERVER_ANALYTICS_ENABLED,
        temporary_settings,
    )
    from prefect.testing.utilities import prefect_test_harness  # takes the whole server in

    settings = {
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None,  # saves a second of sleep for each run
        PREFECT_SERVER_ANALYTICS_ENABLED: False,
    }
    folder = prefect_home(tmp_path_factory.mktemp("prefect"), "prefect-test.db")
    with (
        temporary_settings(settings),
        patch("prefect.testing.utilities.mkdtemp", lambda: str(folder)),  # else an empty one
        prefect_test_harness(server_startup_timeout=120),
    ):
        yield


@pytest.fixture(scope="session")
def night(request: pytest.FixtureRequest, once: Once, tiny_base: Path, empty_mlflow: Path) -> Night:
    """One real run of the flow, tracked in sqlite beside it."""
    from night import keep_night, read_night

    def run(folder: Path) -> None:
        request.getfixturevalue("prefect_server")
        shutil.copy(empty_mlflow, folder / "mlflow.db")
        keep_night(folder, tiny_base)

    return read_night(once("night", run))


@pytest.fixture(scope="session")
def judged(night: Night) -> Findings:
    """What the real run found, with every student judged."""
    from house import judge_all

    return judge_all(night.outcome.findings)


@pytest.fixture(scope="session", params=["server", pytest.param("sqlite", marks=pytest.mark.slow)])
def house(
    request: pytest.FixtureRequest, judged: Findings, tmp_path_factory: pytest.TempPathFactory
) -> House:
    """What the real run found, written to a real server, in the slow suite to sqlite too.

    A server keeps what it is told in sqlite itself; the real run is tracked in sqlite alone.
    """
    from house import build_house

    uri = (
        request.getfixturevalue("mlflow_server")
        if request.param == "server"
        else f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"
    )
    return build_house(judged, TrackingConfig(uri=uri, experiment="registry"))


@pytest.fixture(autouse=True)
def mlflow_at_home(request: pytest.FixtureRequest) -> None:
    """Point MLflow at the house of a test, wherever another test has pointed it since."""
    if "house" in request.fixturenames:
        request.getfixturevalue("house").open()


@pytest.fixture(scope="session")
def light_folders(once: Once, tiny_base: Path) -> dict[str, Path]:
    """Real students that need no torch to answer, trained on little."""
    from distill_tasks.students import BagOfWordsStudent, StaticStudent

    students = {
        "bag_of_words": BagOfWordsStudent(max_features=200),
        "static": StaticStudent(dimensions=8, epochs=1),
    }

    def train(folder: Path) -> None:
        training_set = make_gold_set(tiny_base, 120)
        for name, student in students.items():
            (folder / name).mkdir()
            student.train(training_set, folder / name)

    folder = once("light-students", train)
    return {name: folder / name for name in students}


@pytest.fixture
def data_folder(tmp_path: Path) -> Path:
    """A folder with train, transfer and held_out as parquet."""
    return write_splits(tmp_path)


@pytest.fixture
def written(
    tmp_path: Path, data_folder: Path, tiny_base: Path, empty_mlflow: Path
) -> dict[str, Any]:
    """A small configuration as plain data, everything under tmp_path."""
    shutil.copy(empty_mlflow, tmp_path / "mlflow.db")
    return write_settings(tmp_path, data_folder, tiny_base)


@pytest.fixture
def config(written: dict[str, Any]) -> DistillConfig:
    """The small configuration."""
    return parse_config(written, "test")


@pytest.fixture
def copied_base(tiny_base: Path, tmp_path: Path) -> Path:
    """A copy of the tiny transformer that a test may change."""
    return Path(shutil.copytree(tiny_base, tmp_path / "base"))


@pytest.fixture
def quick(written: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """The small configuration with saved answers and students that train in no time."""
    return make_quick(written, tmp_path)


@pytest.fixture
def ready_teacher(tiny_base: Path) -> dict[str, Any]:
    """The settings of a teacher that has weights here, which takes torch to measure."""
    return {"kind": "transformers", "model": str(tiny_base), "max_length": 16}
