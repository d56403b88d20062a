"""The corpus: checked rows in named splits, with the class order and what was found in them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from distill_tasks.digests import digest, digest_texts
from distill_tasks.errors import InputError, did_you_mean, shortlist
from distill_tasks.settings import Settings
from distill_tasks.tables import Table, check_column, read_table

if TYPE_CHECKING:
    import pandas as pd

NO_LABEL = -1
"""The class number of a row without gold."""

SPLITS = ("train", "validation", "held_out", "transfer", "production")

STRONGER_SPLITS = {
    "validation": ("held_out",),
    "train": ("held_out", "validation"),
    "transfer": ("held_out", "validation", "train"),
}
"""The splits whose rows a split may not repeat."""


class DataConfig(Settings):
    """The user's rows: where each split lies and which columns matter."""

    text_column: str = Field("text", description="Column with the text of each row.")
    label_column: str | None = Field(
        "label", description="Column with the gold label; null where there is no gold at all."
    )
    train: Table = Field(description="Rows to learn from, with gold labels where there are any.")
    validation: Table | None = Field(
        None, description="Rows that select among students; carved from train when absent."
    )
    validation_share: float = Field(
        0.2, gt=0, lt=1, description="Share of train carved, stratified, when validation is absent."
    )
    held_out: Table = Field(description="Rows that score the students; never used for training.")
    transfer: Table | None = Field(
        None,
        description="Unlabelled rows that the teacher labels for the students; labels ignored.",
    )
    production: Table | None = Field(
        None, description="Unlabelled rows as production sees them; labels ignored."
    )


@dataclass(frozen=True)
class Split:
    """Rows of one split: texts, and their class numbers (rows,) with -1 where gold is absent."""

    texts: tuple[str, ...]
    gold: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def digest(self) -> str:
        """The digest of the texts and labels, in order."""
        return digest(digest_texts(self.texts), self.gold.tolist())

    @property
    def has_gold(self) -> bool:
        """Whether every row has a gold label."""
        return bool(len(self) and (self.gold != NO_LABEL).all())

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Split:
        """Return the split of the chosen rows."""
        numbers = np.arange(len(self))[rows]
        return Split(tuple(self.texts[number] for number in numbers), self.gold[numbers])


@dataclass(frozen=True)
class Corpus:
    """Named splits, the class order of every array of logits, and what the checks found."""

    splits: dict[str, Split]
    classes: tuple[str, ...]
    findings: tuple[str, ...] = ()

    @cached_property
    def digest(self) -> str:
        """The digest of all rows and the class order."""
        return digest(self.classes, {name: split.digest for name, split in self.splits.items()})

    @property
    def texts(self) -> list[str]:
        """Every distinct text, in the order of the splits."""
        return list(dict.fromkeys(text for split in self.splits.values() for text in split.texts))

    @property
    def lesson(self) -> Split:
        """The rows that students learn from: train with its gold, then transfer without."""
        parts = [self.splits[name] for name in ("train", "transfer") if name in self.splits]
        texts = tuple(text for part in parts for text in part.texts)
        return Split(texts, np.concatenate([part.gold for part in parts]))

    def save(self, folder: Path) -> None:
        """Write the splits as parquet, and the classes and findings as JSON."""
        import pandas as pd

        for name, split in self.splits.items():
            frame = pd.DataFrame({"text": split.texts, "gold": split.gold})
            frame.to_parquet(folder / f"{name}.parquet", index=False)
        about = {"classes": self.classes, "findings": self.findings}
        (folder / "corpus.json").write_text(json.dumps(about, indent=2))

    @classmethod
    def open(cls, folder: Path) -> Corpus:
        """Read a corpus that was saved."""
        import pandas as pd

        about = json.loads((folder / "corpus.json").read_text())
        splits = {}
        for name in SPLITS:
            if (folder / f"{name}.parquet").is_file():
                frame = pd.read_parquet(folder / f"{name}.parquet")
                splits[name] = Split(tuple(frame["text"]), frame["gold"].to_numpy(np.int64))
        return cls(splits, tuple(about["classes"]), tuple(about["findings"]))


def read_corpus(config: DataConfig, seed: int, classes: Sequence[str] | None = None) -> Corpus:
    """Read, check and split the user's rows.

    ``classes`` are the teacher's, used where the data has no labels. Raises InputError for
    anything that would make a later stage fail or lie.
    """
    frames = {
        name: read_table(table, name)
        for name in SPLITS
        if (table := getattr(config, name)) is not None
    }
    texts = {name: _read_texts(frame, config.text_column, name) for name, frame in frames.items()}
    names: dict[str, list[str]] = {
        name: _read_labels(frames[name], config.label_column, name)
        for name in ("train", "validation", "held_out")
        if name in frames and config.label_column is not None
    }
    order = _order_classes(names, classes)
    splits = {
        name: Split(tuple(rows), _number(names.get(name), order, len(rows)))
        for name, rows in texts.items()
    }
    splits, repeats = _remove_repeats(splits, order)
    splits, carved = _carve_validation(splits, order, config.validation_share, seed)
    ordered = {name: splits[name] for name in SPLITS if name in splits}
    return Corpus(ordered, order, (*repeats, *carved))


def read_rows(path: Path, text_column: str, label_column: str) -> tuple[Split, tuple[str, ...]]:
    """Read rows to compare models on; gold is absent where there is no label column.

    Returns the rows and the classes found in them. Raises InputError like `read_corpus`.
    """
    frame = read_table(str(path), "rows")
    texts = _read_texts(frame, text_column, "rows")
    if label_column not in frame.columns:
        return Split(tuple(texts), _number(None, (), len(texts))), ()
    names = _read_labels(frame, label_column, "rows")
    classes = tuple(sorted(set(names)))
    return Split(tuple(texts), _number(names, classes, len(texts))), classes


