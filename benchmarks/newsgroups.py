"""Groups of 20 Newsgroups, headers and digits taken out by who packed them, for the benchmarks."""

from __future__ import annotations

from typing import Literal

import pandas as pd
from reuters import read_packed

DESK = (
    "comp.graphics",
    "comp.os.ms-windows.misc",
    "comp.sys.ibm.pc.hardware",
    "comp.sys.mac.hardware",
    "comp.windows.x",
    "misc.forsale",
    "sci.crypt",
    "sci.electronics",
)
"""Eight that a help desk might sort its tickets into; several are hard to tell apart."""
HOBBIES = (
    "rec.autos",
    "rec.motorcycles",
    "rec.sport.baseball",
    "rec.sport.hockey",
    "sci.crypt",
    "sci.electronics",
    "sci.med",
    "sci.space",
)
"""Eight that are easier to tell apart."""


def read_groups(groups: tuple[str, ...], part: Literal["train", "test"]) -> pd.DataFrame:
    """Return the rows of some groups, no text twice, from the official train or test rows."""
    rows = read_packed(f"20newsgroups-{part}.tab").drop_duplicates("text")
    return rows[rows["label"].isin(groups)].reset_index(drop=True)
