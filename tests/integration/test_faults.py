"""kill -9 of a whole run at twenty random moments, each followed by the same command."""

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
from typing import Any

import mlflow
import pyarrow.parquet as pq
import pytest
import yaml
from mlflow.entities import Run
from prefect.client.orchestration import get_client
from prefect.context import get_settings_context
from samples import make_quick, write_settings, write_splits

from distill_tasks.core.integrity import MANIFEST
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

    def kill_at(self, stage: int, delay_s: float) -> str | None:
        """Run the command and kill all of it a while after a stage began; say in which.

        Returns None if it had come to its end before.
        """
        running, where = self.start(), "before its first stage"
        for line in running.stderr:
            if found := STAGE.match(line):
                where = f"stage {found[1]}: {line.rpartition(': ')[2].strip()}"
                if int(found[1]) >= stage:
                    break
        threading.Thread(target=running.stderr.read, daemon=True).start()
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

    def check_store(self) -> None:
        """Check that all in the store is whole, and that the teacher was asked each row once."""
        work = Path(self.settings["work_dir"])
        for left in ("*.partial", "*.damaged"):
            assert not list(work.rglob(left))
        for path in work.glob(f"*/*/{MANIFEST}"):
            check_whole(path.parent)
        shards = [
            pq.read_table(path)["row"].to_pylist() for path in work.glob("labels/*/*.parquet")
        ]
        asked = [row for shard in shards for row in shard]
        assert len(asked) == len(set(asked)) == 300


@pytest.fixture
def scenes(tmp_path, empty_mlflow, mlflow_server, prefect_server):  # noqa: ARG001  # it serves
    """Scenes by turns on sqlite with a temporary Prefect, and on servers that are shared."""
    shared = get_settings_context().settings.to_environment_variables(exclude_unset=True)
    own = {"PREFECT_HOME": str(tmp_path / "home"), "PREFECT_API_URL": ""}

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
    while sum("killed in" in row for row in rows) < ROUNDS:
        scene, killed = next(scenes), []
        for _ in range(KILLS_ON_A_STORE):
            where = scene.kill_at(generator.randint(1, 30), generator.uniform(0, 0.5))
            if where is None:
                break
            killed.append({"round": len(rows) + len(killed) + 1, "killed in": where})
        scene.run()
        assert scene.describe() == usual
        scene.check_store()
        about = {"MLflow, Prefect": scene.about, "interruptions noted": scene.interruptions}
        rows += [row | about for row in killed]
    with capsys.disabled():
        print(f"\n{markdown_table(rows)}")
    assert lost_flow_runs() == []
