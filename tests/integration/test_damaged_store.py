import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest

from distill_tasks.config import parse_config
from distill_tasks.core.errors import DiskFullError
from flows.distill import distill

ROOT = Path(__file__).parents[2]


@pytest.fixture
def plain(quick):
    """One student, so that no choice hangs on what the stopwatch finds."""
    students = [{"family": "bag_of_words", "max_features": 200}]
    return quick | {"students": students, "evaluate": {"controls": False}}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_no_corruption_makes_a_champion_lie_or_ends_in_a_traceback():
    """The store after a run, damaged 24 times at random; `make bench NAME=corruptions` has 500."""
    command = [sys.executable, ROOT / "benchmarks/corruptions.py", "24"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    del figures["seconds_for_each"]
    ends = {"lying_champions": 0, "tracebacks": 0, "refused": 0, "unannounced": 0}
    assert figures == {"corruptions": 24} | ends, done.stderr


@pytest.mark.usefixtures("prefect_server")
def test_a_run_on_a_damaged_store_says_what_and_comes_to_the_same(plain, caplog):
    config = parse_config(plain, "test")
    first, work = distill(config), Path(config.work_dir)
    damaged = ["students/*/student/weights.npz", "answers/*/logits.npy", "corpus/*/train.parquet"]
    damaged += ["scorecards/*/manifest.json", "labels/*/classes.json", "latencies/*/manifest.json"]
    for pattern in damaged:
        path = next(work.glob(pattern))
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size // 2)
    (shard,) = work.glob("labels/*/*.parquet")
    shard.write_bytes(b"")
    with caplog.at_level("WARNING", "potstill"):
        second = distill(config)
    lines = [record.getMessage() for record in caplog.records if record.name == "potstill"]
    for kind in ("students/", "served/", "answers/", "corpus/", "scorecards/", "latencies/"):
        assert [line for line in lines if line.startswith(f"store: {kind}")], kind
    assert len([line for line in lines if line.startswith("labels: ")]) == 2
    assert (
        second.report.runs.run_ids == first.report.runs.run_ids
    )  # it came out the same, to the byte
    client = mlflow.MlflowClient(config.tracking.uri)
    assert client.get_registered_model("animals").aliases == {"champion": 1}
    caplog.clear()
    distill(config)
    warned = [record for record in caplog.records if record.levelname == "WARNING"]
    lines = [record.getMessage() for record in warned if record.name == "potstill"]
    assert all(line.startswith("vet: ") for line in lines)  # so few rows, every time


@pytest.fixture
def small_disk(tmp_path):
    """Mount a small file system, and return where it lies and what gives it room."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options):
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"this machine lets no test mount a file system: {done.stderr}")
        return folder

    yield mount
    if os.path.ismount(folder):
        # MLflow keeps its database open for as long as the process lives.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize(
    "options", ["size=16k", "size=40k", "size=72k", "nr_inodes=8", "nr_inodes=30"]
)
def test_a_full_disk_is_one_line_and_leaves_nothing_behind(plain, small_disk, options):
    disk = small_disk(options)
    config = parse_config(plain | {"work_dir": str(disk / "work")}, "test")
    left = []
    for _ in range(2):
        with pytest.raises(
            DiskFullError, match=r"^The disk is full.*goes on from here\.$"
        ) as raised:
            distill(config)
        assert len(str(raised.value).splitlines()) == 1
        assert not list(disk.rglob("*.partial"))
        left.append({path.relative_to(disk) for path in disk.rglob("*")})
    assert left[0] <= left[1]  # what is whole stays
    subprocess.run(["mount", "-o", "remount,size=64M,nr_inodes=9999", str(disk)], check=True)
    killed = disk / "work/labels/t1/a1.partial"
    killed.parent.mkdir(parents=True)
    killed.write_bytes(b"half a shard")
    assert distill(config).promotion.moved
    assert not list(disk.rglob("*.partial"))


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize("spare_kb", [4, 100])
def test_a_full_disk_under_mlflow_is_one_line_too(plain, small_disk, empty_mlflow, spare_kb):
    disk = small_disk(f"size={empty_mlflow.stat().st_size // 1024 + spare_kb}k")
    shutil.copy(empty_mlflow, disk / "mlflow.db")
    tracking = {"uri": f"sqlite:///{disk}/mlflow.db", "experiment": "full"}
    config = parse_config(plain | {"tracking": tracking}, "test")
    for _ in range(2):
        with pytest.raises(DiskFullError, match=r"^The disk is full") as raised:
            distill(config)
        assert len(str(raised.value).splitlines()) == 1
    subprocess.run(["mount", "-o", "remount,size=64M", str(disk)], check=True)
    assert distill(config).promotion.moved
    client = mlflow.MlflowClient(config.tracking.uri)
    runs = client.search_runs([client.get_experiment_by_name("full").experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert len({run.info.run_name for run in runs}) == len(runs)
    assert len(client.search_model_versions("name = 'animals'")) == 1


@pytest.mark.usefixtures("prefect_server")
def test_a_run_waits_for_another_one_in_its_folder(plain):
    config = parse_config(plain, "test")
    code = (
        "import sys, time; from distill_tasks.core.store import Store\n"
        "with Store(sys.argv[1]).lock('label animals'): print('held', flush=True); time.sleep(3)"
    )
    command = [sys.executable, "-c", code, config.work_dir]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        assert distill(config).promotion.moved
        assert other.poll() == 0
