"""Does `mlflow models serve` hold a champion up? 5,000 requests, 50 at once, and malformed ones.

The champion is a bag of words of Reuters R8, behind one worker of the server. Each request asks one
of its test texts. Memory is what all processes of the server hold, after 500 requests and at the
end. Prints a table for people and, as its last line, one JSON object:

- ``errors``: requests among the 5,000 that were not answered with status 200.
- ``malformed_refused``: share of malformed bodies that were refused with status 4xx and a message.
- ``memory_growth``: memory after 5,000 requests over that after 500, less one.
- ``requests_per_s``.
"""

from __future__ import annotations

from distill_tasks.core.process import set_up_process

set_up_process()

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from threading import local

import mlflow
import numpy as np
import psutil
from reuters import ROOT, read_official, say_machine

from distill_tasks.config import TrackingConfig
from distill_tasks.data.corpus import Split
from distill_tasks.data.soft_labels import SoftLabels
from distill_tasks.reporting.tables import markdown_table
from distill_tasks.students import BagOfWordsStudent
from distill_tasks.students.base import TrainingSet
from distill_tasks.tracking.logged_models import log_student
from distill_tasks.tracking.store import connect
from distill_tasks.training.checkpoint import Checkpoint
from distill_tasks.training.objective import Objective

REQUESTS, WARM, AT_ONCE = 5_000, 500, 50
PATIENCE_S = 300
MALFORMED = (
    *("", "{", "[]", "null", '"text"', '{"texts": ["a"]}', '{"inputs": "a text alone"}'),
    *('{"inputs": null}', '{"inputs": [[["a"]]]}', '{"inputs": {"text": "a"}}', '{"inputs": [1]}'),
    *('{"inputs": ["a", null]}', '{"inputs": ["a"], "instances": ["a"]}', '{"inputs": [["a"], 1]}'),
    *('{"inputs": ["half \\ud83d"]}', '{"dataframe_split": []}', '{"dataframe_records": []}'),
    *('{"inputs": ["a"], "params": [1]}', '{"inputs": ["a"], "params": {"top_k": 0}}'),
    *(
        '{"inputs": ["a"], "params": {"top_k": "2"}}',
        '{"inputs": ["a"], "params": {"threshold": 2}}',
    ),
)


def main() -> None:
    """Print the table and the JSON line."""
    with tempfile.TemporaryDirectory() as folder:
        uri = f"sqlite:///{folder}/mlflow.db"
        crown(uri, Path(folder))
        texts = read_official("r8", "test")["text"].tolist()
        with serve(uri, Path(folder)) as (port, server):
            warm, _ = ask(port, texts[:WARM])
            before_mb = read_memory(server)
            start = time.perf_counter()
            statuses, taken_ms = ask(port, [texts[n % len(texts)] for n in range(REQUESTS - WARM)])
            seconds = time.perf_counter() - start
            after_mb = read_memory(server)
            refused = [is_refused(port, body) for body in MALFORMED]
    p50, p95 = np.quantile(taken_ms, [0.5, 0.95])
    table = [
        {
            "requests": f"{REQUESTS:,}, {AT_ONCE} at once",
            "a second": f"{len(statuses) / seconds:.0f}",
            "p50 ms": f"{p50:.0f}",
            "p95 ms": f"{p95:.0f}",
            f"MB after {WARM}": f"{before_mb:.0f}",
            "at the end": f"{after_mb:.0f}",
            "malformed, refused": f"{sum(refused)} of {len(refused)}",
        }
    ]
    print(markdown_table(table), end="\n\n")
    print(say_machine(), end="\n\n")
    figures = {
        "errors": sum(status != 200 for status in warm + statuses),
        "malformed_refused": float(np.mean(refused)),
        "memory_growth": round(after_mb / before_mb - 1, 4),
        "requests_per_s": round(len(statuses) / seconds, 1),
    }
    print(json.dumps(figures))


def crown(uri: str, folder: Path) -> None:
    """Train a bag of words and make it the champion of the model `served`."""
    connect(TrackingConfig(uri=uri, experiment="served"))
    rows = read_official("r8", "train")
    classes = tuple(sorted(rows["label"].unique()))
    gold = np.array(rows["label"].map(classes.index))
    split = Split(tuple(rows["text"]), gold)
    answers = SoftLabels(4 * np.eye(len(classes), dtype=np.float32)[gold], classes, "gold")
    teacher = Checkpoint(ROOT, None, 96)
    training_set = TrainingSet(split, answers, split, classes, Objective(2.0, 0.9), 5, teacher)
    student = folder / "student"
    student.mkdir()
    BagOfWordsStudent().train(training_set, student)
    with mlflow.start_run() as run:
        pass
    model = log_student(run.info.run_id, "student", student, {})
    client = mlflow.MlflowClient()
    client.create_registered_model("served")
    version = client.create_model_version("served", f"models:/{model}", model_id=model)
    client.set_registered_model_alias("served", "champion", version.version)


@contextmanager
def serve(uri: str, folder: Path) -> Iterator[tuple[int, psutil.Process]]:
    """Serve the champion while the block runs; yield its port and its process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/served@champion"]
    command += ["--env-manager", "local", "--port", str(port), "--workers", "1"]
    settings = os.environ | {"MLFLOW_TRACKING_URI": uri, "OMP_NUM_THREADS": "1"}
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(  # noqa: S603  # MLflow's own server
            command, cwd=folder, env=settings, stdout=log, stderr=log, start_new_session=True
        )
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not is_up(port) and time.monotonic() < deadline:
            time.sleep(0.5)
        yield port, psutil.Process(server.pid)
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # mlflow started uvicorn
        server.wait()


def is_up(port: int) -> bool:
    """Return whether the server answers."""
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/ping")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def ask(port: int, texts: Sequence[str]) -> tuple[list[int], list[float]]:
    """Return the status of each request and its milliseconds, so many at once."""
    own = local()

    def one(text: str) -> tuple[int, float]:
        if not hasattr(own, "connection"):
            own.connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        start = time.perf_counter()
        status, _ = post(own.connection, json.dumps({"inputs": [text]}))
        return status, 1000 * (time.perf_counter() - start)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(one, texts))
    return [status for status, _ in answers], [taken for _, taken in answers]


def post(connection: HTTPConnection, body: str) -> tuple[int, str]:
    """Return the status of an invocation and what the server said; 0 where it said nothing."""
    try:
        connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read().decode()
    except OSError as error:
        connection.close()
        return 0, str(error)


def is_refused(port: int, body: str) -> bool:
    """Return whether a body is refused as the caller's mistake, with a message."""
    status, said = post(HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S), body)
    return 400 <= status < 500 and bool(json.loads(said)["message"])


def read_memory(server: psutil.Process) -> float:
    """Return the megabytes that the processes of the server hold."""
    processes = [server, *server.children(recursive=True)]
    return sum(process.memory_info().rss for process in processes) / 1e6


if __name__ == "__main__":
    main()
