"""What commands about registered versions answer, as objects with documented keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

from flows.answers import Answer, Ending
from flows.printing import say_promotion

if TYPE_CHECKING:
    from distill_tasks.results.review import Promotion


class PromotionAnswer(Answer):
    """What `promote` and `rollback` print."""

    model: str = Field(description="Name of the registered model.")
    champion: int | None = Field(description="Version that is champion, or would be.")
    previous: int | None = Field(description="Version to which `rollback` returns.")
    moved: bool = Field(description="Whether the champion changed.")
    reason: str = Field(description="Why it changed or not.")


class ReviewAnswer(Answer):
    """What `review` prints."""

    model: str = Field(description="Name of the registered model.")
    version: int = Field(description="The version that was decided about.")
    decision: str = Field(description="`approved` or `rejected`.")


class LeftoverAnswer(BaseModel):
    """Something that nothing needs."""

    kind: str = Field(description="`version`, `distillation`, `student` or `labels`.")
    name: str = Field(description="Which.")
    days: float = Field(description="Its age.")
    megabytes: float | None = Field(description="On this disk; null for what lies in MLflow.")


class PruneAnswer(Answer):
    """What `prune` prints."""

    removed: bool = Field(description="Whether they were removed.")
    leftovers: list[LeftoverAnswer] = Field(description="What nothing needs.")


class EventAnswer(BaseModel):
    """One decision of a history."""

    at: str = Field(description="When, in UTC, ISO 8601.")
    kind: str = Field(description="What happened.")
    version: int = Field(description="The version it was about.")
    before: int | None = Field(description="The champion before, where it was compared or moved.")
    verdict: str | None = Field(description="BEATS, NO BEATS or INCONCLUSIVE against it.")
    look: int | None = Field(description="Which look at the held-out rows that was.")
    why: str = Field(description="Why.")
    by: str = Field(description="Who.")
    run: str | None = Field(description="MLflow run of the version.")
    flow_run: str | None = Field(description="Prefect flow run.")
    commit: str | None = Field(description="Commit of the working directory.")


class HistoryAnswer(Answer):
    """What `history` prints."""

    model: str = Field(description="Name of the registered model.")
    events: list[EventAnswer] = Field(description="All decisions, the oldest first.")
    looks: dict[str, int] = Field(description="Looks at held-out rows, by the rows' digest.")
    alpha_left: dict[str, float] = Field(description="What is left of alpha, by the rows' digest.")


def answer_promotion(
    command: str, promotion: Promotion, ending: Ending, exit_code: int = 0
) -> PromotionAnswer:
    """Return what became of the champion."""
    return PromotionAnswer(
        command=command,
        outcome=ending,
        exit_code=exit_code,
        message=say_promotion(promotion),
        model=promotion.model,
        champion=promotion.champion,
        previous=promotion.previous,
        moved=promotion.moved,
        reason=promotion.reason,
    )
