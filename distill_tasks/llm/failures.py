"""Errors that an endpoint answers with: which row they refuse, whether they pass, what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from distill_tasks.core.credentials import mask_credentials
from distill_tasks.core.errors import PotstillError

REFUSED = "refused"
"""The key of a reply that is none: why the endpoint refuses this row, whatever is done."""


class EndpointError(PotstillError):
    """The endpoint does not answer."""


class BrokenRequestError(EndpointError):
    """The endpoint fails at this very request, however often it is sent.

    Some servers answer so what they do not support.
    """


@dataclass(frozen=True)
class Failure:
    """An HTTP status that is no success, and the error object that came with it."""

    status: int
    message: str
    code: str = ""
    kind: str = ""

    @classmethod
    def read(cls, status: int, error: object, otherwise: str = "") -> Failure:
        """Return the failure of a response's ``error`` object; ``otherwise`` is said without it."""
        told: dict[str, Any] = error if isinstance(error, dict) else {}
        message, code, kind = (str(told.get(name) or "") for name in ("message", "code", "type"))
        return cls(status, message or otherwise, code, kind)

    @property
    def refusal(self) -> dict[str, Any] | None:
        """Why this row alone is refused, as a reply; None for errors that concern all rows."""
        told = f"{self.code} {self.message}".lower()
        if self.status in (400, 413, 422):
            if "context" in told and ("length" in told or "window" in told or "size" in told):
                return {REFUSED: "longer than the model's context"}
            if "content_filter" in told or "content policy" in told or "content management" in told:
                return {REFUSED: "refused by a content filter"}
        return None

    @property
    def may_pass(self) -> bool:
        """Whether the same request may succeed later."""
        if self.status == 429:
            return "quota" not in f"{self.code} {self.kind}"
        return self.status in (408, 409, 425) or self.status >= 500

    @property
    def is_free(self) -> bool:
        """Whether the model surely has not worked, so that nothing is charged."""
        return self.status < 500

    def describe(self, base_url: str, model: str) -> str:
        """Return what it means, and what to do."""
        if self.status in (401, 403):
            return (
                f"{base_url} does not accept the key (HTTP {self.status}). Put a valid one into "
                "the environment variable that teacher.api_key_env names."
            )
        if self.status == 404:
            return (
                f"{base_url} has no model {model!r} ({self}). Correct teacher.model or "
                "teacher.base_url."
            )
        return f"{base_url} answered {self}"

    def __str__(self) -> str:
        return f"HTTP {self.status}: {mask_credentials(self.message)[:200]}"
