"""A Ray cluster of several nodes on this machine, each with one core."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

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
