"""The terms of an endpoint: what it takes, and whether its answers may train another model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from distill_tasks.core.settings import Settings


class Prices(Settings):
    """What the endpoint takes for a million tokens, in any currency."""

    input: float = Field(ge=0, description="For a million tokens of the prompt.")
    output: float = Field(ge=0, description="For a million tokens of the answer.")


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
