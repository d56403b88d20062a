"""The batch API of an endpoint: a file of requests goes in, files of replies come out."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from distill_tasks.core.errors import InputError
from distill_tasks.llm.client import Address, find_wait, keep_reply, read_failure, say_cause
from distill_tasks.llm.failures import EndpointError, Failure

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types import Batch as RemoteBatch

T = TypeVar("T")

logger = logging.getLogger("potstill")

FIRST_POLL_S, LONGEST_POLL_S = 1.0, 60.0
"""Between two looks at a batch; the seconds double."""
ATTEMPTS = 12
"""How often a step is tried: for about six minutes, since a batch is not watched for hours."""
MOST_LISTED = 1_000
"""Batches of an endpoint among which one is looked for, the newest first."""
ENDED = "completed", "expired", "cancelled", "failed"
COMPLETIONS: Any = "/v1/chat/completions"


@dataclass(frozen=True)
class Line:
    """What an ended batch says of one request: its reply, or why there is none."""

    call: int
    reply: dict[str, Any] | None
    failure: Failure | None = None

    @classmethod
    def read(cls, written: str) -> Line:
        """Return a line of JSON; raise ValueError or the like for what is none."""
        line = json.loads(written)
        call, response = int(line["custom_id"]), line.get("response") or {}
        status, body = response.get("status_code"), response.get("body")
        if status == 200:
            return cls(call, keep_reply(body))
        told = body.get("error") if isinstance(body, dict) else line.get("error")
        return cls(call, None, Failure.read(status or 408, told, "no answer"))


class BatchApi:
    """What an endpoint does with batches; none of it costs anything but to make one."""

    def __init__(self, address: Address) -> None:
        self._sdk, self._url = _open_sdk(address), address.base_url

    def close(self) -> None:
        """Close the connections."""
        self._sdk.close()

    def reach(self) -> None:
        """Raise InputError unless the endpoint has batches."""
        import openai

        try:
            self._sdk.batches.list(limit=1)
        except openai.APIStatusError as error:
            raise InputError(
                f"{self._url} has no batches (HTTP {error.status_code}). Take `batch: true` out of "
                "the teacher's settings."
            ) from None
        except openai.APIError as error:
            raise InputError(
                f"{self._url} cannot be reached: {say_cause(error)}. Start that server, or correct "
                "teacher.base_url."
            ) from None

    def send(self, content: bytes) -> str:
        """Return what the endpoint calls a file with this content."""
        file = "batch.jsonl", content
        return self._try(lambda: self._sdk.files.create(file=file, purpose="batch")).id

    def start(self, file: str) -> str:
        """Return the name of the batch of a file, which is made if there is none."""
        return self._try(lambda: self._find(file) or self._make(file))

    def wait(self, name: str) -> RemoteBatch:
        """Return a batch once it has ended."""
        wait_s = FIRST_POLL_S
        while True:
            found = self._try(lambda: self._sdk.batches.retrieve(name))
            if found.status in ENDED:
                return found
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, LONGEST_POLL_S)

    def read(self, ended: RemoteBatch) -> list[Line]:
        """Return what the files of a batch say; broken lines say nothing."""
        lines = []
        for file in filter(None, (ended.output_file_id, ended.error_file_id)):
            for written in self._download(file).splitlines():
                try:
                    lines.append(Line.read(written))
                except (ValueError, KeyError, TypeError, AttributeError):
                    logger.warning("label: a line of a batch cannot be read; it is asked again")
        return lines

    def _download(self, file: str) -> str:
        return self._try(lambda: self._sdk.files.content(file)).text

    def _find(self, file: str) -> str | None:
        listed = islice(self._sdk.batches.list(limit=100), MOST_LISTED)
        return next((one.id for one in listed if one.input_file_id == file), None)

    def _make(self, file: str) -> str:
        made = self._sdk.batches.create(
            input_file_id=file, endpoint=COMPLETIONS, completion_window="24h"
        )
        return made.id

    def _try(self, send: Callable[[], T]) -> T:
        """Return what a step gives; what may pass is tried again."""
        import openai

        for attempt in range(1, ATTEMPTS + 1):
            headers: Mapping[str, str] = {}
            try:
                return send()
            except openai.APIStatusError as error:
                failure, headers = read_failure(error), error.response.headers
                said = f"{self._url} answered {failure}"
                if not failure.may_pass:
                    raise InputError(said) from None
            except openai.APIError as error:
                said = f"{self._url} cannot be reached: {say_cause(error)}"
            if attempt < ATTEMPTS:
                time.sleep(find_wait(attempt, headers))
        raise EndpointError(
            f"{said}, after {ATTEMPTS} attempts. What was asked is known; the same command goes on."
        )


def write_lines(first: int, bodies: Sequence[Mapping[str, Any]]) -> bytes:
    """Return the file of a batch, whose requests are known by the numbers of their calls."""
    sent = {"method": "POST", "url": COMPLETIONS}
    lines = [
        json.dumps({"custom_id": str(call), **sent, "body": body}, ensure_ascii=False)
        for call, body in enumerate(bodies, first)
    ]
    return "\n".join(lines).encode()


def _open_sdk(address: Address) -> OpenAI:
    from openai import OpenAI

    return OpenAI(
        base_url=address.base_url,
        api_key=address.key,
        timeout=address.timeout_s,
        max_retries=0,  # a batch that is made twice is paid twice
    )
