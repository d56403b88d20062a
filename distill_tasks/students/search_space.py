"""The search spaces of `search.optuna`: families with ranges, choices and fixed settings."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self, Union, get_args

from pydantic import (
    Discriminator,
    Field,
    FiniteFloat,
    Tag,
    create_model,
    model_validator,
)
from pydantic.fields import FieldInfo

from distill_tasks.core.errors import InputError
from distill_tasks.core.settings import Settings, Spans
from distill_tasks.students.base import Student

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

MOST_CHOICES = 1000
"""Most values in one list, because every value is checked before any work."""
FIGURES = 3
"""Significant figures of a drawn number, so that the student's name can show it exactly."""


class Range(Settings):
    """Numbers between two ends, both of which may be drawn."""

    low: int | FiniteFloat = Field(description="The least one.")
    high: int | FiniteFloat = Field(description="The greatest one.")
    log: bool = Field(False, description="Draw evenly over the logarithm.")

    @model_validator(mode="after")
    def _check_ends(self) -> Self:
        if self.low > self.high:
            raise ValueError("low is above high; exchange them")
        if self.log and self.low <= 0:
            raise ValueError("log needs a low above 0; raise it, or leave out log")
        return self


class Space(Settings):
    """A family of students of which each field is fixed, a list of choices, or a range."""

    student: ClassVar[type[Student]]
    """What is drawn."""

    @property
    def corners(self) -> list[Student]:
        """Students that together contain both ends of every range, and every choice."""
        ways = {name: _list_ends(getattr(self, name)) for name in type(self).model_fields}
        count = max(len(values) for values in ways.values())
        return [
            self._build({name: values[min(n, len(values) - 1)] for name, values in ways.items()})
            for n in range(count)
        ]

    def draw(self, trial: BaseTrial, prefix: str) -> Student:
        """Return the student that a trial suggests, its parameters named with a prefix."""
        low = self.corners[0]
        drawn = {
            name: _draw(trial, f"{prefix}{name}", getattr(self, name), type(getattr(low, name)))
            for name in type(self).model_fields
        }
        return self._build(drawn)

    @model_validator(mode="after")
    def _check_corners(self) -> Self:
        _ = self.corners
        return self

    def _build(self, settings: dict[str, Any]) -> Student:
        return self.student.model_validate(settings)


def _list_ends(written: Any) -> tuple[Any, ...]:
    """Return both ends of a range, all choices, or the one fixed value."""
    match written:
        case Range(low=low, high=high):
            return (low, high)
        case tuple():
            return written
    return (written,)


def _draw(trial: BaseTrial, name: str, written: Any, kind: type) -> Any:
    """Return one value of a field, drawn by a trial unless it is fixed."""
    match written:
        case Range(low=low, high=high, log=log) if kind is int:
            return trial.suggest_int(name, int(low), int(high), log=log)
        case Range(low=low, high=high, log=log):
            drawn = trial.suggest_float(name, low, high, log=log)
            return min(max(float(f"{drawn:.{FIGURES}g}"), low), high)
        case tuple():
            return trial.suggest_categorical(name, list(dict.fromkeys(written)))
    return written


def make_space(family: type[Student]) -> type[Space]:
    """Return a class like a family's settings whose fields may also be lists and ranges."""
    fields: dict[str, Any] = {
        name: (info.annotation, info) if name == "family" else _widen(info)
        for name, info in family.model_fields.items()
    }
    space = create_model(
        family.__name__.removesuffix("Student") + "Space",
        __base__=Space,
        __module__=__name__,
        __doc__=f"A space of students of the family `{fields['family'][1].default}`.",
        **fields,
    )
    space.student = family
    globals()[space.__name__] = space  # where pickle looks for it: Prefect pickles configurations
    return space


def _widen(info: FieldInfo) -> tuple[Any, FieldInfo]:
    rules = [rule for rule in info.metadata if not isinstance(rule, Spans)]
    one: Any = Annotated[info.annotation, *rules, Tag("value")]
    several: Any = Annotated[
        tuple[one, ...], Field(min_length=1, max_length=MOST_CHOICES), Tag("choice")
    ]
    of_number = _has_numbers(info.annotation)
    forms = [one, several, *([Annotated[Range, Tag("range")]] if of_number else [])]

    def tell_form(written: Any) -> str:
        if isinstance(written, list | tuple):
            return "choice"
        return "range" if of_number and isinstance(written, dict | Range) else "value"

    default = ... if info.is_required() else info.default
    about = (info.description or "").replace(" list spans the grid", " list is a choice")
    return Annotated[Union[*forms], Discriminator(tell_form)], Field(default, description=about)


def _has_numbers(annotation: Any) -> bool:
    return annotation in (int, float) or any(_has_numbers(part) for part in get_args(annotation))


def check_optuna() -> None:
    """Raise InputError if optuna, which draws students, is not installed."""
    if find_spec("optuna") is None:
        raise InputError(
            "search.optuna needs optuna, which is not installed. "
            "`pip install 'potstill[optuna]'`, or take search.optuna out."
        )
