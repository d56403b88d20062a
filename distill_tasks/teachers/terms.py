"""The terms of an endpoint: what it takes, and whether its answers may train another model."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field

from distill_tasks.core.errors import InputError
from distill_tasks.core.settings import Settings

if TYPE_CHECKING:
    from distill_tasks.llm.ledger import Price


NO_KEY = "none"
"""What is sent to a server of this machine, which needs no key."""


class Prices(Settings):
    """What the endpoint takes for a million tokens, in any currency."""

    input: float = Field(ge=0, description="For a million tokens of the prompt.")
    output: float = Field(ge=0, description="For a million tokens of the answer.")
    batch: float = Field(
        1.0, gt=0, le=1, description="Share of these prices that is charged in a batch, often 0.5."
    )


def find_price(prices: Prices | None, *, in_batch: bool = False) -> Price:
    """Return what requests cost; nothing where no prices are known."""
    from distill_tasks.llm.ledger import FREE, Price

    if prices is None:
        return FREE
    share = prices.batch if in_batch else 1.0
    return Price(prices.input * share, prices.output * share)


class Licence(Settings):
    """Under which terms the model may be learned from."""

    name: str = Field(min_length=1, description="Name of the licence or the terms of use.")
    url: str = Field(pattern=r"^https?://", description="Where they can be read.")
    may_train: Annotated[
        Literal["yes", "no", "ask"],
        BeforeValidator(lambda written: {True: "yes", False: "no"}.get(written, written)),
    ] = Field(
        description="Whether its answers may train another model: `no` refuses, `ask` needs "
        "`--accept-licence`."
    )


def read_key(variable: str, base_url: str) -> str:
    """Return the key of an endpoint from the environment.

    Raises InputError if there is none and the endpoint is not on this machine.
    """
    key = os.environ.get(variable, "").strip()
    if key:
        return key
    if urlsplit(base_url).hostname in ("localhost", "127.0.0.1", "::1"):
        return NO_KEY
    raise InputError(
        f"The environment has no {variable}, the key of {base_url}. Set it, or name the variable "
        "that holds the key as teacher.api_key_env."
    )
