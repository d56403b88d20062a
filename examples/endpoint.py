"""A scripted OpenAI-compatible endpoint: a real HTTP server with an oracle in the model's place.

It serves chat completions with log-probabilities, the list of models, files and batches, and on
request vLLM's ``/tokenize`` and ``logprob_token_ids``. It can be slow, break, refuse and lie as
real ones do, and keeps a ledger of every request with its price, against which a client's own
record of its spending can be held. Run it beside a client:

    python examples/endpoint.py module:function --port 8765 --latency-ms 200 --ledger ledger.jsonl

or open a ``ScriptedEndpoint`` in a test. With ``--author module:function`` it writes texts too.
"""

from __future__ import annotations

import asyncio
import importlib
import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
from aiohttp import web
from cyclopts import App, Parameter
from endpoint_batches import Batches
from endpoint_chat import RejectedError, check, complete, count_prompt, halve, tokenize
from endpoint_model import Author, Model, Oracle, read_constraint, read_prompt
from endpoint_script import BROKEN, Entry, Fault, Ledger, Script, digest

FAILURES = {
    Fault.RATE_LIMITED: (429, "Rate limit reached for requests", "rate_limit_exceeded"),
    Fault.SERVER_ERROR: (500, "The server had an error while processing your request", None),
    Fault.UNAVAILABLE: (503, "The engine is currently overloaded, please try again later", None),
}
AT_ONCE = {Fault.RATE_LIMITED, Fault.UNAVAILABLE}
LARGEST_BODY = 512 * 2**20


class ScriptedEndpoint:
    """The endpoint: ``with ScriptedEndpoint(oracle, script) as endpoint`` runs it in a thread.

    ``script`` may be changed while it runs, and ``ledger`` read.
    """

    def __init__(
        self,
        oracle: Oracle,
        script: Script | None = None,
        *,
        author: Author | None = None,
        port: int = 0,
        ledger: Path | None = None,
    ) -> None:
        self.model = Model(oracle, author)
        self.script = script or Script()
        self.port = port
        self.ledger = Ledger(ledger)
        self.numbers = itertools.count()
        self.in_flight = 0
        self.batches = Batches(self)

    @property
    def url(self) -> str:
        """The base URL for a client."""
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> ScriptedEndpoint:
        started = threading.Event()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.run, args=(started,), daemon=True)
        self.thread.start()
        started.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()

    def run(self, started: threading.Event) -> None:
        """Serve until the loop is stopped."""
        asyncio.set_event_loop(self.loop)
        runner = self.loop.run_until_complete(self.listen())
        started.set()
        self.loop.run_forever()
        self.loop.run_until_complete(runner.cleanup())
        self.loop.close()

    async def listen(self) -> web.AppRunner:
        """Open the port; a port 0 becomes a free one."""
        runner = web.AppRunner(self.make_application(), access_log=None, shutdown_timeout=0.05)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port, backlog=1024)
        await site.start()
        self.port = runner.addresses[0][1]
        return runner

    def make_application(self) -> web.Application:
        """Return the routes."""
        application = web.Application(client_max_size=LARGEST_BODY, middlewares=[show_errors])
        application.router.add_post("/v1/chat/completions", self.chat)
        application.router.add_get("/v1/models", self.list_models)
        application.router.add_post("/tokenize", self.tokenize)
        application.router.add_post("/script", self.change_script)
        self.batches.add_routes(application)
        return application

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """Answer a chat completion, or do to it what the script says."""
        body = orjson.loads(await request.read())
        self.in_flight += 1
        try:
            entry, answer = self.play(body, "chat", request.headers.get("Authorization", ""))
            await asyncio.sleep(self.wait_s(entry))
        finally:
            self.in_flight -= 1
        if entry.fault is Fault.DROPPED and request.transport is not None:
            request.transport.abort()
        if entry.fault is Fault.TRUNCATED:
            return web.Response(body=halve(answer), content_type="application/json")
        headers = self.say_when(entry) if entry.status == 429 else {}
        return web.Response(
            body=orjson.dumps(answer),
            status=entry.status,
            headers=headers,
            content_type="application/json",
        )

    def play(
        self, body: dict[str, Any], kind: Literal["chat", "batch"], authorization: str
    ) -> tuple[Entry, dict[str, Any]]:
        """Return what is entered into the ledger for a request, and the JSON of its answer."""
        number, script = next(self.numbers), self.script
        prompt = read_prompt(body["messages"])
        fault = script.draw_fault(number, prompt.text)
        if kind == "batch" and fault in BROKEN | AT_ONCE:
            fault = Fault.NONE  # these happen to connections
        entry = Entry(
            number=number,
            at=time.time(),
            kind=kind,
            prompt=digest(body["messages"]),
            text=digest(prompt.text),
            constrained=read_constraint(body) is not None,
            prompt_tokens=count_prompt(body, script),
            completion_tokens=0,
            price=0.0,
            fault=fault,
            status=200,
            in_flight=self.in_flight,
        )
        try:
            self.authorize(authorization)
            check(body, entry.prompt_tokens, script)
            if fault in FAILURES:
                raise RejectedError(*FAILURES[fault])
            answer = complete(body, prompt, script, self.model, fault, number)
        except RejectedError as error:
            entry, answer = replace(entry, status=error.status), error.body
        else:
            entry = self.charge(entry, answer["usage"]["completion_tokens"])
        self.ledger.enter(entry)
        return entry, answer

    def charge(self, entry: Entry, completion_tokens: int) -> Entry:
        """Return an entry with its tokens and price."""
        script = self.script
        millionths = (
            entry.prompt_tokens * script.input_price + completion_tokens * script.output_price
        )
        price = millionths / 1e6 / (2 if entry.kind == "batch" else 1)
        return replace(entry, completion_tokens=completion_tokens, price=price)

    def authorize(self, authorization: str) -> None:
        """Raise RejectedError for a wrong key."""
        if self.script.api_key and authorization != f"Bearer {self.script.api_key}":
            raise RejectedError(401, "Incorrect API key provided.", "invalid_api_key")

    def wait_s(self, entry: Entry) -> float:
        """Return how long a request waits for what happens to it."""
        if entry.fault is Fault.SILENT:
            return 3600.0
        rejected = entry.status in {400, 401, 404} or entry.fault in AT_ONCE
        return 0.0 if rejected else self.script.latency_ms / 1000

    def say_when(self, entry: Entry) -> dict[str, str]:
        """Return the header that says when to come again."""
        seconds = self.script.retry_after_s
        when = formatdate(entry.at + seconds, usegmt=True)
        return {"Retry-After": when if self.script.retry_after_date else f"{seconds:g}"}

    async def list_models(self, request: web.Request) -> web.Response:
        """Answer which models there are."""
        self.authorize(request.headers.get("Authorization", ""))
        one = {"id": self.script.model, "object": "model", "created": 0, "owned_by": "examples"}
        return web.json_response({"object": "list", "data": [one]})

    async def tokenize(self, request: web.Request) -> web.Response:
        """Answer the tokens of a prompt, where the script has that."""
        if not self.script.token_ids:
            raise web.HTTPNotFound
        return web.json_response(tokenize((await request.json())["prompt"], self.script))

    async def change_script(self, request: web.Request) -> web.Response:
        """Change values of the script, for who runs the endpoint in another process."""
        for name, value in (await request.json()).items():
            getattr(self.script, name)  # an unknown name is an error
            setattr(self.script, name, value)
        return web.json_response({})


