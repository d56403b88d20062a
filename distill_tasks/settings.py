"""What every part of the configuration is: frozen, and strict about unknown keys."""

from __future__ import annotations

import itertools
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A frozen piece of configuration that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class StudentSettings(Settings):
    """One family of students; a field given as a list spans a grid."""

    size_field: ClassVar[str]
    """The field that tells this family's students apart by size."""

    @property
    def name(self) -> str:
        """Return a name unique within a grid: family, size, then every field not at its default."""
        fields = type(self).model_fields
        others = [
            f"{field}-{getattr(self, field):g}"
            for field, info in fields.items()
            if field not in ("family", self.size_field) and getattr(self, field) != info.default
        ]
        size = getattr(self, self.size_field)
        return "-".join([fields["family"].default, str(size), *others]).replace("_", "-")

    def expand(self) -> list[Self]:
        """Return one student for each combination of the list-valued fields."""
        lists = {key: value for key, value in self.__dict__.items() if isinstance(value, tuple)}
        combinations = itertools.product(*lists.values())
        return [
            self.model_copy(update=dict(zip(lists, combination, strict=True)))
            for combination in combinations
        ]
