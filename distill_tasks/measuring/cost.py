"""The cost of answers, and the number of answers after which a distillation has paid off."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pydantic import Field

from distill_tasks.core.settings import Settings
from distill_tasks.measuring.latency import Latency

SECONDS_PER_HOUR = 3600


class CostConfig(Settings):
    """Prices, in any one currency."""

    machine_hour: float = Field(
        gt=0,
        allow_inf_nan=False,
        description="Price of an hour of the machine that trains and serves.",
    )
    teacher_1000_calls: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="Price of 1,000 answers of a teacher behind an API. When absent, the teacher "
        "costs the time it takes on the machine.",
    )


@dataclass(frozen=True)
class Cost:
    """The cost of a student's answers compared with its teacher's."""

    student_per_1000: float
    teacher_per_1000: float
    distillation: float
    """Cost of the whole run: the teacher, its answers, every student and control."""

    @property
    def break_even_answers(self) -> int | None:
        """The number of answers after which the run has paid for itself; None if it never does."""
        saved = (self.teacher_per_1000 - self.student_per_1000) / 1000
        return None if saved <= 0 else math.ceil(round(self.distillation / saved, 6))

    def __str__(self) -> str:
        after = self.break_even_answers
        return (
            f"1,000 answers cost {say_price(self.student_per_1000)}, the teacher's "
            f"{say_price(self.teacher_per_1000)}; the distillation cost "
            f"{say_price(self.distillation)} and "
            + ("never pays for itself" if after is None else f"is paid back by {after:,} answers")
        )


def say_price(price: float) -> str:
    """Return a price as text: two decimals, or two significant figures if it is smaller."""
    return f"{price:,.2f}" if price >= 1 or price == 0 else f"{price:.2g}"


def find_cost(
    prices: CostConfig,
    student: Latency,
    teacher: Latency | None,
    machine_seconds: float,
    teacher_answers: int,
) -> Cost | None:
    """Return the cost of a student that answers one text at a time.

    ``machine_seconds`` is the time of the whole run, ``teacher_answers`` the number of answers that
    it took. Returns None if the teacher has neither a price nor a measured latency.
    """
    per_call = prices.teacher_1000_calls
    distillation = _price_time(prices, machine_seconds)
    if per_call is not None:
        per_teacher = per_call
        distillation += per_call * teacher_answers / 1000
    elif teacher is not None:
        per_teacher = _price_1000(prices, teacher)
    else:
        return None
    return Cost(_price_1000(prices, student), per_teacher, distillation)


def _price_1000(prices: CostConfig, latency: Latency) -> float:
    """Return the price of 1,000 answers: they take as many seconds as one takes milliseconds."""
    return _price_time(prices, latency.mean_ms)


def _price_time(prices: CostConfig, machine_seconds: float) -> float:
    return prices.machine_hour * machine_seconds / SECONDS_PER_HOUR
