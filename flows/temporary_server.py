"""Prefect's temporary server, which a flow has where no other one is set up."""

from __future__ import annotations

import subprocess
from typing import Any

from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_EPHEMERAL_ENABLED

from distill_tasks.core.orphans import Watch


class TemporaryServer(SubprocessASGIServer):
    """The one of Prefect 3.8, but it ends with this process even by kill -9.

    Prefect keeps one instance for all that ask for a server: whichever class is first.
    """

    watch: Watch | None = None

    def _run_uvicorn_command(self) -> subprocess.Popen[Any]:
        server = super()._run_uvicorn_command()
        self._end_watch()
        self.watch = Watch(server)
        return server

    def stop(self) -> None:
        """Stop the server, then its watch."""
        super().stop()
        self._end_watch()

    def _end_watch(self) -> None:
        if self.watch is not None:
            self.watch.end()
            self.watch = None


def set_up_server() -> None:
    """Have Prefect start the temporary server that is watched, where it needs one."""
    if not PREFECT_API_URL.value() and PREFECT_SERVER_EPHEMERAL_ENABLED.value():
        TemporaryServer()
