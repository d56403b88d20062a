"""How often the same held-out rows may be looked at: one alpha, spent over all comparisons.

A test at 5 % of every challenger of a year promotes luck about seven times. Here all comparisons on
the same rows share one chance of 5 % to promote a challenger that is no better, however many come.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.stats import norm

from distill_tasks.scoring.verdicts import DISCORDANT_SHARE, POWER

ALPHA = 0.05
"""The chance that a challenger no better than its champion is ever promoted on the same rows."""
PACE = 10
"""How slowly alpha is spent: after three times as many looks half of it is left."""


@dataclass(frozen=True)
class Look:
    """One comparison on held-out rows: which one it is, and how many rows there are."""

    number: int
    """1 for the first comparison on these rows."""
    rows: int

    @property
    def alpha(self) -> float:
        """What this look may spend: the chance that it finds a gain where there is none."""
        return spend(self.number)

    @property
    def left(self) -> float:
        """What is left of alpha for all looks after this one."""
        return alpha_left(self.number)

    @property
    def renewal(self) -> str:
        """What the next look can prove, and which fresh rows would do better; empty if it is well.

        Power is that of a test of the difference of two paired shares (Connor 1987).
        """
        if self.left > ALPHA / 2:
            return ""
        first, coming = (smallest_gain(self.rows, number) for number in (1, self.number + 1))
        fresh = math.ceil(self.rows * (first / coming) ** 2)
        return (
            f"these rows have been looked at {self.number} times: the next look proves a gain of "
            f"{100 * coming:.1f} points or more with a chance of {POWER:.0%} (the first: "
            f"{100 * first:.1f}); {fresh:,} fresh held-out rows instead would prove the same"
        )

    def __str__(self) -> str:
        return f"look {self.number} at these rows, alpha {self.alpha:.2g}, {self.left:.2g} left"


def spend(look: int) -> float:
    """Return the alpha (one-sided) of a look, the first being 1: what was left less what is left.

    All looks together spend α, whatever the dependence of their tests (Bonferroni). The share
    falls as k to the power −1.5: slowly enough to leave power for the fiftieth look. Source: Foster
    and Stine 2008, "α-investing"; Tian and Ramdas 2021, "Online control of the familywise error
    rate", section 3 (alpha-spending).
    """
    return alpha_left(look - 1) - alpha_left(look)


def alpha_left(looks: int) -> float:
    """Return what is left of alpha after so many looks: α / √(1 + looks / 10)."""
    return ALPHA / math.sqrt(1 + looks / PACE)


def smallest_gain(rows: int, look: int) -> float:
    """Return the gain of accuracy that a look at so many rows proves with a chance of 80 %.

    One row in ten is taken to be right by one of the two models alone.
    """
    reach = float(norm.isf(spend(look)) + norm.ppf(POWER))
    return reach * math.sqrt(DISCORDANT_SHARE / rows)
