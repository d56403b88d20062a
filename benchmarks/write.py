"""Run benchmarks and write what they print into docs/benchmarks.md: `python write.py [NAME ...]`.

Without names all of those run that were not written since the code last changed, so that a night
that was cut short goes on where it was.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import time
from pathlib import Path

from distill_tasks.core.digests import digest, digest_file

HERE = Path(__file__).parent
ROOT = HERE.parent
PAGE = ROOT / "docs" / "benchmarks.md"
DONE = ROOT / ".potstill" / "benchmarks" / "written"
ALL = (
    "label_scoring",
    "labelling_client",
    "serving",
    "registry_size",
    "promotions",
    "answers_store",
    "execution",
    "censored",
    "sampling",
    "rows",
    "scale",
    "verdict_error_rates",
    "promise_error_rates",
    "small_students",
    "matrix_peak",
    "carvings",
    "tickets",
    "overhead",
    "halving",
    "choice",
    "variants",
    "quality",
    "grid_against_recipe",
)
"""What `make bench` runs, the shortest first."""
ONCE = ("gold_budget", "corruptions")
"""What runs by name alone: what settled the demo's data, and 500 damaged stores."""


def main() -> None:
    """Replace the section of every benchmark that was named, or of all that are not done."""
    names = sys.argv[1:] or [name for name in ALL if not _is_done(name)]
    for name in names:
        script = HERE / f"{name}.py"
        if name not in (*ALL, *ONCE):
            sys.exit(f"There is no benchmark {name!r}; there are {', '.join((*ONCE, *ALL))}.")
        start = time.monotonic()
        printed = subprocess.run(  # noqa: S603  # a script of this folder
            [sys.executable, script], stdout=subprocess.PIPE, text=True, check=True
        ).stdout.strip()
        minutes = (time.monotonic() - start) / 60
        tables, _, figures = printed.rpartition("\n")
        about = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or ""
        section = f"## {name}\n\n{about}\n\n{tables.strip()}\n\n```json\n{figures}\n```\n"
        _replace(name, section)
        DONE.mkdir(parents=True, exist_ok=True)
        (DONE / name).write_text(_digest_code(name))
        print(f"{name}: {minutes:.1f} minutes\n{tables}\n{figures}", file=sys.stderr)


def _is_done(name: str) -> bool:
    """Return whether a benchmark was written since its script or the library last changed."""
    stamp = DONE / name
    return stamp.is_file() and stamp.read_text() == _digest_code(name)


def _digest_code(name: str) -> str:
    """Return the digest of a benchmark's script and of all of the library."""
    library = sorted(
        path for part in ("distill_tasks", "flows") for path in ROOT.glob(f"{part}/**/*.py")
    )
    return digest([digest_file(path) for path in (HERE / f"{name}.py", *library)])


def _replace(name: str, section: str) -> None:
    page = PAGE.read_text(encoding="utf-8")
    kept = re.sub(rf"(?ms)^## {name}\n.*?(?=^## |\Z)", "", page).rstrip()
    PAGE.write_text(f"{kept}\n\n{section}", encoding="utf-8")


if __name__ == "__main__":
    main()
