"""What happens at night: runs are killed, servers go away, two runs work at once."""

from __future__ import annotations

import itertools
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import mlflow
import pyarrow.parquet as pq
import pytest
import yaml
from mlflow.entities import Run
from mlflow_server import find_port, serve_mlflow
from prefect.client.orchestration import get_client
from prefect.context import get_settings_context
from samples import make_quick, write_settings, write_splits

from distill_tasks.core.integrity import MANIFEST
from distill_tasks.core.retries import RETRIES
from distill_tasks.core.store import check_whole
from distill_tasks.reporting.tables import markdown_table
from distill_tasks.tracking.tags import INTERRUPTIONS
from flows.flow_runs import find_process, read_running
from registry.aliases import STUDENT
from registry.history import History

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ROUNDS, SEED = 20, 22
KILLS_ON_A_STORE = 5
STAGE = re.compile(r"^stage (\d+) of (\d+)")


@dataclass
class Scene:
    """A folder with a configuration, its own Prefect and MLflow, and the command that is killed."""

    folder: Path
    tracking: str
    environment: dict[str, str]
    about: str
    settings: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir()
        written = write_settings(self.folder, write_splits(self.folder), Path("none"))
        self.settings = make_quick(written, self.folder) | {
            "evaluate": {"controls": False},
            "select": {"choose": "most_accurate"},  # no choice hangs on the stopwatch
            "tracking": {"uri": self.tracking, "experiment": self.folder.name},
            "registry": {"model": self.folder.name, "first": "any"},
        }
        (self.folder / "distill.yaml").write_text(yaml.safe_dump(self.settings))

    def start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "flows.cli", "run", str(self.folder / "distill.yaml")]
        return subprocess.Popen(
            command,
            env=os.environ | self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self) -> str:
        """Run the command to its end and return its lines."""
        running = self.start()
        said = running.communicate(timeout=300)[1]
        assert running.returncode == 0, said
        return said

    def start_until(self, stage: int) -> tuple[subprocess.Popen[str], str]:
        """Start the command and return it once it has come to a stage, and in which it is."""
        running, where = self.start(), "before its first stage"
        for line in running.stderr:
            if found := STAGE.match(line):
                where = f"stage {found[1]}: {line.rpartition(': ')[2].strip()}"
                if int(found[1]) >= stage:
                    break
        return running, where

    def kill_at(self, stage: int, delay_s: float) -> str | None:
        """Run the command and kill all of it a while after a stage began; say in which.

        Returns None if it had come to its end before.
        """
        running, where = self.start_until(stage)
        threading.Thread(target=drain, args=(running.stderr,), daemon=True).start()
        time.sleep(delay_s)
        if running.poll() is not None:
            assert running.returncode == 0
            return None
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        return where

    @property
    def client(self) -> mlflow.MlflowClient:
        return mlflow.MlflowClient(self.tracking, self.tracking)

    def find_runs(self) -> list[Run]:
        experiment = self.client.get_experiment_by_name(self.folder.name)
        return self.client.search_runs([experiment.experiment_id])

    @property
    def interruptions(self) -> int:
        """How often the summary run says that it was interrupted."""
        return sum(int(run.data.tags.get(INTERRUPTIONS, 0)) for run in self.find_runs())

    def describe(self) -> dict[str, Any]:
        """Return what must not depend on how often a run was killed."""
        client, model = self.client, self.folder.name
        versions = client.search_model_versions(f"name = '{model}'")
        experiment = client.get_experiment_by_name(model).experiment_id
        logged = client.search_logged_models([experiment])
        champion = client.get_model_version_by_alias(model, "champion")
        return {
            "champion": champion.tags[STUDENT],
            "versions": len(versions),
            "aliases": sorted(client.get_registered_model(model).aliases),
            "runs": Counter((run.info.run_name, run.info.status) for run in self.find_runs()),
            "models": Counter((found.name, str(found.status)) for found in logged),
            "history": [event.kind for event in History(client, model).read()],
        }

    def check_store(self, asked_once: bool = True) -> None:
        """Check that all in the store is whole, and that the teacher answered each row."""
        work = Path(self.settings["work_dir"])
        for left in ("*.partial", "*.damaged"):
            assert not list(work.rglob(left))
        for path in work.glob(f"*/*/{MANIFEST}"):
            check_whole(path.parent)
        shards = map(pq.read_table, work.glob("labels/*/*.parquet"))
        asked = [row for shard in shards for row in shard["row"].to_pylist()]
        assert len(set(asked)) == 300
        assert len(asked) == 300 or not asked_once


