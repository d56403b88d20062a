"""The section `data` of the configuration: where the user's rows lie, and how they are written."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

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

    text_column: str = Field("text", description="Column with the text of each row.")
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
    transfer: Table | None = Field(
        None,
        description="Unlabelled rows that the teacher labels for the students; labels ignored.",
    )
    production: Table | None = Field(
        None, description="Unlabelled rows as production sees them; labels ignored."
    )

    def share_of_validation(self, train_rows: int) -> float:
        """Return the share of train that becomes validation."""
        if self.validation_share != "auto":
            return self.validation_share
        return min(max(WANTED_VALIDATION_ROWS / train_rows, LEAST_SHARE), GREATEST_SHARE)
