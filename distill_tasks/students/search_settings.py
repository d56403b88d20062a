"""How the grid is gone through, and the spaces in which further students are searched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, PositiveInt

from distill_tasks.core.settings import Settings
from distill_tasks.students import SpaceConfig, Student

if TYPE_CHECKING:
    from optuna.trial import BaseTrial


class OptunaConfig(Settings):
    """A search in which each student is drawn in the light of those before it."""

    trials: PositiveInt = Field(
        description="Students that are drawn and trained beside the grid, the first 10 at random."
    )
    spaces: tuple[SpaceConfig, ...] = Field(
        min_length=1,
        description="Families to draw from, as in `students`, but a list is a choice, and "
        "{low, high, log} a range.",
    )

    def draw(self, trial: BaseTrial) -> Student:
        """Return the student that a trial suggests."""
        number = trial.suggest_categorical("space", range(len(self.spaces)))
        return self.spaces[number].draw(trial, f"{number}.")


class SearchConfig(Settings):
    """How the grid is gone through."""

    halving: bool | Literal["auto"] = Field(
        "auto",
        description="Stop students on the way that another one, no slower, surely beats; `auto` "
        "does so in grids of more than six.",
    )
    optuna: OptunaConfig | None = Field(
        None,
        description="Spaces in which further students are searched (extra `optuna`); when absent, "
        "the grid is all.",
    )

    @property
    def corners(self) -> list[Student]:
        """Students at the ends of all spaces, for checks before any work."""
        spaces = self.optuna.spaces if self.optuna else ()
        return [student for space in spaces for student in space.corners]
