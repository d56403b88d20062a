"""Checks of a Ray cluster before any work: reached, the same software, one store for all."""

from __future__ import annotations

import fcntl
import os
import platform
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from distill_tasks.core.digests import digest, digest_file
from distill_tasks.core.errors import InputError, say_reason
from distill_tasks.execution.base import can_lock, check_locks
from distill_tasks.execution.ray_connection import connect

REACH_S = 5.0
"""How long the head of a cluster may take to answer."""
ANSWER_S = 30.0
"""How long it may take to connect to it, where other work keeps the machine busy."""
CONNECT = "import ray, sys; ray.init(sys.argv[1], log_to_driver=False)"
REFUSED = b"InvalidAuthToken"
"""What Ray prints, in vain tries of seconds, where a cluster asks for a token."""
NODE_S = 60.0
"""How long a node may take to start a process and look at a file."""


def check_cluster(address: str, needs: Mapping[str, float], store: Path) -> None:
    """Raise InputError for the first thing that would keep a cluster from training students.

    ``needs`` are the cores and GPUs of one student, by Ray's names for them.
    """
    import ray

    _check_reached(address)
    check_locks(store)
    try:
        with connect(address):
            nodes = _list_nodes(address, needs)
            _check_nodes(nodes, store)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise InputError(  # no head, other versions of Ray or Python, or no token
            f"execution.address {address}: {say_reason(error)}. "
            "Start the cluster with the versions of this machine, or correct the address."
        ) from None


def describe_here() -> dict[str, str]:
    """Return what must be the same on all nodes."""
    package = Path(__file__).parents[1]
    code = {str(path.relative_to(package)): path for path in sorted(package.rglob("*.py"))}
    return {
        "Python": platform.python_version(),
        "potstill": digest({name: digest_file(path) for name, path in code.items()})[:12],
    }


def look(folder: str, path: str) -> tuple[dict[str, str], str | None, bool]:
    """Return, on a node, what runs there, what a file of the store holds, and if it is free."""
    with suppress(OSError):
        os.chdir(folder)
    with suppress(OSError):
        return describe_here(), Path(path).read_text(), can_lock(Path(path))
    return describe_here(), None, False


def _check_reached(address: str) -> None:
    """Check that Ray listens there, in another process, since it would try for minutes itself."""
    todo = "Start the cluster (`ray start --head`), or correct the address."
    host, _, port = address.rpartition(":")
    try:
        if host:
            socket.create_connection((host, int(port)), REACH_S).close()
        in_time, printed = _try_connection(address)
    except (OSError, OverflowError) as error:
        raise InputError(
            f"execution.address {address} cannot be reached: {say_reason(error)}. {todo}"
        ) from None
    if REFUSED in printed:
        raise InputError(
            f"execution.address {address} asks for a token, and got none or another one. Set "
            "RAY_AUTH_MODE=token, and the head's token in RAY_AUTH_TOKEN or ~/.ray/auth_token."
        )
    if not in_time:
        raise InputError(
            f"execution.address {address} does not answer as a Ray cluster within {ANSWER_S:g} "
            f"seconds. {todo}"
        )


def _try_connection(address: str) -> tuple[bool, bytes]:
    """Return whether Ray connected, or gave up, in time, and what it printed as errors."""
    command = [sys.executable, "-c", CONNECT, address]
    try:
        tried = subprocess.run(command, capture_output=True, timeout=ANSWER_S)  # noqa: S603  # our own code
    except subprocess.TimeoutExpired as late:
        return False, late.stderr or b""
    return True, tried.stderr


def _list_nodes(address: str, needs: Mapping[str, float]) -> dict[str, str]:
    """Return the address of each node by its id; one of them must have room for a student."""
    import ray

    listed: Any = ray.nodes  # it has no types
    nodes = [node for node in listed() if node["Alive"]]
    if not any(
        all(node["Resources"].get(name, 0) >= needed for name, needed in needs.items())
        for node in nodes
    ):
        raise InputError(
            f"None of the {len(nodes)} nodes at {address} has {needs['CPU']:g} cores and "
            f"{needs['GPU']:g} GPUs for a student. Lower execution.num_cpus or num_gpus."
        )
    return {node["NodeID"]: node["NodeManagerAddress"] for node in nodes}


def _check_nodes(nodes: dict[str, str], store: Path) -> None:
    """Have every node look at a locked file of the store, and say what runs there."""
    token = uuid.uuid4().hex
    with tempfile.NamedTemporaryFile("w", dir=store, prefix=".seen-") as file:
        file.write(token)
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        for node, (about, read, free) in _ask_nodes(list(nodes), file.name).items():
            _check_same(nodes[node], about)
            if read != token:
                raise InputError(
                    f"work_dir {store} is not the same folder on the node {nodes[node]}. "
                    "Name one on storage that all nodes share, by a path that all of them know."
                )
            if free:
                raise InputError(
                    f"A lock in work_dir {store} is not seen on the node {nodes[node]}, so that "
                    "two could write one file. Name a folder on storage that keeps locks."
                )


def _ask_nodes(nodes: list[str], path: str) -> dict[str, Any]:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    def ask(node: str) -> Any:
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        remote: Any = ray.remote  # its types count arguments
        task = remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(look)
        return task.remote(str(Path.cwd()), path)

    try:
        answers = ray.get([ask(node) for node in nodes], timeout=NODE_S)
    except ray.exceptions.RayError as error:
        raise InputError(
            f"The nodes of the cluster cannot run potstill: {say_reason(error)}. "
            "Install the same potstill on all of them."
        ) from None
    return dict(zip(nodes, answers, strict=True))


def _check_same(node: str, there: dict[str, str]) -> None:
    for name, here in describe_here().items():
        if there[name] != here:
            raise InputError(
                f"{name} is {there[name]} on the node {node} and {here} here. "
                "Install the same on all nodes, and start the cluster again."
            )
