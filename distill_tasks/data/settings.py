"""The section `data` of the configuration: where the user's rows lie, and how they are written."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, PositiveInt, Tag, model_validator

from distill_tasks.core.settings import Settings


class HubTable(Settings):
    """A split of a data set on the Hugging Face hub, pinned to a commit."""

    hub: str = Field(description="Data set id, as `owner/name`.")
    revision: str = Field(description="Commit of the data set, so that every run reads the same.")
    split: str = Field(description="Split of the data set, as `train` or `test[:50%]`.")
    subset: str | None = Field(
        None, description="Configuration of the data set, if it has several."
    )


Table = Annotated[
    Annotated[str, Tag("path")] | Annotated[HubTable, Tag("hub")],
    Discriminator(lambda table: "path" if isinstance(table, str) else "hub"),
]
"""A path (csv, parquet, jsonl, a folder of `datasets.save_to_disk`) or a hub split."""


class RowFormat(Settings):
    """How rows are written: their columns, and their labels."""

    text_column: str | Annotated[tuple[str, ...], Field(min_length=1)] = Field(
        "text",
        description="Column with the text of each row; a list names several, whose texts are "
        "joined.",
    )
    text_template: str | None = Field(
        None,
        min_length=1,
        description="How several columns become one text, as `{subject}: {body}`; a line each when "
        "absent. Spaces around the whole are taken away.",
    )
    label_column: str | None = Field(
        "label",
        description="Column with the gold label; null where there is no gold at all. In a "
        "multi-label problem a list of labels, or one string with `|` between them.",
    )
    label_separator: str | None = Field(
        None,
        min_length=1,
        description="What stands between several labels in one string; when absent `|`, or a comma "
        "or semicolon where that is unambiguous.",
    )
    merge_labels: bool = Field(
        False, description="Read labels that differ in case or white space alone as one class."
    )

    @property
    def text_columns(self) -> tuple[str, ...]:
        """The columns with the text of each row."""
        return (self.text_column,) if isinstance(self.text_column, str) else self.text_column

    @property
    def fields(self) -> tuple[str, ...]:
        """The columns that are joined into one text; none where one column holds it."""
        return self.text_columns if len(self.text_columns) > 1 else ()

    @property
    def template(self) -> str:
        """The text of a row with the name of each column in braces where its cell goes."""
        return self.text_template or "\n".join(f"{{{name}}}" for name in self.text_columns)

    @model_validator(mode="after")
    def _check_template(self) -> Self:
        names = self.text_columns
        if len(set(names)) < len(names) or any(mark in name for name in names for mark in "{}"):
            raise ValueError("text_column names a column twice, or one with a brace in its name")
        if self.text_template is None:
            return self
        if not self.fields:
            raise ValueError("text_template joins several columns, and text_column names one")
        used = re.findall(r"{([^{}]*)}", self.text_template)
        odd = [name for name in used if name not in names]
        left_out = [name for name in names if name not in used]
        if odd or left_out:
            raise ValueError(
                f"text_template {'names' if odd else 'leaves out'} {{{[*odd, *left_out][0]}}}; "
                f"text_column has {', '.join(names)}"
            )
        return self


def join_fields(template: str, cells: dict[str, str]) -> str:
    """Return the text that a template makes of a row's cells."""
    return re.sub(r"{([^{}]*)}", lambda found: cells[found[1]], template).strip()


class SampleConfig(Settings):
    """Which rows the teacher labels for students to learn from, where that is not all of them."""

    rows: PositiveInt = Field(
        description="Different texts of train and transfer that the teacher labels; the others are "
        "left out. Rows that score students are labelled besides."
    )
    kind: Literal["stratified", "random", "uncertain"] = Field(
        "stratified",
        description="`stratified` takes rows of train with gold first, as many of each class as "
        "its share, then others at random; `random` takes any. `uncertain` takes at least three of "
        "ten as `stratified` does, and for the others those of which a bag of words, trained on "
        "the answers so far, is least sure.",
    )


WANTED_VALIDATION_ROWS, LEAST_SHARE, GREATEST_SHARE = 200, 0.2, 0.4
"""What `auto` carves from train: so many rows, but neither less nor more than these shares."""


class DataConfig(RowFormat):
    """The user's rows: where each split lies and which columns matter."""

    slice_column: str | None = Field(
        None, description="Column of held_out by whose values errors are broken down."
    )
    train: Table = Field(description="Rows to learn from, with gold labels where there are any.")
    validation: Table | None = Field(
        None, description="Rows that select among students; carved from train when absent."
    )
    validation_share: Annotated[float, Field(gt=0, lt=1)] | Literal["auto"] = Field(
        "auto",
        description="Share of train carved, stratified, when validation is absent; `auto` is what "
        "gives 200 rows, from 0.2 to 0.4.",
    )
    held_out: Table = Field(description="Rows that score the students; never used for training.")
    transfer: Table | Annotated[tuple[Table, ...], Field(min_length=1)] | None = Field(
        None,
        description="Unlabelled rows that the teacher labels for the students; labels ignored. A "
        "list, or a path with `*`, names several tables.",
    )
    sample: SampleConfig | None = Field(
        None,
        description="Which rows of train and transfer the teacher labels; when absent, all.",
    )
    synthetic: str | None = Field(
        None,
        description="File that `potstill synthesize` wrote: further rows to learn from. The "
        "teacher labels them, and nothing is scored on them; the report says what they bring.",
    )
    corrections: str | None = Field(
        None,
        description="A run's `review/label_errors.csv` with right labels in its column "
        "`corrected`, which replace gold.",
    )
    production: Table | None = Field(
        None, description="Unlabelled rows as production sees them; labels ignored."
    )

    def share_of_validation(self, train_rows: int) -> float:
        """Return the share of train that becomes validation."""
        if self.validation_share != "auto":
            return self.validation_share
        return min(max(WANTED_VALIDATION_ROWS / train_rows, LEAST_SHARE), GREATEST_SHARE)
