"""The section `loss` of the configuration: what students learn from the teacher and from gold."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat

from distill_tasks.core.settings import Settings
from distill_tasks.training.objective import Objective, Term


class LossConfig(Settings):
    """How students weigh the teacher's answers against the gold labels."""

    temperature: Annotated[float, Field(gt=0, le=100)] | Literal["auto"] = Field(
        2.0,
        description="T: softens both distributions before they are compared. `auto` compares a "
        "few on the cheapest student.",
    )
    alpha: Annotated[float, Field(ge=0, le=1)] | Literal["auto"] = Field(
        0.9,
        description="Weight of the teacher where a row has gold; gold gets the rest. `auto` "
        "compares a few on the cheapest student.",
    )
    terms: dict[Term, PositiveFloat] = Field(
        {"kl": 1.0},
        min_length=1,
        description="Distillation losses and their weights in the sum, which are used as they are. "
        "`hidden` and `relations` look inside a transformer that shares the teacher's tokenizer.",
    )
    standardize: bool = Field(
        False, description="Give each row of logits mean 0 and deviation 1 before it is compared."
    )
    balance_classes: bool = Field(
        False, description="Weigh gold rows so that every class counts the same, teacher included."
    )

    suspicious_weight: float = Field(
        1.0,
        gt=0,
        le=1,
        description="How much a suspicious answer of the teacher counts beside the others: one "
        "surely against gold, nearly a tie, or unlike that to a near repeat. 1 counts all alike.",
    )

    def objective(self, temperature: float, alpha: float) -> Objective:
        """Return what students lower, at a temperature and α."""
        return Objective(temperature, alpha, dict(self.terms), self.standardize)

    @property
    def usual_objective(self) -> Objective:
        """What students lower as configured, with the usual values in place of `auto`."""
        temperature, alpha = (
            type(self).model_fields[name].default if value == "auto" else value
            for name, value in (("temperature", self.temperature), ("alpha", self.alpha))
        )
        return self.objective(temperature, alpha)
