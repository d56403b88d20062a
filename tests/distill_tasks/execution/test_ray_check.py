"""Clusters that `check` refuses; those that need one started are slow."""

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import uuid
from importlib.util import find_spec
from pathlib import Path

import pytest
from clusters import NODE, serve_cluster, start_head

import distill_tasks
from distill_tasks.core.errors import InputError
from distill_tasks.execution import ray_check, ray_cluster
from distill_tasks.execution.ray_cluster import RayExecution


def refuse(folder, **execution):
    with pytest.raises(InputError) as caught:
        RayExecution(**execution).check(folder)
    return str(caught.value)


def test_without_ray_it_is_refused_with_the_extra_that_brings_it(tmp_path, monkeypatch):
    without = {"ray": None}
    monkeypatch.setattr(ray_cluster, "find_spec", lambda name: without.get(name, find_spec(name)))
    assert "`pip install 'potstill[ray]'`" in refuse(tmp_path)


@pytest.mark.parametrize("host", ["127.0.0.1", "no.such.host.example"])
def test_a_cluster_that_is_not_there_is_refused_within_seconds(host, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    start = time.monotonic()
    said = refuse(tmp_path, address=f"{host}:{port}")
    assert said.startswith(f"execution.address {host}:{port} cannot be reached: ")
    assert time.monotonic() - start < 10


@pytest.mark.slow
def test_what_listens_and_is_no_cluster_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(ray_check, "ANSWER_S", 6)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up():
            while True:
                try:
                    server.accept()[0].close()
                except OSError:
                    return

        threading.Thread(target=hang_up, daemon=True).start()
        said = refuse(tmp_path, address=f"127.0.0.1:{server.getsockname()[1]}")
        server.shutdown(socket.SHUT_RDWR)
    assert "does not answer as a Ray cluster within 6 seconds" in said


CHECK = """
import sys
from pathlib import Path
from distill_tasks.execution.ray_cluster import RayExecution

RayExecution(address=sys.argv[1]).check(Path.cwd())
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_cluster_that_asks_for_a_token_gets_the_one_that_the_user_names(tmp_path):
    """A head asks for one wherever it finds one; a run sends it where it is told to."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex}
    with start_head(token) as address:
        said = refuse(tmp_path, address=address)
        assert said.startswith(f"execution.address {address} asks for a token")
        assert "Set RAY_AUTH_MODE=token" in said
        check = [sys.executable, "-c", CHECK, address]
        subprocess.run(check, cwd=tmp_path, env=os.environ | token, check=True)


@pytest.fixture(scope="module")
def cluster():
    with serve_cluster(nodes=2) as started:
        yield started


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nodes_that_share_the_store_are_taken_and_others_refused(cluster, tmp_path):
    RayExecution(address=cluster.address).check(tmp_path)
    assert list(tmp_path.iterdir()) == []
    here = os.open(tmp_path, os.O_RDONLY)
    said = refuse(Path(f"/proc/self/fd/{here}"), address=cluster.address)
    os.close(here)
    assert "is not the same folder on the node" in said
    said = refuse(tmp_path, address=cluster.address, num_cpus=64)
    assert "None of the 2 nodes" in said
    assert "has 64 cores" in said


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_node_with_other_code_is_refused(cluster, tmp_path, monkeypatch):
    """It joins last: the nodes before it are as this process is."""
    package = Path(distill_tasks.__file__).parent
    shutil.copytree(package, tmp_path / "distill_tasks")
    (tmp_path / "distill_tasks" / "of_old.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    cluster.add_node(**NODE)
    cluster.wait_for_nodes()
    monkeypatch.chdir(tmp_path)  # a node looks for modules where this process works, too
    said = refuse(tmp_path, address=cluster.address)
    assert said.startswith("potstill is ")
    assert said.endswith("Install the same on all nodes, and start the cluster again.")
