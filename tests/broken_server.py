"""A small real server that plays a broken tracking server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FOUND = {"experiment": {"experiment_id": "1", "name": "test", "lifecycle_stage": "active"}}


class Broken(BaseHTTPRequestHandler):
    """Answers 500 with a reason."""

    finds_experiments = False

    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        well = self.finds_experiments and "/experiments/" in self.path
        body = json.dumps(FOUND if well else {"message": "the disk is full"}).encode()
        self.send_response(200 if well else 500)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer  # noqa: N815  # named by the library

    def log_message(self, *_):
        """Stay silent."""


class BrokenLater(Broken):
    """Knows its experiment, so that a check goes well, and answers all else with 500."""

    finds_experiments = True


@contextmanager
def broken_server(finds_experiments: bool = False) -> Iterator[str]:
    """Run such a server and yield its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BrokenLater if finds_experiments else Broken) as one:
        threading.Thread(target=one.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{one.server_port}"
        one.shutdown()
