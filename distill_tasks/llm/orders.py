"""Orders in which a prompt lists the classes, over which answers are averaged."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

Order: TypeAlias = tuple[int, ...]
"""Class numbers in the order in which the prompt lists them."""
Orders = Annotated[
    Literal["one", "both", "rotate"],
    Field(
        description="Orders of the classes in the prompt, over which answers are averaged: `one` "
        "is that of the data, `both` adds its reverse, and `rotate` takes all rotations in their "
        "place, but only for rows in which these two disagree."
    ),
]
DIGESTED: dict[str, str] = {"one": "one", "both": "both", "rotate": "rotations"}
"""What stands for them in digests: with an endpoint `rotate` once kept the reverse as well."""


def list_rotations(order: Order) -> list[Order]:
    """Return the orders in which every class stands once in every place."""
    return [order[start:] + order[:start] for start in range(len(order))]
