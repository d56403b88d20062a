"""Orders in which a prompt lists the classes, over which answers are averaged."""

from __future__ import annotations

from typing import Literal, TypeAlias

Order: TypeAlias = tuple[int, ...]
"""Class numbers in the order in which the prompt lists them."""
Orders = Literal["one", "both", "rotate"]
"""That of the data alone, also its reverse, or further ones where these two disagree."""


def list_rotations(order: Order) -> list[Order]:
    """Return the orders in which every class stands once in every place."""
    return [order[start:] + order[:start] for start in range(len(order))]
