"""Prefect's temporary server, which a flow has where no other one is set up."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import prefect
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_SERVER_EPHEMERAL_ENABLED,
    get_current_settings,
)

from distill_tasks.core.orphans import Watch


class TemporaryServer(SubprocessASGIServer):
    """The one of Prefect 3.8, but it ends with this process even by kill -9, and not before it.

    A terminal sends Ctrl-C to all processes of a command. The run then still has to tell the server
    that it was interrupted, so the server is in a session of its own.
    Prefect keeps one instance for all that ask for a server: whichever class is first.
    """

    watch: Watch | None = None
    begun: subprocess.Popen[Any] | None = None
    given_up: ClassVar[list[subprocess.Popen[Any]]] = []
    """Python warns of a process that outlives its object."""

    def begin(self) -> None:
        """Start the server's process; `start`, which a flow calls, then waits for that one."""
        self.port = self.find_available_port()
        self.begun = self._run_uvicorn_command()

    def _run_uvicorn_command(self) -> subprocess.Popen[Any]:
        if self.begun is not None:
            begun, self.begun = self.begun, None
            return begun
        app = ["--app-dir", str(prefect.__module_path__.parent)]
        app += ["--factory", "prefect.server.api.server:create_app"]
        served = ["--host", "127.0.0.1", "--port", str(self.port)]
        served += ["--log-level", "error", "--lifespan", "on"]
        server = subprocess.Popen(  # noqa: S603  # Prefect's own command
            [sys.executable, "-m", "uvicorn", *app, *served],
            env=os.environ
            | {"PREFECT_UI_ENABLED": "0"}
            | {"PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
            | get_current_settings().to_environment_variables(exclude_unset=True),
            start_new_session=True,
        )
        self._end_watch()
        self.watch = Watch(server)
        return server

    def give_up(self) -> None:
        """Have a server that is just starting end by itself, without waiting for it.

        It may be changing its tables: uvicorn stops when it has started.
        """
        if self.begun is not None and self.watch is not None:
            self.watch.leave()
            self.begun.terminate()
            self.given_up.append(self.begun)
            self.watch = self.begun = None

    def stop(self) -> None:
        """Stop the server, then its watch; one that is just starting is given up."""
        self.give_up()
        super().stop()
        self._end_watch()

    def _end_watch(self) -> None:
        if self.watch is not None:
            self.watch.end()
            self.watch = None


@contextmanager
def server_beside() -> Iterator[None]:
    """Start the temporary server, where Prefect needs one, while the block does something else.

    It stays for the flow that comes after the block, and ends if the block raises.
    """
    if PREFECT_API_URL.value() or not PREFECT_SERVER_EPHEMERAL_ENABLED.value():
        yield
        return
    server = TemporaryServer()
    if not server.running:
        server.begin()
    try:
        yield
    except BaseException:
        server.give_up()
        raise
