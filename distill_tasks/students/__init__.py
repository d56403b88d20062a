"""Students: one file for each family, and one line in the union below."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Union, get_args

from pydantic import Field

from distill_tasks.students.bag_of_words import BagOfWordsStudent
from distill_tasks.students.base import Student
from distill_tasks.students.layers import LayersStudent
from distill_tasks.students.pretrained import PretrainedStudent
from distill_tasks.students.search_space import Space, make_space
from distill_tasks.students.static import StaticStudent

Family = LayersStudent | PretrainedStudent | StaticStudent | BagOfWordsStudent
StudentConfig = Annotated[Family, Field(discriminator="family")]
"""A student as it is written in a configuration."""

CHEAPEST: Student = BagOfWordsStudent()
"""The student that the tuning trains if the grid has none that trains in seconds."""
QUICKEST: Student = BagOfWordsStudent(max_features=10_000, ngrams=1)
"""The student that is trained again and again to find the texts of which it is least sure."""

SPACES = [make_space(family) for family in get_args(Family)]
if TYPE_CHECKING:
    SpaceConfig = Space
else:
    SpaceConfig = Annotated[Union[*SPACES], Field(discriminator="family")]
"""A search space of students of one family, as it is written in a configuration."""

__all__ = [
    "CHEAPEST",
    "QUICKEST",
    "SPACES",
    "BagOfWordsStudent",
    "LayersStudent",
    "PretrainedStudent",
    "SpaceConfig",
    "StaticStudent",
    "Student",
    "StudentConfig",
]