def _read_texts(frame: pd.DataFrame, column: str, split: str) -> list[str]:
    check_column(frame, column, split)
    if frame.empty:
        raise InputError(f"data.{split} has no rows. Give at least one, or leave the split out.")
    texts = frame[column].tolist()
    bad = [row for row, text in enumerate(texts) if not isinstance(text, str) or not text.strip()]
    if bad:
        raise InputError(
            f"data.{split}: {len(bad)} texts are empty or no text (row {shortlist(bad)}, counted "
            f"from 0; first found: {texts[bad[0]]!r}). Remove or fill these rows."
        )
    return texts


def _read_labels(frame: pd.DataFrame, column: str, split: str) -> list[str]:
    check_column(frame, column, split)
    missing = np.flatnonzero(frame[column].isna())
    if missing.size:
        raise InputError(
            f"data.{split}: {missing.size} rows have no {column!r} (row {shortlist(missing)}). "
            "Label them, or move unlabelled rows to data.transfer."
        )
    return [str(label) for label in frame[column]]


def _order_classes(
    names: dict[str, list[str]], teacher_classes: Sequence[str] | None
) -> tuple[str, ...]:
    """Return the classes of train in the teacher's order if it has the same, else alphabetical."""
    if "train" not in names:
        if teacher_classes is None:
            raise InputError(
                "data.label_column is null and the teacher has no classes of its own. "
                "Label the train rows, or use a teacher of kind transformers or saved."
            )
        return tuple(teacher_classes)
    classes = tuple(sorted(set(names["train"])))
    if len(classes) < 2:
        raise InputError(
            f"data.train has one class only ({classes[0]!r}). A classifier needs at least two; "
            "check data.label_column."
        )
    for split in names:
        unseen = sorted(set(names[split]) - set(classes))
        if unseen:
            near = did_you_mean(unseen[0], classes)
            raise InputError(
                f"data.{split} has labels that train never saw: {shortlist(unseen)}{near}. "
                "Add rows of these classes to train, or remove them."
            )
    if teacher_classes is not None and set(teacher_classes) == set(classes):
        return tuple(teacher_classes)
    return classes


def _number(names: list[str] | None, classes: Sequence[str], rows: int) -> NDArray[np.int64]:
    if names is None:
        return np.full(rows, NO_LABEL, np.int64)
    numbers = {name: number for number, name in enumerate(classes)}
    return np.array([numbers[name] for name in names], np.int64)


def _remove_repeats(
    splits: dict[str, Split], classes: Sequence[str]
) -> tuple[dict[str, Split], list[str]]:
    """Remove from training what held_out or validation also has, and say which rows it was.

    Held-out rows are never removed: they are what was agreed to be measured on.
    """
    kept, findings = dict(splits), []
    for name, stronger in STRONGER_SPLITS.items():
        if name not in kept:
            continue
        repeated_in = {
            text: other
            for other in reversed(stronger)
            if other in kept
            for text in kept[other].texts
        }
        sources = [repeated_in.get(text) for text in kept[name].texts]
        if all(sources):
            raise InputError(
                f"data.{name}: every row is also in data.{' or data.'.join(stronger)}. "
                "Give rows of its own."
            )
        for other in stronger:
            rows = [row for row, source in enumerate(sources) if source == other]
            if rows:
                findings.append(
                    f"{len(rows)} rows of {name} repeat {other} and were left out of {name} "
                    f"(row {shortlist(rows)})"
                )
        kept[name] = kept[name].take(np.array([source is None for source in sources]))
    return kept, [*findings, *_find_lost_classes(splits["train"], kept["train"], classes)]


def _find_lost_classes(before: Split, after: Split, classes: Sequence[str]) -> list[str]:
    """Say which classes lost all their rows of train, and refuse to go on with a single one."""
    lost = [classes[number] for number in set(before.gold.tolist()) - set(after.gold.tolist())]
    if lost and len(set(after.gold.tolist())) < 2:
        raise InputError(
            f"data.train has one class only once rows that held_out or validation repeat are "
            f"left out; gone: {shortlist(sorted(lost))}. Give train rows of its own."
        )
    return [f"train has no rows left of {name}" for name in sorted(lost)]


def _carve_validation(
    splits: dict[str, Split], classes: Sequence[str], share: float, seed: int
) -> tuple[dict[str, Split], list[str]]:
    """Carve validation from train, the same share of each class, where the user gave none."""
    if "validation" in splits:
        return splits, []
    train = splits["train"]
    generator = np.random.default_rng(seed)
    chosen: list[int] = []
    small: list[str] = []
    for number in np.unique(train.gold):
        rows = generator.permutation(np.flatnonzero(train.gold == number))
        if rows.size < 2:
            small.append(f"{classes[number]} ({rows.size} row)")
            continue
        chosen.extend(rows[: min(max(1, round(share * rows.size)), rows.size - 1)])
    if not chosen:
        raise InputError(
            f"data.train has {len(train)} rows, too few to carve a validation split from. "
            "Give data.validation, or at least two rows of one class."
        )
    mask = np.zeros(len(train), bool)
    mask[chosen] = True
    findings = [f"validation carved from train: {mask.sum()} of {len(train)} rows"]
    if small:
        findings.append(f"too small to split, kept whole in train: {shortlist(small)}")
    carved = {**splits, "train": train.take(~mask), "validation": train.take(mask)}
    return carved, findings
