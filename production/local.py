"""A local production: Prefect's server, MLflow's server, a worker and all deployments.

    python production/local.py up      start them, and keep them running
    python production/local.py down    stop exactly those

Their databases, artifacts and logs lie in STATE (.potstill/production) and outlive a stop.
PREFECT_PORT (4200) and MLFLOW_PORT (5000) say where they listen. POSTGRES, such as
postgresql://potstill@127.0.0.1:5432, puts both on that server, in databases `prefect` and `mlflow`
that are made where they are missing; its password is PGPASSWORD.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from distill_tasks.core.credentials import mask_credentials
from distill_tasks.core.errors import InputError, PotstillError
from distill_tasks.core.processes import lives

ROOT = Path(__file__).parents[1]
SUPERVISED = Path(__file__).with_name("supervisord.conf")
POOL, WORKER = "potstill", "local"
LEASES = "prefect.server.concurrency.lease_storage.filesystem"
"""Where Prefect keeps who holds a deployment's place. By default that is its memory: a server that
ends during a run forgets it, and the place stays taken for ever."""
FRESH_S = 10.0
"""How lately a worker must have reported to be one of this start."""
PATIENCE_S = 180
"""How long a server may take to answer on a busy machine."""
SAID = """
Prefect  {production.prefect}
MLflow   {production.mlflow}
Logs     {production.state}

For a shell of yours:
    export PREFECT_API_URL={production.prefect}/api MLFLOW_TRACKING_URI={production.mlflow}
