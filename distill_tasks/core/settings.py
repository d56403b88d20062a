"""What every part of the configuration is: frozen, and strict about unknown keys."""

from __future__ import annotations

import itertools
import math
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    GetJsonSchemaHandler,
    field_validator,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from distill_tasks.core.credentials import refuse_credentials


class Settings(BaseModel):
    """A frozen piece of configuration that refuses keys it does not know, and credentials."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("*", mode="after")
    @classmethod
    def _refuse_nul(cls, value: Any) -> Any:
        """Refuse NUL, which ends a string in the system calls and libraries that receive it."""
        if isinstance(value, str) and "\0" in value:
            raise ValueError("holds a NUL character, which paths and names must not")
        return value

    @model_validator(mode="before")
    @classmethod
    def _refuse_credentials(cls, written: Any) -> Any:
        refuse_credentials(written)
        return written


class Spans:
    """Marks a student's field for which a list of values spans the grid."""

    def __get_pydantic_json_schema__(
        self, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Allow one value or a list of them, for editors and for Prefect's form."""
        single = handler(core_schema)
        return {"anyOf": [single, {"type": "array", "items": single, "minItems": 1}]}


def expand_grid(students: Any) -> Any:
    """Return one student for each combination of list values, from plain data as the user wrote it.

    Anything but a list of mappings is returned unchanged, and validation refuses it.
    """
    if not isinstance(students, list):
        return students
    expanded: list[Any] = []
    for student in students:
        if not isinstance(student, dict):
            expanded.append(student)
            continue
        lists = _find_lists(student)
        combinations = itertools.product(*lists.values())
        expanded += [student | dict(zip(lists, values, strict=True)) for values in combinations]
    return expanded


def count_grid(students: Any) -> int:
    """Return how many students `expand_grid` makes of plain data, without making them."""
    if not isinstance(students, list | tuple):
        return 0
    return sum(math.prod(map(len, _find_lists(student).values())) for student in students)


def _find_lists(student: Any) -> dict[str, list[Any]]:
    """Return the fields of a student, as the user wrote it, for which a list spans the grid."""
    if not isinstance(student, dict):
        return {}
    return {key: value for key, value in student.items() if isinstance(value, list) and value}
