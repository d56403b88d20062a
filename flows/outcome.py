"""The state in which a flow run ends: it says what became of the version."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

from prefect.states import Completed

if TYPE_CHECKING:
    from distill_tasks.results.review import Review

R = TypeVar("R")


def end_as(result: R, review: Review) -> R:
    """Return what a flow returns so that its run ends in a state of the outcome's name.

    The state is of the type Completed, since a gate that refuses has done its work: exit codes and
    retries take it for a success, and lists, filters and automations tell it by its name. Whoever
    calls the flow gets the result, since Prefect unwraps a state that was made by hand.
    """
    return cast("R", Completed(name=review.name, message=str(review), data=result))