`make down` stops all of it; what it knows stays."""


@dataclass(frozen=True)
class Production:
    """Where the parts listen and keep what they know."""

    state: Path
    prefect_port: int = 4200
    mlflow_port: int = 5000
    postgres: str | None = None

    @classmethod
    def from_environment(cls) -> Production:
        """Return the production that the environment describes."""
        known = os.environ
        return cls(
            Path(known.get("STATE") or ROOT / ".potstill" / "production").resolve(),
            int(known.get("PREFECT_PORT") or 4200),
            int(known.get("MLFLOW_PORT") or 5000),
            (known.get("POSTGRES") or "").rstrip("/") or None,
        )

    @property
    def prefect(self) -> str:
        """The address of Prefect's pages; its API is below ``/api``."""
        return f"http://127.0.0.1:{self.prefect_port}"

    @property
    def mlflow(self) -> str:
        """The address of MLflow."""
        return f"http://127.0.0.1:{self.mlflow_port}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables that every part runs with."""
        return os.environ | {
            "STATE": str(self.state),
            "PROGRAMS": str(Path(sys.executable).parent),
            "PREFECT_PORT": str(self.prefect_port),
            "MLFLOW_PORT": str(self.mlflow_port),
            "PREFECT_HOME": str(self.state / "prefect"),
            "PREFECT_API_URL": f"{self.prefect}/api",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "PREFECT_WORKER_QUERY_SECONDS": "2",  # a run that is asked for begins at once
            "PREFECT_WORKER_HEARTBEAT_SECONDS": "5",
            "PREFECT_API_DATABASE_CONNECTION_URL": self.database("postgresql+asyncpg", "prefect"),
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": LEASES,
            "MLFLOW_BACKEND_STORE_URI": self.database("postgresql+psycopg2", "mlflow"),
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # five processes for generative AI
            "MLFLOW_TRACKING_URI": self.mlflow,
        }

    def database(self, driver: str, name: str) -> str:
        """Return the address of a part's database, on PostgreSQL or in a file."""
        if self.postgres:
            return f"{driver}://{self.postgres.partition('://')[2]}/{name}"
        sqlite = "sqlite" if name == "mlflow" else "sqlite+aiosqlite"
        return f"{sqlite}:///{self.state}/{name}.db"

    @property
    def supervisor(self) -> int | None:
        """The process number of the supervisor of this state; None where none answers."""
        said = self.control("pid").stdout.strip()
        return int(said) if said.isdigit() else None

    def control(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Say something to the supervisor."""
        return self.call("supervisorctl", "-c", str(SUPERVISED), *words)

    def call(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a program of this Python's environment among the parts."""
        command = [str(Path(sys.executable).parent / program), *arguments]
        return subprocess.run(  # noqa: S603  # programs of our own environment
            command, env=self.environment, cwd=ROOT, text=True, capture_output=True, check=False
        )


def up(production: Production) -> None:
    """Start what does not run yet, deploy prefect.yaml as it stands now, and say where all is."""
    production.state.mkdir(parents=True, exist_ok=True)
    if production.supervisor is None:
        _check_ports(production)
        _make_databases(production)
        with _told("the supervisor runs"):
            _succeed(production.call("supervisord", "-c", str(SUPERVISED)))
    with _told("Prefect answers"):
        _wait(production, "prefect", lambda: _answers(f"{production.prefect}/api/health"))
    with _told("MLflow answers"):
        _wait(production, "mlflow", lambda: _answers(f"{production.mlflow}/health"))
    with _told("prefect.yaml is deployed"):
        _deploy(production)
    with _told("the worker looks for runs"):
        production.control("start", "worker")
        _wait(production, "worker", lambda: _is_online(production))
    print(SAID.format(production=production))


def down(production: Production) -> None:
    """Stop the supervisor of this state and all that it started."""
    supervisor = production.supervisor
    if supervisor is None:
        print(f"Nothing is up in {production.state}.")
        return
    with _told("all is stopped"):
        _succeed(production.control("shutdown"))
        while lives(supervisor):
            time.sleep(0.2)


def _check_ports(production: Production) -> None:
    for name in ("prefect", "mlflow"):
        port = getattr(production, f"{name}_port")
        with socket.socket() as asking:
            if asking.connect_ex(("127.0.0.1", port)) == 0:
                raise InputError(
                    f"Port {port}, meant for {name}, is taken. End what listens there, or give "
                    f"another one, such as {name.upper()}_PORT={port + 10}."
                )


def _make_databases(production: Production) -> None:
    """Make the databases that a PostgreSQL does not have yet."""
    if production.postgres is None:
        return
    import psycopg2

    try:
        connection = psycopg2.connect(f"{production.postgres}/postgres", connect_timeout=10)
    except psycopg2.OperationalError as error:
        reason = mask_credentials(str(error).strip().splitlines()[0])
        raise InputError(f"POSTGRES does not answer: {reason}. Start it, or correct it.") from None
    connection.autocommit = True  # PostgreSQL makes no database inside a transaction
    with connection.cursor() as cursor:
        cursor.execute("SELECT datname FROM pg_database")
        known = {name for (name,) in cursor.fetchall()}
        for name in {"prefect", "mlflow"} - known:
            cursor.execute(f"CREATE DATABASE {name}")
    connection.close()


def _deploy(production: Production) -> None:
    known = production.call("prefect", "work-pool", "inspect", POOL)
    if known.returncode:
        make = ("work-pool", "create", "--type", "process", POOL)
        _succeed(production.call("prefect", "--no-prompt", *make))
    _succeed(production.call("prefect", "--no-prompt", "deploy", "--all"))


def _is_online(production: Production) -> bool:
    """Return whether the worker of this start has reported to Prefect in the last seconds."""
    address = f"{production.prefect}/api/work_pools/{POOL}/workers/filter"
    asked = Request(address, b"{}", {"Content-Type": "application/json"})  # noqa: S310  # http
    with urlopen(asked, timeout=5) as reply:  # noqa: S310  # our own server
        workers = json.load(reply)
    return any(worker["name"] == WORKER and _is_fresh(worker) for worker in workers)


def _is_fresh(worker: dict[str, Any]) -> bool:
    reported = datetime.fromisoformat(worker["last_heartbeat_time"])
    return (datetime.now(UTC) - reported).total_seconds() < FRESH_S


def _answers(address: str) -> bool:
    try:
        with urlopen(address, timeout=5) as reply:  # noqa: S310  # our own server
            return bool(reply.status == 200)
    except OSError:
        return False


def _wait(production: Production, part: str, is_there: Callable[[], bool]) -> None:
    """Wait for a part; raise PotstillError with the end of its log if it does not come."""
    deadline = time.monotonic() + PATIENCE_S
    while not is_there():
        if time.monotonic() > deadline or "FATAL" in production.control("status", part).stdout:
            log = production.state / f"{part}.log"
            end = "\n".join(log.read_text().splitlines()[-5:]) if log.is_file() else ""
            raise PotstillError(f"{part} did not start; {log} ends with:\n{mask_credentials(end)}")
        time.sleep(0.5)


def _succeed(done: subprocess.CompletedProcess[str]) -> None:
    """Raise PotstillError with what a program said if it failed."""
    if done.returncode:
        said = mask_credentials((done.stderr or done.stdout).strip())
        raise PotstillError(f"{Path(done.args[0]).name} failed:\n{said}")


@contextmanager
def _told(done: str) -> Iterator[None]:
    """Say what was done, and in how many seconds."""
    start = time.monotonic()
    yield
    print(f"{done} ({time.monotonic() - start:.0f} s)", flush=True)


def main() -> None:
    """Carry out the word on the command line."""
    words = {"up": up, "down": down}
    try:
        words[sys.argv[1]](Production.from_environment())
    except (IndexError, KeyError):
        sys.exit(f"usage: {Path(sys.argv[0]).name} {'|'.join(words)}")
    except PotstillError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
