"""A cluster of two nodes, one of which is killed in the middle of the grid."""

import shutil
import threading
import time
from pathlib import Path

import pytest
from clusters import serve_cluster
from samples import write_words

from distill_tasks.config import parse_config
from distill_tasks.core.progress import FOLDER
from flows.distill import distill

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.usefixtures("prefect_server")]

DIMENSIONS = [4, 6, 8, 10, 12, 14]


def configure(folder, base, execution):
    """Return a grid of students that train for seconds each."""
    folder.mkdir()
    static = {"family": "static", "model": str(base), "dimensions": DIMENSIONS, "epochs": 400}
    written = write_words(folder) | {"students": [static], "execution": execution}
    return parse_config(written | {"evaluate": {"seeds": 1, "controls": False}}, "test")


def kill_in_the_middle(cluster, work, killed):
    """Kill the second node once students train on both, the first of them not."""
    folder = Path(work) / FOLDER
    while not killed.is_set():
        trained = list(Path(work).glob("students/*/manifest.json"))
        if trained and len(list(folder.glob("*.jsonl"))) >= len(trained) + 2:
            cluster.remove_node(cluster.worker_nodes.copy().pop(), allow_graceful=False)
            killed.set()
        time.sleep(0.05)


def test_a_node_that_dies_costs_its_student_alone_and_changes_nothing(tiny_base, tmp_path, caplog):
    expected = distill(configure(tmp_path / "alone", tiny_base, {"kind": "local"}))
    killed = threading.Event()
    with serve_cluster(nodes=2) as cluster:
        execution = {"kind": "ray", "address": cluster.address}
        config = configure(tmp_path / "nodes", tiny_base, execution)
        shutil.copytree(  # so that no choice hangs on what the stopwatch finds
            Path(expected.findings.run.config.work_dir) / "latencies",
            Path(config.work_dir) / "latencies",
        )
        arguments = cluster, config.work_dir, killed
        killer = threading.Thread(target=kill_in_the_middle, args=arguments, daemon=True)
        killer.start()
        outcome = distill(config)
        assert killed.is_set()
    lost = [line for line in caplog.messages if line.endswith("it is begun again")]
    assert len(lost) == 1  # the node had one core
    digests = [one.digest for one in outcome.findings.grid.students]
    assert digests == [one.digest for one in expected.findings.grid.students]
    assert outcome.registered.version == expected.registered.version == 1
    chosen = [one.findings.selection.chosen for one in (outcome, expected)]
    assert chosen[0] == chosen[1]
    assert outcome.promotion.moved == expected.promotion.moved
