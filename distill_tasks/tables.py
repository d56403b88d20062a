"""Reading the user's rows: csv, parquet, jsonl, a `datasets` folder, or the hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Discriminator, Field, Tag

from distill_tasks.errors import InputError, did_you_mean, shortlist
from distill_tasks.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

FORMATS = (".csv", ".parquet", ".jsonl")


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


def read_table(table: Table, split: str) -> pd.DataFrame:
    """Return the rows of one split of the configuration.

    Raises InputError for a missing file, an unknown format or an unreadable file.
    """
    if isinstance(table, HubTable):
        return _read_hub(table)
    path = Path(table)
    if not path.exists():
        near = did_you_mean(path.name, [p.name for p in path.parent.glob("*")])
        raise InputError(
            f"data.{split}: {path} does not exist{near}. Paths are relative to {Path.cwd()}."
        )
    if path.is_dir():
        return _read_folder(path, split)
    if path.suffix not in FORMATS:
        raise InputError(
            f"data.{split}: {path} is neither a folder nor one of {', '.join(FORMATS)}. "
            "Convert it, or give a `datasets` folder or a hub id."
        )
    return _read_file(path, split)


def check_column(
    frame: pd.DataFrame,
    column: str,
    split: str,
    advice: str = "Set data.text_column and data.label_column.",
) -> None:
    """Raise InputError unless the rows have the column; ``advice`` says what to do."""
    if column not in frame.columns:
        raise InputError(
            f"data.{split} has no column {column!r}{did_you_mean(column, frame.columns)}; it has "
            f"{shortlist(frame.columns)}. {advice}"
        )


def _read_file(path: Path, split: str) -> pd.DataFrame:
    import pandas as pd

    try:
        if path.suffix == ".csv":
            return _read_csv(path, split)
        if path.suffix == ".jsonl":
            return pd.read_json(path, lines=True, dtype=False)
        return pd.read_parquet(path)
    except (ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"data.{split}: {path} cannot be read as {path.suffix}: {reason}"
        ) from None


def _read_csv(path: Path, split: str) -> pd.DataFrame:
    """Read every cell as the text it is: `NA` is a word, `01` a label; only empty is missing."""
    import pandas as pd

    frame = pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""])
    if not isinstance(frame.index, pd.RangeIndex):
        raise InputError(
            f"data.{split}: the rows of {path} have more cells than its header. "
            "Quote texts that contain a comma."
        )
    return frame


def _read_folder(path: Path, split: str) -> pd.DataFrame:
    from datasets import Dataset, load_from_disk

    try:
        dataset = load_from_disk(str(path))
    except FileNotFoundError:
        raise InputError(
            f"data.{split}: {path} is a folder but not one written by datasets.save_to_disk."
        ) from None
    if not isinstance(dataset, Dataset):
        raise InputError(
            f"data.{split}: {path} holds several splits ({shortlist(dataset)}). "
            f"Name one, as {path / next(iter(dataset))}."
        )
    return _with_class_names(dataset)


def _read_hub(table: HubTable) -> pd.DataFrame:
    from datasets import load_dataset

    return _with_class_names(
        load_dataset(table.hub, table.subset, split=table.split, revision=table.revision)
    )


def _with_class_names(dataset: object) -> pd.DataFrame:
    """Return the rows with class numbers replaced by the names that the data set gives them."""
    from datasets import ClassLabel, Dataset

    assert isinstance(dataset, Dataset)
    frame: pd.DataFrame = dataset.to_pandas()
    for column, feature in dataset.features.items():
        if isinstance(feature, ClassLabel):
            known = dict(enumerate(feature.names))  # -1 and None stand for no label
            frame[column] = frame[column].map(known)
    return frame
