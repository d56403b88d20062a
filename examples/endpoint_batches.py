"""The batches of the scripted endpoint: a file of requests goes in, one of answers comes out."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from aiohttp import web
from endpoint_chat import RejectedError

if TYPE_CHECKING:
    from endpoint import ScriptedEndpoint

QUEUE_FULL = {"code": "token_limit_exceeded", "message": "Enqueued token limit reached."}


@dataclass
class Batch:
    """A batch, its answers ready from the start; polls say when a client may see them."""

    id: str
    input_file: str
    lines: int
    failed: int
    output_file: str | None
    error_file: str | None
    status: Literal["completed", "expired", "failed"]
    """How it ends."""
    polls_left: int

    def show(self) -> dict[str, Any]:
        """Return it as a client sees it."""
        ended = self.polls_left <= 0
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": "/v1/chat/completions",
            "input_file_id": self.input_file,
            "completion_window": "24h",
            "created_at": 0,
            "status": self.status if ended else "in_progress",
            "errors": {"object": "list", "data": [QUEUE_FULL]} if self.status == "failed" else None,
            "output_file_id": self.output_file if ended else None,
            "error_file_id": self.error_file if ended else None,
            "request_counts": {
                "total": self.lines,
                "completed": self.lines - self.failed if ended else 0,
                "failed": self.failed if ended else 0,
            },
        }


class Batches:
    """The files and batches of an endpoint."""

    def __init__(self, endpoint: ScriptedEndpoint) -> None:
        self.endpoint = endpoint
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, Batch] = {}
        self.numbers = itertools.count()

    def add_routes(self, application: web.Application) -> None:
        """Add the routes of files and batches."""
        application.router.add_post("/v1/files", self.upload)
        application.router.add_get("/v1/files/{id}/content", self.download)
        application.router.add_post("/v1/batches", self.submit)
        application.router.add_get("/v1/batches", self.list_all)
        application.router.add_get("/v1/batches/{id}", self.poll)

    def check(self, request: web.Request) -> None:
        """Raise RejectedError for a wrong key, or where there are no batches."""
        self.endpoint.authorize(request.headers.get("Authorization", ""))
        if not self.endpoint.script.batches:
            raise RejectedError(404, f"Unknown request URL: POST {request.path}.", "unknown_url")

    async def upload(self, request: web.Request) -> web.Response:
        """Keep a file."""
        self.check(request)
        form = await request.post()
        content = form["file"].file.read()
        return web.json_response(
            {
                "id": self.keep(content),
                "object": "file",
                "bytes": len(content),
                "created_at": 0,
                "filename": form["file"].filename,
                "purpose": form["purpose"],
                "status": "processed",
            }
        )

    def keep(self, content: bytes) -> str:
        """Keep content as a file and return its id."""
        name = f"file-{next(self.numbers)}"
        self.files[name] = content
        return name

    async def download(self, request: web.Request) -> web.Response:
        """Answer a file's content."""
        self.check(request)
        return web.Response(body=find(self.files, request.match_info["id"]))

    async def submit(self, request: web.Request) -> web.Response:
        """Start a batch."""
        self.check(request)
        asked = await request.json()
        lines = find(self.files, asked["input_file_id"]).decode().splitlines()
        batch = self.start(asked["input_file_id"], lines)
        self.batches[batch.id] = batch
        if self.endpoint.script.lost_batches and request.transport is not None:
            self.endpoint.script.lost_batches -= 1
            request.transport.abort()
        return web.json_response(batch.show() | {"status": "validating"})

    def start(self, file: str, lines: list[str]) -> Batch:
        """Answer the lines of a batch."""
        script = self.endpoint.script
        fails = len(lines) > script.batch_most_lines
        served = lines[: len(lines) // 2] if script.batch_expires else lines
        answers = [] if fails else [self.answer(json.loads(line)) for line in served]
        good = [one for one in answers if one["response"]["status_code"] == 200]
        bad = [one for one in answers if one["response"]["status_code"] != 200]
        return Batch(
            id=f"batch_{next(self.numbers)}",
            input_file=file,
            lines=len(lines),
            failed=len(lines) - len(good),
            output_file=self.keep(write_lines(good)) if good else None,
            error_file=self.keep(write_lines(bad)) if bad else None,
            status="failed" if fails else "expired" if script.batch_expires else "completed",
            polls_left=script.batch_polls,
        )

    def answer(self, line: dict[str, Any]) -> dict[str, Any]:
        """Return the line that answers one of a batch."""
        key = self.endpoint.script.api_key
        entry, body = self.endpoint.play(line["body"], "batch", f"Bearer {key}")
        response = {"status_code": entry.status, "request_id": f"r{entry.number}", "body": body}
        return {
            "id": f"batch_req_{entry.number}",
            "custom_id": line["custom_id"],
            "response": response,
            "error": None,
        }

    async def list_all(self, request: web.Request) -> web.Response:
        """Answer which batches there are, the newest first, in one page."""
        self.check(request)
        shown = [batch.show() for batch in reversed(self.batches.values())]
        return web.json_response({"object": "list", "data": shown, "has_more": False})

    async def poll(self, request: web.Request) -> web.Response:
        """Answer how far a batch is."""
        self.check(request)
        batch = find(self.batches, request.match_info["id"])
        shown = batch.show()
        batch.polls_left -= 1
        return web.json_response(shown)


def find(things: dict[str, Any], name: str) -> Any:
    """Return a file or batch; raises RejectedError where there is none."""
    if name not in things:
        raise RejectedError(404, f"No such object: {name}")
    return things[name]


def write_lines(values: list[dict[str, Any]]) -> bytes:
    """Return values as JSON lines."""
    return "".join(json.dumps(value) + "\n" for value in values).encode()
