"""A Ray cluster of several nodes on this machine, each with one core."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from mlflow_server import find_port
from processes import wait_until

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

TESTS = Path(__file__).parent
NODE = {"num_cpus": 1, "object_store_memory": 10**8}


@contextmanager
def known_to_nodes() -> Iterator[None]:
    """Have nodes that start inside the block find the modules of the tests, and ours."""
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", path)
        yield


@contextmanager
def serve_cluster(nodes: int) -> Iterator[Cluster]:
    """Start a cluster, and end it with the block."""
    from ray.cluster_utils import Cluster

    head = NODE | {"include_dashboard": False}
    with known_to_nodes():
        cluster = Cluster(initialize_head=True, head_node_args=head, shutdown_at_exit=False)
        for _ in range(nodes - 1):
            cluster.add_node(**NODE)
    try:
        cluster.wait_for_nodes()
        yield cluster
    finally:
        cluster.shutdown()


@contextmanager
def start_head(environment: Mapping[str, str]) -> Iterator[str]:
    """Start the head of a cluster as people do, with `ray start`; yield its address."""
    port = find_port()
    start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
    room = ["--num-cpus=1", f"--object-store-memory={NODE['object_store_memory']}"]
    with tempfile.TemporaryDirectory(prefix="ray-") as folder, known_to_nodes():  # a short path
        head = subprocess.Popen(
            [*start, f"--port={port}", "--include-dashboard=false", f"--temp-dir={folder}", *room],
            env=os.environ | environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            wait_until(lambda: listens(port), 60)
            yield f"127.0.0.1:{port}"
        finally:
            os.killpg(head.pid, signal.SIGKILL)  # by SIGTERM it waits half a minute for its tasks
            head.wait()


def listens(port: int) -> bool:
    """Return whether somebody listens at a port."""
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0