@web.middleware
async def show_errors(request: web.Request, handler: Any) -> web.StreamResponse:
    """Answer an error in OpenAI's format."""
    try:
        return await handler(request)
    except RejectedError as error:
        return web.json_response(error.body, status=error.status)


@contextmanager
def run_endpoint(oracle: str, *arguments: str) -> Iterator[str]:
    """Run this file in a process of its own and yield its URL; arguments are its options."""
    command = [sys.executable, __file__, oracle, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def load_function(name: str) -> Any:
    """Return the function that ``folder/module.py:function`` or ``module:function`` names."""
    path, _, function = name.rpartition(":")
    sys.path.insert(0, str(Path(path).parent.resolve()))
    return getattr(importlib.import_module(Path(path).stem), function)


def main() -> None:
    """Run the endpoint until it is interrupted; its first line is the URL."""
    application = App(help=__doc__)

    @application.default
    def serve(
        oracle: str,
        *,
        author: str | None = None,
        port: int = 0,
        ledger: Path | None = None,
        script: Annotated[Script, Parameter(name="*")] = Script(),  # noqa: B008
    ) -> None:
        endpoint = ScriptedEndpoint(
            load_function(oracle),
            script,
            author=load_function(author) if author else None,
            port=port,
            ledger=ledger,
        )
        asyncio.run(serve_forever(endpoint))

    application()


async def serve_forever(endpoint: ScriptedEndpoint) -> None:
    """Open the port, print the URL and serve."""
    await endpoint.listen()
    print(endpoint.url, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    main()