def drain(stream: IO[str]) -> None:
    """Read a stream to its end, so that whoever writes to it never waits."""
    with stream:
        stream.read()


@pytest.fixture
def own(tmp_path, prefect_home):
    """The environment of a run with a temporary Prefect."""
    return {"PREFECT_HOME": str(prefect_home(tmp_path / "home")), "PREFECT_API_URL": ""}


@pytest.fixture
def scenes(tmp_path, empty_mlflow, mlflow_server, prefect_server, own):  # noqa: ARG001  # it serves
    """Scenes by turns on sqlite with a temporary Prefect, and on servers that are shared."""
    shared = get_settings_context().settings.to_environment_variables(exclude_unset=True)

    def make():
        for number in itertools.count():
            folder = tmp_path / f"scene-{number}"
            if number % 2:
                yield Scene(folder, mlflow_server, shared, "servers")
            else:
                shutil.copy(empty_mlflow, tmp_path / f"{number}.db")
                yield Scene(folder, f"sqlite:///{tmp_path}/{number}.db", own, "sqlite, temporary")

    return make()


def lost_flow_runs():
    """Return the signed flow runs of the shared Prefect that are still running."""
    with get_client(sync_client=True) as client:
        return [run.name for run in read_running(client) if find_process(run) is not None]


def test_kill_9_at_twenty_moments_leaves_what_an_undisturbed_run_does(scenes, capsys):
    generator, rows = random.Random(SEED), []
    undisturbed = next(scenes)
    undisturbed.run()
    usual = undisturbed.describe()
    while len(rows) < ROUNDS:
        scene, killed = next(scenes), []
        for _ in range(KILLS_ON_A_STORE):
            where = scene.kill_at(generator.randint(1, 30), generator.uniform(0, 0.5))
            if where is None:
                break
            killed.append({"round": str(len(rows) + len(killed) + 1), "killed in": where})
        scene.run()
        assert scene.describe() == usual
        scene.check_store()
        about = {"MLflow, Prefect": scene.about, "interruptions noted": str(scene.interruptions)}
        rows += [row | about for row in killed]
    assert {row["interruptions noted"] for row in rows} != {"0"}
    with capsys.disabled():
        print(f"\n{markdown_table(rows)}")
    assert lost_flow_runs() == []


def test_an_mlflow_that_goes_away_is_waited_for_aloud(tmp_path, empty_mlflow, own):
    """For two minutes at most, which tests/distill_tasks/core/test_retries.py adds up."""
    port, folder = find_port(), tmp_path / "server"
    folder.mkdir()
    shutil.copy(empty_mlflow, folder / "server.db")
    scene = Scene(tmp_path / "away", f"http://127.0.0.1:{port}", own | {RETRIES: "1"}, "server")
    with serve_mlflow(folder, port=port):
        running, _ = scene.start_until(stage=10)
    said = running.communicate(timeout=120)[1]
    assert running.returncode == 1, said
    assert "error: MLflow gave up: " in said
    assert "Traceback" not in said
    scene.environment[RETRIES] = "6"
    with serve_mlflow(folder, port=port):
        running, _ = scene.start_until(stage=10)
    for line in running.stderr:
        if line.startswith("MLflow: ") and "retry 2 of 6" in line:
            break
    with serve_mlflow(folder, port=port):
        said = running.communicate(timeout=300)[1]
        assert running.returncode == 0, said
        found = scene.describe()
    assert found["versions"] == 1
    assert {status for _, status in found["runs"]} == {"FINISHED"}
    assert max(found["runs"].values()) == 1
    scene.check_store()


def test_two_models_are_distilled_at_once_from_one_store_of_labels(tmp_path, empty_mlflow, own):
    scenes = []
    for name in ("birds", "newts"):
        shutil.copy(empty_mlflow, tmp_path / f"{name}.db")
        scenes.append(Scene(tmp_path / name, f"sqlite:///{tmp_path}/{name}.db", own, "at once"))
        work = Path(scenes[-1].settings["work_dir"])
        work.mkdir()
        (tmp_path / "labels").mkdir(exist_ok=True)
        (work / "labels").symlink_to(tmp_path / "labels")
    both = [(scene, scene.start()) for scene in scenes]
    for scene, running in both:
        said = running.communicate(timeout=300)[1]
        assert running.returncode == 0, said
        assert scene.describe()["versions"] == 1
        scene.check_store(asked_once=False)  # rows that both asked at the same moment stand twice
    assert len({scene.describe()["champion"] for scene in scenes}) == 1
