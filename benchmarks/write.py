"""Run benchmarks and write what they print into docs/benchmarks.md: `python write.py NAME ...`."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "benchmarks.md"


def main() -> None:
    """Replace the section of every benchmark that was named."""
    for name in sys.argv[1:]:
        script = HERE / f"{name}.py"
        if not script.is_file():
            known = sorted(path.stem for path in HERE.glob("*.py") if path.name != "write.py")
            sys.exit(f"There is no benchmark {name!r}; there are {', '.join(known)}.")
        printed = subprocess.run(  # noqa: S603  # a script of this folder
            [sys.executable, script], stdout=subprocess.PIPE, text=True, check=True
        ).stdout.strip()
        tables, _, figures = printed.rpartition("\n")
        about = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or ""
        section = f"## {name}\n\n{about}\n\n{tables.strip()}\n\n```json\n{figures}\n```\n"
        _replace(name, section)


def _replace(name: str, section: str) -> None:
    page = PAGE.read_text(encoding="utf-8")
    kept = re.sub(rf"(?ms)^## {name}\n.*?(?=^## |\Z)", "", page).rstrip()
    PAGE.write_text(f"{kept}\n\n{section}", encoding="utf-8")


if __name__ == "__main__":
    main()
